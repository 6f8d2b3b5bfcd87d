"""Tails, held-out blocks, standard scores and their fusion."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from asd_agent import bank
from asd_agent.decide.blocks import FEWEST_LEFT, MOST_BLOCKS, blocks, leave_block_out, sessions
from asd_agent.decide.fusion import DRIFT, SHARPNESS, Fusion, join
from asd_agent.decide.logscore import LogScore, centre_and_scale
from asd_agent.decide.tail import tail, z_of
from asd_agent.errors import CalibrationError

DAY_S = 86_400.0


# -- the tail


@settings(deadline=None)
@given(st.floats(0, 36))
def test_tail_and_its_inverse(z: float) -> None:
    assert tail(z) == pytest.approx(special.ndtr(-z), rel=1e-9)
    assert z_of(tail(z)) == pytest.approx(z, abs=1e-6)


def test_the_tail_never_reaches_zero() -> None:
    assert tail(60) == 1e-300


# -- blocks


def test_sessions_by_the_date_in_the_name_by_folder_and_by_pause() -> None:
    names = ["a/20260302_000.flac", "a/20260302_001.flac", "a/20260327_000.flac", "b/20260327_000.flac"]
    assert sessions([0.0] * 4, names).tolist() == [0, 0, 1, 2]
    assert sessions([0, 5, 10, DAY_S, DAY_S + 5], [""] * 5).tolist() == [0, 0, 0, 1, 1]
    assert sessions([0.0] * 3, ["rpm1400.flac", "rpm1500.flac", "rec-2026-03-02T10-00-00.wav"]).tolist() == [0, 0, 1]
    assert sessions([], []).tolist() == []


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=25), k=st.integers(2, 8))
def test_blocks_are_contiguous_even_and_inside_sessions(sizes: list[int], k: int) -> None:
    session = np.repeat(np.arange(len(sizes)), sizes)
    if len(session) < 6:
        with pytest.raises(CalibrationError, match=f"{len(session)} windows.*at least 6"):
            blocks(session, k)
        return
    block = blocks(session, k)
    assert block[0] == 0
    assert set(np.diff(block)) <= {0, 1}
    count = block[-1] + 1
    assert count == (max(min(k, len(session)), len(sizes)) if len(sizes) < k else min(len(sizes), MOST_BLOCKS))
    if len(sizes) <= MOST_BLOCKS:
        assert all(len(set(session[block == b])) == 1 for b in range(count))
    else:  # whole sessions
        assert all(len(set(block[session == s])) == 1 for s in range(len(sizes)))
    if len(sizes) == 1:
        lengths = np.bincount(block)
        assert lengths.max() - lengths.min() <= 1


def test_longer_sessions_get_more_blocks() -> None:
    block = blocks(np.repeat([0, 1], [50, 70]))
    assert [len(set(block[:50])), len(set(block[50:]))] == [2, 3]


def test_blocks_of_a_session_that_comes_twice_stay_in_order() -> None:
    assert blocks([0, 0, 0, 1, 1, 1, 0, 0, 0], 3).tolist() == [0, 0, 0, 2, 2, 2, 1, 1, 1]


class Recorder:
    """A bank that remembers what it was fitted on."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x[:, 0].tolist()

    def distance(self, q: np.ndarray) -> np.ndarray:
        return np.full(len(q), float(len(self.x)))


@pytest.mark.parametrize("guard", [0, 2])
def test_a_block_is_scored_by_the_others_without_what_overlaps(guard: int) -> None:
    fitted = []

    def fit(x: np.ndarray) -> Recorder:
        fitted.append(Recorder(x))
        return fitted[-1]

    x = np.arange(20.0, dtype=np.float32)[:, None]
    session = np.repeat([0, 1], 10)
    block = np.repeat(np.arange(4), 5)
    out = leave_block_out(fit, x, block, session, guard)
    assert fitted[0].x == [i for i in range(20) if i >= 5 + guard]
    assert fitted[1].x == [i for i in range(20) if i < 5 - guard or i >= 10]  # the other session shares no sound
    assert out.tolist() == [float(len(fitted[b].x)) for b in block]


