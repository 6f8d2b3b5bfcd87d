"""GenRep's domain normalisation: z-scores of the distances to either bank, the smaller counts.

The publication takes mean and deviation over all test clips of a machine (`transductive`, to compare with its
figures). An agent has no test set: it takes them from leave-one-out distances, of the source clips to the
source bank and of the target clips to the target bank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, queries, rows, take
from asd_agent.bank.memmixup import memmixup
from asd_agent.bank.memory import Memory, Metric
from asd_agent.types import Floats


@dataclass(frozen=True)
class DomainZ:
    kind: ClassVar[str] = "domain_z"
    source: Memory
    target: Memory
    mean: Floats  # [2] leave-one-out distances: source, target
    sd: Floats  # [2]

    @classmethod
    def fit(cls, x: npt.ArrayLike, *, target: npt.ArrayLike, metric: Metric = "euclidean", mixup: int = 0) -> Self:
        """x [n >= 3, dim] of the source, target [t >= 3, dim]; `mixup` neighbours widen the target bank, see
        memmixup. Raises CalibrationError.
        """
        source, few = rows(x, at_least=3), rows(target, 3, "target embeddings")
        wide = memmixup(few, source, neighbours=mixup) if mixup else few
        banks = Memory.of(source, metric), Memory.of(wide, metric)
        mixed = (len(wide) - len(few)) // len(few)
        parent = np.concatenate([np.arange(len(few)), np.repeat(np.arange(len(few)), mixed)])
        left_out = (
            _without_own(banks[0], source, np.arange(len(source))),
            _without_own(banks[1], few, parent),
        )
        sd = np.array([d.std() for d in left_out])
        return cls(*banks, np.array([d.mean() for d in left_out]), np.where(sd > 0, sd, 1.0))

    def distance(self, q: npt.ArrayLike) -> Floats:
        """q [m, dim] -> [m] standard scores, negative for the most normal."""
        return np.asarray(((self.distances(q) - self.mean) / self.sd).min(axis=1), dtype=np.float64)

    def distances(self, q: npt.ArrayLike) -> Floats:
        """q [m, dim] -> [m, 2] to the source and to the target bank, before normalisation."""
        q = queries(q, self.source.dim)
        return np.stack([self.source.mean_of_nearest(q, 1), self.target.mean_of_nearest(q, 1)], axis=1)

    def arrays(self) -> Arrays:
        banks = {**self.source.arrays("source_"), **self.target.arrays("target_")}
        return {"mean": self.mean, "sd": self.sd, **banks}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        source, target = (Memory.from_arrays(arrays, prefix) for prefix in ("source_", "target_"))
        mean, sd = (np.asarray(take(arrays, name, 1), np.float64) for name in ("mean", "sd"))
        return cls(source, target, mean, sd)


def transductive(distances: Floats) -> Floats:
    """[m, 2] distances of all test clips of a machine -> [m], normalised by their own mean and deviation.

    It needs the whole test set, so an agent cannot use it.
    """
    sd = distances.std(axis=0)
    return np.asarray(((distances - distances.mean(axis=0)) / np.where(sd > 0, sd, 1.0)).min(axis=1))


def _without_own(memory: Memory, x: Floats, parent: npt.NDArray[np.intp]) -> Floats:
    """x [n, dim] -> [n] distance of every row to the nearest in memory that does not stem from itself."""
    return memory.nearest(x, exclude=parent[None] == np.arange(len(x))[:, None])[0][:, 0]
