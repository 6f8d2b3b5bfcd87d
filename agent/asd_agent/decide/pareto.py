"""The tail of held-out scores as it is, where there are enough of them: a generalised Pareto distribution.

The Gaussian tail is an assumption. With some hundred windows the highest tenth shows whether the real one is heavier;
then p-values beyond it follow P(S > s) = share (1 + shape (s - start) / scale)^(-1 / shape). Shape and scale by
probability-weighted moments (Hosking and Wallis, Technometrics 29, 1987). A shape estimated from few is uncertain, and
the tail is very sensitive to it: p is averaged over the estimate's error, which makes it larger.
"""

from __future__ import annotations

import math
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

SHARE = 0.1  # of the windows are the tail
FEWEST = 30  # windows in it
_MOST_SHAPE = 0.45  # the error of the estimate has no variance from 0.5 on
_NODES = ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6))  # Gauss-Hermite


class Pareto(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    start: float
    share: float  # of the scores lies beyond the start
    scale: float
    shape: float  # 0 = exponential, above 0 = heavier
    shape_sd: float

    @classmethod
    def fit(cls, scores: npt.ArrayLike, separate: float = 1.0) -> Self | None:
        """scores [n] of held-out normals; `separate`: share of the windows that share no sound with others. None when
        they are too few."""
        ordered = np.sort(np.asarray(scores, np.float64))
        count = int(len(ordered) * SHARE)
        if count * separate < FEWEST:
            return None
        start = float(ordered[-count - 1])
        y = ordered[-count:] - start
        rank = (np.arange(1, count + 1) - 0.35) / count
        a0, a1 = float(y.mean()), float((y * (1 - rank)).mean())
        if a0 <= 2 * a1 or a1 <= 0:  # equal scores have no tail
            return None
        shape = min(max(2 - a0 / (a0 - 2 * a1), -0.5), _MOST_SHAPE)
        k = -shape  # the error in Hosking's and Wallis's notation
        variance = (1 + k) * (2 + k) ** 2 * (1 + k + 2 * k**2) / ((1 + 2 * k) * (3 + 2 * k)) / (count * separate)
        return cls(
            start=start, share=count / len(ordered), scale=a0 * (1 - shape), shape=shape, shape_sd=math.sqrt(variance)
        )

    def p_value(self, score: float) -> float:
        """P(S > score) from the start on; the share of the tail below it."""
        return sum(weight * self.tail(score, self.shape + node * self.shape_sd) for node, weight in _NODES)

    def tail(self, score: float, shape: float) -> float:
        """The same if the shape were known to be `shape`."""
        x = max(score - self.start, 0.0) / self.scale
        if abs(shape) < 1e-6:
            return self.share * math.exp(-x)
        return self.share * float(max(1 + shape * x, 0.0) ** (-1 / shape))
