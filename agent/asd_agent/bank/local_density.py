"""Nearest neighbour with local-density rescaling (Wilkinghoff, 2025): min over rows r of d(x, r) / c_r.

c_r is the mean distance of r to its K nearest other rows, source and target together: a distance counts for
more where the normals lie close.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, queries, query, rows, take
from asd_agent.bank.memory import Memory, Metric
from asd_agent.errors import BaselineError
from asd_agent.types import Floats

NEIGHBOURS = 4


@dataclass(frozen=True)
class LocalDensity:
    kind: ClassVar[str] = "local_density"
    memory: Memory
    spacing: Floats  # [n] mean distance of every row to its nearest others, floored

    def __post_init__(self) -> None:
        if len(self.spacing) != len(self.memory) or not (self.spacing > 0).all():
            raise BaselineError("bank: rows and spacing do not fit together; calibrate anew")

    @classmethod
    def fit(
        cls,
        x: npt.ArrayLike,
        *,
        target: npt.ArrayLike | None = None,
        metric: Metric = "cosine",
        neighbours: int = NEIGHBOURS,
    ) -> Self:
        """x [n, dim] and target [t, dim], n + t > neighbours. Raises CalibrationError."""
        both = x if target is None else np.vstack([rows(x), rows(target, 1, "target embeddings")])
        both = rows(both, at_least=neighbours + 1)
        memory = Memory.of(both, metric)
        others = memory.nearest(both, neighbours, exclude=np.eye(len(both), dtype=bool))[0]
        spacing = others.mean(axis=1)
        floor = np.median(spacing) / 10  # rows that occur twice would make everything else infinitely far
        return cls(memory, np.maximum(spacing, floor if floor > 0 else 1.0))

    def distance(self, q: npt.ArrayLike) -> Floats:
        """q [m, dim] -> [m], relative to the spacing of the normals around."""
        q = queries(q, self.memory.dim)
        near, index = self.memory.nearest(q, len(self.memory))  # the best quotient may be far from the nearest row
        return np.asarray((near / self.spacing[index]).min(axis=1), dtype=np.float64)

    def deviation(self, q: npt.ArrayLike) -> Floats:
        return self.memory.deviation(query(q, self.memory.dim))

    def arrays(self) -> Arrays:
        return {"spacing": self.spacing, **self.memory.arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        return cls(Memory.from_arrays(arrays), np.asarray(take(arrays, "spacing", 1), np.float64))
