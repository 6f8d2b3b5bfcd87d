"""A bank of its own for every band of an embedding, their distances averaged (BEAM), less what the density of the
normals explains (VarMin).

An embedding of n bands holds one vector a band (a network's layers joined with their frequencies kept apart). A fault
changes some bands; in one cosine of all of them it drowns, and the nearest normal of one band need not be that of
another. In band f the distance is min over normals i of (1 - cos) / 2 - a_f b_if. There b_if is the mean distance of
normal i to its nearest others, and a_f = Cov(d, b) / Var(b) with d the distance of every normal to its nearest other:
what of a distance only says how close normals lie there is taken away (arXiv 2608.00447).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, queries, query, rows, spread, take
from asd_agent.errors import BaselineError, CalibrationError
from asd_agent.types import Floats

NEIGHBOURS = 4
LEAST = 0.1  # of the shift: an agent takes logarithms, and a distance near 0 would be far from all others
SMALLEST = 1e-12  # of a length or a variance: below it there is none


@dataclass(frozen=True)
class Beam:
    kind: ClassVar[str] = "beam"
    rows: npt.NDArray[np.float32]  # [n, dim] every band of length 1
    offset: npt.NDArray[np.float32]  # [n, bands] what is taken from a distance; zeros without VarMin
    blocks: npt.NDArray[np.int64]  # [bands] values in each band
    scale: Floats  # [dim] standard deviation of the rows, floored
    shift: float  # mean over bands of the mean offset: keeps distances of usual sound above 0
    _starts: npt.NDArray[np.intp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n, dim = self.rows.shape
        if self.offset.shape != (n, len(self.blocks)) or self.blocks.sum() != dim or self.scale.shape != (dim,):
            raise BaselineError("bank: rows, offsets and bands do not fit together; calibrate anew")
        object.__setattr__(self, "_starts", np.concatenate([[0], np.cumsum(self.blocks)[:-1]]).astype(np.intp))

    @classmethod
    def fit(
        cls,
        x: npt.ArrayLike,
        *,
        target: npt.ArrayLike | None = None,
        blocks: Sequence[int] | None = None,
        varmin: bool = True,
        neighbours: int = NEIGHBOURS,
    ) -> Self:
        """x [n, dim] and target [t, dim] in one bank, n + t >= 2. `blocks`: values in each band; None = one band.
        `neighbours` is cut to n + t - 1. Raises CalibrationError.
        """
        both = rows(x, at_least=2)
        if target is not None:
            both = np.vstack([both, rows(target, 1, "target embeddings")])
        sizes = np.array(list(blocks or [both.shape[1]]), np.int64)
        if sizes.sum() != both.shape[1] or sizes.min() < 1:
            raise CalibrationError(f"bands of {sizes.sum()} values do not fit an embedding of {both.shape[1]}")
        unit = _unit(both, sizes)
        zeros = np.zeros((len(both), len(sizes)), np.float32)
        bank = cls(unit, zeros, sizes, spread(unit.astype(np.float64)), 0.0)
        if not varmin:
            return bank
        offset = bank._explained(min(neighbours, len(both) - 1))
        return cls(unit, offset.astype(np.float32), sizes, bank.scale, float(offset.mean()))

    def distance(self, q: npt.ArrayLike) -> Floats:
        """q [m, dim] -> [m], never negative: the mean over bands."""
        placed = _unit(queries(q, self.rows.shape[1]), self.blocks)
        found = [(self._bands(row) - self.offset).min(axis=0).mean(dtype=np.float64) for row in placed]
        return np.maximum(np.array(found, np.float64) + self.shift, LEAST * self.shift)

    def around(self, x: npt.ArrayLike) -> Self:
        """The same bands and the same way to measure, other normals x [n >= 2, dim]."""
        varmin = bool(np.any(self.offset))
        return self.fit(x, blocks=self.blocks.tolist(), varmin=varmin)

    def neighbours(self, q: npt.ArrayLike, most: int) -> tuple[Floats, npt.NDArray[np.intp]]:
        """q [dim] -> distances [most], averaged over bands, and rows of the nearest, in the order of `fit`."""
        placed = _unit(query(q, self.rows.shape[1])[None], self.blocks)[0]
        found = self._bands(placed).mean(axis=1, dtype=np.float64)
        order = found.argsort(kind="stable")[:most]
        return found[order], order

    def arrays(self) -> Arrays:
        names = ("rows", "offset", "blocks", "scale")
        return {**{name: getattr(self, name) for name in names}, "shift": np.array(self.shift)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        return cls(
            np.asarray(take(arrays, "rows", 2), np.float32),
            np.asarray(take(arrays, "offset", 2), np.float32),
            np.asarray(take(arrays, "blocks", 1), np.int64),
            np.asarray(take(arrays, "scale", 1), np.float64),
            float(take(arrays, "shift", 0)),
        )

    def _bands(self, placed: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[dim], bands of length 1 -> [n, bands] (1 - cos) / 2 to every normal."""
        difference = self.rows - placed
        difference *= difference
        return np.asarray(np.add.reduceat(difference, self._starts, axis=1) / 4, np.float32)

    def _explained(self, neighbours: int) -> Floats:
        """[n, bands] a_f b_if."""
        nearest, density = (np.empty(self.offset.shape) for _ in range(2))
        for i, row in enumerate(self.rows):
            others = np.sort(np.delete(self._bands(row), i, axis=0), axis=0)[:neighbours]
            nearest[i], density[i] = others[0], others.mean(axis=0)
        centred = density - density.mean(axis=0)
        variance = (centred**2).mean(axis=0)
        covariance = (centred * (nearest - nearest.mean(axis=0))).mean(axis=0)
        slope = np.where(variance > SMALLEST**2, covariance / np.maximum(variance, SMALLEST**2), 0.0)
        return np.asarray(slope * density)


def _unit(x: Floats, blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """x [m, dim] -> [m, dim] with every band scaled to length 1; a band of zeros stays."""
    starts = np.concatenate([[0], np.cumsum(blocks)[:-1]]).astype(np.intp)
    length = np.sqrt(np.add.reduceat(x * x, starts, axis=1))
    return np.asarray(x / np.repeat(np.maximum(length, SMALLEST), blocks, axis=1), np.float32)
