"""Windows made again from a clip."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from asd_agent.types import Samples, Window, WindowPosition
from asd_agent.windowing.resampler import Resampler, finite
from asd_agent.windowing.windower import ROUNDING


class Excerpt:
    """Some of a segment, of which single windows are made again: the same to the last bit as when it was received."""

    def __init__(self, samples: Samples, rate_hz: int, begins: int, ended: bool) -> None:
        """`samples` [n], or [n, 2] with those of the reference microphone; the first is frame `begins` of the segment.
        `ended`: the segment ends with the last."""
        self._samples, self._rate_hz, self._begins, self._ended = samples, rate_hz, begins, ended
        self._beside: Excerpt | None = None
        if samples.ndim == 2:
            self._samples = np.ascontiguousarray(samples[:, 0])
            self._beside = Excerpt(np.ascontiguousarray(samples[:, 1]), rate_hz, begins, ended)

    def window(self, number: int, window_s: float, hop_s: float, rates: Iterable[int]) -> Window | None:
        """The window of that number in the segment; None when the excerpt lacks some of what it was made from."""
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
        beside = self._beside.window(number, window_s, hop_s, rates) if self._beside is not None else None
        return Window(
            reference=beside.resampled if beside is not None else {},
            samples=samples,
            rate_hz=self._rate_hz,
            resampled=resampled,
            index=number,
            start_frame=self._begins + start,
            utc_s=0.0,
            monotonic_s=0.0,
            position=WindowPosition(segment=self._begins + start, number=number),
        )

    def _resampled(self, rate: int, first: int, n: int) -> Samples | None:
        stream = Resampler.at(self._rate_hz, rate, first)
        if stream.fed < self._begins:
            return None
        received = self._samples[stream.fed - self._begins :]
        parts = [stream.feed(finite(received))]
        if self._ended:
            parts.append(stream.end())
        found = np.concatenate(parts)[first - stream.start :]
        if self._ended and n - ROUNDING <= len(found) < n:
            found = np.append(found, np.repeat(found[-1:], n - len(found)))
        return found[:n] if len(found) >= n else None
