"""What is published, as JSON. `schema` comes first and names the struct and its version.

The status of the agent (`asd-agent status --json`, the request `status`, the page) holds the same structs.
The structs are the contract: `asd-agent schema mqtt|asyncapi` is made from them, with the description of each field.
Fields may be added within a schema version; a field that changes its meaning makes a new one.
Availability is not JSON: the plain words `online` and `offline`, as Home Assistant and others expect them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from asd_agent.reasons import Deviation, Grounds, PartVerdict, Trigger
from asd_agent.types import Cause, ChainStatus, EventKind, HeardSound, Level, NearestCause, State

ONLINE = b"online"
OFFLINE = b"offline"

_TIME = {"format": "date-time"}
_SECONDS, _DBFS = {"x-unit": "s"}, {"x-unit": "dBFS"}
Probability = Annotated[float, Meta(ge=0, le=1)]

AlarmLevel = Annotated[
    Level,
    Meta(
        description="of the alarm; unknown: no baseline yet, or the sound cannot be judged, so normal would be a guess"
    ),
]
WindowScore = Annotated[
    float | None, Meta(description="-log10 of the window's p_value: high = anomalous; null = not assessed")
]
BaselineVersion = Annotated[str, Meta(description="version of the baseline that judges; empty = not calibrated")]
Dbfs = Annotated[
    float | None, Meta(description="RMS level of the window; null = digital silence", extra_json_schema=_DBFS)
]
AlarmId = Annotated[str, Meta(description="the alarm from raised to cleared; empty where there is none")]
HealthStatus = Annotated[ChainStatus, Meta(description="class of the signal chain by NAMUR NE 107")]


class _Payload(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema"):
    id: Annotated[str, Meta(description="unique; the same when the message is delivered again")]
    agent: Annotated[str, Meta(description="agent.id of the configuration")]
    time: Annotated[
        str, Meta(description="when what is said became so: UTC, RFC 3339 with milliseconds", extra_json_schema=_TIME)
    ]
    time_synced: Annotated[bool, Meta(description="false: the agent's clock was not known to be right")]


class _OfMachine(_Payload, frozen=True, kw_only=True):
    machine: Annotated[str, Meta(description="id of the machine in the configuration")]


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """One detector's part in the judgement of a window."""

    name: str
    distance: Annotated[float, Meta(description="from the calibration windows, in the detector's own measure")]
    z: Annotated[float, Meta(description="distance in robust standard deviations of normal windows")]
    p_value: Probability


class Score(_OfMachine, frozen=True, kw_only=True, tag="asd/score/1"):
    """The judgement on one window, or on the most anomalous one of an interval. `time` is the end of the window."""

    window: Annotated[int, Meta(description="its index since the source was opened")]
    duration_s: Annotated[float, Meta(description="length of the window", extra_json_schema=_SECONDS)]
    state: State
    window_level: Annotated[Level, Meta(description="of this window alone, before votes; unknown = not judged")]
    score: WindowScore
    score_limit: Annotated[float | None, Meta(description="the score from which on a window votes for an alert")]
    p_value: Probability | None
    quality: Annotated[tuple[Cause, ...], Meta(description="why the window is not assessable; else empty")]
    level_dbfs: Dbfs
    embedding_distance: float | None
    embedding_p: Probability | None
    mechanism_p: Probability | None
    detectors: tuple[Detector, ...]
    reason: Annotated[str, Meta(description="what deviates, or why the window is not judged")]
    baseline: BaselineVersion
    operating: Annotated[str, Meta(description="operating state that the sound is nearest to, or that is reported")] = (
        ""
    )
    unknown_state: Annotated[str, Meta(description="set while an operating state is heard that calibration lacks")] = ""
    nuisance: Annotated[str, Meta(description='recognised sound that is no machine\'s, e.g. "Dog (z 7)"')] = ""
    transient_p: Annotated[Probability | None, Meta(description="of the most transient moment of the window")] = None
    transient_at_s: Annotated[
        float | None, Meta(description="after the start of the window", extra_json_schema=_SECONDS)
    ] = None
    window_count: Annotated[int, Meta(ge=1, description="how many windows this message stands for")] = 1
    states: Annotated[dict[State, int], Meta(description="how many of them were in each state")] = {}


Part = Annotated[
    PartVerdict | None,
    Meta(description="what the deviating windows, added up, say of the machine's parts; null without motor data"),
]
ClipPath = Annotated[str, Meta(description="path of the clip below the agent's state directory; empty = there is none")]


