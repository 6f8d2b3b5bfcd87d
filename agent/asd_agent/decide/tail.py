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


def surprise(z: float) -> float:
    """-ln P(Z > z), z up to 37: 0 for the most normal, 0.69 at the median, about z^2 / 2 far out."""
    if z < 0:
        return -math.log1p(-0.5 * math.erfc(-z / _ROOT2))
    return -math.log(0.5 * math.erfc(z / _ROOT2))


def z_of_surprise(x: float) -> float:
    """The inverse of `surprise`, x from above 0 to 690."""
    if x < math.log(2):
        return _NORMAL.inv_cdf(-math.expm1(-x))
    return -_NORMAL.inv_cdf(math.exp(-x))


def z_of(p: float) -> float:
    """The z that p = P(Z > z) belongs to, p from 1e-300 to below 1."""
    return -_NORMAL.inv_cdf(p)
