"""Ledoit-Wolf covariance of few vectors in many dimensions, and the whitening that goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, take
from asd_agent.errors import BaselineError
from asd_agent.types import Floats

SMALLEST = 0.02  # of the shrinkage


def ledoit_wolf(x: Floats) -> float:
    """Optimal shrinkage (0 to 1) of the covariance of centred x [n, dim] towards mean variance x identity.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J. Multivariate
    Analysis 88 (2004), as in scikit-learn; through the smaller of the two Gram matrices.
    """
    n, dim = x.shape
    gram = (x @ x.T if n < dim else x.T @ x) / n
    mean_variance = np.trace(gram) / dim
    squared = float((gram**2).sum())  # |S|^2
    noise = (float((np.einsum("ij,ij->i", x, x) ** 2).sum()) / n - squared) / n  # of the entries of S, summed
    distance = squared - dim * mean_variance**2  # |S - mean_variance I|^2
    return 0.0 if noise <= 0 else float(min(noise, distance) / distance) if distance > 0 else 1.0


@dataclass(frozen=True)
class Whitening:
    """Maps differences of (standardised) embeddings to where the normals vary by one in every direction.

    Inside the span of the normals by its axes; outside it the covariance is floor x identity, so a part
    outside counts with its squared length / floor.
    """

    axes: Floats  # [rank, dim] orthonormal directions of the normals
    deviations: Floats  # [rank] standard deviation along them, after shrinkage
    floor: float  # shrinkage x mean variance

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.deviations) or not self.floor > 0 or not (self.deviations > 0).all():
            raise BaselineError("bank: the whitening does not fit together; calibrate anew")

    @classmethod
    def of(cls, x: Floats) -> Self:
        """x [n, dim], centred. With n < dim by the SVD of the n vectors, without a dim x dim matrix."""
        n, dim = x.shape
        shrinkage = max(ledoit_wolf(x), SMALLEST)
        mean_variance = float(np.einsum("ij,ij->", x, x)) / (n * dim)
        floor = shrinkage * mean_variance if mean_variance > 0 else 1.0
        if n < dim:
            _, singular, axes = np.linalg.svd(x, full_matrices=False)
            variances = singular**2 / n
        else:
            variances, vectors = np.linalg.eigh(x.T @ x / n)
            axes = np.ascontiguousarray(vectors.T)
        return cls(axes, np.sqrt((1 - shrinkage) * np.maximum(variances, 0) + floor), floor)

    def inside(self, d: Floats) -> Floats:
        """d [m, dim] -> [m, rank] whitened coordinates in the span of the normals."""
        return np.array([self.split(row)[0] for row in d]).reshape(len(d), len(self.axes))

    def split(self, d: Floats) -> tuple[Floats, float]:
        """d [dim] -> its whitened coordinates in the span of the normals [rank], and the squared whitened length of
        what lies outside. One at a time: a matrix product would round by the size of the batch."""
        along = self.axes @ d
        inside = np.asarray(along / self.deviations, np.float64)
        if self.axes.shape[0] == self.axes.shape[1]:
            return inside, 0.0
        rest = float(np.dot(d, d)) - float(np.dot(along, along))  # Pythagoras; the axes are orthonormal
        return inside, max(rest, 0.0) / self.floor

    def back(self, w: Floats) -> Floats:
        """[rank] whitened -> [dim]."""
        return np.asarray((w * self.deviations) @ self.axes, dtype=np.float64)

    def arrays(self, prefix: str = "") -> Arrays:
        return {
            f"{prefix}axes": self.axes,
            f"{prefix}deviations": self.deviations,
            f"{prefix}floor": np.array(self.floor),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], prefix: str = "") -> Self:
        """Raises BaselineError."""
        axes = np.asarray(take(arrays, f"{prefix}axes", 2), np.float64)
        deviations = np.asarray(take(arrays, f"{prefix}deviations", 1), np.float64)
        return cls(axes, deviations, float(take(arrays, f"{prefix}floor", 0)))
