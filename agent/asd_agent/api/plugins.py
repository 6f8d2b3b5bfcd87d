"""What a plug-in implements. Sources implement `Source`, detectors `Bank` (asd_agent.bank.base)."""

from __future__ import annotations

from typing import Protocol

from asd_agent.publish.payloads import Event, Health


class Notifier(Protocol):
    """Tells somebody of alarms: one kind of `notify`. An entry point of `asd_agent.notifiers` is a callable that takes
    the configuration's `options` as keywords and returns one."""

    def notify(self, payload: Event | Health) -> None:
        """Called in a thread of its own for each occasion in `on`, in their order, at least once.

        May block. What it raises is logged, and the payload is tried again, after a restart too, for a day.
        """

    def close(self) -> None:
        """The agent ends, or its configuration changed."""
