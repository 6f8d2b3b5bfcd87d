"""What the page reads of the daemon's status."""

from __future__ import annotations

import msgspec

from asd_agent.types import AlarmState, State


class Source(msgspec.Struct, frozen=True, kw_only=True):
    available: bool
    detail: str = ""
    restarts: int = 0
    gaps: int = 0


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    reasons: tuple[str, ...] = ()


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    baseline: str | None = None
    windows: int = 0
    alarm: str | None = None
    trouble: str = ""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    connected: bool = False
    detail: str = ""


class MachineStatus(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    available: bool
    source: Source
    state: State
    score: float | None
    p_value: float | None
    threshold: float | None
    reason: str
    operating: str
    unknown_state: str
    alarm: AlarmState
    health: Chain
    level_dbfs: float | None
    last_window: str | None
    windows: int
    dropped: int
    lag_s: float | None
    baseline: str | None
    shadow: Shadow | None = None


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    agent: str
    version: str
    utc_s: float
    time_synced: bool
    uptime_s: float
    mqtt: Connection | None
    outbox: int
    scores_dropped: int
    findings: tuple[str, ...]
    machines: tuple[MachineStatus, ...]

    def machine(self, machine_id: str) -> MachineStatus | None:
        return next((m for m in self.machines if m.id == machine_id), None)
