"""The operating state as told by the machine's own controller, over MQTT."""

from __future__ import annotations

import time
from collections import deque

import msgspec
import structlog

from asd_agent import config
from asd_agent.types import Window

LONGEST = 60  # characters of a name
REMEMBERED = 64  # changes: more than windows can wait
log = structlog.get_logger()


class ReportedState:
    """What was told when. Thread-safe: one thread tells, another asks."""

    def __init__(self, machine: config.Machine) -> None:
        self._machine = machine.id
        self._settings = machine.operating
        self._changes: deque[tuple[float, str]] = deque(maxlen=REMEMBERED)  # monotonic, the state from then on
        self._last_s = 0.0  # of the last message, changed or not

    def tell(self, payload: bytes, monotonic_s: float | None = None) -> None:
        """A message on the topic."""
        name = parsed(payload)
        if name is None:
            log.warning("operating state not understood", machine=self._machine, payload=payload[:80])
            return
        now = time.monotonic() if monotonic_s is None else monotonic_s
        expired = self._expired(now)
        self._last_s = now
        if expired or not self._changes or self._changes[-1][1] != name:
            self._changes.append((now, name))

    def of(self, window: Window) -> tuple[str, bool]:
        """The state during the window (empty = not known), and whether it changed meanwhile.

        What was told too long ago says nothing: then the state is found from the sound, as without a topic.
        """
        changes = tuple(self._changes)
        if self._settings is None or not changes:
            return "", False
        end_s, settle_s = window.monotonic_s, self._settings.settle_s
        begin_s = end_s - window.duration_s
        if self._expired(end_s):
            return "", False
        before = [name for at_s, name in changes if at_s <= begin_s - settle_s]
        later = [at_s for at_s, _ in changes if begin_s - settle_s < at_s <= end_s + settle_s]
        if later:
            return "", True
        return (before[-1], False) if before else ("", False)

    @property
    def now(self) -> str:
        """For the status."""
        return "" if not self._changes or self._expired(time.monotonic()) else self._changes[-1][1]

    def _expired(self, now_s: float) -> bool:
        holds_s = self._settings.holds_s if self._settings is not None else 0.0
        return now_s - self._last_s > holds_s


def parsed(payload: bytes) -> str | None:
    """Plain words, a JSON string or number, or JSON with `state`; None when there is no name in it."""
    try:
        data = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        data = payload.decode(errors="replace")
    if isinstance(data, dict):
        data = data.get("state")
    if isinstance(data, bool) or not isinstance(data, str | int | float):
        return None
    name = str(data).strip()
    fits = 0 < len(name) <= LONGEST and "/" not in name and name.isprintable()
    return name if fits else None
