"""A detector: the distance from the mean of the normal embeddings, in standard deviations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Centroid:
    mean: npt.NDArray[np.float64]  # [dim]
    sd: npt.NDArray[np.float64]  # [dim]

    kind = "centroid"  # the name of the entry point

    @classmethod
    def fit(cls, x: npt.ArrayLike) -> Self:
        """x [n, dim]: normal embeddings."""
        rows = np.asarray(x, np.float64)
        return cls(rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6))

    def distance(self, q: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """q [m, dim] -> [m]."""
        return np.sqrt(np.mean(((np.asarray(q, np.float64) - self.mean) / self.sd) ** 2, axis=1))

    def deviation(self, q: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """q [dim] -> [dim]."""
        return (np.asarray(q, np.float64) - self.mean) / self.sd

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"mean": self.mean, "sd": self.sd}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        return cls(np.asarray(arrays["mean"], np.float64), np.asarray(arrays["sd"], np.float64))
