"""Minimum over two banks, many clips of the source domain and few of the target domain (DCASE Task 2).

A single bank of both would be the same for k = 1; with k > 1 the few target clips would be outvoted in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, queries, query, rows, take
from asd_agent.bank.memory import Memory, Metric
from asd_agent.types import Floats


@dataclass(frozen=True)
class TwoBank:
    """min(mean distance to the k nearest of the source, the same of the target)."""

    kind: ClassVar[str] = "two_bank"
    source: Memory
    target: Memory
    k: int

    @classmethod
    def fit(cls, x: npt.ArrayLike, *, target: npt.ArrayLike, metric: Metric = "cosine", k: int = 1) -> Self:
        """x [n, dim] of the source, target [t, dim], both at least k rows; smote and memmixup oversample the
        target before. Raises CalibrationError.
        """
        source = rows(x, at_least=k)
        return cls(Memory.of(source, metric), Memory.of(rows(target, k, "target embeddings"), metric), k)

    def distance(self, q: npt.ArrayLike) -> Floats:
        q = queries(q, self.source.dim)
        return np.minimum(self.source.mean_of_nearest(q, self.k), self.target.mean_of_nearest(q, self.k))

    def deviation(self, q: npt.ArrayLike) -> Floats:
        return nearer(query(q, self.source.dim), self.source, self.target)

    def arrays(self) -> Arrays:
        return {"k": np.array(self.k), **self.source.arrays("source_"), **self.target.arrays("target_")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        source, target = (Memory.from_arrays(arrays, prefix) for prefix in ("source_", "target_"))
        return cls(source, target, int(take(arrays, "k", 0)))


def nearer(q: Floats, source: Memory, target: Memory) -> Floats:
    """Deviation [dim] of q [dim] from the nearest row of both, in the source's standard deviations."""
    near_source, near_target = source.nearest(q[None])[0][0, 0], target.nearest(q[None])[0][0, 0]
    memory = source if near_source <= near_target else target
    return memory.deviation(q) * memory.scale / source.scale
