"""p-values as the store keeps them: 0.01 in log10, so 2.3 % apart at most.

The pipeline decides on the rounded value. What was decided can then be decided again from the store, bit for bit.
"""

from __future__ import annotations

import math

STEP = 100  # codes per decade
SMALLEST_P = 1e-300


def p_code(p_value: float) -> int:
    """-100 log10 p, rounded: 0 for p = 1, 30000 for the smallest."""
    return round(-STEP * math.log10(min(max(p_value, SMALLEST_P), 1.0)))


def p_of(code: int) -> float:
    return float(10.0 ** (-code / STEP))


def kept_p(p_value: float) -> float:
    """What the store will give back."""
    return p_of(p_code(p_value))


def kept_z(z: float) -> float:
    """Tenths."""
    return round(10 * z) / 10


def kept_s(seconds: float) -> float:
    """To milliseconds."""
    return round(seconds * 1000) / 1000
