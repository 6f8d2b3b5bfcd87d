"""Minimum over two banks, many clips of the source domain and few of the target domain (DCASE Task 2).

A single bank of both would be the same for k = 1; with k > 1 the few target clips would be outvoted in it. `scaled`
divides the distances to each bank by the median of those that its own rows have from their nearest other: few target
clips lie far apart, and everything is far from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, queries, rows, take
from asd_agent.bank.memory import Memory, Metric
from asd_agent.types import Floats


@dataclass(frozen=True)
class TwoBank:
    """min(mean distance to the k nearest of the source, the same of the target), each over its spacing."""

    kind: ClassVar[str] = "two_bank"
    source: Memory
    target: Memory
    k: int
    spacing: Floats  # [2] of source and target; ones where distances are not scaled

    @classmethod
    def fit(
        cls, x: npt.ArrayLike, *, target: npt.ArrayLike, metric: Metric = "cosine", k: int = 1, scaled: bool = False
    ) -> Self:
        """x [n, dim] of the source, target [t, dim], both at least k rows; smote and memmixup oversample the
        target before. `scaled` needs two rows of each. Raises CalibrationError.
        """
        least = max(k, 2) if scaled else k
        source, other = rows(x, at_least=least), rows(target, least, "target embeddings")
        banks = Memory.of(source, metric), Memory.of(other, metric)
        spacing = [_spacing(bank, own) for bank, own in zip(banks, (source, other), strict=True)]
        return cls(*banks, k, np.array(spacing) if scaled else np.ones(2))

    def distance(self, q: npt.ArrayLike) -> Floats:
        q = queries(q, self.source.dim)
        found = [bank.mean_of_nearest(q, self.k) for bank in (self.source, self.target)]
        return np.asarray(np.minimum(found[0] / self.spacing[0], found[1] / self.spacing[1]), np.float64)

    def arrays(self) -> Arrays:
        return {
            "k": np.array(self.k),
            "spacing": self.spacing,
            **self.source.arrays("source_"),
            **self.target.arrays("target_"),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        source, target = (Memory.from_arrays(arrays, prefix) for prefix in ("source_", "target_"))
        return cls(source, target, int(take(arrays, "k", 0)), np.asarray(take(arrays, "spacing", 1), np.float64))


def _spacing(bank: Memory, own: Floats) -> float:
    """Median distance of the rows of a bank to their nearest other; 1 where they are all the same."""
    if len(own) < 2:
        return 1.0
    near = bank.nearest(own, exclude=np.eye(len(own), dtype=bool))[0][:, 0]
    return float(np.median(near)) or 1.0