class Alarm(_OfMachine, frozen=True, kw_only=True, tag="asd/alarm/1"):
    """The alarm of a machine as it stands; retained. `time` is that of the last change."""

    level: AlarmLevel
    condition: Annotated[State, Meta(description="of the newest window; over MQTT: as of the last change")]
    alarm_id: AlarmId
    since: Annotated[str | None, Meta(description="when the episode began", extra_json_schema=_TIME)]
    latched: Annotated[bool, Meta(description="the condition has gone, nobody has acknowledged it yet")]
    acknowledged: bool
    acknowledged_by: str
    comment: str
    shelved_until: Annotated[str | None, Meta(extra_json_schema=_TIME)]
    shelve_reason: str
    out_of_service: bool
    reason: Annotated[str, Meta(description="why the alarm was raised or escalated")]
    evidence: ClipPath
    trigger: Annotated[
        Trigger | None,
        Meta(description="what raised the alarm: votes of windows, what stays, the rate of transients, overload"),
    ]
    part: Part = None


class Event(_OfMachine, frozen=True, kw_only=True, tag="asd/event/1"):
    """One transition of an alarm; never lost, possibly delivered more than once: `id` tells."""

    alarm_id: AlarmId
    event_type: EventKind
    level: AlarmLevel
    reason: str
    trigger: Annotated[
        Trigger | None,
        Meta(description="what raised the alarm: votes of windows, what stays, the rate of transients, overload"),
    ]
    deciding_windows: Annotated[tuple[int, ...], Meta(description="indices of the windows that decided")]
    score: WindowScore
    by: Annotated[str, Meta(description="who acknowledged, shelved, ...; empty = the agent")]
    comment: str
    until: Annotated[str | None, Meta(description="end of a shelving", extra_json_schema=_TIME)]
    evidence: ClipPath
    baseline: BaselineVersion
    suppressed: Annotated[bool, Meta(description="happened while shelved or out of service: not published")] = False
    nuisances: Annotated[
        tuple[HeardSound, ...], Meta(description="the three most probable sounds of no machine in that window")
    ] = ()
    nearest_cause: Annotated[
        NearestCause | None, Meta(description="the earlier alarm with a recorded cause that deviated most alike")
    ] = None
    deviation: Annotated[
        Deviation | None, Meta(description="the reason as data: bands, dB, what it is like; of an alarm that begins")
    ] = None
    grounds: Annotated[Grounds | None, Meta(description="the numbers behind the trigger; of an alarm that begins")] = (
        None
    )
    part: Part = None


class Health(_OfMachine, frozen=True, kw_only=True, tag="asd/health/1"):
    """The signal chain of a machine, never mixed with the machine's own state; retained, about every 10 s."""

    status: HealthStatus
    reasons: Annotated[tuple[str, ...], Meta(description="one line each, the cause and what to do")]
    source_available: bool
    source_detail: str = ""
    restarts: Annotated[int, Meta(ge=0, description="of the source, since the agent started")] = 0
    gaps: Annotated[int, Meta(ge=0, description="holes in the sound, since the agent started")] = 0
    last_window_end: Annotated[str | None, Meta(extra_json_schema=_TIME)] = None
    windows_scored: Annotated[int, Meta(ge=0, description="since the agent started")] = 0
    windows_dropped: Annotated[int, Meta(ge=0, description="because the host was too slow")] = 0
    lag_s: Annotated[
        float | None, Meta(description="from the end of a window to its score", extra_json_schema=_SECONDS)
    ] = None
    level_dbfs: Dbfs = None
    baseline: BaselineVersion = ""
    outbox: Annotated[int, Meta(ge=0, description="messages that the broker has not acknowledged")] = 0
    scores_dropped: Annotated[int, Meta(ge=0, description="scores not published, or not stored")] = 0


class Response(_Payload, frozen=True, kw_only=True, tag="asd/response/1"):
    """The answer to a request, with Zigbee2MQTT's fields."""

    status: Literal["ok", "error"]
    data: Annotated[Any, Meta(description="what was asked for; null with an error")] = None
    error: Annotated[str | None, Meta(description="one line: what is wrong and what to do")] = None
    transaction: Annotated[Any, Meta(description="the request's own, as it came")] = None


class Channel(NamedTuple):
    """How a payload of a machine is published: the last level of its topic, and whether the broker keeps it."""

    name: str
    what: str
    retain: bool
    qos: int = 1
    expiry_s: int = 0  # 0 = never


CHANNELS: dict[type[msgspec.Struct], Channel] = {
    Score: Channel("score", "the scores of a window or interval", False, qos=0, expiry_s=60),
    Alarm: Channel("alarm", "the alarm as it stands", True),
    Event: Channel("event", "a transition of the alarm, never lost", False),
    Health: Channel("health", "the signal chain", True),
}
Payload = Score | Alarm | Event | Health | Response


def encode(payload: Payload) -> bytes:
    return msgspec.json.encode(payload)


def decode(data: bytes) -> Payload:
    """For subscribers. Raises msgspec.ValidationError for another schema, msgspec.DecodeError for no JSON."""
    payload: Payload = msgspec.json.decode(data, type=Payload)
    return payload
