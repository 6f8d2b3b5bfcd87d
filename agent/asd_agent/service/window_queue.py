"""Blocks of sound in, windows that wait for the worker out."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from asd_agent import config
from asd_agent.types import Block, Window
from asd_agent.windowing.resampler import reach_s
from asd_agent.windowing.windower import Windower

QUEUE = 8  # windows that may wait for the worker; beyond it the oldest is dropped and counted
DROPPED_RECENTLY_S = 3600.0

Rates = Callable[[int], Mapping[int, int]]  # rate of the source -> rates wanted, with the lowest rate each is made from


class WindowQueue:
    """The capture thread offers blocks, the worker takes windows; the lock guards the queue and its counts."""

    def __init__(self, machine: config.Machine, rates: Rates) -> None:
        self._machine, self._rates = machine, rates
        self._lock = threading.Lock()
        self._queue: deque[Window] = deque()
        self._windower: Windower | None = None  # of the capture thread alone
        self._rate_hz = 0  # of the last block
        self._dropped_s = -math.inf  # monotonic, of the last one
        self.dropped = 0
        self.lead_s = 0.0  # how far before its beginning a window is made from

    @property
    def busy(self) -> bool:
        """As many windows wait for the worker as one more block may safely add to."""
        return len(self._queue) >= QUEUE // 2

    @property
    def dropped_recently(self) -> bool:
        return time.monotonic() - self._dropped_s < DROPPED_RECENTLY_S

    def offer(self, block: Block) -> tuple[int, int]:
        """Cut windows from the block and queue them. A full queue loses its oldest, counted.

        Returns the frames received before the block, and those before its segment. Raises SourceError.
        """
        machine = self._machine
        if self._windower is None:
            self._windower = Windower(block.rate_hz, machine.window_s, machine.hop_s, self._rates(block.rate_hz))
        received = self._windower.received
        windows = self._windower.push(block, *machine.channels)
        if block.rate_hz != self._rate_hz:
            self._rate_hz, self.lead_s = block.rate_hz, reach_s(block.rate_hz, self._rates(block.rate_hz))
        with self._lock:
            self._queue.extend(windows)
            while len(self._queue) > QUEUE:
                self._queue.popleft()
                self.dropped += 1
                self._dropped_s = time.monotonic()
        return received, self._windower.begun

    def flush(self) -> None:
        """The source has ended: queue what is left."""
        if self._windower is not None:
            with self._lock:
                self._queue.extend(self._windower.flush())

    def take(self) -> Window | None:
        with self._lock:
            return self._queue.popleft() if self._queue else None
