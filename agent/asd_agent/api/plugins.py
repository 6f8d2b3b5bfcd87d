"""What a plug-in implements. Sources implement `Source`, detectors `Bank` (asd_agent.bank.base)."""

from __future__ import annotations

from typing import Protocol

from asd_agent.types import AlarmEvent


class Notifier(Protocol):
    """Tells somebody of alarms. An entry point of `asd_agent.notifiers` is a callable that takes the configuration's
    `options` as keywords and returns one."""

    def notify(self, event: AlarmEvent) -> None:
        """Called in a thread of its own, once per event that is to be published, in their order.

        May block. What it raises is logged, and the event is tried again a few times.
        """

    def close(self) -> None:
        """The agent ends, or its configuration changed."""
