"""Every transition of an alarm and of a signal chain is a line of the log, with the priority that it deserves.

`journalctl -u asd-agent -p warning` shows what somebody should look at, `-p err` what cannot wait.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import structlog

from asd_agent.types import AlarmEvent, ChainStatus, EventKind, Level

log = structlog.get_logger()

_ALARM = {Level.NORMAL: logging.INFO, Level.ALERT: logging.WARNING, Level.DANGER: logging.CRITICAL}
_CHAIN = {
    ChainStatus.GOOD: logging.INFO,
    ChainStatus.FUNCTION_CHECK: logging.INFO,
    ChainStatus.MAINTENANCE_REQUIRED: logging.WARNING,
    ChainStatus.OUT_OF_SPECIFICATION: logging.WARNING,
    ChainStatus.FAILURE: logging.ERROR,
}


def log_transition(event: AlarmEvent) -> None:
    """One transition of an alarm. An alarm that is shelved or out of service is logged with priority info."""
    log.log(
        _priority(event),
        f"alarm {event.kind.replace('_', ' ')}",
        machine=event.machine,
        alarm_id=event.alarm_id,
        alarm_level=event.level,
        reason=event.reason,
        id=event.id,
        **{key: value for key in ("score", "by", "comment") if (value := getattr(event, key))},
        **({} if event.notify else {"suppressed": True}),
    )


def _priority(event: AlarmEvent) -> int:
    if not event.notify:
        return logging.INFO
    if event.kind in (EventKind.RAISED, EventKind.ESCALATED, EventKind.DEESCALATED):
        return _ALARM[event.level]
    return logging.WARNING if event.kind is EventKind.NOT_ASSESSABLE else logging.INFO


class ChainLog:
    """Logs each change of a signal chain's NE 107 class. Not thread-safe."""

    def __init__(self) -> None:
        self._last: dict[str, ChainStatus] = {}

    def see(self, machine: str, status: ChainStatus, reasons: Sequence[str]) -> bool:
        """True when the class has changed."""
        before = self._last.get(machine, ChainStatus.GOOD)
        self._last[machine] = status
        changed = status is not before
        if changed:
            log.log(
                _CHAIN[status],
                f"signal chain {status.replace('_', ' ')}",
                machine=machine,
                chain=status,
                before=before,
                reasons=list(reasons),
            )
        return changed

    def forget(self, machine: str) -> None:
        self._last.pop(machine, None)
