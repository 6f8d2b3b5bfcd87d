"""BEAM with VarMin against the formula, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from asd_agent import bank
from asd_agent.bank.beam import Beam
from asd_agent.errors import CalibrationError

RNG = np.random.default_rng(0)
BLOCKS = [5, 3, 4]


def half_cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float((1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y)) / 2)


def literal(normals: np.ndarray, q: np.ndarray, neighbours: int) -> float:
    """Band by band, pair by pair."""
    total, shift, start = 0.0, 0.0, 0
    for size in BLOCKS:
        x, one = normals[:, start : start + size], q[start : start + size]
        near = [sorted(half_cosine(x[i], x[j]) for j in range(len(x)) if j != i)[:neighbours] for i in range(len(x))]
        b, d = np.array([np.mean(row) for row in near]), np.array([row[0] for row in near])
        slope = np.mean((d - d.mean()) * (b - b.mean())) / b.var()
        total += min(half_cosine(one, x[i]) - slope * b[i] for i in range(len(x)))
        shift += float(np.mean(slope * b))
        start += size
    return max(total + shift, 0.1 * shift) / len(BLOCKS)


def test_the_formula() -> None:
    normals, queries = RNG.normal(1, 1, (20, 12)), RNG.normal(1, 2, (6, 12))
    fitted = Beam.fit(normals, blocks=BLOCKS, neighbours=4)
    assert fitted.distance(queries) == pytest.approx([literal(normals, q, 4) for q in queries], rel=1e-4)


def test_without_varmin_it_is_the_mean_of_the_bands() -> None:
    normals, q = RNG.normal(1, 1, (20, 12)), RNG.normal(1, 2, 12)
    parts, start = [], 0
    for size in BLOCKS:
        parts.append(min(half_cosine(q[start : start + size], x[start : start + size]) for x in normals))
        start += size
    assert Beam.fit(normals, blocks=BLOCKS, varmin=False).distance(q[None])[0] == pytest.approx(
        np.mean(parts), rel=1e-4
    )


def test_a_fault_in_one_band_is_not_drowned() -> None:
    """Twenty bands of which nineteen are loud: a change of the quiet one is nothing in the joint cosine."""
    gains = np.repeat([0.02] + [1.0] * 19, 8)
    centre = RNG.normal(0, 1, 160)

    def clips(n: int) -> np.ndarray:
        return (centre + 0.3 * RNG.normal(0, 1, (n, 160))) * gains

    normals, usual, faulty = clips(100), clips(50), clips(50)
    faulty[:, :8] = gains[:8] * RNG.normal(0, 1, (50, 8))

    def auc(fitted: bank.Bank) -> float:
        return float((fitted.distance(faulty)[:, None] > fitted.distance(usual)[None]).mean())

    assert auc(bank.fit("beam", normals, blocks=[8] * 20)) > 0.95
    assert auc(bank.fit("cosine", normals)) < 0.65


def test_sparse_normals_are_not_anomalies() -> None:
    """A dense source and a sparse target: usual clips of both score alike."""
    dense, sparse = RNG.normal(0, 0.1, 30) + 1, RNG.normal(0, 0.1, 30) - 1

    def clips(centre: np.ndarray, width: float, n: int) -> np.ndarray:
        return centre + width * RNG.normal(0, 1, (n, 30))

    normals = np.concatenate([clips(dense, 0.1, 80), clips(sparse, 0.4, 20)])
    of = {
        varmin: [
            float(np.median(Beam.fit(normals, varmin=varmin).distance(clips(*where, 50))))
            for where in ((dense, 0.1), (sparse, 0.4))
        ]
        for varmin in (False, True)
    }
    assert of[False][1] > 5 * of[False][0]
    assert of[True][1] < 2 * of[True][0]


def test_neighbours_and_other_normals() -> None:
    normals = RNG.normal(1, 1, (20, 12))
    fitted = Beam.fit(normals, blocks=BLOCKS)
    distances, rows = bank.nearest(fitted, normals[7], 3)
    assert rows[0] == 7
    assert distances[0] < 1e-6
    assert (np.diff(distances) >= 0).all()
    other = bank.around(fitted, normals[:5])
    assert isinstance(other, Beam)
    assert len(other.rows) == 5
    assert other.offset.any()
    assert not Beam.fit(normals, varmin=False).around(normals[:5]).offset.any()


def test_bands_must_fit() -> None:
    with pytest.raises(CalibrationError, match="bands of 7 values do not fit an embedding of 12"):
        Beam.fit(RNG.normal(size=(5, 12)), blocks=[3, 4])
