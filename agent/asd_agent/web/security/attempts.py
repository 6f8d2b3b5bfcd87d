"""How often a log-in may fail, by address and by user, so that passwords cannot be tried out."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Literal

Key = tuple[Literal["address", "user"], str]
FAILURES = {"address": 5, "user": 20}  # a user more, so that a stranger does not easily lock somebody out
WITHIN_S = 300.0
REMEMBERED = 4096  # keys


class Attempts:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[Key, deque[float]] = OrderedDict()

    def wait_s(self, *keys: Key) -> float:
        """How long this address or user has to wait; 0 = they may try."""
        now = self._clock()
        return max((self._wait_s(key, now) for key in keys), default=0.0)

    def failed(self, *keys: Key) -> None:
        for key in keys:
            times = self._failed.setdefault(key, deque(maxlen=FAILURES[key[0]]))
            times.append(self._clock())
            self._failed.move_to_end(key)
        while len(self._failed) > REMEMBERED:
            self._failed.popitem(last=False)

    def succeeded(self, *keys: Key) -> None:
        for key in keys:
            self._failed.pop(key, None)

    def _wait_s(self, key: Key, now: float) -> float:
        recent = [t for t in self._failed.get(key, ()) if now - t < WITHIN_S]
        return WITHIN_S - (now - recent[0]) if len(recent) >= FAILURES[key[0]] else 0.0
