"""From the outbox to the network: at most so many at once, in order, deleted once they are acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable

from asd_agent.store import Message, Outbox

REFUSED_RETRY_S = 30.0


class Delivery:
    """The outbox is the queue; this remembers what is under way on the present connection. One thread."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._in_flight: dict[int, int] = {}  # mid -> seq
        self._acknowledged: list[int] = []  # seqs
        self._last_seq = 0
        self._retry_s: float | None = None  # when to send again what the broker refused
        self._progress_s = time.monotonic()

    def restart(self) -> None:
        """A new connection: whatever has not been acknowledged is sent again."""
        self._in_flight.clear()
        self._last_seq = 0
        self._retry_s = None
        self._progress_s = time.monotonic()

    def acknowledge(self, mid: int, accepted: bool) -> None:
        """The broker has answered; what it refused (no permission, quota) stays in the outbox for later."""
        seq = self._in_flight.pop(mid, None)
        if seq is None:
            return
        self._progress_s = time.monotonic()
        if accepted:
            self._acknowledged.append(seq)
        elif self._retry_s is None:
            self._retry_s = self._progress_s + REFUSED_RETRY_S

    def step(self, send: Callable[[Message], int], room: int) -> None:
        """Delete what has been acknowledged, then send at most `room` messages. Raises StoreError."""
        if self._acknowledged:
            acknowledged, self._acknowledged = self._acknowledged, []
            self._outbox.delete(acknowledged)
        if self._retry_s is not None and not self._in_flight and time.monotonic() >= self._retry_s:
            self._last_seq, self._retry_s = 0, None
        if not self._in_flight:
            self._progress_s = time.monotonic()
        for item in self._outbox.pending(self._last_seq, room) if room > 0 else ():
            self._last_seq = item.seq
            self._in_flight[send(item.message)] = item.seq

    @property
    def refused(self) -> bool:
        """Whether the broker has refused messages that are still in the outbox."""
        return self._retry_s is not None

    @property
    def idle(self) -> bool:
        return not self._in_flight and not self._acknowledged

    def stalled_s(self) -> float:
        """How long messages have been under way without any answer."""
        return time.monotonic() - self._progress_s if self._in_flight else 0.0
