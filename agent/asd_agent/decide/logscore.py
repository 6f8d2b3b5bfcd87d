"""One detector's distances as standard scores on held-out normals.

The logarithm makes distances near-Gaussian and stops one detector from ruling by its units. Rank p-values would end at
1 / (n + 1); the Gaussian tail goes on.
"""

from __future__ import annotations

import math
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent.decide.tail import tail
from asd_agent.errors import CalibrationError

SMALLEST_DISTANCE = 1e-12
SMALLEST_SCALE = 0.03  # of ln distance: 3 %
LOWEST_Z, HIGHEST_Z = -8.0, 30.0


class LogScore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    median: float  # of ln distance on held-out normals
    scale: float
    signed: bool = False  # of distances that are standard scores already, negative for the most normal: no logarithm

    @classmethod
    def fit(cls, distances: npt.ArrayLike, signed: bool = False) -> Self:
        """distances [n] of held-out normals, above 0 unless signed (leave_block_out). Raises CalibrationError for
        NaN."""
        logs = np.asarray(distances, dtype=np.float64)
        if not signed:
            logs = np.log(np.maximum(logs, SMALLEST_DISTANCE))
        if not np.isfinite(logs).all():
            raise CalibrationError("distances of the calibration windows are not finite: leave those windows out")
        median, scale = centre_and_scale(logs, SMALLEST_SCALE)
        return cls(median=median, scale=scale, signed=signed)

    def z(self, distance: float) -> float:
        """Standard score of a distance, clipped to [-8, 30]."""
        place = distance if self.signed else math.log(max(distance, SMALLEST_DISTANCE))
        z = (place - self.median) / self.scale
        return min(max(z, LOWEST_Z), HIGHEST_Z)

    def p_value(self, distance: float) -> float:
        """Of this detector alone, as on the days of the calibration."""
        return tail(self.z(distance))


def centre_and_scale(x: npt.ArrayLike, smallest: float) -> tuple[float, float]:
    """Median, and max(1.4826 MAD, 0.7 SD, smallest): robust, yet not blind to a share of windows far out."""
    values = np.asarray(x, dtype=np.float64)
    median = float(np.median(values))
    mad = 1.4826 * float(np.median(np.abs(values - median)))
    return median, max(mad, 0.7 * float(values.std(ddof=min(1, len(values) - 1))), smallest)
