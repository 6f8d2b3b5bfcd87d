"""Embeddings of one machine's clips -> anomaly scores, with the back-ends that ship in the agent.

The recipes of the reports, as `scoring:` of a configuration:
    A, B  {kind: cosine}                                      nearest normal of either domain
    B     {kind: cosine, bank: target, smote: 1, smote_neighbours: 2}        the oversampled target alone
    C     {kind: domain_z, metric: euclidean, memmixup: 990, transductive: true}                   GenRep
    D     {kind: two_bank, smote: 0.2}                        the smaller of both domains, target oversampled
    E     {kind: euclidean}
and without training (arXiv 2608.00447)
          {kind: beam}          a bank for each band of the embedding, by poolings that keep frequencies apart
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from asd_agent import bank
from asd_agent.bank.domain_z import DomainZ
from asd_agent.bank.memory import Metric
from asd_agent.errors import CalibrationError, UsageError
from asd_agent.types import Floats
from asd_train.weighting import Weight, Weights

Kind = Literal[
    "cosine",
    "euclidean",
    "whitened",
    "two_bank",
    "local_density",
    "kmeans",
    "selective_mahalanobis",
    "domain_z",
    "beam",
]
_NEEDS_TARGET = ("two_bank", "selective_mahalanobis", "domain_z")
_TAKES_TARGET = (*_NEEDS_TARGET, "local_density", "kmeans", "beam")
FOLDS = 5


class Scoring(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How embeddings become scores."""

    kind: Kind = "cosine"
    metric: Metric = "cosine"  # of two_bank, local_density, kmeans, domain_z, and of smote
    k: Annotated[int, Meta(ge=1)] = 1  # neighbours (cosine, euclidean, two_bank)
    centres: Annotated[int, Meta(ge=1)] = 16  # kmeans
    density_neighbours: Annotated[int, Meta(ge=1)] = 4  # local_density, beam
    varmin: bool = True  # beam: what the density of the normals explains is taken from the distances
    scaled: bool = False  # two_bank: distances to each bank over the spacing of its rows
    smote: Annotated[float, Meta(ge=0, le=1)] = 0.0  # target oversampled to this share of the source; 0 = not
    smote_neighbours: Annotated[int, Meta(ge=1)] = 3
    memmixup: Annotated[int, Meta(ge=0)] = 0  # source neighbours mixed into every target vector; 0 = none
    transductive: bool = False  # domain_z by mean and deviation of the test clips, as published; no agent can
    bank: Literal["both", "target"] = "both"  # target: the (oversampled) target alone is the memory
    supplemental: Literal["none", "clean", "all"] = "none"  # which of these join the source's normals
    weight: Weight | None = None
    seed: int = 0  # of smote and kmeans

    def __post_init__(self) -> None:
        if self.transductive and self.kind != "domain_z":
            raise ValueError("transductive belongs to kind: domain_z")
        if self.bank == "target" and self.kind in _NEEDS_TARGET:
            raise ValueError(f"bank: target makes no sense with kind: {self.kind}, which compares both")


@dataclass(frozen=True)
class Normals:
    """Embeddings of the normal clips of one machine and section."""

    source: Floats  # [n, dim]
    target: Floats  # [t, dim], t may be 0

    def __len__(self) -> int:
        return len(self.source) + len(self.target)

    def folds(self) -> Iterator[tuple[Normals, Floats, npt.NDArray[np.intp]]]:
        """(normals less one contiguous block of each domain, the block [b, dim], its rows in source +
        target).

        A target of fewer than two clips a fold stays whole: no recipe for domain shift works without it.
        """
        count = min(FOLDS, len(self.source))
        target_rows = np.arange(len(self.target) if len(self.target) >= 2 * FOLDS else 0)
        blocks = zip(
            np.array_split(np.arange(len(self.source)), count),
            np.array_split(target_rows, count),
            strict=True,
        )
        for of_source, of_target in blocks:
            rest = Normals(np.delete(self.source, of_source, axis=0), np.delete(self.target, of_target, axis=0))
            block = np.concatenate([self.source[of_source], self.target[of_target]])
            yield rest, block, np.concatenate([of_source, of_target + len(self.source)])


@dataclass(frozen=True)
class Scores:
    test: Floats  # [m]
    held_out: Floats  # [n + t] normal clips, each scored by a bank without its block; NaN where that cannot be


