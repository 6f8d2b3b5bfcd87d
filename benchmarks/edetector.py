"""A sequential test with a promise, to compare persistence with: the e-SR detector of Shin, Ramdas and Rinaldo ("E-
detectors", NEJSDS, article 59) on conformal p-values that hold for this calibration.

Rank k of a window's score among n held-out scores; q = BetaInv(1 - d; k, n + 1 - k) bounds its p-value with probability
1 - d over the calibrations (d = 0.1); e = (1 - q + q ln q) / (q ln(q)^2) has mean at most 1 for uniform q. Windows that
follow each other depend: one e-value is the mean over a block of (1 + r) / (1 - r) windows, r = 0.5 where windows
overlap by half. M <- e (1 + M); alarm at M >= c, where c blocks are the mean time to a false alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy.stats import beta

DELTA = 0.1
DEPENDENCE = 0.5
MONTH_S = 365.25 / 12 * 86_400


class EDetector:
    def __init__(self, held_out: Sequence[float], window_s: float, hop_s: float, false_alarms_per_month: float) -> None:
        """held_out [n]: fused scores of the held-out normals; those that share sound count once."""
        separate = max(round(window_s / hop_s), 1)
        self._scores = np.sort(np.asarray(held_out))
        self._n = max(len(self._scores) // separate, 1)
        self._block = round((1 + DEPENDENCE) / (1 - DEPENDENCE)) if hop_s < window_s else 1
        self._limit = MONTH_S / (hop_s * self._block) / false_alarms_per_month
        self._waiting: list[float] = []
        self.m = 0.0

    def update(self, score: float) -> bool:
        """A window's fused score -> alarm?"""
        above = float(np.mean(self._scores >= score))
        self._waiting.append(e_value(1 + round(above * self._n), self._n))
        if len(self._waiting) == self._block:
            self.m = float(np.mean(self._waiting)) * (1 + self.m)
            self._waiting = []
        return self.m >= self._limit


@cache
def e_value(k: int, n: int) -> float:
    """Of rank k = 1 (above all) to n + 1."""
    if k > n:
        return 0.5  # the limit of the formula for q -> 1
    q = float(beta.ppf(1 - DELTA, k, n + 1 - k))
    return float((1 - q + q * np.log(q)) / (q * np.log(q) ** 2))
