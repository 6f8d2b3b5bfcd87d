"""Blocks -> analysis windows: overlapping, at the native rate and at every rate a bundle wants.

Native and resampled windows are cut at the same times (k * hop_s since the stretch began). A stretch is sound
without a hole: a gap, lost blocks or another file end it, and no window reaches across.

A resampler remembers, in the last bit, all that it has heard. So that a window can be made again from a clip
(`Excerpt`), resampled sound is made in segments of 5 s, each by a resampler of its own from its native sound and a
margin: what a window holds depends on no sound farther away than that.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

from asd_agent.errors import SourceError
from asd_agent.types import Block, Place, Samples, Window

SOXR_QUALITY = "HQ"
NO_SOUND = 1e15  # beyond this a float is not a sample; its square would overflow
ROUNDING = 2  # samples that a resampled stretch may lack at its end
SEGMENT_S = 5.0  # of resampled sound from one resampler
MARGIN_S = 0.1  # of native sound on both sides of it; the filter reaches 20 ms at 8 kHz


class Windower:
    """The windows of one channel. `window_s` and `hop_s` as configured, `rates` those of the bundles in Hz; as a
    mapping, with the lowest rate of a source that each may be made from.

    Raises SourceError when a bundle wants a higher rate than the source has (here, or in `push` when the
    source turns out to deliver another rate): the missing band would look like a fault, or hide one.
    """

    def __init__(self, rate_hz: int, window_s: float, hop_s: float, rates: Iterable[int] | Mapping[int, int]) -> None:
        self._window_s, self._hop_s = window_s, hop_s
        self._rates = sorted(set(rates))
        self._lowest = dict(rates) if isinstance(rates, Mapping) else {rate: rate for rate in self._rates}
        self._index = 0
        self.heard = 0  # frames so far, of all stretches
        self.begun = 0  # of them, those before the stretch that the last block was of
        self._stretch: _Stretch | None = None
        self._check(rate_hz)

    def push(self, block: Block, channel: int) -> list[Window]:
        """The windows that this block completes. The last block of a file also flushes.

        Raises SourceError when the block has no such channel or too low a rate.
        """
        if channel >= block.samples.shape[1]:
            raise SourceError(
                f"channel {channel} wanted (counted from 0), but {block.origin or 'the source'} "
                f"has {block.samples.shape[1]} channel(s)"
            )
        windows: list[Window] = []
        if self._stretch is not None and not self._stretch.continues_with(block):
            windows = self._finish(interrupted=block.origin == self._stretch.origin)
        if self._stretch is None:
            self._check(block.rate_hz)
            self._stretch = _Stretch(block, self._window_s, self._hop_s, self._rates, self._index, self.heard)
            self.begun = self.heard
        self.heard += len(block.samples)
        self._stretch.add(block, np.ascontiguousarray(block.samples[:, channel]))
        windows += self._stretch.complete()
        return windows + self.flush() if block.last else windows

    def flush(self) -> list[Window]:
        """The windows that only the end of the sound completes.

        An incomplete window is left out, unless the whole stretch was shorter than one: then it is returned.
        """
        return self._finish(interrupted=False)

    def _finish(self, interrupted: bool) -> list[Window]:
        """End the stretch; what an interruption cut short is returned once, marked as a gap."""
        if self._stretch is None:
            return []
        stretch, self._stretch = self._stretch, None
        stretch.end()
        windows = stretch.complete()
        if interrupted or not stretch.emitted:
            windows += stretch.remainder(gap=interrupted)
        self._index = stretch.first_index + stretch.emitted
        return windows

    def _check(self, rate_hz: int) -> None:
        too_high = [lowest for lowest in self._lowest.values() if lowest > rate_hz]
        if too_high:
            raise SourceError(
                f"the sound comes at {rate_hz} Hz, but a bundle wants {max(too_high)} Hz: "
                "use a source with a higher rate or a bundle with a lower one"
            )


class Excerpt:
    """Some of a stretch, of which single windows are made again: the same to the last bit as when it was heard."""

    def __init__(self, samples: Samples, rate_hz: int, begins: int, ended: bool) -> None:
        """`samples` [n]; the first is frame `begins` of the stretch. `ended`: the stretch ends with the last."""
        self._samples, self._rate_hz, self._begins, self._ended = samples, rate_hz, begins, ended

    def window(self, number: int, window_s: float, hop_s: float, rates: Iterable[int]) -> Window | None:
        """The window of that number in the stretch; None when the excerpt lacks some of what it was made from."""
        start = round(number * hop_s * self._rate_hz) - self._begins
        samples = self._samples[max(start, 0) : max(start, 0) + round(window_s * self._rate_hz)]
        if start < 0 or len(samples) < round(window_s * self._rate_hz):
            return None
        resampled = {self._rate_hz: samples}
        for rate in rates:
            if rate != self._rate_hz:
                first = round(number * hop_s * rate)
                found = self._resampled(rate, first, round(window_s * rate))
                if found is None:
                    return None
                resampled[rate] = found
        return Window(
            samples=samples,
            rate_hz=self._rate_hz,
            resampled=resampled,
            index=number,
            start_frame=self._begins + start,
            utc_s=0.0,
            monotonic_s=0.0,
            place=Place(stretch=self._begins + start, number=number),
        )

    def _resampled(self, rate: int, first: int, n: int) -> Samples | None:
        stream = _Resampler.at(self._rate_hz, rate, first)
        if stream.fed < self._begins:
            return None
        heard = self._samples[stream.fed - self._begins :]
        parts = [stream.feed(_without_rubbish(heard))]
        if self._ended:
            parts.append(stream.end())
        found = np.concatenate(parts)[first - stream.start :]
        if self._ended and n - ROUNDING <= len(found) < n:
            found = np.append(found, np.repeat(found[-1:], n - len(found)))
        return found[:n] if len(found) >= n else None


def reach_s(rate_hz: int, rates: Iterable[int]) -> float:
    """How far before its beginning a window is made from."""
    return max((_Resampler(rate_hz, rate).reach / rate_hz for rate in rates if rate != rate_hz), default=0.0)


class _Stretch:
    """Sound without a hole, from its first frame on. Positions are samples since then."""

    def __init__(
        self, block: Block, window_s: float, hop_s: float, rates: Iterable[int], first_index: int, heard: int
    ) -> None:
        """`heard`: frames of all stretches before it."""
        self._heard = heard
        self.origin, self._rate_hz, self._start_frame = block.origin, block.rate_hz, block.start_frame
        self.first_index, self.emitted = first_index, 0
        self._window_s, self._hop_s = window_s, hop_s
        self._native = _Tape()
        self._resampled = {rate: _Tape() for rate in rates if rate != block.rate_hz}
        self._same_rate = block.rate_hz in set(rates)
        self._streams = {rate: _Resampler(block.rate_hz, rate) for rate in self._resampled}
        self._blocks: deque[tuple[int, float, float]] = deque()  # first position, utc_s, monotonic_s

    def continues_with(self, block: Block) -> bool:
        return (
            not block.gap
            and block.origin == self.origin
            and block.rate_hz == self._rate_hz
            and block.start_frame == self._start_frame + self._native.end
        )

    def add(self, block: Block, samples: Samples) -> None:
        """`samples`: the channel's [n]."""
        self._blocks.append((self._native.end, block.utc_s, block.monotonic_s))
        self._native.append(samples)
        finite = _without_rubbish(samples) if self._streams else samples
        for rate, stream in self._streams.items():
            self._resampled[rate].append(stream.feed(finite))

    def end(self) -> None:
        """No more sound comes: take what the resamplers still hold."""
        for rate, stream in self._streams.items():
            tape = self._resampled[rate]
            tape.append(stream.end())
            tape.pad(min(ROUNDING, max(0, round(self._native.end * rate / self._rate_hz) - tape.end)))

    def complete(self) -> list[Window]:
        """All windows that have become whole."""
        windows = []
        while self._has(self._native, self._rate_hz) and all(
            self._has(tape, rate) for rate, tape in self._resampled.items()
        ):
            windows.append(self._cut(self._window_s))
        return windows

    def remainder(self, gap: bool) -> list[Window]:
        """What the next window would have begun with, if there is anything."""
        left = self._native.end - self._position(self._rate_hz)
        return [self._cut(left / self._rate_hz, gap)] if left > 0 else []

    def _position(self, rate_hz: int) -> int:
        """Where the next window begins."""
        return round(self.emitted * self._hop_s * rate_hz)

    def _has(self, tape: _Tape, rate_hz: int) -> bool:
        return tape.end >= self._position(rate_hz) + round(self._window_s * rate_hz)

    def _cut(self, duration_s: float, gap: bool = False) -> Window:
        start, n = self._position(self._rate_hz), round(duration_s * self._rate_hz)
        samples = self._native.cut(start, n)
        resampled = {
            rate: tape.cut(self._position(rate), round(duration_s * rate)) for rate, tape in self._resampled.items()
        }
        if self._same_rate:
            resampled[self._rate_hz] = samples
        utc_s, monotonic_s = self._times(start, start + n - 1)
        window = Window(
            samples=samples,
            rate_hz=self._rate_hz,
            resampled=resampled,
            index=self.first_index + self.emitted,
            start_frame=self._start_frame + start,
            utc_s=utc_s,
            monotonic_s=monotonic_s,
            gap=gap,
            origin=self.origin,
            place=Place(heard=self._heard + start, stretch=start, number=self.emitted),
        )
        self.emitted += 1
        self._forget()
        return window

    def _times(self, first: int, last: int) -> tuple[float, float]:
        """Wall clock of position `first`, and when `last` was at hand."""
        utc_s = next(utc + (first - at) / self._rate_hz for at, utc, _ in reversed(self._blocks) if at <= first)
        monotonic_s = next(monotonic for at, _, monotonic in reversed(self._blocks) if at <= last)
        return utc_s, monotonic_s

    def _forget(self) -> None:
        """Drop what no later window needs."""
        self._native.drop(self._position(self._rate_hz))
        for rate, tape in self._resampled.items():
            tape.drop(self._position(rate))
        while len(self._blocks) > 1 and self._blocks[1][0] <= self._native.start:
            self._blocks.popleft()


