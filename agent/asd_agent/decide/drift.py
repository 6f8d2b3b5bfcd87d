"""Slow drift of the scores of normal windows, watched apart from alarms: EWMA and a one-sided CUSUM.

A machine that wears, a microphone that fills with dust: each window is normal by itself, all together they rise. Scores
are fused standard scores; their spread from window to window and from block to block comes from the calibration, so
that what the calibration itself showed is no drift.
"""

from __future__ import annotations

import math

import msgspec

from asd_agent.decide.fusion import Spread

EWMA_S = 3600.0  # time constant
SLACK = 0.5  # of the CUSUM, in standard deviations of an hour's mean
LIMIT = 5.0
CLIP = 3.0  # of a window's score: a single odd hour is an alarm's business, not a drift


class DriftState(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to keep over a restart."""

    mean: float = 0.0  # EWMA of the score, in standard deviations of held-out windows
    weight: float = 0.0
    cusum: float = 0.0
    hour_s: float = 0.0  # of sound since the CUSUM last moved


class Drift:
    def __init__(self, spread: Spread, hop_s: float, state: DriftState | None = None) -> None:
        self.state = state or DriftState()
        self._hop_s, self._share = hop_s, 1 - math.exp(-hop_s / EWMA_S)
        self._sd = math.sqrt(spread.slow**2 + spread.within * hop_s / EWMA_S)  # of an hour's mean

    def update(self, score: float) -> None:
        """One normal window's fused standard score (`Fusion.score`)."""
        s, share = self.state, self._share
        mean, weight = s.mean + share * (min(score, CLIP) - s.mean), s.weight + share * (1 - s.weight)
        cusum, hour_s = s.cusum, s.hour_s + self._hop_s
        if hour_s >= EWMA_S:
            cusum, hour_s = max(0.0, cusum + mean / weight / self._sd - SLACK), 0.0
        self.state = DriftState(mean=mean, weight=weight, cusum=cusum, hour_s=hour_s)

    @property
    def level(self) -> float:
        """The smoothed score, in standard deviations of held-out windows; 0 = as in calibration."""
        return self.state.mean / max(self.state.weight, 1e-9)

    @property
    def drifting(self) -> bool:
        return self.state.cusum >= LIMIT
