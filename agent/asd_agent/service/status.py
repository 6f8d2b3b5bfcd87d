"""What the daemon says of itself and its machines: the same structs on the control socket, in the CLI, on the page."""

from __future__ import annotations

import msgspec

from asd_agent.baseline import Report
from asd_agent.capture import SourceStatus
from asd_agent.publish.mqtt import ConnectionState
from asd_agent.types import AlarmState, ChainStatus, Level, State


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    pass


class HealthStatus(_Status, frozen=True, kw_only=True):
    """Of the signal chain: the most serious NAMUR NE 107 class, and every reason in words."""

    status: ChainStatus
    reasons: tuple[str, ...]


class ShadowStatus(_Status, frozen=True, kw_only=True):
    """The candidate baseline that runs beside the active one."""

    baseline: str | None  # version
    windows: int
    alarm: Level | None
    trouble: str  # why it does not run; else empty


class MachineStatus(_Status, frozen=True, kw_only=True):
    """One machine. Scores are of the last window."""

    id: str
    available: bool  # the source delivers sound that can be used
    source: SourceStatus
    state: State
    score: float | None  # -log10 p
    p_value: float | None
    threshold: float | None  # the score from which a window is anomalous
    reason: str
    operating: str
    reported_operating: str  # empty = nothing reported lately
    unknown_state: str  # in words; empty = none
    transients_last_hour: int
    alarm: AlarmState
    health: HealthStatus
    level_dbfs: float | None
    reported_shaft_hz: float | None
    last_window: str | None  # when it began, RFC 3339
    windows: int  # scored since the daemon started
    dropped: int  # windows that the queue could not hold
    lag_s: float | None  # between the end of the last window and its result
    baseline: str | None  # version
    shadow: ShadowStatus | None


class SinkStatus(_Status, frozen=True, kw_only=True):
    """Store and broker."""

    mqtt: ConnectionState | None  # None = no broker is configured
    outbox: int  # messages that the broker has not acknowledged
    scores_dropped: int
    findings: tuple[str, ...]  # what wants attention, in words


class AgentStatus(_Status, frozen=True, kw_only=True):
    agent: str
    version: str
    utc_s: float
    time_synced: bool
    uptime_s: float
    sink: SinkStatus
    machines: tuple[MachineStatus, ...]

    def machine(self, machine_id: str) -> MachineStatus | None:
        return next((m for m in self.machines if m.id == machine_id), None)


class CalibrationProgress(_Status, frozen=True, kw_only=True):
    phase: str  # listening, fitting, done, failed, cancelled
    done: float  # share of the sound, 0 to 1
    windows: int
    excluded: int  # windows that cannot be judged
    error: str
    version: str | None  # of the baseline that came of it
    report: Report | None
