"""Resampling in chunks of bounded context, so that a window can be made again from a clip, to the last bit.

A resampler's output depends on all earlier input. So resampled sound is made in chunks of 5 s, each by a resampler of
its own from the chunk's native sound and a margin: what a window holds depends on no sound farther away than that.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np

from asd_agent.types import Samples

SOXR_QUALITY = "HQ"
NO_SOUND = 1e15  # beyond this a float is not a sample; its square would overflow
CHUNK_S = 5.0  # of resampled sound from one resampler
MARGIN_S = 0.1  # of native sound on both sides of it; the filter reaches 20 ms at 8 kHz


def reach_s(rate_hz: int, rates: Iterable[int]) -> float:
    """How far before its beginning a window is made from."""
    return max((Resampler(rate_hz, rate).reach / rate_hz for rate in rates if rate != rate_hz), default=0.0)


class Resampler:
    """A segment of sound at another rate, made in chunks. Positions are native frames since the segment began."""

    def __init__(self, rate_hz: int, wanted_hz: int, first: int = 0) -> None:
        """`first`: the chunk to begin with; feed it the sound from `fed` on."""
        self._rates = rate_hz, wanted_hz
        common = math.gcd(rate_hz, wanted_hz)
        self._unit, self._made_of_unit = rate_hz // common, wanted_hz // common  # frames of the same duration
        self._size = math.ceil(CHUNK_S * rate_hz / self._unit) * self._unit
        self._margin = math.ceil(MARGIN_S * rate_hz / self._unit) * self._unit
        self._open: deque[_Chunk] = deque()
        self._next = first
        self.fed = max(0, first * self._size - self._margin)  # where the next sound goes
        self.start = self._made(first * self._size)  # where the resampled sound begins, in frames of the wanted rate

    @property
    def reach(self) -> int:
        """Native frames before a resampled one that it may depend on, at most."""
        return self._size + self._margin

    @classmethod
    def at(cls, rate_hz: int, wanted_hz: int, position: int) -> Resampler:
        """One that begins with the chunk in which the frame of the wanted rate lies."""
        begin = cls(rate_hz, wanted_hz)
        return cls(rate_hz, wanted_hz, position // begin._made(begin._size))

    def feed(self, samples: Samples) -> Samples:
        """The next native sound [n] -> what it completes."""
        while self._next * self._size - self._margin < self.fed + len(samples):
            self._open.append(self._chunk(self._next))
            self._next += 1
        for chunk in self._open:
            part = samples[max(0, chunk.begins - self.fed) : max(0, chunk.ends - self.fed)]
            chunk.push(part, last=self.fed + len(samples) >= chunk.ends)
        self.fed += len(samples)
        return self._take()

    def end(self) -> Samples:
        """No more sound comes: what is left."""
        for chunk in self._open:
            chunk.push(np.zeros(0, np.float32), last=True)
        return self._take()

    def _take(self) -> Samples:
        """In order: the next chunk waits until the one before has ended."""
        found: list[Samples] = []
        while self._open:
            found += self._open[0].take()
            if not self._open[0].ended:
                break
            self._open.popleft()
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def _chunk(self, number: int) -> _Chunk:
        begin = number * self._size
        lead = min(begin, self._margin)
        ends = begin + self._size + self._margin
        return _Chunk(self._rates, begin - lead, ends, self._made(lead), self._made(self._size))

    def _made(self, frames: int) -> int:
        return frames // self._unit * self._made_of_unit


class _Chunk:
    """Native frames [begins, ends) in, the resampled ones without the margins out."""

    def __init__(self, rates: tuple[int, int], begins: int, ends: int, lead: int, size: int) -> None:
        import soxr

        self.begins, self.ends = begins, ends
        self._stream = soxr.ResampleStream(*rates, 1, dtype="float32", quality=SOXR_QUALITY)
        self._lead, self._left = lead, size  # resampled frames still to be left out, and to be delivered
        self._ready: list[Samples] = []
        self.ended = False

    def push(self, samples: Samples, last: bool) -> None:
        if self.ended:
            return
        made = self._stream.resample_chunk(samples, last=last)
        lead = min(self._lead, len(made))
        part: Samples = made[lead : lead + self._left]
        self._lead -= lead
        self._left -= len(part)
        self._ready.append(part)
        self.ended = last

    def take(self) -> list[Samples]:
        ready, self._ready = self._ready, []
        return ready


def finite(samples: Samples) -> Samples:
    """NaN, infinities and absurd values as 0: the filter would smear them over clean windows. [n] -> [n]

    The native window keeps them, and is judged not assessable for them.
    """
    if len(samples) and max(samples.max(), -samples.min()) < NO_SOUND:
        return samples
    return np.where(np.abs(samples) < NO_SOUND, samples, np.float32(0))
