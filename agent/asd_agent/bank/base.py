"""What every bank is, and the checks that all of them share.

Fitting, scoring and deciding are three things: a bank is fitted once, then only measures. High = anomalous.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from asd_agent.errors import BaselineError, BundleError, CalibrationError
from asd_agent.types import Floats

Arrays = dict[str, npt.NDArray[Any]]


class Bank(Protocol):
    """A memory of normal embeddings, made by `fit`. Immutable; safe to share between threads."""

    @property
    def kind(self) -> str:
        """The name under which `bank.fit` and `bank.from_arrays` know it."""

    def distance(self, q: npt.ArrayLike) -> Floats:
        """q [m, dim] -> [m]; the batch that a row comes in does not change a bit of its distance."""

    def arrays(self) -> Arrays:
        """All there is to know of the bank; `from_arrays` restores it bit by bit."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises BaselineError when an array is missing or does not fit."""


def rows(x: npt.ArrayLike, at_least: int = 1, what: str = "embeddings") -> Floats:
    """Normal embeddings as float64 [n, dim]; raises CalibrationError for NaN, a wrong shape or too few."""
    out = np.asarray(x, dtype=np.float64)
    if out.ndim != 2 or out.shape[1] == 0:
        raise CalibrationError(f"{what}: shape {out.shape} is not [windows, dimensions]")
    if len(out) < at_least:
        raise CalibrationError(f"{what}: {len(out)} windows of normal sound, at least {at_least} are needed")
    if bad := int(np.count_nonzero(~np.isfinite(out).all(axis=1))):
        raise CalibrationError(f"{what}: {bad} of {len(out)} windows hold NaN or infinity; leave them out")
    return out


def queries(q: npt.ArrayLike, dim: int) -> Floats:
    """Embeddings to score as float64 [m, dim]; BaselineError for a wrong width, BundleError for NaN."""
    out = np.asarray(q, dtype=np.float64)
    if out.ndim != 2 or out.shape[1] != dim:
        raise BaselineError(f"embeddings of shape {out.shape} do not fit a bank of [windows, {dim}]: calibrate anew")
    if not math.isfinite(np.vdot(out, out)):
        raise BundleError("the embedding holds NaN or infinity: the encoder or its input is damaged")
    return out


def query(q: npt.ArrayLike, dim: int) -> Floats:
    """One embedding [dim], checked like `queries`."""
    one: Floats = queries(np.asarray(q)[None], dim)[0]
    return one


def spread(x: Floats) -> Floats:
    """x [n, dim] -> standard deviations [dim], none below a tenth of the median one."""
    sd = x.std(axis=0)
    sd = np.maximum(sd, np.median(sd) / 10)
    return np.asarray(np.where(sd > 0, sd, 1.0), dtype=np.float64)


def take(arrays: Mapping[str, npt.NDArray[Any]], name: str, ndim: int) -> npt.NDArray[Any]:
    """One stored array, finite and of the right rank; raises BaselineError."""
    if name not in arrays:
        raise BaselineError(f"bank: the array {name!r} is missing; calibrate anew")
    out = np.asarray(arrays[name])
    if out.ndim != ndim or not np.isfinite(out).all():
        raise BaselineError(f"bank: the array {name!r} is damaged (shape {out.shape}); calibrate anew")
    return out


def in_order(x: Floats) -> Floats:
    """x [n, dim] -> its rows sorted by value, so that random draws do not depend on their order."""
    return x[np.lexsort(x.T[::-1])]
