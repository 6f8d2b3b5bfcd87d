"""The challenge's figures against scikit-learn and against the definitions, spelt out."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hmean
from sklearn.metrics import roc_auc_score

from asd_agent.errors import UsageError
from asd_train.metrics import (
    Scored,
    auc,
    bootstrap,
    decision_figures,
    harmonic_mean,
    official_score,
    pauc,
    section_figures,
)


def draw(seed, n=60, ties=False):
    rng = np.random.default_rng(seed)
    anomalous = np.arange(n) % 3 == 0
    scores = rng.normal(size=n) + anomalous * rng.uniform(0, 2)
    return (np.round(scores, 1) if ties else scores), anomalous


def literal_auc(scores, anomalous):
    pairs = [(a, b) for a in scores[anomalous] for b in scores[~anomalous]]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def literal_pauc(scores, anomalous, p):
    """Area left of p under the polygon through the ROC points, integrated in 200,000 strips; McClish."""
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        alarm = scores >= threshold
        points.append((float(alarm[~anomalous].mean()), float(alarm[anomalous].mean())))
    grid = (np.arange(200_000) + 0.5) / 200_000 * p
    area = float(np.interp(grid, *np.array(points).T).mean() * p)
    return 0.5 * (1 + (area - p * p / 2) / (p - p * p / 2))


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(6, 200), ties=st.booleans())
def test_equal_to_scikit_learn(seed, n, ties):
    scores, anomalous = draw(seed, n, ties)
    assert auc(scores, anomalous) == pytest.approx(roc_auc_score(anomalous, scores), abs=1e-12)
    assert pauc(scores, anomalous) == pytest.approx(roc_auc_score(anomalous, scores, max_fpr=0.1), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_equal_to_the_definition(ties):
    scores, anomalous = draw(3, 90, ties)
    assert auc(scores, anomalous) == pytest.approx(literal_auc(scores, anomalous), abs=1e-12)
    if not ties:  # vertical steps of a curve without ties are not strictly a function; the strips avoid them
        assert pauc(scores, anomalous) == pytest.approx(literal_pauc(scores, anomalous, 0.1), abs=1e-4)


def test_extremes():
    anomalous = np.array([False] * 10 + [True] * 5)
    assert auc(anomalous.astype(float), anomalous) == pauc(anomalous.astype(float), anomalous) == 1.0
    assert auc(np.zeros(15), anomalous) == pauc(np.zeros(15), anomalous) == pytest.approx(0.5)
    with pytest.raises(UsageError, match="10 normal, 0 anomalous"):
        auc(np.zeros(10), np.zeros(10, bool))


def section(seed=0, n=40):
    rng = np.random.default_rng(seed)
    anomalous, target = np.repeat([False, True, False, True], n // 4), np.arange(n) >= n // 2
    return Scored(f"m{seed}", rng.normal(size=n) + anomalous, anomalous, target)


def test_official_score_of_2022_and_later():
    sections = [section(1), section(2)]
    values = []
    for s in sections:
        for domain in (~s.target, s.target):
            rows = np.flatnonzero((domain & ~s.anomalous) | s.anomalous)  # all anomalies, of both domains
            values.append(roc_auc_score(s.anomalous[rows], s.scores[rows]))
        values.append(roc_auc_score(s.anomalous, s.scores, max_fpr=0.1))
    expected = hmean(np.maximum(values, sys.float_info.epsilon), axis=None)
    assert official_score(section_figures(s) for s in sections) == pytest.approx(expected, abs=1e-12)


def test_rules_of_2020_and_2021():
    s = section(4)
    plain = section_figures(s, "2020")
    assert plain == {"auc": auc(s.scores, s.anomalous), "pauc": pauc(s.scores, s.anomalous)}
    assert official_score([plain], "2020") == pytest.approx((plain["auc"] + plain["pauc"]) / 2)
    apart = section_figures(s, "2021")
    assert apart["auc_target"] == pytest.approx(literal_auc(s.scores[s.target], s.anomalous[s.target]))
    assert list(apart) == ["auc_source", "pauc_source", "auc_target", "pauc_target"]


def test_one_domain_alone_gives_its_figures():
    s = section(5)
    alone = Scored(s.name, s.scores, s.anomalous, np.zeros(40, bool))
    assert list(section_figures(alone)) == ["auc_source", "pauc"]


def test_harmonic_mean_floors_zero():
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)
    assert 0 < harmonic_mean([0.0, 0.9]) < 1e-12


def test_bootstrap_holds_the_estimate_and_repeats():
    sections = [section(1, 200), section(2, 200)]
    found = bootstrap(sections, rounds=200, seed=3)
    score = official_score(section_figures(s) for s in sections)
    low, high = found["all"]
    assert low < score < high
    assert high - low < found["m1"][1] - found["m1"][0]  # two machines are surer than one
    assert found == bootstrap(sections, rounds=200, seed=3)


def test_decision_figures():
    s = Scored("m", np.array([0, 1, 2, 3.0]), np.array([False, True, False, True]), np.zeros(4, bool))
    figures = decision_figures(s, 1.5)  # alarms: 2 and 3
    assert figures == {"precision_source": 0.5, "recall_source": 0.5, "f1_source": 0.5}
