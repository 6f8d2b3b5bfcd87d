"""What is particular to single banks, against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent import bank
from asd_agent.bank.domain_z import DomainZ
from asd_agent.bank.kmeans import kmeans
from asd_agent.bank.memory import Memory
from asd_agent.bank.shrinkage import SMALLEST, Whitening, ledoit_wolf
from asd_agent.errors import CalibrationError

rng = np.random.default_rng(7)
SOURCE, TARGET, QUERY = (
    rng.normal(size=(40, 6)),
    rng.normal(2, 1, size=(8, 6)),
    rng.normal(1, 2, size=(15, 6)),
)


def brute(q: np.ndarray, x: np.ndarray, metric: str) -> np.ndarray:
    """[m, n] distances, the slow way."""
    if metric == "cosine":
        q, x = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (q, x))
        return 1 - q @ x.T
    return np.linalg.norm(q[:, None] - x[None], axis=2)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    dim=st.integers(1, 40),
    k=st.integers(1, 70),
    metric=st.sampled_from(["euclidean", "cosine"]),
    offset=st.sampled_from([0.0, 1e4]),
    seed=st.integers(0, 9999),
)
def test_memory_finds_the_nearest(n: int, dim: int, k: int, metric: str, offset: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    x, q = (draw.normal(offset, 1, size=(rows, dim)) for rows in (n, 5))
    expected = np.sort(brute(q, x, metric), axis=1)[:, :k]
    memory = Memory.of(x, metric)  # type: ignore[arg-type]
    found, index = memory.nearest(q, k)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)  # rows are float32
    assert all(len(set(row)) == min(k, n) for row in index)
    assert [memory.closest(row) for row in q] == pytest.approx(expected[:, 0], rel=1e-4, abs=1e-6)


def test_memory_keeps_small_differences_far_from_the_origin() -> None:
    x = 1e4 + np.arange(50)[:, None] * np.ones(8) * 1e-3
    found, index = Memory.of(x).nearest(x + 1e-5)
    assert np.array_equal(index[:, 0], np.arange(50))
    assert found[:, 0] == pytest.approx(1e-5 * np.sqrt(8), rel=1e-3)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (30, 30), (2, 5), (500, 20)])
def test_ledoit_wolf_equals_scikit_learn(shape: tuple[int, int]) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    draw = np.random.default_rng(0)
    x = draw.normal(size=shape) @ np.diag(np.geomspace(1, 9, shape[1]))
    x -= x.mean(axis=0)
    assert ledoit_wolf(x) == pytest.approx(covariance.ledoit_wolf_shrinkage(x), rel=1e-9)


@pytest.mark.parametrize("n", [12, 60])
def test_whitening_is_the_mahalanobis_distance_of_the_shrunk_covariance(n: int) -> None:
    """Also outside the span of the normals, where n < dim leaves directions that calibration never saw."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(n, 20)) @ draw.normal(size=(20, 20))
    x -= x.mean(axis=0)
    shrinkage = max(ledoit_wolf(x), SMALLEST)
    sample = x.T @ x / n
    shrunk = (1 - shrinkage) * sample + shrinkage * np.trace(sample) / 20 * np.eye(20)
    d = draw.normal(size=(5, 20))
    expected = np.einsum("ij,jk,ik->i", d, np.linalg.inv(shrunk), d)
    whitening = Whitening.of(x)
    split = [whitening.split(row) for row in d]
    assert [inside @ inside + outside for inside, outside in split] == pytest.approx(expected)
    assert whitening.back(whitening.inside(x[:1])[0]) == pytest.approx(x[0])


def test_shrinkage_has_a_smallest_value() -> None:
    """Of thousands of normals of low rank, Ledoit-Wolf alone would let an unseen direction count for ever."""
    x = np.random.default_rng(0).normal(size=(5000, 2)) @ np.random.default_rng(1).normal(size=(2, 10))
    x -= x.mean(axis=0)
    assert ledoit_wolf(x) < SMALLEST
    assert Whitening.of(x).floor == pytest.approx(SMALLEST * (x**2).mean())


def test_whitened_standardises_so_that_units_do_not_matter() -> None:
    units = np.geomspace(0.5, 2, 6)  # further apart, and the floor of the deviations shows
    there = bank.fit("whitened", SOURCE).distance(QUERY)
    assert bank.fit("whitened", SOURCE * units + 5).distance(QUERY * units + 5) == pytest.approx(there, rel=1e-5)


def test_a_value_that_never_moved_is_floored_at_a_tenth_of_the_median_deviation() -> None:
    x = np.hstack([SOURCE, np.full((40, 1), 3.0)])
    fitted = bank.fit("whitened", x)
    assert fitted.arrays()["scale"][-1] == pytest.approx(np.median(x.std(axis=0)) / 10)


