"""A source: a tone in noise. A real one would read a protocol or a device."""

from __future__ import annotations

import time

import numpy as np

from asd_agent.api import Block, EndOfSource, Source, SourceStatus


class ToneSource(Source):
    """`seconds` of a tone of `hz`, as fast as it is read."""

    def __init__(self, hz: float = 440.0, rate_hz: int = 16_000, seconds: float = 60.0, level: float = 0.1) -> None:
        self.rate_hz, self._hz, self._level = rate_hz, hz, level
        self._frames, self._at = round(seconds * rate_hz), 0
        self._noise = np.random.default_rng(0)

    def read(self, timeout_s: float) -> Block | None:
        if self._at >= self._frames:
            raise EndOfSource("the tone has ended")
        n = np.arange(self._at, min(self._at + self.rate_hz // 10, self._frames))
        tone = self._level * np.sin(2 * np.pi * self._hz * n / self.rate_hz) + self._noise.normal(0, 0.01, len(n))
        block = Block(
            samples=tone[:, None].astype(np.float32),
            rate_hz=self.rate_hz,
            start_frame=self._at,
            utc_s=time.time(),
            monotonic_s=time.monotonic(),
        )
        self._at += len(n)
        return block

    def status(self) -> SourceStatus:
        return SourceStatus(available=True, detail=f"a tone of {self._hz:g} Hz")

    def close(self) -> None:
        self._at = self._frames
