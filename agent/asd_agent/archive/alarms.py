"""The alarms that the agent would have raised: the results of a machine, in order of time, through its own decision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import msgspec
import pyarrow as pa

from asd_agent import config
from asd_agent.archive.results import Results
from asd_agent.archive.table import DESCRIPTION, PLACE, RESULT, Row, is_window, result, rows
from asd_agent.baseline import Manifest
from asd_agent.decide.alarm import Events
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.states import OFF
from asd_agent.reasons import Trigger
from asd_agent.scoring.decision import Decision
from asd_agent.types import AlarmEvent, AlarmState, EventKind, Level, WindowResult
from asd_agent.whatif.episodes import episodes

ALARMS = "alarms.parquet"
_COLUMNS = [field.name for field in PLACE + RESULT] + [f.name for f in DESCRIPTION[:5]]  # of these: the quality


class ArchiveAlarm(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm, and where its sound is."""

    machine: str
    raised_utc_s: float
    cleared_utc_s: float | None  # None: it stood at the end
    level: Level
    trigger: Trigger | None
    reason: str
    file: str  # of the window that raised it
    start_s: float
    duration_s: float


class Seen(NamedTuple):
    """A window as it was decided."""

    result: WindowResult
    events: Events


def decided(
    results: Results, machine: config.Machine, manifest: Manifest, judge_again: bool = False,
    since_utc_s: float = -math.inf,
) -> Iterator[Seen]:  # fmt: skip
    """All windows of a machine in order of time; one day is held at a time.

    `judge_again`: by the limits of `machine`, where they differ from those of the results; `since_utc_s`: of recordings
    that began then or later.
    """
    decision = Decision(machine, manifest, AlarmState())
    for number, found in enumerate(in_order(results, machine.id, since_utc_s)):
        if judge_again and decision.thresholds is not None:
            found = judged_by(decision.thresholds, found)
        events = decision.update(replace(found, index=number), True)
        yield Seen(found, events)


def in_order(results: Results, machine_id: str, since_utc_s: float = -math.inf) -> Iterator[WindowResult]:
    """The results of a machine in order of recordings and windows, one day held at a time."""
    parts = results.part_names(machine_id)
    for day in sorted({name.rpartition("/")[0] for name in parts}):
        found: list[Row] = []
        for name in parts:
            if name.rpartition("/")[0] == day:
                windows = (row for row in rows(results.table(name, _COLUMNS)) if is_window(row))
                found += [row for row in windows if row["recorded_utc_s"] >= since_utc_s]
        found.sort(key=lambda row: (row["recorded_utc_s"], row["file"], row["index"]))
        yield from map(result, found)


def judged_by(limits: Thresholds, found: WindowResult) -> WindowResult:
    """A judged window under other limits."""
    if found.p_value is None or found.cause is not None:
        return found
    state = limits.state(found.p_value, off=found.operating == OFF)
    return replace(found, state=state, level=limits.level(found.p_value))


def alarms(machine_id: str, seen: Iterator[Seen]) -> list[ArchiveAlarm]:
    """The alarms, each with the window that raised it."""
    events: list[AlarmEvent] = []
    raised: dict[str, tuple[AlarmEvent, WindowResult]] = {}
    for window in seen:
        events += window.events
        for event in window.events:
            if event.kind is EventKind.RAISED:
                raised.setdefault(event.alarm_id, (event, window.result))
    found = []
    for episode in episodes(events):
        event, window_result = raised[episode.alarm_id]
        found.append(
            ArchiveAlarm(
                machine=machine_id,
                raised_utc_s=episode.raised_utc_s,
                cleared_utc_s=episode.cleared_utc_s,
                level=episode.level,
                trigger=event.trigger,
                reason=episode.reason,
                file=window_result.origin,
                start_s=window_result.start_s,
                duration_s=window_result.duration_s,
            )
        )
    return found


def as_table(found: list[ArchiveAlarm]) -> pa.Table:
    schema = pa.schema(
        [
            ("machine", pa.string()),
            ("raised_utc_s", pa.float64()),
            ("cleared_utc_s", pa.float64()),
            ("level", pa.string()),
            ("trigger", pa.string()),
            ("reason", pa.string()),
            ("file", pa.string()),
            ("start_s", pa.float64()),
            ("duration_s", pa.float64()),
        ]
    )
    return pa.Table.from_pylist([msgspec.to_builtins(alarm) for alarm in found], schema)
