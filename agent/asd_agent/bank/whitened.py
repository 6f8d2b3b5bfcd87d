"""Nearest neighbour after shrunk whitening: the distance that the detectors use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, queries, query, rows, spread, take
from asd_agent.bank.memory import Memory
from asd_agent.bank.shrinkage import Whitening
from asd_agent.errors import BaselineError, CalibrationError
from asd_agent.types import Floats


@dataclass(frozen=True)
class Whitened:
    """Standardise, whiten with Ledoit-Wolf shrinkage, distance to the nearest normal."""

    kind: ClassVar[str] = "whitened"
    mean: Floats  # [dim]
    scale: Floats  # [dim] standard deviations, floored
    weights: Floats  # [dim] ones, or what makes every block of a joined embedding weigh the same
    whitening: Whitening
    memory: Memory  # whitened coordinates of the normals
    _gain: Floats = field(init=False, repr=False)  # [dim] weights / scale

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.scale) == len(self.weights) == self.whitening.axes.shape[1]:
            raise BaselineError("bank: mean, scale and axes do not fit together; calibrate anew")
        object.__setattr__(self, "_gain", self.weights / self.scale)

    @classmethod
    def fit(cls, x: npt.ArrayLike, *, blocks: Sequence[int] | None = None) -> Self:
        """x [n >= 2, dim]. `blocks`: sizes of the parts of a joined embedding (layers of a network), each of
        which then weighs the same. Raises CalibrationError.
        """
        x = rows(x, at_least=2)
        mean, scale, weights = x.mean(axis=0), spread(x), _block_weights(x.shape[1], blocks)
        standard = (x - mean) / scale * weights
        whitening = Whitening.of(standard)
        return cls(mean, scale, weights, whitening, Memory.of(whitening.inside(standard)))

    def around(self, x: npt.ArrayLike) -> Self:
        """The same measure of distance, to other normals x [n, dim]: few of them do not show how normals vary."""
        standard = (queries(x, len(self.mean)) - self.mean) * self._gain
        return replace(self, memory=Memory.of(self.whitening.inside(standard)))

    def normals(self) -> Floats:
        """The normals [n, dim] again, to within what whitening leaves out."""
        standard = self.whitening.back(self.memory.rows + self.memory.centre)
        return np.asarray(standard / self._gain + self.mean, np.float64)

    def distance(self, q: npt.ArrayLike) -> Floats:
        """q [m, dim] -> [m], in standard deviations of the normals."""
        return np.array([self._distance(row) for row in queries(q, len(self.mean))], np.float64)

    def _distance(self, q: Floats) -> float:
        inside, outside = self.whitening.split((q - self.mean) * self._gain)
        return math.hypot(self.memory.closest(inside), math.sqrt(outside))

    def neighbours(self, q: npt.ArrayLike, most: int) -> tuple[Floats, npt.NDArray[np.intp]]:
        """q [dim] -> distances [most] and rows of the nearest, in the order of `fit`."""
        inside, outside = self.whitening.split((query(q, len(self.mean)) - self.mean) * self._gain)
        near, index = self.memory.nearest(inside[None], most)
        return np.asarray(np.sqrt(near[0] ** 2 + outside), np.float64), index[0]

    def arrays(self) -> Arrays:
        own = {"mean": self.mean, "scale": self.scale, "weights": self.weights}
        return {**own, **self.whitening.arrays(), **self.memory.arrays("near_")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        mean, scale, weights = (np.asarray(take(arrays, n, 1), np.float64) for n in ("mean", "scale", "weights"))
        return cls(mean, scale, weights, Whitening.from_arrays(arrays), Memory.from_arrays(arrays, "near_"))


def _block_weights(dim: int, blocks: Sequence[int] | None) -> Floats:
    """[dim] 1 / root of (values in the block x number of blocks): every block has the same total variance."""
    if blocks is None:
        return np.ones(dim)
    if sum(blocks) != dim or min(blocks, default=0) < 1:
        raise CalibrationError(f"the blocks {list(blocks)} do not add up to the {dim} values of the embedding")
    return 1 / np.sqrt(np.repeat(blocks, blocks) * float(len(blocks)))
