"""What stays is found, what passes is not; nothing is lost over a restart."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.decide.persistence import (
    FARTHEST,
    LENGTHS,
    Finding,
    Persistence,
    Steadiness,
    Track,
    windows_in_block,
)

NAMES = ("a", "b", "c")
HOP_S, WINDOW_S = 5.0, 10.0


def steadiness(day: float = 1.0, block: float = 0.3) -> Steadiness:
    n = len(NAMES)
    return Steadiness(
        detectors=list(NAMES), centre=[0.0] * n, high=[1.0] * n, day=[day] * n, block=[block] * n, high_block=[0.5] * n
    )


def persistence(budget: float = 0.5, tracks: dict[str, Track] | None = None, **known: float) -> Persistence:
    return Persistence({"running": steadiness(**known)}, budget, WINDOW_S, HOP_S, tracks)


def hear(p: Persistence, rows: np.ndarray, start_s: float = 0.0, hop_s: float = HOP_S) -> list[Finding | None]:
    """rows [n, detectors] of z."""
    return [
        p.update(start_s + i * hop_s, "running", dict(zip(NAMES, map(float, row), strict=True)), i)
        for i, row in enumerate(rows)
    ]


def shares(found: list[Finding | None]) -> np.ndarray:
    return np.array([f.share if f is not None else 0.0 for f in found])


def normal(n: int, seed: int = 0, sd: float = 0.3) -> np.ndarray:
    return sd * np.random.default_rng(seed).standard_normal((n, len(NAMES)))


def test_a_block_is_45_s_of_windows_that_overlap_or_not() -> None:
    assert windows_in_block(10.0, 5.0) == 8
    assert windows_in_block(10.0, 10.0) == 4
    assert windows_in_block(2.0, 1.0) == 44
    assert windows_in_block(60.0, 60.0) == 3


def test_what_stays_is_found_after_half_an_hour_of_normal_sound() -> None:
    rows = normal(400)
    rows[360:] += 2.0
    share = shares(hear(persistence(), rows))
    assert share[:360].max() < 1
    assert np.flatnonzero(share >= 1)[0] <= 368  # within 45 s


def test_what_stays_is_not_found_before_it_is_known_what_today_is_like() -> None:
    """A day may begin 2 standard deviations higher; a change during the day may not."""
    assert shares(hear(persistence(), normal(100) + 2.0)).max() < 1


@pytest.mark.parametrize("windows", [1, 3, 6])
def test_what_passes_is_not_found_however_loud(windows: int) -> None:
    rows = normal(400)
    rows[300 : 300 + windows] += 12.0
    assert shares(hear(persistence(), rows)).max() < 1


def test_one_noisy_detector_alone_needs_twice_as_much() -> None:
    rows = normal(400)
    rows[360:, 0] += 2.0
    alone = shares(hear(persistence(), rows))[375]
    rows[360:, 1] += 2.0
    assert shares(hear(persistence(), rows))[375] > alone


def test_what_comes_back_once_a_minute_is_found_within_some_hours() -> None:
    rows = normal(4000)
    rows[720::12] += 8.0  # one window a minute from the second hour on
    found = hear(persistence(), rows)
    first = next(f for f in found if f is not None and f.share >= 1)
    assert first.returning
    assert first.scale_s == 3600


def test_a_slow_creep_is_found_although_today_is_followed() -> None:
    rows = normal(9000)
    rows += np.linspace(0, 8, len(rows))[:, None]  # 8 standard deviations in half a day
    assert shares(hear(persistence(), rows)).max() >= 1


def test_today_is_followed_only_as_far_as_days_differ() -> None:
    p = persistence()
    hear(p, normal(1200) + 1.5)
    (moments, _) = p.tracks["running"].today
    assert moments.blocks > 5
    found = p.strongest("running")
    assert found is not None
    assert found.normal <= FARTHEST * 1.0


def test_windows_that_are_not_told_are_no_evidence() -> None:
    """Three windows, a pause, three windows: nothing has stayed for 45 s."""
    p = persistence()
    hear(p, normal(300))
    for i in range(40):
        found = hear(p, np.full((3, 3), 9.0), start_s=1500 + 200 * i)
        assert found[-1] is None or found[-1].scale_s > 45 or found[-1].share < 1


def test_states_are_apart() -> None:
    p = Persistence({"running": steadiness(), "idle": steadiness()}, 0.5, WINDOW_S, HOP_S)
    hear(p, normal(300))
    assert p.update(1500.0, "idle", dict.fromkeys(NAMES, 9.0)) is None
    assert p.update(1505.0, "unknown", dict.fromkeys(NAMES, 9.0)) is None


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 399),
    st.lists(st.tuples(st.integers(0, 399), st.sampled_from((-3.0, 2.0, 8.0))), max_size=5),
    st.sets(st.integers(0, 399), max_size=60),
)
def test_a_restart_changes_nothing(cut: int, bursts: list[tuple[int, float]], missing: set[int]) -> None:
    rows = np.round(normal(400), 1)
    for at, height in bursts:
        rows[at : at + 30] += height
    when = [i for i in range(400) if i not in missing]
    whole, first = persistence(), persistence()
    expected = [hear(whole, rows[i][None], i * HOP_S)[0] for i in when]
    got = [hear(first, rows[i][None], i * HOP_S)[0] for i in when if i < cut]
    kept = msgspec.json.decode(msgspec.json.encode(first.tracks), type=dict[str, Track])
    second = persistence(tracks=kept)
    got += [hear(second, rows[i][None], i * HOP_S)[0] for i in when if i >= cut]
    assert got == expected
    assert msgspec.json.encode(second.tracks) == msgspec.json.encode(whole.tracks)


def test_memory_is_bounded() -> None:
    p = persistence()
    hear(p, normal(6000))
    track = p.tracks["running"]
    assert len(track.windows) <= windows_in_block(WINDOW_S, HOP_S)
    assert len(track.blocks) <= LENGTHS[0] + 2
    assert len(track.values) <= LENGTHS[1]
    assert len(track.hours) <= LENGTHS[2]
    assert len(msgspec.json.encode(p.tracks)) < 20_000


def test_normal_sound_stays_below_the_limit_for_weeks() -> None:
    """Days that differ by as much as the calibration says, blocks that wander."""
    rng = np.random.default_rng(1)
    p, raised = persistence(budget=1.0, block=0.3), 0
    for day in range(8):
        shift = rng.standard_normal(len(NAMES))
        rows = np.repeat(0.3 * rng.standard_normal((90, len(NAMES))), 8, axis=0) + normal(720, seed=day) + shift
        raised += bool((shares(hear(p, rows, start_s=day * 86_400.0)) >= 1).any())
    assert raised <= 1


def test_steadiness_tells_days_from_blocks() -> None:
    rng = np.random.default_rng(0)
    session = np.repeat(np.arange(4), 160)
    shift = np.repeat(rng.standard_normal((4, 3)) * 2, 160, axis=0)
    z = shift + np.repeat(0.2 * rng.standard_normal((80, 3)), 8, axis=0) + 0.2 * rng.standard_normal((640, 3))
    known = Steadiness.fit(NAMES, z, session, 0.5, WINDOW_S, HOP_S)
    assert all(0.15 < b < 0.4 for b in known.block)
    assert all(d > 0.7 for d in known.day)
    one = Steadiness.fit(NAMES, z[:20], session[:20], 3.0, WINDOW_S, HOP_S)
    assert one.day == pytest.approx([3**0.5] * 3)


def test_blocks_that_vary_are_not_taken_for_days_that_differ() -> None:
    """Short sessions of one and the same day: what their few blocks do is charged to blocks alone."""
    rng, found = np.random.default_rng(1), []
    session = np.repeat(np.arange(4), 40)  # five blocks each
    for _ in range(60):
        z = np.repeat(rng.standard_normal((20, 3)), 8, axis=0) + 0.1 * rng.standard_normal((160, 3))
        found.append(Steadiness.fit(NAMES, z, session, 0.01, WINDOW_S, HOP_S))
    assert np.median([known.day for known in found]) < 0.35  # the median of five such blocks has 0.54
    assert 0.7 < np.median([known.block for known in found]) < 1.1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.sampled_from([20, 200, 1300]))
def test_the_course_shows_what_counts_and_a_window_that_is_typical_of_it(seed: int, windows: int) -> None:
    """Of whatever is the strongest evidence: the newest value is there, and no newer window is nearer to the median."""
    p, rows = persistence(), normal(windows, seed)
    rows[-12:] += 1.5
    found = hear(p, rows)[-1]
    assert found is not None
    course, counting = p.course("running", found)
    assert (course.detector, course.scale_s, course.limit) == (found.detector, found.scale_s, found.limit)
    assert list(course.times_s) == sorted(course.times_s)
    assert len(course.times_s) == len(course.z) <= LENGTHS[2]
    assert course.typical in counting
    assert len(counting) == windows_in_block(WINDOW_S, HOP_S)
    if found.scale_s == 45.0 and course.z:
        newest = rows[-len(counting) :, NAMES.index(found.detector)]
        assert list(course.z[-len(counting) :]) == newest.tolist()
        typical = newest[list(counting).index(course.typical)]
        assert abs(typical - np.median(newest)) == np.abs(newest - np.median(newest)).min()


def test_what_is_reported_exceeds_the_limit_that_the_picture_shows() -> None:
    p = persistence()
    hear(p, normal(400))
    for step in np.linspace(0, 4, 200):
        found = p.update(1e4 + 5 * step, "running", dict.fromkeys(NAMES, float(step)))
        assert found is not None
        assert found.z >= found.limit or found.share < 1
