"""What a machine's microphone hears just now: level, spectrogram, and the sound itself where the site allows it.

Nothing is kept while nobody asks; somebody who looks asks several times a second.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import msgspec
import numpy as np

from asd_agent import config
from asd_agent.errors import UsageError
from asd_agent.evidence.picture.spectrogram import LOWEST_HZ, Scale, spectrogram
from asd_agent.types import Block, Samples

INTEREST_S = 5.0  # after the last question
KEPT_S = 3.0
COLUMNS_PER_S = 16
ROWS = 64
ZERO_DB = 128  # a byte of 0 is -128 dBFS


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """The sound since the last question."""

    frame: int  # where to go on: the next question's `after`
    rate_hz: int
    level_dbfs: float
    peak: float  # 1.0 = full scale
    rows: int  # of a column, the lowest frequency first
    columns: bytes  # one byte a value, dBFS + 128
    pcm: bytes | None = None  # 16 bits, little-endian


class LiveSound:
    """Of one machine. Thread-safe."""

    def __init__(self, source: config.Source) -> None:
        self._channel = source.channel
        self._lock = threading.Lock()
        self._blocks: deque[tuple[int, Samples]] = deque()  # frame of its first sample
        self._frame = 0  # that comes next
        self._rate_hz = 0
        self._until_s = 0.0  # somebody is interested

    def feed(self, block: Block) -> None:
        """Every block of the machine's source."""
        if time.monotonic() > self._until_s:
            if self._blocks:
                with self._lock:
                    self._blocks.clear()
            return
        samples = np.array(block.samples[:, self._channel], np.float32)
        with self._lock:
            if block.rate_hz != self._rate_hz:
                self._blocks.clear()
            self._rate_hz = block.rate_hz
            self._blocks.append((self._frame, samples))
            self._frame += len(samples)
            while self._frame - self._blocks[0][0] > KEPT_S * block.rate_hz:
                self._blocks.popleft()

    def heard(self, after: int, sound: bool) -> Heard | None:
        """Whole columns since frame `after`; None when there are none yet."""
        self._until_s = time.monotonic() + INTEREST_S
        with self._lock:
            blocks, rate_hz = list(self._blocks), self._rate_hz
        if not blocks:
            return None
        first = max(blocks[0][0], min(after, self._frame))
        parts = [samples[max(first - at, 0) :] for at, samples in blocks if at + len(samples) > first]
        samples = np.concatenate(parts) if parts else np.empty(0, np.float32)
        step = max(rate_hz // COLUMNS_PER_S, 1)
        columns = len(samples) // step
        if columns == 0:
            return None
        samples = samples[: columns * step]
        level_db = spectrogram(samples, rate_hz, columns, Scale(LOWEST_HZ, rate_hz / 2, ROWS))[::-1]
        power = float(np.var(samples, dtype=np.float64))
        return Heard(
            frame=first + len(samples),
            rate_hz=rate_hz,
            level_dbfs=round(float(10 * np.log10(max(power, 1e-20))), 1),
            peak=round(float(np.abs(samples).max()), 4),
            rows=ROWS,
            columns=np.clip(np.rint(level_db.T + ZERO_DB), 0, 255).astype(np.uint8).tobytes(),
            pcm=(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes() if sound else None,
        )


def check_allowed(settings: config.Config, sound: bool) -> None:
    """Raises UsageError where the site has not opened its microphones to listeners."""
    if sound and not (settings.web is not None and settings.web.live_sound):
        raise UsageError("live sound is off (a matter of privacy): web.live_sound: true in the configuration allows it")
