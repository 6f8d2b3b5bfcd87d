"""The tail of the standard normal distribution, far out, without scipy."""

from __future__ import annotations

import math
from statistics import NormalDist

SMALLEST_P = 1e-300
_ROOT2 = math.sqrt(2.0)
_NORMAL = NormalDist()


def tail(z: float) -> float:
    """P(Z > z), at least 1e-300."""
    return max(0.5 * math.erfc(z / _ROOT2), SMALLEST_P)


def z_of(p: float) -> float:
    """The z that p = P(Z > z) belongs to, p from 1e-300 to below 1."""
    return -_NORMAL.inv_cdf(p)
