"""The wall clock is set: order and ids stay, ages use the right clock, a shelving ends when it should."""

from __future__ import annotations

import time

import pytest

from asd_agent import config
from asd_agent.decide.alarm import Alarm
from asd_agent.decide.event_rate import HOUR_S, EventRate
from asd_agent.errors import UsageError
from asd_agent.service import clock
from asd_agent.types import AlarmState
from store_cases import UTC_S

MACHINE = config.Machine(id="m1", source=config.SimulatedSource())


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its only item is added to the wall clock."""
    shift = [0.0]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])
    return shift


@pytest.mark.parametrize("jump_s", [3 * HOUR_S, -3 * HOUR_S, 60.0, -50 * 365 * 86_400.0])
def test_a_jump_is_seen_once(wall: list[float], jump_s: float) -> None:
    jumps = clock.Jumps()
    assert jumps.seen() == 0.0
    wall[0] = jump_s
    assert jumps.seen() == pytest.approx(jump_s, abs=1.0)
    assert jumps.seen() == 0.0


def test_slewing_is_no_jump(wall: list[float]) -> None:
    jumps = clock.Jumps()
    wall[0] = 0.5
    assert jumps.seen() == 0.0


@pytest.mark.parametrize("jump_s", [5 * HOUR_S, -5 * HOUR_S, 56 * 365 * 86_400.0])
def test_a_shelving_keeps_the_time_that_it_has_left(jump_s: float) -> None:
    alarm = Alarm(MACHINE, None, AlarmState())
    alarm.shelve(UTC_S + HOUR_S, "", "me", UTC_S, True)
    assert alarm.move_shelving(jump_s, UTC_S + jump_s + 600)
    assert alarm.tick(UTC_S + jump_s + HOUR_S - 1, True) == ()
    (event,) = alarm.tick(UTC_S + jump_s + HOUR_S + 1, True)
    assert event.kind == "unshelved"


def test_a_shelving_that_was_given_by_a_right_clock_ends_by_it() -> None:
    """The host started in 1970 and was told to shelve until a time of today; then NTP sets its clock."""
    alarm = Alarm(MACHINE, None, AlarmState())
    alarm.shelve(UTC_S + HOUR_S, "", "me", 100.0, False)
    assert not alarm.move_shelving(UTC_S - 100.0, UTC_S)
    assert alarm.state.shelved_until_utc_s == UTC_S + HOUR_S


@pytest.mark.parametrize("until", [1e300, float("inf"), float("nan"), -1.0, 0.0, 5e9])
def test_an_absurd_end_of_a_shelving_is_refused_in_one_line(until: float) -> None:
    alarm = Alarm(MACHINE, None, AlarmState())
    with pytest.raises(UsageError, match=r"m1: shelve until") as caught:
        alarm.shelve(until, "", "me", UTC_S, True)
    assert "\n" not in str(caught.value)


def test_old_records_are_not_deleted_by_a_clock_that_runs_ahead(
    wall: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = clock.settled_utc_s()
    monkeypatch.setattr(clock, "synchronized", lambda: False)
    wall[0] = 10 * 365 * 86_400.0
    assert clock.settled_utc_s() < before + 60
    wall[0] = -10 * 365 * 86_400.0
    assert clock.settled_utc_s() < before
    monkeypatch.setattr(clock, "synchronized", lambda: True)
    wall[0] = 10 * 365 * 86_400.0
    assert clock.settled_utc_s() > before + 9 * 365 * 86_400.0


def test_transients_before_a_clock_that_was_set_back_do_not_count_for_hours() -> None:
    from dataclasses import replace

    import numpy as np

    from store_cases import normal_window

    rate = EventRate(MACHINE, 1.0, 3600.0)
    rng = np.random.default_rng(1)
    window = normal_window(0, rng)
    for i in range(3):
        rate.update(replace(window, utc_s=UTC_S + 60 * i, transient_p=0.0, transient_at_s=0.0))
    assert rate.count == 3
    rate.update(replace(window, utc_s=UTC_S - 5 * HOUR_S))
    assert rate.count == 0
