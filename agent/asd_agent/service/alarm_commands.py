"""What people do to the alarm of a machine. Each command is on disk when its answer is given."""

from __future__ import annotations

import time
from collections.abc import Callable

from asd_agent.errors import UsageError
from asd_agent.service.active import ActiveBaseline
from asd_agent.types import rfc3339


class AlarmCommands:
    """Thread-safe. Each returns its answer in words and raises UsageError where it has no meaning now."""

    def __init__(self, machine_id: str, active: ActiveBaseline, synced: Callable[[], bool]) -> None:
        self._id, self._active, self._synced = machine_id, active, synced

    def acknowledge(self, by: str, comment: str) -> str:
        self._active.command(lambda alarm: alarm.acknowledge(by, comment, time.time(), self._synced()))
        return f"{self._id}: acknowledged"

    def shelve(self, until_utc_s: float, by: str, reason: str) -> str:
        self._active.command(lambda alarm: alarm.shelve(until_utc_s, reason, by, time.time(), self._synced()))
        return f"{self._id}: shelved until {rfc3339(until_utc_s)}"

    def unshelve(self, by: str, reason: str) -> str:
        self._active.command(lambda alarm: alarm.unshelve(by, reason, time.time(), self._synced()))
        return f"{self._id}: no longer shelved"

    def out_of_service(self, on: bool, by: str, reason: str) -> str:
        self._active.command(lambda alarm: alarm.out_of_service(on, by, reason, time.time(), self._synced()))
        return f"{self._id}: {'out of service' if on else 'back in service'}"

    def mark(self, alarm_id: str, fault: bool, by: str, comment: str) -> str:
        if not self._active.knows_alarm(alarm_id):
            raise UsageError(f"{self._id}: there is no alarm {alarm_id!r}")
        self._active.command(lambda alarm: alarm.mark(alarm_id, fault, by, comment, time.time(), self._synced()))
        return f"{self._id}: the alarm is marked: it was {'a fault' if fault else 'nothing'}"
