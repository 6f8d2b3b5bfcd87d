"""Blocks -> analysis windows: overlapping, at the native rate and at every rate a bundle wants.

Native and resampled windows are cut at the same times (k * hop_s since the segment began). A segment is sound
without a hole: a gap, lost blocks or another file end it, and no window reaches across.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from asd_agent.errors import SourceError
from asd_agent.types import Block, Samples, Window, WindowPosition
from asd_agent.windowing.resampler import Resampler, finite

ROUNDING = 2  # samples that a resampled segment may lack at its end


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
        self.received = 0  # frames so far, of all segments
        self.begun = 0  # of them, those before the segment that the last block was of
        self._segment: _Segment | None = None
        self._beside: Windower | None = None  # of the reference channel: it cuts what this one cuts
        self._check(rate_hz)

    def push(self, block: Block, *channels: int) -> list[Window]:
        """The windows that this block completes. The last block of a file also flushes.

        `channels`: that of the machine, and that of a reference microphone where there is one; it is silent where the
        block lacks it. Raises SourceError when the block lacks the first, or has too low a rate.
        """
        channel, *others = channels
        if channel >= block.samples.shape[1]:
            raise SourceError(
                f"channel {channel} wanted (counted from 0), but {block.origin or 'the source'} "
                f"has {block.samples.shape[1]} channel(s)"
            )
        windows = self._push(block, np.ascontiguousarray(block.samples[:, channel]))
        if not others:
            return windows
        if self._beside is None:
            self._beside = Windower(block.rate_hz, self._window_s, self._hop_s, self._lowest)
        return _with_reference(windows, self._beside._push(block, _column(block, others[0])))

    def flush(self) -> list[Window]:
        """The windows that only the end of the sound completes.

        An incomplete window is left out, unless the whole segment was shorter than one: then it is returned.
        """
        windows = self._finish(interrupted=False)
        return _with_reference(windows, self._beside.flush()) if self._beside is not None else windows

    def _push(self, block: Block, samples: Samples) -> list[Window]:
        """`samples` [n]: one channel of the block."""
        windows: list[Window] = []
        if self._segment is not None and not self._segment.continues_with(block):
            windows = self._finish(interrupted=block.origin == self._segment.origin)
        if self._segment is None:
            self._check(block.rate_hz)
            self._segment = _Segment(block, self._window_s, self._hop_s, self._rates, self._index, self.received)
            self.begun = self.received
        self.received += len(block.samples)
        self._segment.add(block, samples)
        windows += self._segment.complete()
        return windows + self._finish(interrupted=False) if block.last else windows

    def _finish(self, interrupted: bool) -> list[Window]:
        """End the segment; what an interruption cut short is returned once, marked as a gap."""
        if self._segment is None:
            return []
        segment, self._segment = self._segment, None
        segment.end()
        windows = segment.complete()
        if interrupted or not segment.emitted:
            windows += segment.remainder(gap=interrupted)
        self._index = segment.first_index + segment.emitted
        return windows

    def _check(self, rate_hz: int) -> None:
        too_high = [lowest for lowest in self._lowest.values() if lowest > rate_hz]
        if too_high:
            raise SourceError(
                f"the sound comes at {rate_hz} Hz, but a bundle wants {max(too_high)} Hz: "
                "use a source with a higher rate or a bundle with a lower one"
            )


def _column(block: Block, channel: int) -> Samples:
    """[n], silent where the block has no such channel."""
    if channel < block.samples.shape[1]:
        return np.ascontiguousarray(block.samples[:, channel])
    return np.zeros(len(block.samples), np.float32)


def _with_reference(windows: Sequence[Window], beside: Sequence[Window]) -> list[Window]:
    """`beside`: the same windows of the reference."""
    return [replace(w, reference=other.resampled) for w, other in zip(windows, beside, strict=True)]


class _Segment:
    """Sound without a hole, from its first frame on. Positions are samples since then."""

    def __init__(
        self, block: Block, window_s: float, hop_s: float, rates: Iterable[int], first_index: int, received: int
    ) -> None:
        """`received`: frames of all segments before it."""
        self._received = received
        self.origin, self._rate_hz, self._start_frame = block.origin, block.rate_hz, block.start_frame
        self.first_index, self.emitted = first_index, 0
        self._window_s, self._hop_s = window_s, hop_s
        self._native = _Tape()
        self._resampled = {rate: _Tape() for rate in rates if rate != block.rate_hz}
        self._same_rate = block.rate_hz in set(rates)
        self._streams = {rate: Resampler(block.rate_hz, rate) for rate in self._resampled}
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
        clean = finite(samples) if self._streams else samples
        for rate, stream in self._streams.items():
            self._resampled[rate].append(stream.feed(clean))

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
            position=WindowPosition(received=self._received + start, segment=start, number=self.emitted),
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
