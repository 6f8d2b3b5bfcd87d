"""Standard input: raw PCM from whatever is left of the pipe. Its end is the end of the source."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from dataclasses import replace

from asd_agent.capture.base import Source, SourceStatus
from asd_agent.capture.pcm import Chunk, RawDecoder
from asd_agent.capture.process import READ_BYTES
from asd_agent.errors import EndOfSource
from asd_agent.types import Block

STALL_S = 5.0


class StdinSource(Source):
    def __init__(self, sample_format: str, rate_hz: int, channels: int, fd: int = 0) -> None:
        self._decoder = RawDecoder(sample_format, rate_hz, channels)
        self._fd = fd
        self._ready: deque[Block] = deque()
        self._frame = 0
        self._last_s: float | None = None
        self._ended = False

    def read(self, timeout_s: float) -> Block | None:
        deadline = time.monotonic() + timeout_s
        while not self._ready:
            if self._ended:
                raise EndOfSource("standard input has ended")
            left_s = deadline - time.monotonic()
            ready, _, _ = select.select([self._fd], [], [], max(0.0, left_s))
            if ready:
                self._take(os.read(self._fd, READ_BYTES))
            elif left_s <= 0:
                return None
        block = self._ready.popleft()
        self.rate_hz = block.rate_hz
        return block

    def status(self) -> SourceStatus:
        age_s = None if self._last_s is None else time.monotonic() - self._last_s
        available = age_s is not None and age_s <= STALL_S and not self._ended
        detail = "delivering" if available else "ended" if self._ended else "nothing on standard input"
        return SourceStatus(available, detail, last_frame_age_s=age_s)

    def close(self) -> None:
        self._ended = True

    def _take(self, data: bytes) -> None:
        self._ended = not data
        self._ready.extend(map(self._block, self._decoder.feed(data) if data else self._decoder.rest()))
        if self._ended and self._ready:
            self._ready[-1] = replace(self._ready[-1], last=True)

    def _block(self, chunk: Chunk) -> Block:
        frames, now = len(chunk.samples), time.monotonic()
        start, self._frame, self._last_s = self._frame, self._frame + frames, now
        return Block(chunk.samples, chunk.rate_hz, start, time.time() - frames / chunk.rate_hz, now)
