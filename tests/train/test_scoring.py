"""Recipes of the reports on the agent's banks."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from asd_agent import bank
from asd_agent.errors import UsageError
from asd_train.scoring import FOLDS, Normals, Scoring, fit, score
from asd_train.weighting import Weight, excess_weights, twfr

RNG = np.random.default_rng(0)
SOURCE = RNG.normal(0, 1, (40, 6))
TARGET = RNG.normal(3, 1, (10, 6))
TEST = np.concatenate([RNG.normal(0, 1, (8, 6)), RNG.normal(3, 1, (8, 6)), RNG.normal(-6, 1, (8, 6))])
NORMALS = Normals(SOURCE, TARGET)

RECIPES = [
    Scoring(),
    Scoring(kind="euclidean", k=2),
    Scoring(kind="whitened"),
    Scoring(kind="two_bank", metric="euclidean", smote=0.5),
    Scoring(kind="two_bank", metric="euclidean", memmixup=5),
    Scoring(kind="cosine", bank="target", smote=1, smote_neighbours=2),
    Scoring(kind="local_density", metric="euclidean"),
    Scoring(kind="kmeans", metric="euclidean", centres=4),
    Scoring(kind="selective_mahalanobis"),
    Scoring(kind="domain_z", metric="euclidean", memmixup=990),
    Scoring(kind="domain_z", metric="euclidean", memmixup=990, transductive=True),
]


@pytest.mark.parametrize("scoring", RECIPES, ids=lambda s: f"{s.kind}-{s.bank}-{s.smote}-{s.memmixup}-{s.transductive}")
def test_every_recipe_scores_anomalies_high(scoring):
    found = score(NORMALS, TEST, scoring)
    assert found.test.shape == (24,)
    assert np.isfinite(found.held_out).all()
    assert found.held_out.shape == (50,)
    if scoring.bank == "both":
        assert np.median(found.test[16:]) > np.median(found.test[:16])
    again = score(NORMALS, TEST, scoring)
    np.testing.assert_array_equal(again.test, found.test)


@pytest.mark.parametrize("kind", ["cosine", "euclidean", "whitened"])
def test_scores_are_those_of_the_agents_bank(kind):
    """What calibrate stores and score restores."""
    fitted = bank.fit(kind, np.concatenate([SOURCE, TARGET]))
    agent = bank.from_arrays(kind, fitted.arrays())
    np.testing.assert_array_equal(score(NORMALS, TEST, Scoring(kind=kind)).test, agent.distance(TEST))


def test_genrep_as_published():
    """Literal: Euclid, 0.9 t + 0.1 s for all s, z-scores over the test clips, the smaller of both."""

    def nearest(x, rows):
        return np.sqrt(((x[:, None] - rows[None]) ** 2).sum(-1)).min(1)

    mixed = np.concatenate([TARGET, (0.9 * TARGET[:, None] + 0.1 * SOURCE[None]).reshape(-1, 6)])
    columns = [nearest(TEST, SOURCE), nearest(TEST, mixed)]
    expected = np.min([(c - c.mean()) / c.std() for c in columns], axis=0)
    scoring = Scoring(kind="domain_z", metric="euclidean", memmixup=990, transductive=True)
    np.testing.assert_allclose(score(NORMALS, TEST, scoring).test, expected, atol=1e-5)
    fitted = fit(NORMALS, scoring)
    assert isinstance(fitted, bank.domain_z.DomainZ)
    np.testing.assert_allclose(expected, bank.transductive(fitted.distances(TEST)), atol=1e-5)


def test_two_bank_with_smote_by_hand():
    scoring = Scoring(kind="two_bank", metric="euclidean", smote=0.5, smote_neighbours=3)
    more = bank.smote(TARGET, n_source=40, ratio=0.5, neighbours=3, metric="euclidean")
    assert len(more) == 20

    def nearest(rows):
        return np.sqrt(((TEST[:, None] - rows[None]) ** 2).sum(-1)).min(1)

    np.testing.assert_allclose(
        score(NORMALS, TEST, scoring).test, np.minimum(nearest(SOURCE), nearest(more)), atol=1e-5
    )


def test_held_out_scores_come_from_banks_without_the_block():
    found = score(NORMALS, TEST, Scoring(kind="euclidean")).held_out
    block = np.arange(0, 40 // FOLDS)
    rest = np.concatenate([np.delete(SOURCE, block, axis=0), TARGET[10 // FOLDS :]])
    expected = np.sqrt(((SOURCE[block][:, None] - rest[None]) ** 2).sum(-1)).min(1)
    np.testing.assert_allclose(found[block], expected, atol=1e-5)


def test_a_small_target_stays_whole():
    few = Normals(SOURCE, TARGET[:4])
    found = score(few, TEST, Scoring(kind="domain_z", metric="euclidean")).held_out
    assert np.isfinite(found[:40]).all()
    assert np.isnan(found[40:]).all()


@pytest.mark.parametrize("kind", ["two_bank", "selective_mahalanobis", "domain_z"])
def test_without_a_target_the_recipe_is_refused(kind):
    with pytest.raises(UsageError, match="no training clips of a target domain"):
        score(Normals(SOURCE, TARGET[:0]), TEST, Scoring(kind=kind))


def test_too_few_target_clips_are_told():
    with pytest.raises(UsageError, match="SMOTE with 3 neighbours needs 4 target clips"):
        score(Normals(SOURCE, TARGET[:3]), TEST, Scoring(kind="two_bank", smote=0.2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "cosin"}, "Invalid enum value"),
        ({"transductive": True}, "belongs to kind: domain_z"),
        ({"kind": "two_bank", "bank": "target"}, "makes no sense"),
        ({"smoot": 1}, "unknown field"),
    ],
)
def test_mistakes_in_the_configuration(values, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(values, Scoring)


def test_twfr_by_hand():
    log_mel = np.array([[1.0, 30.0], [3.0, 10.0], [2.0, 20.0]])
    np.testing.assert_allclose(twfr(log_mel, 1.0), [2.0, 20.0])  # mean
    np.testing.assert_allclose(twfr(log_mel, 0.0), [3.0, 30.0])  # maximum
    np.testing.assert_allclose(twfr(log_mel, 0.5), [(3 + 2 / 2 + 1 / 4) / 1.75, (30 + 20 / 2 + 10 / 4) / 1.75])


def test_weights_follow_the_formula_and_spare_the_usual():
    source, test = RNG.normal(2, 3, (50, 4)), RNG.normal(2, 9, (20, 4))
    of_test, of_normal = excess_weights([source, source[:0]], source, test, strength=0.5)
    sd = source.std(0, ddof=1)
    g = np.array([np.abs((x - np.delete(source, n, 0).mean(0)) / sd).mean() for n, x in enumerate(source)])
    mad = np.median(np.abs(g - np.median(g)))
    one = np.abs((test[3] - source.mean(0)) / sd).mean()
    excess = max(0, (one - np.median(g)) / mad)
    assert of_test[3] == pytest.approx(1 + 0.5 * excess / (1 + excess))
    assert of_test.max() < 1.5
    assert (of_normal >= 1).all()
    assert np.count_nonzero(of_normal == 1) >= 25  # half of the normals lie below their median
    assert of_test.mean() > of_normal.mean()


def test_normal_clips_of_the_target_are_not_punished():
    """They are far from the source's statistics, but within those of the target."""
    source, target = RNG.normal(0, 1, (200, 30)), RNG.normal(4, 1, (10, 30))
    normals = np.concatenate([source, target])
    tested = RNG.normal(4, 1, (100, 30))
    of_both = excess_weights([source, target], normals, tested, strength=1.0)[0]
    of_source = excess_weights([source], normals, tested, strength=1.0)[0]
    assert np.median(of_both) < 1.6
    assert np.median(of_source) > 1.9
    faults = excess_weights([source, target], normals, RNG.normal(8, 1, (100, 30)), strength=1.0)[0]
    assert np.median(faults) > 1.9


def test_weights_multiply_distances_before_standard_scores():
    """A weight above 1 never lowers a score, not even where scores are negative."""
    scoring = Scoring(kind="domain_z", metric="euclidean")
    plain = score(NORMALS, TEST, scoring).test
    weighted = score(NORMALS, TEST, scoring, (np.full(24, 1.5), np.ones(50))).test
    assert (plain < 0).any()
    assert (weighted > plain).all()


def test_weight_options():
    assert msgspec.convert({"kind": "cosine", "weight": {"of": ["energy"], "r": 0.5}}, Scoring).weight == Weight(
        of=("energy",), r=0.5
    )
