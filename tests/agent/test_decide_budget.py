"""From a budget of false alarms to thresholds, and what a calibration can promise."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent import config
from asd_agent.decide.blocks import blocks
from asd_agent.decide.budget import (
    DAYS_PER_MONTH,
    LARGEST_P,
    VOTES_SHARE,
    Thresholds,
    Votes,
    false_alarms_per_month,
    limit,
    limit_of,
)
from asd_agent.decide.fusion import DRIFT, Fusion, Spread
from asd_agent.decide.support import DAILY, Support, clopper_pearson
from asd_agent.decide.tail import z_of
from asd_agent.types import Level

SPREAD = Spread(within=0.6, between=0.3, windows=120, blocks=5, sessions=2)


def alarm_days(over: np.ndarray, k: int, n: int) -> float:
    """Share of days (rows) on which k of the last n windows were over the limit at some time."""
    counts = np.cumsum(np.pad(over.astype(int), ((0, 0), (n, 0))), axis=1)
    return float(((counts[:, n:] - counts[:, :-n]) >= k).any(axis=1).mean())


# -- votes


@pytest.mark.parametrize(("k", "n", "p"), [(1, 1, 2e-4), (2, 2, 0.02), (3, 5, 0.02), (3, 5, 0.05), (2, 10, 4e-3)])
def test_alarm_days_of_independent_windows_match_a_simulation(k: int, n: int, p: float) -> None:
    windows = 2000
    expected = float(Votes(k, n, windows).alarm_day(np.array(p)))
    over = np.random.default_rng(0).random((1500, windows)) < p
    assert alarm_days(over, k, n) == pytest.approx(expected, abs=0.05, rel=0.15)


@pytest.mark.parametrize("votes", ["3/5", "2/3", "4/6", "5/5"])
@pytest.mark.parametrize("overlap", [2, 4])
def test_overlapping_windows_are_counted_on_the_safe_side(votes: str, overlap: int) -> None:
    """Scores that are means over the sound of the window: neighbours share most of it."""
    k, n = config.votes(votes, "votes")
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(600, 2000 + overlap - 1))
    sums = np.cumsum(np.pad(parts, ((0, 0), (1, 0))), axis=1)
    score = (sums[:, overlap:] - sums[:, :-overlap]) / math.sqrt(overlap)
    found = Votes.of(config.Alarm(window_votes=votes), window_s=overlap, hop_s=1)
    model = Votes(found.k, found.n, 2000.0)
    for p in (0.005, 0.02):
        realised = alarm_days(score > z_of(p), k, n)
        assert realised <= float(model.alarm_day(np.array(p))) + 0.03


def test_votes_of_overlapping_windows() -> None:
    three, one = config.Alarm(window_votes="3/5"), config.Alarm(window_votes="1/1")
    assert Votes.of(three, 10, 10) == Votes(3, 5, 8640.0)
    assert Votes.of(three, 10, 5) == Votes(2, 3, 17280.0)
    assert Votes.of(three, 10, 1) == Votes(1, 2, 86400.0)
    assert Votes.of(one, 10, 5) == Votes(1, 1, 17280.0)


@given(window_s=st.floats(1, 60), share=st.floats(0.05, 1))
def test_the_usual_votes_are_of_separate_windows_however_they_overlap(window_s: float, share: float) -> None:
    hop_s = window_s * share
    k, n = config.Alarm().raise_votes(window_s, hop_s)
    assert (k - 1) * hop_s >= 3 * window_s - 1e-6  # the first and the last of four separate windows
    assert 4 <= k <= n
    assert (n - 1) * hop_s <= 4 * window_s + 1e-6
    assert Votes.of(config.Alarm(), window_s, hop_s).k >= 4
    assert [config.Alarm().raise_votes(10, hop) for hop in (10, 5, 2.5)] == [(4, 5), (7, 9), (13, 17)]


# -- thresholds


@settings(deadline=None, max_examples=30)
@given(
    budget=st.floats(0.01, 10),
    votes=st.sampled_from(["1/1", "3/5", "2/3"]),
    hop_s=st.sampled_from([1.0, 5.0, 10.0]),
    within=st.floats(0.3, 1.5),
    between=st.floats(0, 2),
    sessions=st.integers(1, 9),
)
def test_the_limit_spends_the_budget(
    budget: float, votes: str, hop_s: float, within: float, between: float, sessions: int
) -> None:
    spread = Spread(within=within, between=between, windows=100, blocks=9, sessions=sessions)
    model = Votes.of(config.Alarm(window_votes=votes), 10.0, hop_s)
    score = limit(budget, spread, model)
    assert float(false_alarms_per_month(score, spread.fast, spread.slow, model)) == pytest.approx(budget, rel=1e-3)
    assert limit(budget * 2, spread, model) < score


def test_months_of_normal_sound_keep_the_budget() -> None:
    """The model played out: days that drift, windows that overlap, 3 of 5 votes; 400 months of 30 days."""
    alarm = config.Alarm(false_alarms_per_month=3.0, window_votes="3/5")
    rng = np.random.default_rng(0)
    hop_s, window_s, windows = 300.0, 600.0, 288  # long windows, so that a day is quickly simulated
    thresholds = Thresholds.of(alarm, SPREAD, window_s, hop_s)
    score = limit_of(thresholds, SPREAD)
    parts = rng.normal(size=(12_000, windows + 1))
    fast = (parts[:, 1:] + parts[:, :-1]) / math.sqrt(2) * SPREAD.fast
    slow = rng.normal(size=(12_000, 1)) * SPREAD.slow
    realised = alarm_days(fast + slow > score, 3, 5) * DAYS_PER_MONTH
    assert 0.5 * 3.0 < realised / VOTES_SHARE < 1.1 * 3.0


def test_thresholds_follow_the_settings() -> None:
    def thresholds(**settings_: object) -> Thresholds:
        return Thresholds.of(config.Alarm(**settings_), SPREAD, 10, 5)  # type: ignore[arg-type]

    usual = thresholds()
    assert usual.danger_p == pytest.approx(usual.alert_p / 1000)
    assert thresholds(false_alarms_per_month=0.1).alert_p < usual.alert_p < thresholds(window_votes="9/11").alert_p
    assert thresholds(false_alarms_per_month=1e6).alert_p == LARGEST_P
    assert math.log10(usual.alert_clear_p) == pytest.approx(0.85 * math.log10(usual.alert_p))
    assert thresholds(deadband=0.0).alert_clear_p == pytest.approx(usual.alert_p)
    assert usual.danger_p < usual.danger_clear_p < usual.alert_p < usual.alert_clear_p < 1
    assert msgspec.json.decode(msgspec.json.encode(usual), type=Thresholds) == usual


def test_level_of_one_window() -> None:
    limits = Thresholds(alert_p=1e-3, danger_p=1e-6, alert_clear_p=1e-2, danger_clear_p=1e-5)
    assert [limits.level(p) for p in (0.5, 2e-3, 1e-3, 2e-6, 1e-6, 1e-300)] == [
        Level.NORMAL, Level.NORMAL, Level.ALERT, Level.ALERT, Level.DANGER, Level.DANGER,
    ]  # fmt: skip


# -- support


@pytest.mark.parametrize(("seen", "of"), [(0, 10), (1, 120), (3, 7), (10, 10), (40, 5000)])
def test_clopper_pearson_is_exact(seen: int, of: int) -> None:
    from scipy.stats import beta

    least, most = clopper_pearson(seen, of)
    assert least == pytest.approx(beta.ppf(0.05, seen, of - seen + 1) if seen else 0, rel=1e-6)
    assert most == pytest.approx(beta.ppf(0.95, seen + 1, of - seen) if seen < of else 1, rel=1e-6)


def support(spread: Spread, held_out: np.ndarray | None = None, hop_s: float = 10.0) -> Support:
    alarm = config.Alarm(window_votes="3/5")
    thresholds = Thresholds.of(alarm, spread, 10.0, hop_s)
    scores = np.zeros(spread.windows) if held_out is None else held_out
    return Support.of(thresholds, plain(spread), scores, alarm, 10.0, hop_s)


def plain(spread: Spread) -> Fusion:
    return Fusion(median=0.0, scale=1.0, spread=spread)


def spread_of(windows: int, sessions: int) -> Spread:
    return msgspec.structs.replace(SPREAD, windows=windows, sessions=sessions, blocks=max(5, sessions))


def test_support_names_the_budget_inside_its_interval() -> None:
    found = support(SPREAD)
    assert found.low < found.per_month < found.high
    assert found.low < 1.0 < found.high
    assert found.per_month == pytest.approx(1.0, rel=1.0)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Support) == found


def test_more_sound_on_more_days_supports_the_budget() -> None:
    few, more, many = (support(spread_of(n, days)) for n, days in ((60, 1), (2000, 3), (50_000, 20)))
    assert few.high > more.high > many.high
    assert not few.supported
    assert many.supported
    assert (many.more_hours, many.more_days) == (0.0, 0)


def test_what_is_asked_for_would_do() -> None:
    spread = spread_of(60, 1)
    found = support(spread)
    assert found.more_hours is not None
    assert found.more_days is not None
    assert found.more_hours > 0
    days = found.more_days
    grown = spread_of(60 + round(found.more_hours * 360), 1 + days)
    alarm, limits = config.Alarm(), Thresholds.of(config.Alarm(), spread, 10.0, 10.0)
    # at the limit of today, in units of today's spread
    scaled = Support.of(
        msgspec.structs.replace(limits, alert_p=0.5 * math.erfc(limit_of(limits, spread) / grown.total / math.sqrt(2))),
        plain(grown), np.zeros(grown.windows), alarm, 10.0, 10.0,
    )  # fmt: skip
    assert scaled.supported


def test_windows_that_stray_are_counted_and_more_sound_does_not_help() -> None:
    held_out = np.zeros(SPREAD.windows)
    held_out[[5, 20, 40, 60, 80, 100, 110]] = 12.0
    clean, found = support(SPREAD), support(SPREAD, held_out)
    assert (clean.strays, found.strays) == (0, 7)
    assert found.per_month > 5 * clean.per_month
    assert (found.supported, found.more_hours, found.more_days) == (False, None, None)


def test_windows_that_exceed_a_low_limit_by_their_spread_are_no_strays() -> None:
    """Votes over many days allow a limit that ordinary windows pass now and then, and the model counts them already."""
    spread = msgspec.structs.replace(spread_of(5000, 20), within=0.9, between=0.1)
    found = support(spread, np.random.default_rng(0).normal(size=5000))
    assert found.strays >= 5
    assert found.per_month == pytest.approx(support(spread).per_month, rel=0.2)


def test_the_stated_interval_holds_as_often_as_it_says() -> None:
    """Calibrations of machines whose blocks and days differ by unknown amounts; the true rate is known."""
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(80):
        within, between = rng.uniform(0.3, 1.0), rng.uniform(0.0, 0.7)
        session = np.repeat([0, 1], 500)
        block = blocks(session)
        z = rng.normal(size=5)[block] * math.sqrt(between) + rng.normal(size=1000) * math.sqrt(within)
        fusion = Fusion.fit(z[:, None], block, session)
        alarm = config.Alarm()
        thresholds = Thresholds.of(alarm, fusion.spread, 10.0, 10.0)
        found = Support.of(thresholds, fusion, (z - fusion.median) / fusion.scale, alarm, 10.0, 10.0)
        drift = DRIFT / 2 * (within + between) * math.exp(rng.normal() * math.log(10 / 3) / 1.645)
        score = fusion.median + fusion.scale * fusion.score_of(thresholds.alert_p)
        score -= abs(rng.normal()) * math.sqrt((1 - DAILY) * drift)
        slow = math.sqrt(between + DAILY * drift)
        true = false_alarms_per_month(score, math.sqrt(within), slow, Votes.of(alarm, 10, 10))
        inside.append(found.low <= float(true) <= found.high)
    assert np.mean(inside) > 0.84
