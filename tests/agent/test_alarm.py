"""The alarm state machine by example: votes, deadband, latch, acknowledgement, shelving, silence of the chain."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from asd_agent import config
from asd_agent.decide import Alarm
from asd_agent.decide.alarm import STEADY_WINDOWS
from asd_agent.decide.budget import Thresholds
from asd_agent.errors import UsageError
from asd_agent.reasons import Change, Deviation
from asd_agent.types import AlarmEvent, AlarmState, EventKind, Level, Quality, State, WindowResult

LIMITS = Thresholds(alert_p=1e-3, danger_p=1e-6, alert_clear_p=1e-2, danger_clear_p=1e-5)
QUIET, BAND, ALERT, DANGER = 0.5, 5e-3, 5e-4, 5e-7  # p-values; BAND lies inside the deadband
HOP_S = 5.0
LOUDER = Deviation(changes=(Change(quantity="level", change_db=9.0, band_hz=(3000.0, 6000.0), z=8.0),))


class Bench:
    """An alarm fed with one window after the other."""

    def __init__(self, window_votes: str = "3/5", **settings: object) -> None:
        alarm = config.Alarm(window_votes=window_votes, **settings)  # type: ignore[arg-type]
        self.machine = config.Machine(id="pump", source=config.StdinSource(rate_hz=16_000), alarm=alarm)
        self.alarm = Alarm(self.machine, LIMITS, AlarmState(mode=State.NORMAL))
        self.index = 0

    @property
    def now(self) -> float:
        return self.index * HOP_S + 10.0

    def feed(self, *windows: float | State) -> list[EventKind]:
        return [event.kind for event in self.events(*windows)]

    def events(self, *windows: float | State) -> list[AlarmEvent]:
        return [event for window in windows for event in self.alarm.update(self.result(window), True)]

    def result(self, window: float | State) -> WindowResult:
        self.index += 1
        state, p_value = window, None
        if not isinstance(window, State):
            state, p_value = (State.ANOMALOUS if window <= LIMITS.alert_p else State.NORMAL), window
        assert isinstance(state, State)
        quality = Quality((), -30.0, 0.1, 0.0, 0.0)
        return WindowResult(
            self.index,
            0.0,
            10.0,
            self.index * HOP_S,
            "",
            state,
            quality,
            p_value=p_value,
            reason="2 kHz +9 dB",
            deviation=LOUDER,
        )

    def restart(self) -> None:
        kept = msgspec.json.decode(msgspec.json.encode(self.alarm.state), type=AlarmState)
        self.alarm = Alarm(self.machine, LIMITS, kept)


R, E, D, C = EventKind.RAISED, EventKind.ESCALATED, EventKind.DEESCALATED, EventKind.CLEARED


def test_raised_by_k_of_n_with_its_windows_and_reason() -> None:
    bench = Bench()
    assert bench.feed(QUIET, ALERT, QUIET, ALERT, QUIET) == []
    (event,) = bench.events(ALERT)
    assert event.kind is R
    assert event.level is Level.ALERT
    assert event.deciding_windows == (2, 4, 6)
    assert event.reason == "3.0-6.0 kHz louder by 9 dB for 30 s; votes: 3 of 5 windows deviate, p 5e-4"
    assert event.score == pytest.approx(3.30, abs=0.01)
    assert event.alarm_id == event.id == bench.alarm.state.alarm_id
    assert event.utc_s == 6 * HOP_S + 10
    assert (event.notify, event.time_synced, event.machine) == (True, True, "pump")
    assert bench.alarm.state.since_utc_s == event.utc_s


def test_votes_leave_the_window_of_n() -> None:
    assert Bench().feed(ALERT, ALERT, QUIET, QUIET, QUIET, ALERT, QUIET) == []


def test_danger_at_once_escalation_and_back() -> None:
    assert [e.level for e in Bench().events(DANGER, DANGER, DANGER)] == [Level.DANGER]
    bench = Bench()
    assert bench.feed(DANGER, ALERT, ALERT) == [R]
    assert bench.feed(DANGER, DANGER) == [E]
    assert bench.alarm.state.level is Level.DANGER
    assert bench.feed(ALERT, ALERT, ALERT, ALERT) == [D]
    assert bench.alarm.state.level is Level.ALERT
    assert bench.feed(ALERT) == []
    assert bench.feed(QUIET, QUIET, QUIET, QUIET) == [C]


def test_from_danger_straight_to_cleared() -> None:
    assert Bench().feed(DANGER, DANGER, DANGER, QUIET, QUIET, QUIET, QUIET) == [R, C]


def test_inside_the_deadband_nothing_changes() -> None:
    bench = Bench()
    assert bench.feed(*[BAND] * 9) == []
    assert bench.feed(ALERT, ALERT, ALERT) == [R]
    assert bench.feed(*[BAND] * 20) == []
    (event,) = bench.events(QUIET, QUIET, QUIET, BAND, QUIET)
    assert event.kind is C
    assert event.level is Level.NORMAL
    assert event.reason == "as in calibration again: 4 of 5 windows below score 2.0"
    assert event.deciding_windows == (33, 34, 35, 37)


def test_windows_before_a_transition_do_not_count_towards_the_next() -> None:
    """Any sensible or foolish votes: neither an immediate clear nor an immediate raise."""
    bench = Bench(window_votes="1/5", clear_votes="1/1")
    assert bench.feed(ALERT) == [R]
    assert bench.feed(QUIET) == [C]
    assert bench.feed(QUIET, QUIET) == []
    bench = Bench(window_votes="2/9", clear_votes="3/9")
    assert bench.feed(QUIET, QUIET, QUIET, QUIET, ALERT, ALERT) == [R]
    assert bench.feed(QUIET, QUIET) == []
    assert bench.feed(QUIET) == [C]


def test_a_dead_microphone_does_not_clear_an_alarm() -> None:
    bench = Bench()
    bench.feed(ALERT, ALERT, ALERT)
    assert bench.feed(*[State.NOT_ASSESSABLE] * 50, *[State.OFF] * 50) == [EventKind.NOT_ASSESSABLE] * 2
    assert bench.alarm.state.level is Level.ALERT
    assert bench.feed(QUIET, QUIET, QUIET, QUIET) == [EventKind.ASSESSABLE, C]


def test_windows_that_cannot_be_judged_do_not_vote() -> None:
    bench = Bench()
    spoilt = [State.NOT_ASSESSABLE, State.NOT_ASSESSABLE]
    assert bench.feed(ALERT, *spoilt, ALERT, *spoilt, ALERT) == [R]
    assert Bench().feed(*[State.OFF] * 2, *[State.LEARNING] * 2, ALERT, ALERT) == [EventKind.LEARNING]


def test_an_off_machine_with_a_score_does_not_vote() -> None:
    bench = Bench()
    results = [replace(bench.result(State.OFF), p_value=DANGER) for _ in range(9)]
    assert [e.kind for r in results for e in bench.alarm.update(r, True)] == [EventKind.NOT_ASSESSABLE]


def test_a_change_of_the_mode_is_reported_once_it_lasts() -> None:
    bench = Bench()
    flicker = [State.NOT_ASSESSABLE] * (STEADY_WINDOWS - 1)
    assert bench.feed(*flicker, QUIET, *flicker, QUIET) == []
    (event,) = bench.events(*flicker, State.NOT_ASSESSABLE, State.NOT_ASSESSABLE)
    assert (event.kind, event.level, event.reason, event.alarm_id) == (
        EventKind.NOT_ASSESSABLE, Level.UNKNOWN, "2 kHz +9 dB", "",
    )  # fmt: skip
    assert bench.alarm.state.condition is State.NOT_ASSESSABLE
    assert bench.feed(QUIET, QUIET) == []
    assert bench.alarm.state.condition is State.NORMAL
    assert bench.feed(QUIET) == [EventKind.ASSESSABLE]


def test_a_new_machine_learns_until_its_windows_can_be_judged() -> None:
    bench = Bench()
    bench.alarm = Alarm(bench.machine, None, AlarmState())
    assert bench.feed(*[State.LEARNING] * 9) == []
    bench.alarm = Alarm(bench.machine, LIMITS, bench.alarm.state)
    assert bench.feed(QUIET, QUIET, QUIET) == [EventKind.ASSESSABLE]


def test_without_latch_a_gone_alarm_is_over() -> None:
    bench = Bench()
    bench.feed(ALERT, ALERT, ALERT, QUIET, QUIET, QUIET, QUIET)
    state = bench.alarm.state
    assert (state.level, state.alarm_id, state.latched) == (Level.NORMAL, "", False)
    with pytest.raises(UsageError, match="pump: there is no active or latched alarm"):
        bench.alarm.acknowledge("Ada", "", bench.now, True)


def test_a_latched_alarm_stays_until_it_is_acknowledged() -> None:
    bench = Bench(latch=True)
    (raised,) = bench.events(ALERT, ALERT, ALERT)
    assert bench.feed(QUIET, QUIET, QUIET, QUIET) == [C]
    state = bench.alarm.state
    assert (state.level, state.alarm_id, state.latched, state.active) == (Level.ALERT, raised.id, True, False)
    (event,) = bench.alarm.acknowledge("Ada", "belt replaced", bench.now, False)
    assert (event.kind, event.level, event.by, event.comment) == (
        EventKind.ACKNOWLEDGED, Level.NORMAL, "Ada", "belt replaced",
    )  # fmt: skip
    assert (event.alarm_id, event.time_synced) == (raised.id, False)
    assert (bench.alarm.state.level, bench.alarm.state.alarm_id) == (Level.NORMAL, "")


def test_a_latched_alarm_that_returns_is_the_same_alarm() -> None:
    bench = Bench(latch=True)
    first = bench.events(ALERT, ALERT, ALERT, QUIET, QUIET, QUIET, QUIET)[0]
    (again,) = bench.events(DANGER, DANGER, DANGER)
    assert (again.kind, again.level, again.alarm_id) == (R, Level.DANGER, first.id)
    assert again.id != first.id
    assert bench.alarm.state.active


def test_acknowledged_while_present_it_ends_by_itself() -> None:
    bench = Bench(latch=True)
    bench.feed(ALERT, ALERT, ALERT)
    (event,) = bench.alarm.acknowledge("Ada", "seen", bench.now, True)
    assert event.level is Level.ALERT
    assert (bench.alarm.state.acknowledged_by, bench.alarm.state.comment) == ("Ada", "seen")
    with pytest.raises(UsageError, match="already acknowledged by Ada"):
        bench.alarm.acknowledge("Bob", "", bench.now, True)
    assert bench.feed(QUIET, QUIET, QUIET, QUIET) == [C]
    assert bench.alarm.state.level is Level.NORMAL


def test_an_escalation_wants_to_be_acknowledged_again() -> None:
    bench = Bench()
    bench.feed(ALERT, ALERT, ALERT)
    bench.alarm.acknowledge("Ada", "", bench.now, True)
    bench.feed(DANGER, DANGER, DANGER)
    assert not bench.alarm.state.acknowledged
    bench.alarm.acknowledge("Ada", "", bench.now, True)


def test_shelved_alarms_are_recorded_and_raised_again_afterwards() -> None:
    bench = Bench()
    (shelved,) = bench.alarm.shelve(bench.now + 100, "repair", "Ada", bench.now, True)
    assert (shelved.kind, shelved.reason, shelved.by, shelved.notify) == (EventKind.SHELVED, "repair", "Ada", True)
    assert shelved.until_utc_s == bench.now + 100
    (raised,) = bench.events(ALERT, ALERT, ALERT)
    assert (raised.kind, raised.notify) == (R, False)
    assert bench.alarm.tick(shelved.until_utc_s - 1, True) == ()
    ended, again = bench.alarm.tick(shelved.until_utc_s, True)
    assert (ended.kind, ended.notify) == (EventKind.UNSHELVED, True)
    assert (again.kind, again.notify, again.alarm_id, again.level) == (R, True, raised.alarm_id, Level.ALERT)
    assert again.reason.startswith("still present: 3.0-6.0 kHz louder by 9 dB")
    assert bench.alarm.tick(shelved.until_utc_s + 1, True) == ()


def test_an_announced_alarm_that_went_while_shelved_is_announced_as_gone() -> None:
    bench = Bench()
    (raised,) = bench.events(ALERT, ALERT, ALERT)
    bench.alarm.shelve(bench.now + 1000, "", "Ada", bench.now, True)
    (cleared,) = bench.events(QUIET, QUIET, QUIET, QUIET)
    assert cleared.notify is False
    other = bench.events(DANGER, DANGER, DANGER)[0]
    ended = bench.alarm.unshelve("Ada", "done", bench.now, True)
    assert [(e.kind, e.alarm_id, e.notify) for e in ended[1:]] == [(C, raised.id, True), (R, other.id, True)]


def test_what_came_and_went_while_shelved_stays_untold() -> None:
    bench = Bench()
    bench.alarm.shelve(bench.now + 1000, "", "Ada", bench.now, True)
    assert [e.notify for e in bench.events(ALERT, ALERT, ALERT, QUIET, QUIET, QUIET, QUIET)] == [False, False]
    assert [e.kind for e in bench.alarm.unshelve("Ada", "", bench.now, True)] == [EventKind.UNSHELVED]


def test_out_of_service_until_told_otherwise() -> None:
    bench = Bench()
    (event,) = bench.alarm.out_of_service(True, "Ada", "overhaul", bench.now, True)
    assert (event.kind, event.by, event.reason, event.notify) == (EventKind.OUT_OF_SERVICE, "Ada", "overhaul", True)
    assert bench.alarm.out_of_service(True, "Ada", "", bench.now, True) == ()
    assert [e.notify for e in bench.events(ALERT, ALERT, ALERT)] == [False]
    bench.alarm.shelve(bench.now + 10, "", "Ada", bench.now, True)
    assert [e.kind for e in bench.alarm.out_of_service(False, "Ada", "", bench.now, True)] == [EventKind.IN_SERVICE]
    assert [e.kind for e in bench.alarm.tick(bench.now + 10, True)] == [EventKind.UNSHELVED, R]


def test_shelving_needs_a_time_to_come_and_unshelving_a_shelving() -> None:
    bench = Bench()
    for until in (bench.now, bench.now - 1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="lies in the future"):
            bench.alarm.shelve(until, "", "Ada", bench.now, True)
    with pytest.raises(UsageError, match="pump: the alarm is not shelved"):
        bench.alarm.unshelve("Ada", "", bench.now, True)
    bench.alarm.shelve(bench.now + 5, "", "Ada", bench.now, True)
    bench.alarm.shelve(bench.now + 50, "longer", "Ada", bench.now, True)
    assert bench.alarm.tick(bench.now + 6, True) == ()


def test_votes_survive_a_restart_but_not_another_limit() -> None:
    bench = Bench()
    bench.feed(ALERT, ALERT)
    bench.restart()
    assert bench.feed(ALERT) == [R]
    bench = Bench()
    bench.feed(ALERT, ALERT)
    other = msgspec.structs.replace(LIMITS, alert_p=LIMITS.alert_p / 2 * 1.5)
    bench.alarm = Alarm(bench.machine, other, bench.alarm.state)
    assert bench.feed(ALERT, ALERT) == []
    assert bench.feed(ALERT) == [R]


def test_a_new_limit_leaves_an_active_alarm_standing() -> None:
    bench = Bench()
    bench.feed(ALERT, ALERT, ALERT)
    bench.alarm = Alarm(bench.machine, msgspec.structs.replace(LIMITS, alert_p=2e-3), bench.alarm.state)
    assert bench.alarm.state.active
    assert bench.feed(QUIET, QUIET, QUIET, QUIET) == [C]


def test_an_older_state_without_the_newer_fields_is_read() -> None:
    old = b'{"level":"alert","condition":"anomalous","alarm_id":"x","since_utc_s":1.0}'
    bench = Bench()
    bench.alarm = Alarm(bench.machine, LIMITS, msgspec.json.decode(old, type=AlarmState))
    assert bench.feed(QUIET, QUIET, QUIET, QUIET) == [EventKind.ASSESSABLE, C]