class _Tape:
    """Samples by position; the part before `start` is gone."""

    def __init__(self) -> None:
        self.start = self.end = 0
        self._parts: list[Samples] = []

    def append(self, samples: Samples) -> None:
        self._parts.append(samples)
        self.end += len(samples)

    def pad(self, n: int) -> None:
        """Repeat the last sample."""
        self.append(np.repeat(self._joined()[-1:], n))

    def cut(self, start: int, n: int) -> Samples:
        """A copy of [start, start + n)."""
        return self._joined()[start - self.start : start - self.start + n].copy()

    def drop(self, start: int) -> None:
        start = min(start, self.end)
        self._parts = [self._joined()[start - self.start :]]
        self.start = start

    def _joined(self) -> Samples:
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0] if self._parts else np.zeros(0, np.float32)


class _Resampler:
    """A stretch at another rate, in segments. Positions are native frames since the stretch began."""

    def __init__(self, rate_hz: int, wanted_hz: int, first: int = 0) -> None:
        """`first`: the segment to begin with; feed it the sound from `fed` on."""
        self._rates = rate_hz, wanted_hz
        common = math.gcd(rate_hz, wanted_hz)
        self._unit, self._made_of_unit = rate_hz // common, wanted_hz // common  # frames of the same duration
        self._size = math.ceil(SEGMENT_S * rate_hz / self._unit) * self._unit
        self._margin = math.ceil(MARGIN_S * rate_hz / self._unit) * self._unit
        self._open: deque[_Segment] = deque()
        self._next = first
        self.fed = max(0, first * self._size - self._margin)  # where the next sound goes
        self.start = self._made(first * self._size)  # where the resampled sound begins, in frames of the wanted rate

    @property
    def reach(self) -> int:
        """Native frames before a resampled one that it may depend on, at most."""
        return self._size + self._margin

    @classmethod
    def at(cls, rate_hz: int, wanted_hz: int, position: int) -> _Resampler:
        """One that begins with the segment in which the frame of the wanted rate lies."""
        begin = cls(rate_hz, wanted_hz)
        return cls(rate_hz, wanted_hz, position // begin._made(begin._size))

    def feed(self, samples: Samples) -> Samples:
        """The next native sound [n] -> what it completes."""
        while self._next * self._size - self._margin < self.fed + len(samples):
            self._open.append(self._segment(self._next))
            self._next += 1
        for segment in self._open:
            part = samples[max(0, segment.begins - self.fed) : max(0, segment.ends - self.fed)]
            segment.push(part, last=self.fed + len(samples) >= segment.ends)
        self.fed += len(samples)
        return self._take()

    def end(self) -> Samples:
        """No more sound comes: what is left."""
        for segment in self._open:
            segment.push(np.zeros(0, np.float32), last=True)
        return self._take()

    def _take(self) -> Samples:
        """In order: the next segment waits until the one before has ended."""
        found: list[Samples] = []
        while self._open:
            found += self._open[0].take()
            if not self._open[0].ended:
                break
            self._open.popleft()
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def _segment(self, number: int) -> _Segment:
        begin = number * self._size
        lead = min(begin, self._margin)
        ends = begin + self._size + self._margin
        return _Segment(self._rates, begin - lead, ends, self._made(lead), self._made(self._size))

    def _made(self, frames: int) -> int:
        return frames // self._unit * self._made_of_unit


class _Segment:
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


def _without_rubbish(samples: Samples) -> Samples:
    """NaN, infinities and absurd values as 0: the filter would smear them over clean windows. [n] -> [n]

    The native window keeps them, and is judged not assessable for them.
    """
    if len(samples) and max(samples.max(), -samples.min()) < NO_SOUND:
        return samples
    return np.where(np.abs(samples) < NO_SOUND, samples, np.float32(0))
