"""What the daemon says of itself and its machines: the same structs on the control socket, in the CLI, on the page.

What is said over MQTT too is said with the payloads of MQTT. Times are RFC 3339; `windows` is a number of windows.
"""

from __future__ import annotations

import msgspec

from asd_agent.baseline import Report
from asd_agent.publish.mqtt import ConnectionState
from asd_agent.publish.payloads import Alarm, Health, Score
from asd_agent.types import Level


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    pass


class ShadowStatus(_Status, frozen=True, kw_only=True):
    """The candidate baseline that runs beside the active one."""

    baseline: str | None  # version
    windows_scored: int
    level: Level | None  # of the alarm that it would raise; unknown: see payloads
    trouble: str  # why it does not run; else empty


class MachineStatus(_Status, frozen=True, kw_only=True):
    """One machine: the messages that go over MQTT, as of now, and what is of use beside the machine only."""

    machine: str
    alarm: Alarm
    health: Health
    score: Score | None  # of the newest window
    reported_operating: str  # empty = nothing reported lately
    reported_shaft_hz: float | None
    transients_last_hour: int
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
    time: str  # RFC 3339, as every time here
    time_synced: bool
    uptime_s: float
    sink: SinkStatus
    machines: tuple[MachineStatus, ...]

    def machine(self, machine_id: str) -> MachineStatus | None:
        return next((m for m in self.machines if m.machine == machine_id), None)


class CalibrationProgress(_Status, frozen=True, kw_only=True):
    phase: str  # listening, fitting, done, failed, cancelled
    done: float  # share of the sound, 0 to 1
    windows: int  # how many it has heard
    not_assessable: int  # of these windows
    error: str
    version: str | None  # of the baseline that came of it
    report: Report | None
