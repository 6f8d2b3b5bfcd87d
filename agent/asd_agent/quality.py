"""Can this window be judged at all? A dead or broken measuring chain must never look like a healthy machine.

Reasons, in this order: gap, short, nan, silence, flat, dc, clipping. One window of 10 s at 48 kHz costs about
2 ms.
"""

from __future__ import annotations

import math

import numpy as np

from asd_agent.config import QualityLimits
from asd_agent.types import Quality, Samples, Window

NO_SOUND = 1e15  # a float beyond this is not a sample
FLOOR_DBFS = -200.0
FLAT_SEGMENT_S = 0.02
FLAT_SHARE = 0.1  # of the window
FLAT_RANGE = 1e-3  # peak to peak relative to the window's RMS: 60 dB below the sound is a line, not a pause
RAIL_SHARE = 2e-4  # of the peak: samples this close to it are on the rail
RAIL_STEPS = 1.5  # or this many quantisation steps
EDGE = 8  # tolerances below the peak a flat top's neighbour must lie (see _on_rail)
FLAT_TOPS = 3  # so many make a rail
PILE, PILE_TOLERANCE, PILE_SPREAD = 8, 2e-3, 0.1  # hits; the finest resolution needed; spread of neighbours
STEP_SAMPLES = 8192
COARSEST_STEP = 1 / 128


def assess(window: Window, window_s: float, limits: QualityLimits) -> Quality:
    """Levels and reasons against a judgement, from the native samples; no reason = assessable.

    `window_s` is the configured length: a shorter window is "short".
    """
    x = window.samples
    finite = len(x) == 0 or _extent(x) < NO_SOUND
    if not finite:
        x = x[np.abs(x) < NO_SOUND]
    dc = float(x.mean()) if len(x) else 0.0
    rms = _rms(x - np.float32(dc))
    level_dbfs, dc_dbfs = _dbfs(rms), _dbfs(abs(dc))
    silent, without_dc = level_dbfs < limits.silence_dbfs, dc_dbfs < limits.silence_dbfs
    clipped = clipped_share(x)
    found = {
        "gap": window.gap,
        "short": len(window.samples) < math.floor(window_s * window.rate_hz),
        "nan": not finite,
        "silence": silent,
        "flat": not (silent and without_dc) and flat_share(x, window.rate_hz) >= FLAT_SHARE,
        "dc": not without_dc and abs(dc) > limits.dc_share * math.hypot(rms, dc),
        "clipping": clipped >= limits.clipped_share,
    }
    reasons = tuple(reason for reason, is_so in found.items() if is_so)
    return Quality(reasons, level_dbfs, _extent(x) if len(x) else 0.0, dc, clipped)


def flat_share(x: Samples, rate_hz: int) -> float:
    """Share of 20 ms segments in which the line hardly moves: a stuck converter, a torn cable. x: [n]"""
    size = max(2, round(FLAT_SEGMENT_S * rate_hz))
    count = len(x) // size
    if not count:
        return float(len(x) > 0 and x.max() == x.min())
    segments = x[: count * size].reshape(count, size)
    extent = segments.max(axis=1) - segments.min(axis=1)
    return float(np.mean(extent <= FLAT_RANGE * _rms(x - x.mean())))


def clipped_share(x: Samples) -> float:
    """Share of samples that lie on a rail, upper and lower. x: [n]

    A rail is full scale, or, below it (a preamplifier that clips, a gain after the converter), an extreme
    value with flat tops or on which samples pile up.
    """
    if len(x) < 3:
        return 0.0
    step = _step(x)
    return min(1.0, sum(_on_rail(side, step) for side in (x, -x)))


def _on_rail(x: Samples, step: float) -> float:
    """Share of samples on the upper rail; 0 when there is none.

    Flat tops: a smooth crest with L >= 3 samples within the tolerance t is a parabola of curvature
    8 t / (L - 1)^2 at most, so the samples beside them are within t ((L + 1) / (L - 1))^2 <= 4 t of the peak.
    A clipped wave breaks off. Piling up, for bright noise that hits the rail one sample at a time: many hits,
    nothing just below, and neighbours of all heights. (A tone in step with the clock has neighbours of one
    height; a constant sweep has as many samples again just below, by the arcsine law.)
    """
    peak = float(x.max())
    reach = (peak - float(x.min())) / 2
    if reach <= 0:
        return 0.0
    tolerance = max(RAIL_STEPS * step, RAIL_SHARE * reach)
    on_rail = np.flatnonzero(x >= np.float32(peak - tolerance))
    share = len(on_rail) / len(x)
    if 1 - RAIL_STEPS * step <= peak <= 1:
        return share  # full scale
    breaks = np.flatnonzero(np.diff(on_rail) > 1)
    first = on_rail[np.concatenate(([0], breaks + 1))]
    last = on_rail[np.concatenate((breaks, [len(on_rail) - 1]))]
    before, after = x[np.maximum(first - 1, 0)], x[np.minimum(last + 1, len(x) - 1)]
    flat_tops = (last - first >= 2) & (np.minimum(before, after) < peak - EDGE * tolerance)
    if np.count_nonzero(flat_tops) >= FLAT_TOPS:
        return share
    piled_up = (
        len(first) >= PILE
        and tolerance < PILE_TOLERANCE * reach
        and np.count_nonzero(x >= np.float32(peak - 4 * tolerance)) < 1.25 * len(on_rail)
        and float(before.std()) > PILE_SPREAD * reach
    )
    return share if piled_up else 0.0


def _step(x: Samples) -> float:
    """The quantisation step of x [n]: the smallest gap between values if all are multiples of it, else 0.

    Found also after a gain; the finest steps drown in float32 and do not matter. 8 bits are the coarsest.
    """
    gaps = np.diff(np.unique(x[:STEP_SAMPLES]))
    if not len(gaps):
        return 0.0
    step = float(gaps.min())
    multiples = gaps / np.float32(step)
    return min(step, COARSEST_STEP) if np.abs(multiples - np.round(multiples)).max() < 0.1 else 0.0


def _extent(x: Samples) -> float:
    """max |x|; NaN when there is one."""
    return float(max(x.max(), -x.min()))


def _rms(x: Samples) -> float:
    return math.sqrt(float(np.dot(x, x)) / len(x)) if len(x) else 0.0


def _dbfs(amplitude: float) -> float:
    return max(FLOOR_DBFS, 20 * math.log10(amplitude)) if amplitude > 0 else FLOOR_DBFS