def test_the_guard_gives_way_when_too_few_would_remain() -> None:
    x = np.arange(6.0, dtype=np.float32)[:, None]
    out = leave_block_out(Recorder, x, blocks([0] * 6), [0] * 6, guard=1)
    assert out.min() >= FEWEST_LEFT


def test_neighbouring_windows_make_leave_one_out_too_small() -> None:
    """Why blocks: on a slow random walk, single left-out windows sit beside their neighbours."""
    x = np.cumsum(np.random.default_rng(0).normal(size=(60, 8)), axis=0).astype(np.float32)

    def median(block: np.ndarray) -> float:
        return float(np.median(leave_block_out(lambda rows: bank.fit("euclidean", rows), x, block, [0] * 60)))

    assert median(blocks([0] * 60)) > 1.5 * median(np.arange(60))


# -- standard scores


def test_log_scores_are_standard_on_log_normal_distances() -> None:
    distances = np.exp(np.random.default_rng(0).normal(3.0, 0.4, size=20_000))
    score = LogScore.fit(distances)
    assert (score.median, score.scale) == pytest.approx((3.0, 0.4), abs=0.02)
    assert score.z(math.exp(3.8)) == pytest.approx(2.0, abs=0.1)
    assert score.p_value(math.exp(3.0)) == pytest.approx(0.5, abs=0.02)
    exceeding = np.mean([score.p_value(d) < 0.01 for d in distances])
    assert exceeding == pytest.approx(0.01, abs=0.003)


def test_units_of_the_distance_do_not_matter() -> None:
    distances = np.random.default_rng(0).gamma(9, size=30)
    assert LogScore.fit(1000 * distances).z(5000) == pytest.approx(LogScore.fit(distances).z(5))


def test_scale_is_robust_but_not_blind() -> None:
    x = np.random.default_rng(0).normal(size=100)
    assert centre_and_scale(x, 0.03)[1] == pytest.approx(1.0, abs=0.15)
    one = centre_and_scale(np.append(x, 5.0), 0.03)[1]
    assert one == pytest.approx(1.0, abs=0.15)
    fifth = np.append(x, np.full(25, 8.0))
    assert centre_and_scale(fifth, 0.03)[1] == pytest.approx(0.7 * fifth.std(ddof=1))
    assert centre_and_scale(np.ones(9), 0.03) == (1.0, 0.03)


def test_z_is_clipped_and_a_distance_of_zero_is_normal() -> None:
    score = LogScore(median=0.0, scale=0.03)
    assert (score.z(1e9), score.z(0.0)) == (30.0, -8.0)
    with pytest.raises(CalibrationError, match="not finite"):
        LogScore.fit([1.0, math.nan])


# -- fusion


@pytest.mark.parametrize("z", [-3.0, 0.0, 2.0, 8.0, 29.0])
@pytest.mark.parametrize("detectors", [1, 4])
def test_detectors_that_agree_keep_their_common_z(z: float, detectors: int) -> None:
    assert join([z] * detectors) == pytest.approx(z, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(-8, 30), min_size=1, max_size=6), st.integers(0, 5), st.floats(0, 5))
def test_more_deviation_is_never_less_anomalous(z: list[float], which: int, more: float) -> None:
    raised = list(z)
    raised[which % len(z)] += more
    assert join(raised) >= join(z) - 1e-6


@given(st.lists(st.floats(-8, 30), min_size=1, max_size=6))
def test_the_order_does_not_matter_and_the_joined_z_lies_between_mean_and_maximum(z: list[float]) -> None:
    assert join(z) == pytest.approx(join(z[::-1]))
    assert np.mean(z) - 1e-6 <= join(z) <= max(z) + 1e-6


def held_out(n: int, blocks_: int, detectors: int, dependence: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(n, 1)), rng.normal(size=(n, detectors))
    return np.sqrt(dependence) * common + np.sqrt(1 - dependence) * own, np.arange(n) * blocks_ // n