def test_blocks_of_a_joined_embedding_weigh_the_same() -> None:
    """One block of 2 values beside one of 200: the same shift in every value of either counts alike."""
    x = np.random.default_rng(0).normal(size=(20, 202))
    small, large = np.zeros(202), np.zeros(202)
    small[:2], large[2:] = 3, 3
    queries = np.stack([x.mean(axis=0) + small, x.mean(axis=0) + large])
    plain = bank.fit("whitened", x).distance(queries)
    even = bank.fit("whitened", x, blocks=[2, 200]).distance(queries)
    assert plain[1] > 3 * plain[0]
    assert even[1] < 3 * even[0]
    with pytest.raises(CalibrationError, match="do not add up to the 202 values"):
        bank.fit("whitened", x, blocks=[2, 199])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_two_bank_is_the_smaller_mean_of_k(metric: str) -> None:
    means = [np.sort(brute(QUERY, x, metric), axis=1)[:, :2].mean(axis=1) for x in (SOURCE, TARGET)]
    found = bank.fit("two_bank", SOURCE, target=TARGET, metric=metric, k=2).distance(QUERY)
    assert found == pytest.approx(np.minimum(*means), rel=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_local_density_divides_by_the_spacing_of_each_row(metric: str) -> None:
    both = np.vstack([SOURCE, TARGET])
    among = np.sort(brute(both, both, metric), axis=1)[:, 1:5].mean(axis=1)
    expected = (brute(QUERY, both, metric) / among).min(axis=1)
    found = bank.fit("local_density", SOURCE, target=TARGET, metric=metric).distance(QUERY)
    assert found == pytest.approx(expected, rel=1e-4)


def test_kmeans_finds_separate_clusters() -> None:
    draw = np.random.default_rng(0)
    places = 20 * np.eye(4)
    x = np.repeat(places, 25, axis=0) + draw.normal(size=(100, 4))
    centres = kmeans(x, 4, np.random.default_rng(0))
    assert np.sort(np.argmax(centres, axis=1)).tolist() == [0, 1, 2, 3]
    assert centres[np.argsort(np.argmax(centres, axis=1))] == pytest.approx(
        np.array([x[i : i + 25].mean(axis=0) for i in range(0, 100, 25)])
    )


def test_selective_mahalanobis_takes_the_nearer_domain() -> None:
    fitted = bank.fit("selective_mahalanobis", SOURCE, target=TARGET + 50)
    at_means = fitted.distance([SOURCE.mean(axis=0), (TARGET + 50).mean(axis=0)])
    assert at_means == pytest.approx([0, 0], abs=1e-6)
    assert fitted.distance([(SOURCE.mean(axis=0) + TARGET.mean(axis=0) + 50) / 2])[0] > 5


@pytest.mark.parametrize("mixup", [0, 4])
def test_domain_z_takes_its_statistics_from_leave_one_out(mixup: int) -> None:
    """By fitting anew without each clip, what it stems from included."""
    fitted = DomainZ.fit(SOURCE, target=TARGET, mixup=mixup)

    def rest(x: np.ndarray, i: int) -> np.ndarray:
        return np.delete(x, i, axis=0)

    def wide(x: np.ndarray) -> np.ndarray:
        return bank.memmixup(x, SOURCE, neighbours=mixup) if mixup else x

    source = [brute(SOURCE[i : i + 1], rest(SOURCE, i), "euclidean").min() for i in range(len(SOURCE))]
    target = [brute(TARGET[i : i + 1], wide(rest(TARGET, i)), "euclidean").min() for i in range(len(TARGET))]
    assert fitted.mean == pytest.approx([np.mean(source), np.mean(target)], rel=1e-5)
    assert fitted.sd == pytest.approx([np.std(source), np.std(target)], rel=1e-5)
    z = (fitted.distances(QUERY) - fitted.mean) / fitted.sd
    assert fitted.distance(QUERY) == pytest.approx(z.min(axis=1))


def test_transductive_normalisation_uses_the_test_clips_themselves() -> None:
    d = np.random.default_rng(0).normal([5, 50], [1, 10], size=(30, 2))
    expected = np.min((d - d.mean(axis=0)) / d.std(axis=0), axis=1)
    assert bank.transductive(d) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_smote_draws_between_neighbours(metric: str) -> None:
    made = bank.smote(TARGET, n_source=100, ratio=0.5, neighbours=3, metric=metric)
    assert len(made) == 50
    base = TARGET / np.linalg.norm(TARGET, axis=1, keepdims=True) if metric == "cosine" else TARGET
    assert made[:8] == pytest.approx(base[np.lexsort(base.T[::-1])])
    if metric == "cosine":
        assert np.linalg.norm(made, axis=1) == pytest.approx(np.ones(50))
        return
    gaps = np.linalg.norm(base[:, None] - base[None], axis=2)
    for row in made[8:]:  # on the segment between some clip and one of its three nearest
        ends = np.linalg.norm(base - row, axis=1)
        between = np.argwhere(np.abs(ends[:, None] + ends[None] - gaps) < 1e-9)
        assert any(i != j and np.argsort(gaps[i]).tolist().index(j) <= 3 for i, j in between)


def test_smote_does_not_depend_on_the_order_and_needs_enough() -> None:
    assert np.array_equal(bank.smote(TARGET, n_source=100, seed=1), bank.smote(TARGET[::-1], n_source=100, seed=1))
    assert len(bank.smote(TARGET, n_source=10)) == len(TARGET)
    with pytest.raises(CalibrationError, match="needs 9 target clips, not 8"):
        bank.smote(TARGET, n_source=100, neighbours=8)


def test_memmixup_adds_a_tenth_of_the_nearest_sources() -> None:
    made = bank.memmixup(TARGET, SOURCE, neighbours=2)
    assert len(made) == 8 + 16
    assert np.array_equal(made[:8], TARGET)
    nearest = np.argsort(brute(TARGET[:1], SOURCE, "euclidean")[0])[:2]
    assert made[8:10] == pytest.approx(0.9 * TARGET[0] + 0.1 * SOURCE[nearest])
    assert len(bank.memmixup(TARGET, SOURCE)) == 8 + 8 * 40
