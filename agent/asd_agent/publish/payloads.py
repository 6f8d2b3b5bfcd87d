"""What is published, as JSON. `schema` comes first and names the struct and its version.

`id` is unique and stays the same over re-delivery; `time` is UTC, RFC 3339 with milliseconds.
Fields may be added within a schema version; a field that changes its meaning makes a new one.
Availability is not JSON: the plain words `online` and `offline`, as Home Assistant and others expect them.
"""

from __future__ import annotations

import time as clock
from typing import Any

import msgspec

from asd_agent.types import EventKind, Level, State

ONLINE = b"online"
OFFLINE = b"offline"


class _Payload(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema"):
    id: str
    agent: str
    time: str
    time_synced: bool  # False: the clock was not known to be right


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    distance: float
    z: float
    p_value: float
    evidence: str = ""


class Score(_Payload, frozen=True, kw_only=True, tag="asd/score/1"):
    """One window, or the most anomalous one of an interval."""

    machine: str
    window: int  # its index
    duration_s: float
    state: State
    level: Level  # of this window alone
    score: float | None  # -log10 of the p-value; high = anomalous; null = not assessed
    threshold: float | None  # the score from which a window counts towards an alert
    p_value: float | None
    quality: tuple[str, ...]  # why it is not assessable; else empty
    level_dbfs: float | None  # null = digital silence
    embedding_distance: float | None
    embedding_p: float | None
    mechanism_p: float | None
    detectors: tuple[Detector, ...]
    reason: str
    baseline: str
    operating: str = ""  # the operating state that the sound is nearest to
    unknown_state: str = ""  # "new operating state since ..., 37 windows": `baseline extend` confirms it
    nuisance: str = ""  # a recognised sound of no machine
    transient_p: float | None = None  # of the most transient of the window
    transient_at_s: float | None = None  # after the start of the window
    windows: int = 1  # how many this stands for
    states: dict[State, int] = {}  # how many of each state, when it stands for several


class Alarm(_Payload, frozen=True, kw_only=True, tag="asd/alarm/1"):
    """The alarm of a machine as it stands; retained. `time` is that of the last change."""

    machine: str
    level: Level
    condition: State  # what the windows say just now
    alarm_id: str  # of the episode that is active or latched; else empty
    since: str | None  # when it began
    latched: bool
    acknowledged: bool
    acknowledged_by: str
    comment: str
    shelved_until: str | None
    shelve_reason: str
    out_of_service: bool
    reason: str


class Event(_Payload, frozen=True, kw_only=True, tag="asd/event/1"):
    """One transition; never lost, possibly delivered more than once: `id` tells."""

    machine: str
    alarm_id: str  # the episode that it belongs to
    event_type: EventKind
    level: Level
    reason: str
    windows: tuple[int, ...]
    score: float | None
    by: str
    comment: str
    until: str | None  # of a shelving
    evidence: str  # path of the clip, relative to the agent's state directory; else empty
    baseline: str


class Health(_Payload, frozen=True, kw_only=True, tag="asd/health/1"):
    """The signal chain of a machine (NAMUR NE 107), never mixed with the machine's own state."""

    machine: str
    status: str  # good, maintenance_required, out_of_specification, function_check, failure
    reasons: tuple[str, ...]
    source_available: bool
    source_detail: str = ""
    restarts: int = 0  # of the source, since the agent started
    gaps: int = 0
    last_window: str | None = None  # when the newest window began
    windows: int = 0
    dropped: int = 0  # windows lost because the agent was too slow
    lag_s: float | None = None
    level_dbfs: float | None = None
    baseline: str = ""
    outbox: int = 0  # messages that the broker has not acknowledged
    scores_dropped: int = 0  # not published, or not stored


class Response(_Payload, frozen=True, kw_only=True, tag="asd/response/1"):
    """The answer to a request, with Zigbee2MQTT's fields; `transaction` is the request's own."""

    status: str  # ok, error
    data: Any = None
    error: str | None = None
    transaction: Any = None


Payload = Score | Alarm | Event | Health | Response


def encode(payload: Payload) -> bytes:
    return msgspec.json.encode(payload)


def decode(data: bytes) -> Payload:
    """For subscribers. Raises msgspec.ValidationError for another schema, msgspec.DecodeError for no JSON."""
    payload: Payload = msgspec.json.decode(data, type=Payload)
    return payload


def rfc3339(utc_s: float) -> str:
    """1774612800.5 -> "2026-03-27T12:00:00.500Z"."""
    ms = round(utc_s * 1000)
    return f"{clock.strftime('%Y-%m-%dT%H:%M:%S', clock.gmtime(ms // 1000))}.{ms % 1000:03d}Z"
