"""Can this window be judged at all? A dead or broken signal chain must never look like a healthy machine.

Reasons, in this order: gap, short, nan, silence, flat, dc, clipping, random. One window of 10 s at 48 kHz costs about
0.3 ms.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from asd_agent.config.model import QualityLimits
from asd_agent.types import Cause, Quality, Samples, Window

NO_SOUND = 1e15  # a float beyond this is not a sample
FLOOR_DBFS = -200.0
FLAT_SEGMENT_S = 0.02
FLAT_SHARE = 0.1  # of the window
FLAT_RANGE = 1e-3  # peak to peak relative to the window's RMS: 60 dB below the sound is a line, not a pause
RAIL_SHARE = 2e-4  # of the peak: samples this close to it are on the rail
RAIL_STEPS = 1.5  # or this many quantisation steps
EDGE = 8  # tolerances below the peak a flat top's neighbour must lie (see _on_rail)
FLAT_TOPS = 3  # so many, of three samples or more, make a rail
PILE, PILE_TOLERANCE, PILE_SPREAD = 8, 2e-3, 0.1  # hits; the finest resolution needed; spread of neighbours
STEP_SAMPLES = 2048
CACHED = 1 << 17  # samples that stay in the processor's cache from one question to the next
SMALL_DC = 0.01  # of the power
COARSEST_STEP = 1 / 128
FIRST_SAMPLES = 32
UNIFORM_DBFS, UNIFORM_TOLERANCE_DB = -4.77, 0.5  # RMS of numbers spread evenly over [-1, 1]: 1 / sqrt(3)
UNIFORM_KURTOSIS, UNIFORM_KURTOSIS_TOLERANCE = 1.8, 0.1
INDEPENDENT = 0.05  # correlation of neighbours

Side = Literal[1, -1]
SIDES: tuple[Side, Side] = (1, -1)


def assess(window: Window, window_s: float, limits: QualityLimits) -> Quality:
    """Levels, and the causes that forbid to judge the window, from the native samples; no cause = assessable.

    `window_s` is the configured length: a shorter window is "short".
    """
    x = window.samples
    extremes = _Extremes.of(x, window.rate_hz)
    finite = extremes.peak < NO_SOUND
    if not finite:
        extremes = _Extremes.of(x[np.abs(x) < NO_SOUND], window.rate_hz)
    dc, rms = extremes.dc_and_rms()
    level_dbfs, dc_dbfs = _dbfs(rms), _dbfs(abs(dc))
    silent, without_dc = level_dbfs < limits.silence_dbfs, dc_dbfs < limits.silence_dbfs
    clipped = extremes.clipped_share()
    found = {
        Cause.GAP: window.gap,
        Cause.SHORT: len(window.samples) < math.floor(window_s * window.rate_hz),
        Cause.NAN: not finite,
        Cause.SILENCE: silent,
        Cause.FLAT: not (silent and without_dc) and extremes.flat_share(rms) >= FLAT_SHARE,
        Cause.DC: not without_dc and abs(dc) > limits.dc_share * math.hypot(rms, dc),
        Cause.CLIPPING: clipped >= limits.clipped_share,
        Cause.RANDOM: finite and _is_random(x, dc, level_dbfs),
    }
    causes = tuple(cause for cause, is_so in found.items() if is_so)
    return Quality(causes, level_dbfs, extremes.peak, dc, clipped)


def _is_random(x: Samples, dc: float, level_dbfs: float) -> bool:
    """Whether samples [n] are spread evenly over the full scale, each independent of the one before: no microphone and
    no machine does that, and bytes that are no samples do."""
    if abs(level_dbfs - UNIFORM_DBFS) > UNIFORM_TOLERANCE_DB or len(x) < FIRST_SAMPLES:
        return False
    rest = x - np.float32(dc)
    squares = rest * rest
    power = float(squares.mean())
    kurtosis = float(np.dot(squares, squares)) / len(x) / power**2
    neighbours = float(np.dot(rest[1:], rest[:-1])) / len(x) / power
    return abs(kurtosis - UNIFORM_KURTOSIS) < UNIFORM_KURTOSIS_TOLERANCE and abs(neighbours) < INDEPENDENT


def flat_share(x: Samples, rate_hz: int) -> float:
    """Share of 20 ms segments in which the line hardly moves: a stuck converter, a torn cable. x: [n]"""
    extremes = _Extremes.of(x, rate_hz)
    return extremes.flat_share(extremes.dc_and_rms()[1])


def clipped_share(x: Samples) -> float:
    """Share of samples that lie on a rail, upper and lower. x: [n]

    A rail is full scale, or, below it (a preamplifier that clips, a gain after the converter), an extreme
    value with flat tops or on which samples pile up.
    """
    return _Extremes.of(x, 48_000).clipped_share()


@dataclass(frozen=True)
class _Extremes:
    """x [n] with the highest and lowest value of each 20 ms [segments], and its sums: computed in one
    pass."""

    x: Samples
    size: int
    high: Samples  # the last segment may be shorter
    low: Samples
    highest: float  # NaN when there is one
    lowest: float
    sum: float
    squares: float

    @classmethod
    def of(cls, x: Samples, rate_hz: int) -> Self:
        size = max(2, round(FLAT_SEGMENT_S * rate_hz))
        if not len(x):
            return cls(x, size, x, x, 0.0, 0.0, 0.0, 0.0)
        starts, ones = _segments(size)
        stride = len(starts) * size
        with np.errstate(over="ignore", invalid="ignore"):  # of values that are no samples; the peak shows them
            found = [_extremes(x[at : at + stride], starts, ones) for at in range(0, len(x), stride)]
        sums, squares, high, low = zip(*found, strict=True)
        tops, bottoms = np.concatenate(high), np.concatenate(low)
        return cls(x, size, tops, bottoms, float(tops.max()), float(bottoms.min()), math.fsum(sums), math.fsum(squares))

    @property
    def peak(self) -> float:
        """max |x|; NaN when there is one, 0 for no samples."""
        return max(self.highest, -self.lowest)

    def dc_and_rms(self) -> tuple[float, float]:
        """Mean of x, and RMS without it."""
        n = len(self.x)
        if not n:
            return 0.0, 0.0
        dc, power = self.sum / n, self.squares / n
        if dc * dc > SMALL_DC * power:  # the difference of two nearly equal numbers says little
            dc = float(self.x.mean())
            rest = self.x - np.float32(dc)
            return dc, math.sqrt(float(np.dot(rest, rest)) / n)
        return dc, math.sqrt(power - dc * dc)

    def flat_share(self, rms: float) -> float:
        whole = len(self.x) // self.size
        if not whole:
            return float(len(self.x) > 0 and self.high[0] == self.low[0])
        extent = self.high[:whole] - self.low[:whole]
        return float(np.count_nonzero(extent <= FLAT_RANGE * rms) / whole)

    def clipped_share(self) -> float:
        if len(self.x) < 3:
            return 0.0
        coarse = _step_or_more(self.x)
        if not any(self._may_clip(side, coarse) for side in SIDES):
            return 0.0
        step = _step(self.x)
        return min(1.0, sum(self._on_rail(side, step) for side in SIDES))

    def _may_clip(self, side: Side, step: float) -> bool:
        """Whether it is worth to look closer: hardly ever, and that is most of the cost. `step` or less."""
        peak, reach = self._peak(side)
        tolerance = max(RAIL_STEPS * step, RAIL_SHARE * reach)
        return 1 - RAIL_STEPS * step <= peak <= 1 or len(self._above(side, peak - tolerance)) >= PILE

    def _peak(self, side: Side) -> tuple[float, float]:
        """The extreme of that side, and half the range."""
        return (self.highest if side == 1 else -self.lowest), (self.highest - self.lowest) / 2

    def _on_rail(self, side: Side, step: float) -> float:
        """Share of samples on the upper (1) or lower (-1) rail; 0 when there is none.

        Flat tops: a smooth crest with L >= 3 samples within the tolerance t is a parabola of curvature
        8 t / (L - 1)^2 at most, so the samples beside them are within t ((L + 1) / (L - 1))^2 <= 4 t of the peak.
        A clipped wave breaks off. Piling up, for bright noise that hits the rail one sample at a time: many hits,
        nothing just below, and neighbours of all heights. (A tone in step with the clock has neighbours of one
        height; a constant sweep has as many samples again just below, by the arcsine law.)
        """
        peak, reach = self._peak(side)
        if reach <= 0:
            return 0.0
        tolerance = max(RAIL_STEPS * step, RAIL_SHARE * reach)
        on_rail = self._above(side, peak - tolerance)
        share = len(on_rail) / len(self.x)
        if 1 - RAIL_STEPS * step <= peak <= 1:
            return share  # full scale
        breaks = np.flatnonzero(np.diff(on_rail) > 1)
        first = on_rail[np.concatenate(([0], breaks + 1))]
        last = on_rail[np.concatenate((breaks, [len(on_rail) - 1]))]
        before = side * self.x[np.maximum(first - 1, 0)]
        after = side * self.x[np.minimum(last + 1, len(self.x) - 1)]
        flat_tops = (last - first >= 2) & (np.minimum(before, after) < peak - EDGE * tolerance)
        if np.count_nonzero(flat_tops) >= FLAT_TOPS:
            return share
        piled_up = (
            len(first) >= PILE
            and tolerance < PILE_TOLERANCE * reach
            and len(self._above(side, peak - 4 * tolerance)) < 1.25 * len(on_rail)
            and float(before.std()) > PILE_SPREAD * reach
        )
        return share if piled_up else 0.0

    def _above(self, side: Side, limit: float) -> npt.NDArray[np.intp]:
        """Where side * x reaches `limit`; looks only into segments that do."""
        bound = np.float32(limit)
        segments = np.flatnonzero((self.high if side == 1 else -self.low) >= bound)
        places = [
            start + np.flatnonzero(side * self.x[start : start + self.size] >= bound) for start in segments * self.size
        ]
        return np.concatenate(places)


@functools.lru_cache(maxsize=8)
def _segments(size: int) -> tuple[npt.NDArray[np.intp], Samples]:
    """Where the segments of one part begin, and a one for each sample of a segment."""
    return np.arange(0, max(1, CACHED // size) * size, size), np.ones(size, np.float32)


def _extremes(part: Samples, starts: npt.NDArray[np.intp], ones: Samples) -> tuple[float, float, Samples, Samples]:
    """part [n] -> sum, sum of squares, highest and lowest value of its segments. The product first: it fetches best."""
    n, size = len(part), len(ones)
    whole = n // size * size
    squares = float(np.dot(part, part))
    total = float((part[:whole].reshape(-1, size) @ ones).sum()) + float(np.dot(part[whole:], ones[: n - whole]))
    starts = starts[: -(-n // size)]
    return total, squares, np.maximum.reduceat(part, starts), np.minimum.reduceat(part, starts)


def _step_or_more(x: Samples) -> float:
    """The smallest gap between the first values of x [n], which the quantisation step cannot exceed. In plain Python:
    after an encoder's run the first call of every function of numpy costs as much as all of this."""
    values = sorted(set(x[:FIRST_SAMPLES].tolist()))
    return min((b - a for a, b in itertools.pairwise(values)), default=1.0)


def _step(x: Samples) -> float:
    """The quantisation step of x [n]: the smallest gap between values if all are multiples of it, else 0.

    Found also after a gain; the finest steps drown in float32 and do not matter. 8 bits are the coarsest.
    """
    gaps = np.diff(np.sort(x[:STEP_SAMPLES]))
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return 0.0
    step = float(gaps.min())
    multiples = gaps / np.float32(step)
    return min(step, COARSEST_STEP) if np.abs(multiples - np.round(multiples)).max() < 0.1 else 0.0


def _dbfs(amplitude: float) -> float:
    return max(FLOOR_DBFS, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS
