"""One contract for every bank: what a river-style checker would ask of each scorer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asd_agent import bank
from asd_agent.errors import BaselineError, BundleError, CalibrationError

DIM = 24


def normals(n: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Correlated values of unequal scale around a far-off mean, like log spectra in dB."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dim, dim)) / np.sqrt(dim)
    return (-60 + rng.normal(size=(n, dim)) @ mix * np.geomspace(0.3, 5, dim)).astype(np.float32)


TARGET = normals(9, seed=1) + 3.0
OPTIONS: dict[str, dict[str, Any]] = {
    "whitened": {},
    "cosine": {},
    "euclidean": {},
    "two_bank": {"target": TARGET},
    "local_density": {"target": TARGET},
    "kmeans": {"target": TARGET},
    "selective_mahalanobis": {"target": TARGET},
    "domain_z": {"target": TARGET, "mixup": 5},
    "beam": {"target": TARGET, "blocks": [8, 16]},
}
CASES = [
    *OPTIONS.items(),
    ("whitened", {"blocks": [8, 16]}),
    ("cosine", {"k": 3}),
    ("euclidean", {"k": 3}),
    ("two_bank", {"target": TARGET, "metric": "euclidean", "k": 2}),
    ("local_density", {"metric": "euclidean"}),
    ("kmeans", {"centres": 4}),
    ("domain_z", {"target": TARGET}),
    ("two_bank", {"target": TARGET, "scaled": True}),
    ("beam", {"blocks": [8, 16], "varmin": False}),
    ("beam", {}),
]
every_bank = pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=[f"{k}-{'-'.join(o) or 'plain'}" for k, o in CASES]
)


def test_every_kind_is_under_contract() -> None:
    assert set(OPTIONS) == set(bank.KINDS)


@every_bank
def test_high_is_anomalous_and_scores_are_finite(kind: str, options: dict[str, Any]) -> None:
    fitted = bank.fit(kind, normals(60), **options)
    held_out = fitted.distance(normals(80)[60:])
    shifted = fitted.distance(normals(80)[60:] + 10 * np.linspace(-1, 1, DIM))
    assert held_out.shape == (20,)
    assert held_out.dtype == np.float64
    assert np.isfinite(held_out).all()
    assert np.isfinite(shifted).all()
    assert shifted.min() > held_out.max()


@every_bank
def test_scoring_learns_nothing_and_the_batch_changes_no_bit(kind: str, options: dict[str, Any]) -> None:
    fitted = bank.fit(kind, normals(60), **options)
    q = normals(400, seed=5)
    before = fitted.arrays()
    together = fitted.distance(q)
    assert np.array_equal(together, [fitted.distance(row[None])[0] for row in q])
    assert np.array_equal(together[::-1], fitted.distance(q[::-1]))
    assert all(np.array_equal(array, before[name]) for name, array in fitted.arrays().items())


@every_bank
def test_the_order_of_the_normals_does_not_matter(kind: str, options: dict[str, Any]) -> None:
    x, q = normals(60), normals(30, seed=5)
    order = np.random.default_rng(3).permutation(len(x))
    there = bank.fit(kind, x, **options).distance(q)
    assert bank.fit(kind, x[order], **options).distance(q) == pytest.approx(there, rel=1e-4)


@pytest.mark.parametrize("kind", ["whitened", "cosine", "euclidean", "two_bank", "local_density"])
def test_a_member_is_no_distance_away(kind: str) -> None:
    """Of the others one keeps no single rows, one averages, one scores relative to the members."""
    x, options = normals(60), OPTIONS[kind]
    assert bank.fit(kind, x, **options).distance(x).max() < 1e-9


@every_bank
def test_arrays_restore_the_bank_bit_by_bit(kind: str, options: dict[str, Any]) -> None:
    fitted = bank.fit(kind, normals(60), **options)
    restored = bank.from_arrays(fitted.kind, fitted.arrays())
    q = normals(20, seed=5)
    assert restored.kind == kind
    assert np.array_equal(restored.distance(q), fitted.distance(q))
    for name, array in fitted.arrays().items():
        again = restored.arrays()[name]
        assert again.dtype == array.dtype
        assert again.tobytes() == array.tobytes()


@every_bank
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_refused(kind: str, options: dict[str, Any], bad: float) -> None:
    x = normals(60)
    fitted = bank.fit(kind, x, **options)
    x[3, 2] = bad
    with pytest.raises(CalibrationError, match="1 of 60 windows hold NaN or infinity"):
        bank.fit(kind, x, **options)
    with pytest.raises(BundleError, match="NaN or infinity"):
        fitted.distance(x)


@every_bank
def test_what_does_not_fit_is_refused(kind: str, options: dict[str, Any]) -> None:
    fitted = bank.fit(kind, normals(60), **options)
    with pytest.raises(BaselineError, match="calibrate anew"):
        fitted.distance(normals(5, dim=DIM + 1))
    with pytest.raises(CalibrationError, match="at least"):
        bank.fit(kind, normals(60)[:0], **options)
    arrays = fitted.arrays()
    for name in arrays:
        with pytest.raises(BaselineError, match=f"{name}.*missing"):
            bank.from_arrays(kind, {n: a for n, a in arrays.items() if n != name})
        damaged = np.full(arrays[name].shape, np.nan)
        with pytest.raises(BaselineError, match=f"{name}.*damaged"):
            bank.from_arrays(kind, {**arrays, name: damaged})


@every_bank
def test_equal_normals_are_no_division_by_zero(kind: str, options: dict[str, Any]) -> None:
    x = np.repeat(normals(1), 20, axis=0)
    if "target" in options:
        options = {**options, "target": x[:9]}
    fitted = bank.fit(kind, x, **options)
    assert np.isfinite(fitted.distance(normals(5, seed=2))).all()


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(CalibrationError, match="unknown distance 'hamming': one of whitened, cosine"):
        bank.fit("hamming", normals(9))
    with pytest.raises(BaselineError, match="unknown distance 'hamming'"):
        bank.from_arrays("hamming", {})
