"""Nearest of a few k-means centres of the source and of all target clips (ssl4asd: 16 centres, cosine)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, in_order, queries, rows
from asd_agent.bank.memory import Memory, Metric, unit
from asd_agent.types import Floats

CENTRES = 16
STARTS = 5
ROUNDS = 100


@dataclass(frozen=True)
class KMeans:
    kind: ClassVar[str] = "kmeans"
    memory: Memory  # centres, then the target

    @classmethod
    def fit(
        cls,
        x: npt.ArrayLike,
        *,
        target: npt.ArrayLike | None = None,
        centres: int = CENTRES,
        metric: Metric = "cosine",
        seed: int = 0,
    ) -> Self:
        """x [n, dim]; as many centres as asked for, at most n; target [t, dim]. Raises CalibrationError."""
        source = rows(x)
        source = in_order(unit(source) if metric == "cosine" else source)
        found = kmeans(source, min(centres, len(source)), np.random.default_rng(seed))
        if target is not None:
            found = np.vstack([found, rows(target, 1, "target embeddings")])
        return cls(Memory.of(found, metric))

    def distance(self, q: npt.ArrayLike) -> Floats:
        """q [m, dim] -> [m]."""
        return self.memory.mean_of_nearest(queries(q, self.memory.dim), 1)

    def arrays(self) -> Arrays:
        return self.memory.arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        return cls(Memory.from_arrays(arrays))


def kmeans(x: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Centres [k, dim] of x [n, dim]: of several starts the one with the smallest squared distances."""
    found = [_lloyd(x, _spread_out(x, k, rng)) for _ in range(STARTS)]
    return min(found, key=lambda centres: float((Memory.of(centres).nearest(x)[0] ** 2).sum()))


def _lloyd(x: Floats, centres: Floats) -> Floats:
    owner = np.full(len(x), -1)
    for _ in range(ROUNDS):
        nearest = Memory.of(centres).nearest(x)[1][:, 0]
        if np.array_equal(nearest, owner):
            break
        owner = nearest
        for c in np.unique(owner):  # a centre that nobody is nearest to stays where it is
            centres[c] = x[owner == c].mean(axis=0)
    return centres


def _spread_out(x: Floats, k: int, rng: np.random.Generator) -> Floats:
    """Rows of x far from each other: k-means++ (Arthur and Vassilvitskii, 2007)."""
    chosen = [int(rng.integers(len(x)))]
    squared = ((x - x[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < k:
        total = squared.sum()
        odds = squared / total if total > 0 else None  # fewer distinct rows than centres: any will do
        chosen.append(int(rng.choice(len(x), p=odds)))
        squared = np.minimum(squared, ((x - x[chosen[-1]]) ** 2).sum(axis=1))
    return x[chosen].copy()
