"""Nearest neighbours among normal embeddings: one matrix product, then the few best by exact difference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, spread, take
from asd_agent.errors import BaselineError
from asd_agent.types import Floats

Metric = Literal["euclidean", "cosine"]

CHUNK = 256  # queries at a time: 256 x 10,000 float32 distances are 10 MB
SPARE = 8  # candidates beyond k, so that rounding of the product cannot hide the nearest


@dataclass(frozen=True)
class Memory:
    """Rows of normal embeddings under one metric.

    Cosine works on rows of length 1, where the squared Euclidean distance is 2 (1 - cos). Rows are kept
    relative to their mean: float32 products of far-off rows would lose the small differences.
    """

    centre: Floats  # [dim]
    rows: npt.NDArray[np.float32]  # [n, dim], relative to the centre
    scale: Floats  # [dim] standard deviation of the rows, floored
    cosine: bool = False
    _halves: npt.NDArray[np.float32] = field(init=False, repr=False)  # [n] half the squared lengths

    def __post_init__(self) -> None:
        if self.rows.shape[1:] != self.centre.shape or self.rows.shape[1:] != self.scale.shape or not len(self.rows):
            raise BaselineError("bank: rows, centre and scale do not fit together; calibrate anew")
        object.__setattr__(self, "_halves", np.einsum("ij,ij->i", self.rows, self.rows) / 2)

    @classmethod
    def of(cls, x: Floats, metric: Metric = "euclidean") -> Self:
        """x [n, dim], n >= 1."""
        cosine = metric == "cosine"
        x = unit(x) if cosine else x
        centre = x.mean(axis=0)
        return cls(centre, np.ascontiguousarray(x - centre, dtype=np.float32), spread(x), cosine)

    @property
    def dim(self) -> int:
        return len(self.centre)

    def __len__(self) -> int:
        return len(self.rows)

    def nearest(
        self, q: Floats, k: int = 1, exclude: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Floats, npt.NDArray[np.intp]]:
        """q [m, dim] -> distances [m, k] in rising order (Euclidean, or 1 - cos) and their rows [m, k].

        k is cut to n. `exclude` [m, n] hides rows from a query; k others must remain. Of equal rows the first
        counts; the batch that a query comes in does not change its result.
        """
        k = min(k, len(self))
        queries = self._place(q)
        distances, indices = np.empty((len(q), k)), np.empty((len(q), k), dtype=np.intp)
        for start in range(0, len(q), CHUNK):
            part = queries[start : start + CHUNK]
            rough = self._halves - part @ self.rows.T  # half the squared distance, short of the query's own length
            if exclude is not None:
                rough[exclude[start : start + CHUNK]] = np.inf
            for i, row in enumerate(rough, start):
                near = _smallest(row, k + SPARE)
                if exclude is not None:
                    near = near[row[near] < np.inf]
                difference = self.rows[near].astype(np.float64) - queries[i]
                exact = np.einsum("ij,ij->i", difference, difference)
                order = exact.argsort(kind="stable")[:k]
                distances[i], indices[i] = np.sqrt(exact[order]), near[order]
        return (distances**2 / 2 if self.cosine else distances), indices

    def closest(self, q: Floats) -> float:
        """q [dim] -> its distance from the nearest row: `nearest` for one window, in a third of the calls. Of rows as
        near as float32 can tell, any may be taken."""
        query = self._place(q)
        difference = self.rows[(self._halves - self.rows @ query).argmin()] - query
        squared = float(np.dot(difference, difference))
        return squared / 2 if self.cosine else math.sqrt(squared)

    def mean_of_nearest(self, q: Floats, k: int) -> Floats:
        """q [m, dim] -> [m]."""
        return np.asarray(self.nearest(q, k)[0].mean(axis=1), dtype=np.float64)

    def _place(self, q: Floats) -> npt.NDArray[np.float32]:
        return ((unit(q) if self.cosine else q) - self.centre).astype(np.float32)

    def arrays(self, prefix: str = "") -> Arrays:
        arrays: Arrays = {name: getattr(self, name) for name in ("centre", "rows", "scale")}
        return {prefix + name: array for name, array in {**arrays, "cosine": np.array(self.cosine)}.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str = "") -> Self:
        """Raises BaselineError."""
        rows = np.asarray(take(arrays, f"{prefix}rows", 2), dtype=np.float32)
        centre, scale = (np.asarray(take(arrays, prefix + name, 1), np.float64) for name in ("centre", "scale"))
        return cls(centre, rows, scale, bool(take(arrays, f"{prefix}cosine", 0)))


def _smallest(row: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Indices of the `count` smallest values, in rising order of index."""
    if count >= len(row):
        return np.arange(len(row))
    near: npt.NDArray[np.intp] = row.argpartition(count)[:count]
    near.sort()
    return near


def unit(x: Floats) -> Floats:
    """Rows [..., dim] scaled to length 1; a zero row stays zero."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300), dtype=np.float64)
