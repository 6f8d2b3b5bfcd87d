"""Nearest neighbour with local-density rescaling (Wilkinghoff, 2025): min over rows r of d(x, r) / c_r.

c_r is the mean distance of r to its K nearest other rows, source and target together where both are in one bank: a
distance counts for more where the normals lie close.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, rows, take
from asd_agent.bank.memory import Metric
from asd_agent.bank.nearest import Nearest
from asd_agent.bank.whitened import Whitened
from asd_agent.errors import BaselineError
from asd_agent.types import Floats

NEIGHBOURS = 4


@dataclass(frozen=True)
class LocalDensity:
    kind: ClassVar[str] = "local_density"
    measure: Nearest | Whitened  # of the distance from each row
    spacing: Floats  # [n] mean distance of every row to its nearest others, floored

    def __post_init__(self) -> None:
        if len(self.spacing) != len(self.measure.memory) or not (self.spacing > 0).all():
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
        return cls.of(Nearest.fit(both, metric=metric), both, neighbours)

    @classmethod
    def of(cls, measure: Nearest | Whitened, x: Floats, neighbours: int = NEIGHBOURS) -> Self:
        """x [n >= 2, dim]: the normals of `measure`, in their order; `neighbours` is cut to n - 1."""
        spacing = np.empty(len(x))
        for i, row in enumerate(x):
            near, index = measure.neighbours(row, neighbours + 1)
            spacing[i] = near[index != i][:neighbours].mean()
        floor = np.median(spacing) / 10  # rows that occur twice would make everything else infinitely far
        return cls(measure, np.maximum(spacing, floor if floor > 0 else 1.0))

    def distance(self, q: npt.ArrayLike) -> Floats:
        """q [m, dim] -> [m], relative to the spacing of the normals around."""
        return np.array([self.neighbours(row, 1)[0][0] for row in np.asarray(q)], np.float64)

    def neighbours(self, q: npt.ArrayLike, most: int) -> tuple[Floats, npt.NDArray[np.intp]]:
        """q [dim] -> rescaled distances [most] and rows of the nearest, in the order of the normals."""
        near, index = self.measure.neighbours(q, len(self.spacing))  # the best quotient may be far from the nearest row
        scaled = near / self.spacing[index]
        best = scaled.argsort(kind="stable")[:most]
        return scaled[best], index[best]

    def arrays(self) -> Arrays:
        return {"spacing": self.spacing, **self.measure.arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        measure: type[Nearest | Whitened] = Whitened if "axes" in arrays else Nearest
        return cls(measure.from_arrays(arrays), np.asarray(take(arrays, "spacing", 1), np.float64))
