"""Selective Mahalanobis distance: the smaller of those to the source's and to the target's distribution.

As in the DCASE 2023 baseline (Harada et al., 2023), on embeddings and with Ledoit-Wolf shrinkage, because a
target domain of ten clips has no invertible covariance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, queries, rows, spread, take
from asd_agent.bank.shrinkage import Whitening
from asd_agent.types import Floats


@dataclass(frozen=True)
class Domain:
    """Mean and shrunk covariance of one domain, on values standardised by `scale`."""

    mean: Floats  # [dim]
    scale: Floats  # [dim]
    whitening: Whitening

    @classmethod
    def of(cls, x: Floats, scale: Floats) -> Self:
        mean = x.mean(axis=0)
        return cls(mean, scale, Whitening.of((x - mean) / scale))

    def distance(self, q: Floats) -> Floats:
        """q [m, dim] -> [m]."""
        parts = [self.whitening.split(d) for d in (q - self.mean) / self.scale]
        return np.array([math.sqrt(np.dot(inside, inside) + outside) for inside, outside in parts])

    def arrays(self, prefix: str) -> Arrays:
        return {f"{prefix}mean": self.mean, f"{prefix}scale": self.scale, **self.whitening.arrays(prefix)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> Self:
        mean, scale = (np.asarray(take(arrays, prefix + name, 1), np.float64) for name in ("mean", "scale"))
        return cls(mean, scale, Whitening.from_arrays(arrays, prefix))


@dataclass(frozen=True)
class SelectiveMahalanobis:
    kind: ClassVar[str] = "selective_mahalanobis"
    source: Domain
    target: Domain

    @classmethod
    def fit(cls, x: npt.ArrayLike, *, target: npt.ArrayLike) -> Self:
        """x [n >= 2, dim] of the source, target [t >= 2, dim]. Raises CalibrationError."""
        source, other = rows(x, at_least=2), rows(target, 2, "target embeddings")
        scale = spread(source)  # one yardstick for both: ten target clips do not tell the spread of a value
        return cls(Domain.of(source, scale), Domain.of(other, scale))

    def distance(self, q: npt.ArrayLike) -> Floats:
        """q [m, dim] -> [m], in standard deviations."""
        q = queries(q, len(self.source.mean))
        return np.minimum(self.source.distance(q), self.target.distance(q))

    def arrays(self) -> Arrays:
        return {**self.source.arrays("source_"), **self.target.arrays("target_")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        return cls(Domain.from_arrays(arrays, "source_"), Domain.from_arrays(arrays, "target_"))
