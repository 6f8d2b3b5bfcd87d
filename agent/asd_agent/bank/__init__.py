"""Banks: memories of normal embeddings that measure how far a new one is. One back-end a file, numpy only.

An agent fits "whitened", "cosine", "euclidean" and "beam" on site, as the bundle says; the others serve domain shift:
they come fitted with a bundle (`asd-export bundle --bank`), and the training's evaluation uses them. `smote` and
`memmixup` make more target rows before a fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import Arrays, Bank, rows
from asd_agent.bank.beam import Beam
from asd_agent.bank.domain_z import DomainZ, transductive
from asd_agent.bank.kmeans import KMeans
from asd_agent.bank.local_density import LocalDensity
from asd_agent.bank.memmixup import memmixup
from asd_agent.bank.memory import unit
from asd_agent.bank.nearest import Nearest
from asd_agent.bank.selective_mahalanobis import SelectiveMahalanobis
from asd_agent.bank.smote import smote
from asd_agent.bank.two_bank import TwoBank
from asd_agent.bank.whitened import Whitened
from asd_agent.config import plugins
from asd_agent.errors import AsdError, BaselineError, CalibrationError, UsageError
from asd_agent.types import Floats

__all__ = [
    "KINDS", "Arrays", "Bank", "Widen", "around", "fit", "from_arrays", "memmixup", "nearest", "signed", "smote",
    "transductive", "widened",
]  # fmt: skip

_FIT: dict[str, Callable[..., Bank]] = {
    "whitened": Whitened.fit,
    "cosine": partial(Nearest.fit, metric="cosine"),
    "euclidean": partial(Nearest.fit, metric="euclidean"),
    "two_bank": TwoBank.fit,
    "local_density": LocalDensity.fit,
    "kmeans": KMeans.fit,
    "selective_mahalanobis": SelectiveMahalanobis.fit,
    "domain_z": DomainZ.fit,
    "beam": Beam.fit,
}
_RESTORE: dict[str, Callable[[Mapping[str, npt.NDArray[Any]]], Bank]] = {
    "whitened": Whitened.from_arrays,
    "cosine": Nearest.from_arrays,
    "euclidean": Nearest.from_arrays,
    "two_bank": TwoBank.from_arrays,
    "local_density": LocalDensity.from_arrays,
    "kmeans": KMeans.from_arrays,
    "selective_mahalanobis": SelectiveMahalanobis.from_arrays,
    "domain_z": DomainZ.from_arrays,
    "beam": Beam.from_arrays,
}
KINDS = tuple(_FIT)

Widen = Literal["smote", "memmixup", "density", "none"]
SMOTE_TO = 0.5  # a few windows of a new condition are oversampled to this share of the source's
MIXED = 100


def fit(kind: str, x: npt.ArrayLike, **options: Any) -> Bank:
    """A bank of normal embeddings x [n, dim]; options as in `fit` of that kind. Raises CalibrationError."""
    if kind in _FIT:
        return _FIT[kind](x, **options)
    made: Bank = _plugin(kind, CalibrationError).fit(x, **options)
    return made


def from_arrays(kind: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Bank:
    """The bank that `arrays()` described. Raises BaselineError."""
    if kind in _RESTORE:
        return _RESTORE[kind](arrays)
    made: Bank = _plugin(kind, BaselineError).from_arrays(arrays)
    return made


def _plugin(kind: str, error: type[AsdError]) -> Any:
    """A class like those here, from another package. Raises `error`."""
    try:
        return plugins.load("asd_agent.detectors", kind)
    except UsageError as exc:
        raise error(f"unknown distance {kind!r}: one of {', '.join(KINDS)}; {exc}") from exc


def signed(model: Bank) -> bool:
    """Whether its distances are standard scores already: negative for the most normal."""
    return isinstance(model, DomainZ)


def around(model: Bank, x: npt.ArrayLike, how: Widen = "none") -> Bank:
    """The measure of distance of `model` with other normals x [n, dim], rescaled by their local density where that is
    `how` a new condition is widened. Raises CalibrationError for a bank that has no such measure."""
    measure = _measure(model)
    if isinstance(measure, Beam):
        return measure.around(x)
    if not isinstance(measure, Whitened | Nearest):
        raise CalibrationError(f"a bank of kind {model.kind!r} cannot be extended: calibrate anew")
    other = measure.around(x)
    return LocalDensity.of(other, rows(x, at_least=2)) if how == "density" else other


def widened(model: Bank, target: npt.ArrayLike, how: Widen, share: int) -> Floats:
    """A few rows of a new condition, target [t, dim], as more: by SMOTE to half of `share`, or by MemMixup, each row
    with a little of every normal of `model`, up to a hundred. Raises CalibrationError."""
    x = rows(target, 1, "target embeddings")
    if how == "smote":
        return smote(x, n_source=share, ratio=SMOTE_TO, neighbours=min(3, len(x) - 1), metric="euclidean")
    measure = _measure(model)
    if how == "memmixup" and isinstance(measure, Whitened | Nearest):
        return memmixup(unit(x) if measure.kind == "cosine" else x, measure.normals(), neighbours=MIXED)
    return x


def nearest(model: Bank, q: npt.ArrayLike, most: int) -> tuple[Floats, npt.NDArray[np.intp]]:
    """q [dim] -> distances and rows of the nearest `most` normals, in rising order; empty for a bank without rows."""
    if isinstance(model, Whitened | Nearest | LocalDensity | Beam):
        return model.neighbours(q, most)
    return np.zeros(0), np.zeros(0, np.intp)


def _measure(model: Bank) -> Bank:
    return model.measure if isinstance(model, LocalDensity) else model
