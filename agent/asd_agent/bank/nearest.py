"""k-nearest neighbours, Euclidean or cosine: the mean distance to the k nearest normals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, queries, query, rows, take
from asd_agent.bank.memory import Memory, Metric
from asd_agent.types import Floats


@dataclass(frozen=True)
class Nearest:
    memory: Memory
    k: int

    @property
    def kind(self) -> str:
        return "cosine" if self.memory.cosine else "euclidean"

    @classmethod
    def fit(cls, x: npt.ArrayLike, *, metric: Metric, k: int = 1) -> Self:
        """x [n, dim], n >= k. Raises CalibrationError."""
        return cls(Memory.of(rows(x, at_least=k), metric), k)

    def around(self, x: npt.ArrayLike) -> Self:
        """The same metric, other normals x [n, dim]."""
        return self.fit(x, metric="cosine" if self.memory.cosine else "euclidean", k=self.k)

    def normals(self) -> Floats:
        """The normals [n, dim] again; of length 1 for cosine."""
        return np.asarray(self.memory.rows + self.memory.centre, np.float64)

    def distance(self, q: npt.ArrayLike) -> Floats:
        """q [m, dim] -> [m]: Euclidean in units of the embedding, or 1 - cos from 0 to 2."""
        return self.memory.mean_of_nearest(queries(q, self.memory.dim), self.k)

    def neighbours(self, q: npt.ArrayLike, most: int) -> tuple[Floats, npt.NDArray[np.intp]]:
        """q [dim] -> distances [most] and rows of the nearest, in the order of `fit`."""
        near, index = self.memory.nearest(query(q, self.memory.dim)[None], most)
        return near[0], index[0]

    def arrays(self) -> Arrays:
        return {"k": np.array(self.k), **self.memory.arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        return cls(Memory.from_arrays(arrays), int(take(arrays, "k", 0)))