def fit(normals: Normals, scoring: Scoring, blocks: Sequence[int] = ()) -> bank.Bank:
    """The bank of one machine; `blocks`: values in each band of the embedding, for beam. Raises UsageError when the
    recipe needs what the data has not."""
    source, target = normals.source, normals.target
    if not len(target) and (scoring.kind in _NEEDS_TARGET or scoring.smote or scoring.bank == "target"):
        raise UsageError(f"{scoring.kind}: no training clips of a target domain; use cosine, euclidean or whitened")
    try:
        if scoring.smote:
            target = _oversampled(source, target, scoring)
        if scoring.memmixup and scoring.kind != "domain_z":  # which mixes itself, for its own statistics
            target = bank.memmixup(target, source, neighbours=scoring.memmixup)
        options = _options(scoring, blocks)
        if scoring.bank == "target":
            return bank.fit(scoring.kind, target, **options)
        if scoring.kind in _TAKES_TARGET and len(target):
            return bank.fit(scoring.kind, source, target=target, **options)
        return bank.fit(scoring.kind, np.concatenate([source, target]), **options)
    except CalibrationError as exc:
        raise UsageError(f"{scoring.kind}: {exc}") from exc


def score(
    normals: Normals, test: Floats, scoring: Scoring, weights: Weights | None = None, blocks: Sequence[int] = ()
) -> Scores:
    """Scores of the test clips [m, dim] and held-out scores of the normals; high = anomalous.

    `weights` multiply distances before any standard score is taken: a negative standard score times a large
    weight would look normal.
    """
    weights = weights or (np.ones(len(test)), np.ones(len(normals)))
    fitted = fit(normals, scoring, blocks)
    measured = _distances(fitted, test) * weights[0][:, None]
    scale = (measured.mean(axis=0), measured.std(axis=0)) if scoring.transductive else None
    held_out = np.full(len(normals), np.nan)
    if len(normals.source) > 1:
        for rest, block, rows in normals.folds():
            part = fit(rest, scoring, blocks)
            held_out[rows] = _finish(part, _distances(part, block) * weights[1][rows][:, None], scale)
    return Scores(_finish(fitted, measured, scale), held_out)


def _distances(fitted: bank.Bank, x: Floats) -> Floats:
    """x [m, dim] -> [m, 1], or [m, 2] to source and target where domains are normalised apart."""
    return fitted.distances(x) if isinstance(fitted, DomainZ) else fitted.distance(x)[:, None]


def _finish(fitted: bank.Bank, distances: Floats, scale: tuple[Floats, Floats] | None) -> Floats:
    """Distances [m, 1 or 2] -> scores [m]."""
    if not isinstance(fitted, DomainZ):
        return distances[:, 0]
    mean, sd = scale or (fitted.mean, fitted.sd)
    return np.asarray(((distances - mean) / np.where(sd > 0, sd, 1.0)).min(axis=1))


def _oversampled(source: Floats, target: Floats, scoring: Scoring) -> Floats:
    of_kind: dict[str, Metric] = {"cosine": "cosine", "euclidean": "euclidean", "whitened": "euclidean"}
    of_kind["selective_mahalanobis"] = "euclidean"
    return bank.smote(
        target,
        n_source=len(source),
        ratio=scoring.smote,
        neighbours=scoring.smote_neighbours,
        metric=of_kind.get(scoring.kind, scoring.metric),
        seed=scoring.seed,
    )


def _options(scoring: Scoring, blocks: Sequence[int]) -> dict[str, Any]:
    """The arguments that this kind of bank knows."""
    known: dict[str, dict[str, Any]] = {
        "cosine": {"k": scoring.k},
        "euclidean": {"k": scoring.k},
        "two_bank": {"metric": scoring.metric, "k": scoring.k, "scaled": scoring.scaled},
        "local_density": {"metric": scoring.metric, "neighbours": scoring.density_neighbours},
        "kmeans": {"metric": scoring.metric, "centres": scoring.centres, "seed": scoring.seed},
        "domain_z": {"metric": scoring.metric, "mixup": scoring.memmixup},
        "beam": {"blocks": blocks, "varmin": scoring.varmin, "neighbours": scoring.density_neighbours},
    }
    return known.get(scoring.kind, {})