@pytest.mark.parametrize("detectors", [2, 4, 8])
@pytest.mark.parametrize(("p_value", "off"), [(1e-3, 0.03), (1e-4, 0.04)])
def test_independent_detectors_give_about_a_gaussian_tail(detectors: int, p_value: float, off: float) -> None:
    z = np.random.default_rng(0).normal(size=(1_000_000, detectors))
    joined = np.log(np.exp(SHARPNESS * z).mean(axis=1)) / SHARPNESS
    assert joined[0] == pytest.approx(join(z[0]))
    median, scale = centre_and_scale(joined, 0.05)
    far = np.quantile(joined, 1 - p_value)
    assert (far - median) / scale == pytest.approx(z_of(p_value), rel=off)


@pytest.mark.parametrize("dependence", [0.3, 0.9])
def test_dependent_detectors_give_the_stated_share(dependence: float) -> None:
    z, _ = held_out(30_000, 5, 4, dependence, 1)
    joined = np.array([join(row) for row in z])
    median, scale = centre_and_scale(joined, 0.05)
    assert np.mean(joined > median + scale * z_of(1e-3)) == pytest.approx(1e-3, abs=0.7e-3)


def test_later_normals_of_drifting_days_stay_within_the_stated_p() -> None:
    """Days differ from each other: calibrated on two, the 1 % limit must hold on others; without the drift
    allowance it would not."""
    rng = np.random.default_rng(0)
    over, over_without = [], []
    for _ in range(60):
        days = rng.normal(size=(2, 1)) * 0.5
        z = np.vstack([rng.normal(size=(60, 3)) + day for day in days])
        session = np.repeat([0, 1], 60)
        fusion = Fusion.fit(z, blocks(session), session)
        later = rng.normal(size=(50, 3)) + rng.normal() * 0.5
        over += [fusion.p_value(row) < 0.01 for row in later]
        over_without += [tail(fusion.score(row)) < 0.01 for row in later]
    assert np.mean(over) < 0.01
    assert np.mean(over_without) > 0.01


def test_blocks_that_disagree_widen_the_scale() -> None:
    z, block = held_out(200, 5, 3, 0.2, 0)
    session = np.zeros(200, int)
    calm = Fusion.fit(z, block, session)
    apart = Fusion.fit(z + np.array([-1.5, -0.7, 0.0, 0.7, 1.5])[block][:, None], block, session)
    assert calm.spread.between < 0.1
    assert apart.spread.between > 0.5
    deviation = [3.0, 3.0, 3.0]
    assert apart.p_value(deviation) > 5 * calm.p_value(deviation)


def test_more_sessions_need_less_allowance() -> None:
    z, block = held_out(200, 10, 3, 0.2, 0)
    one = Fusion.fit(z, block, np.zeros(200, int)).spread
    ten = Fusion.fit(z, block, block).spread
    assert one.total > ten.total >= 1.0
    assert one.slow**2 - ten.slow**2 == pytest.approx(DRIFT * (1 - 0.01))  # ten blocks judged by other days


def test_fusion_round_trips_and_refuses_nan() -> None:
    z, block = held_out(60, 5, 3, 0.2, 0)
    fusion = Fusion.fit(z, block, np.zeros(60, int))
    again = msgspec.json.decode(msgspec.json.encode(fusion), type=Fusion)
    assert again == fusion
    assert again.p_value([1.0, 2.0, 3.0]) == fusion.p_value([1.0, 2.0, 3.0])
    z[3, 1] = math.nan
    with pytest.raises(CalibrationError, match="not finite"):
        Fusion.fit(z, block, np.zeros(60, int))


def test_signed_distances_are_standard_scores_already() -> None:
    """GenRep's standard scores by domain are negative for the most normal: no logarithm is taken."""
    held_out = np.random.default_rng(0).normal(-1.0, 0.5, 400)
    score = LogScore.fit(held_out, signed=True)
    assert score.z(-1.0) == pytest.approx(0.0, abs=0.15)
    assert score.z(0.0) == pytest.approx(2.0, abs=0.2)
    assert score.z(-2.0) < score.z(-1.5) < score.z(3.0)
    assert msgspec.convert(msgspec.to_builtins(score), LogScore) == score
