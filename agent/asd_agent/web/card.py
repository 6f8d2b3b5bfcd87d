"""A machine as the overview shows it: one tone and one headline from many facts, the most serious first.

Green means: sound arrives, it can be judged, it is like normal, and the signal chain is good. Nothing less is green.
"""

from __future__ import annotations

import time

import msgspec

from asd_agent import config
from asd_agent.service.status import MachineStatus
from asd_agent.types import ChainStatus, Level, State, utc_s
from asd_agent.web import words
from asd_agent.web.spark import Spark

Tone = str  # good, notice, warn, bad, quiet: a colour and a sign
STALE_WINDOWS = 4  # hops without a window before the last one says nothing any more
STALE_S = 15.0
SIGNS = {"good": "✓", "notice": "i", "warn": "!", "bad": "✕", "quiet": "–"}


class Card(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tone: Tone
    sign: str
    headline: str
    detail: str
    score: str = "–"
    limit: str = "–"
    level: str = "–"
    level_dbfs: float | None = None
    chain: str = "–"
    chain_tone: Tone = "quiet"
    chain_why: str = ""
    operating: str = "–"
    since: str = ""  # of the alarm, or of its last one
    last_alarm: str = ""
    last_alarm_id: str = ""
    calibrating: float | None = None  # share done
    window: str = ""  # when the newest ended
    spark: Spark = Spark()


def absent(machine: config.Machine, why: str) -> Card:
    """Without a daemon nothing is known."""
    return Card(id=machine.id, tone="bad", sign=SIGNS["bad"], headline="Not listening", detail=why)


def card(machine: config.Machine, status: MachineStatus, now_utc_s: float | None = None) -> Card:
    now = time.time() if now_utc_s is None else now_utc_s
    tone, headline, detail = _judgement(machine, status, now)
    health, score = status.health, status.score
    return Card(
        id=machine.id,
        tone=tone,
        sign=SIGNS[tone],
        headline=headline,
        detail=detail,
        score=words.number(score.score if score else None),
        limit=words.number(score.score_limit if score else None),
        level=words.level(health.level_dbfs) if score else "–",
        level_dbfs=health.level_dbfs,
        chain=words.spaced(health.status),
        chain_tone=_CHAIN[health.status],
        chain_why="; ".join(health.reasons),
        operating=(score.operating if score else "") or "–",
        since=status.alarm.since or "",
        window=health.last_window_end or "",
    )


_CHAIN: dict[ChainStatus, Tone] = {
    ChainStatus.GOOD: "good",
    ChainStatus.MAINTENANCE_REQUIRED: "warn",
    ChainStatus.OUT_OF_SPECIFICATION: "warn",
    ChainStatus.FUNCTION_CHECK: "notice",
    ChainStatus.FAILURE: "bad",
}


def _judgement(machine: config.Machine, status: MachineStatus, now: float) -> tuple[Tone, str, str]:
    """Tone, headline, detail."""
    alarm = status.alarm
    why = "; ".join(status.health.reasons)
    if not status.health.source_available:
        return "bad", "No sound", status.health.source_detail or why
    if status.health.status is ChainStatus.FAILURE:
        return "bad", "Signal chain has failed", why
    if alarm.level in (Level.ALERT, Level.DANGER) and not alarm.out_of_service:
        return _alarm(alarm.level, alarm.latched, alarm.acknowledged, alarm.shelved_until, alarm.reason)
    if alarm.out_of_service:
        return "quiet", "Out of service", "scored and recorded, nobody is told"
    if _stale(machine, status, now):
        return "bad", "No judgement for some time", "the newest window is old: " + (why or "is the agent too slow?")
    score = status.score
    if not status.health.baseline or (score is not None and score.state is State.LEARNING):
        return "notice", "Not calibrated yet", "it has not learnt what normal sounds like: calibrate it"
    if score is None:
        return "notice", "Waiting for the first window", why
    if score.state is State.NOT_ASSESSABLE:
        return "warn", "Cannot be judged", score.reason or why
    if score.state is State.OFF:
        return "quiet", "Off", "far quieter than in calibration: the machine is not running"
    if score.unknown_state:
        return "notice", "Unknown operating state", score.unknown_state
    if score.state is State.ANOMALOUS:
        return "notice", "Deviates, no alarm yet", score.reason
    if status.health.status is not ChainStatus.GOOD:
        return _CHAIN[status.health.status], "Normal; look at the signal chain", why
    return "good", "Normal", ""


def _alarm(level: Level, latched: bool, acknowledged: bool, shelved: str | None, reason: str) -> tuple[Tone, str, str]:
    headline = "Alarm: danger" if level is Level.DANGER else "Alarm: alert"
    if latched:
        headline = "Alarm has gone, not acknowledged"
    elif acknowledged:
        headline += ", acknowledged"
    if shelved:
        headline += ", shelved"
    return "bad" if level is Level.DANGER and not latched else "warn", headline, reason


def _stale(machine: config.Machine, status: MachineStatus, now: float) -> bool:
    """Live sound brings a window every hop; recordings may have ended."""
    end = status.health.last_window_end
    if end is None or getattr(machine.source, "pace", "live") != "live":
        return False
    return now - utc_s(end) > max(STALE_WINDOWS * machine.hop_s, STALE_S)
