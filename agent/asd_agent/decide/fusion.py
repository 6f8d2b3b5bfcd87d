"""Several detectors' standard scores as one p-value that holds on later days too.

They are joined as 5 ln mean exp(z / 5), between their mean, which dilutes a fault that one detector alone shows, and
their maximum. That is standardised once more by its own values on held-out blocks, because the detectors depend on
each other. For detectors that always agree it is their common z, for independent ones it is Gaussian again to within
4 % of z at p = 1e-4 (tests).

Fisher's -sum ln Phi(-z) ranks windows as well, but grows with z^2: the one detector that differs most between blocks
widens the limits of all. A real fault at a speed that calibration lacked was found in 30 % of the windows with Fisher's
rule, in 54 % with this one (benchmarks/bldc.py). A sharper mean, exp(z / 2), finds more still, and lets nuisance sound
pass for a change.

Later normal sound strays further than the held-out blocks did (a 95 % limit let 12 % of later windows pass). Its
variance, in units of the held-out one, is

    within    of windows inside a block
  + between   of the blocks against each other, x (1 + 1 / blocks) for a block not seen yet
  + drift     DRIFT / sessions, for what no session of the calibration could show; DRIFT / sessions^2 from five
              sessions on, when every block is a session that the others judged, and shows most of it itself

and all p-values are those of the wider distribution. DRIFT = 3 lies between the cases known: 1 belongs to the 12 %
above; a compressor calibrated on single days met other days with 10, on pairs of days with 5.4 / 2 (mean square of the
shift of a day's median).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent.decide.blocks import Labels
from asd_agent.decide.logscore import HIGHEST_Z, LOWEST_Z, centre_and_scale
from asd_agent.decide.pareto import Pareto
from asd_agent.decide.tail import tail
from asd_agent.errors import CalibrationError
from asd_agent.types import Floats

SHARPNESS = 0.2  # 0 is the mean, much the maximum
SMALLEST_SCALE = 0.05
SMALLEST_WITHIN = 0.25  # variance; blocks of one or two windows say nothing of what happens inside
DRIFT = 3.0


class Spread(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Variances of later normal sound, in units of the held-out one, and what they are known from."""

    within: float
    between: float
    windows: int
    blocks: int
    sessions: int

    @property
    def fast(self) -> float:
        """Standard deviation from window to window."""
        return math.sqrt(self.within)

    @property
    def slow(self) -> float:
        """Standard deviation of what windows of one day have in common."""
        return math.sqrt(self.between * (1 + 1 / self.blocks) + self.drift)

    @property
    def drift(self) -> float:
        """Mean square of the shift that held-out blocks could not show."""
        return DRIFT / self.sessions ** (2 if self.apart else 1)

    @property
    def apart(self) -> bool:
        """Every block is a session of its own, judged by the others."""
        return self.sessions >= self.blocks

    @property
    def total(self) -> float:
        """Standard deviation of a single later window; never less than that of the held-out ones."""
        return max(math.hypot(self.fast, self.slow), 1.0)


class Fusion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    median: float  # of the joined z on held-out normals
    scale: float
    spread: Spread
    pareto: Pareto | None = None  # of the held-out scores, where there are enough

    @classmethod
    def fit(cls, z: npt.ArrayLike, block: Labels, session: npt.ArrayLike, separate: float = 1.0) -> Self:
        """z [n, detectors] of held-out normals, with the block and the session of each window [n]; `separate`: share
        of the windows that share no sound with others.

        Raises CalibrationError for NaN.
        """
        rows = np.asarray(z, dtype=np.float64)
        if not np.isfinite(rows).all():
            raise CalibrationError("scores of the calibration windows are not finite: leave those windows out")
        joined = np.array([join(row) for row in rows])
        median, scale = centre_and_scale(joined, SMALLEST_SCALE)
        spread = _spread((joined - median) / scale, block, len(np.unique(np.asarray(session))))
        return cls(median=median, scale=scale, spread=spread, pareto=Pareto.fit((joined - median) / scale, separate))

    def score(self, z: Iterable[float]) -> float:
        """z of the detectors -> standard score on held-out normals."""
        return (join(z) - self.median) / self.scale

    def p_value(self, z: Iterable[float]) -> float:
        """z of the detectors -> probability that a later normal window is as far out, at least 1e-300."""
        return self.p_of(self.score(z))

    def p_of(self, score: float) -> float:
        """The same of a standard score: by the Gaussian tail, or the one that the calibration showed where that is
        heavier."""
        score /= self.spread.total
        if self.pareto is None or score <= self.pareto.start:
            return tail(score)
        return max(tail(score), self.pareto.p_value(score))

    def score_of(self, p: float) -> float:
        """The standard score that p belongs to, up to 60: the inverse of `p_of`."""
        low, high = -10.0 * self.spread.total, 60.0 * self.spread.total
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.p_of(middle) > p else (low, middle)
        return high


def join(z: Iterable[float]) -> float:
    """z of the detectors, clipped to [-8, 30] -> 5 ln mean exp(z / 5)."""
    parts = [math.exp(SHARPNESS * min(max(float(v), LOWEST_Z), HIGHEST_Z)) for v in z]
    return math.log(math.fsum(parts) / len(parts)) / SHARPNESS


def _spread(score: Floats, block: Labels, sessions: int) -> Spread:
    """score [n] in units of the held-out scale."""
    names = np.unique(block)
    medians = np.array([np.median(score[block == name]) for name in names])
    inside = score - medians[np.searchsorted(names, block)]
    within = max(centre_and_scale(inside, 0.0)[1] ** 2, SMALLEST_WITHIN)
    noise = np.mean([math.pi / 2 * within / np.count_nonzero(block == name) for name in names])
    between = max(float(medians.var(ddof=1)) - float(noise), 0.0) if len(names) > 1 else 0.0
    return Spread(within=within, between=between, windows=len(score), blocks=len(names), sessions=sessions)
