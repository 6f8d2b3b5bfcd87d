"""What must hold for the alarm whatever happens: hypothesis plays windows, operators and restarts against it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asd_agent import config
from asd_agent.decide import Alarm
from asd_agent.decide.budget import Thresholds
from asd_agent.errors import UsageError
from asd_agent.types import AlarmEvent, AlarmState, EventKind, Level, Quality, State, WindowResult

LIMITS = Thresholds(alert_p=1e-3, danger_p=1e-6, alert_clear_p=1e-2, danger_clear_p=1e-5)
QUALITY = Quality((), -30.0, 0.1, 0.0, 0.0)
VOTES = st.sampled_from(["1/1", "2/2", "2/3", "3/5", "1/4"])
P_VALUES = st.sampled_from([0.5, 5e-3, 5e-4, 5e-5, 5e-7])
CHANGES = (EventKind.RAISED, EventKind.ESCALATED, EventKind.DEESCALATED, EventKind.CLEARED)


class AlarmMachine(RuleBasedStateMachine):
    @initialize(raise_votes=VOTES, clear_votes=VOTES, latch=st.booleans())
    def begin(self, raise_votes: str, clear_votes: str, latch: bool) -> None:
        alarm = config.Alarm(window_votes=raise_votes, clear_votes=clear_votes, latch=latch)
        self.machine = config.Machine(id="m", source=config.StdinSource(rate_hz=16_000), alarm=alarm)
        self.k, self.n = config.votes(raise_votes, "")
        self.restarted = Alarm(self.machine, LIMITS, AlarmState())  # from its state before every step
        self.whole = Alarm(self.machine, LIMITS, AlarmState())  # never restarted
        self.events: list[AlarmEvent] = []
        self.windows: dict[int, tuple[State, float | None]] = {}
        self.risen = self.fallen = -1  # the window that made the level change last
        self.now = 1000.0

    def step(self, method: str, *args: Any) -> None:
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(self.restarted.state), type=AlarmState)
        self.restarted = Alarm(self.machine, LIMITS, kept)
        events = getattr(self.restarted, method)(*args)
        assert events == getattr(self.whole, method)(*args)
        assert self.restarted.state == self.whole.state
        for event in events:
            self.check(event)
            self.events.append(event)

    def check(self, event: AlarmEvent) -> None:
        assert event.reason or event.by
        if event.kind in (EventKind.RAISED, EventKind.ESCALATED) and event.deciding_windows:
            limit = LIMITS.danger_p if event.level is Level.DANGER else LIMITS.alert_p
            assert self.k <= len(event.deciding_windows) <= self.n
            judged = [i for i, (s, _) in self.windows.items() if s in (State.NORMAL, State.ANOMALOUS)]
            assert set(event.deciding_windows) <= set(judged[-self.n :])
            assert all((self.windows[i][1] or 1.0) <= limit for i in event.deciding_windows)
            assert min(event.deciding_windows) > self.fallen
            self.risen = len(self.windows) - 1
        if event.kind in (EventKind.CLEARED, EventKind.DEESCALATED) and event.deciding_windows:
            cleared = event.kind is EventKind.CLEARED
            limit = LIMITS.alert_clear_p if cleared else LIMITS.danger_clear_p
            assert all((self.windows[i][1] or 0.0) > limit for i in event.deciding_windows)
            assert min(event.deciding_windows) > self.risen
            self.fallen = len(self.windows) - 1

    # -- what may happen

    @rule(p_value=P_VALUES, synced=st.booleans())
    def window(self, p_value: float, synced: bool) -> None:
        self._window(State.ANOMALOUS if p_value <= LIMITS.alert_p else State.NORMAL, p_value, synced)

    @rule(p_value=P_VALUES, count=st.integers(2, 6))
    def windows_alike(self, p_value: float, count: int) -> None:
        for _ in range(count):
            self.window(p_value, True)

    @rule(state=st.sampled_from([State.NOT_ASSESSABLE, State.OFF, State.LEARNING]), count=st.integers(1, 5))
    def cannot_be_judged(self, state: State, count: int) -> None:
        before = self.whole.state
        for _ in range(count):
            self._window(state, 5e-7 if state is State.OFF else None, True)
        after = self.whole.state
        assert (after.level, after.alarm_id, after.latched) == (before.level, before.alarm_id, before.latched)
        assert (after.rising, after.falling) == (before.rising, before.falling)

    def _window(self, state: State, p_value: float | None, synced: bool) -> None:
        index = len(self.windows)
        self.windows[index] = (state, p_value)
        self.now += 5.0
        result = WindowResult(index, 0.0, 10.0, self.now, "", state, QUALITY, p_value=p_value, reason="why")
        self.step("update", result, synced)

    @rule()
    def acknowledge(self) -> None:
        state = self.whole.state
        if state.level is Level.NORMAL or state.acknowledged:
            for alarm in (self.whole, self.restarted):
                with pytest.raises(UsageError):
                    alarm.acknowledge("Ada", "", self.now, True)
            assert self.whole.state == state
        else:
            self.step("acknowledge", "Ada", "seen", self.now, True)
            assert self.events[-1].kind is EventKind.ACKNOWLEDGED

    @rule(seconds=st.floats(1, 200))
    def shelve(self, seconds: float) -> None:
        self.step("shelve", self.now + seconds, "repair", "Ada", self.now, True)

    @precondition(lambda self: self.whole.state.shelved_until_utc_s > 0)
    @rule()
    def unshelve(self) -> None:
        self.step("unshelve", "Ada", "done", self.now, True)

    @rule(on=st.booleans())
    def out_of_service(self, on: bool) -> None:
        self.step("out_of_service", on, "Ada", "overhaul", self.now, True)

    @rule(seconds=st.floats(0, 100))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.step("tick", self.now, True)

    # -- what must hold

    @invariant()
    def ids_are_unique(self) -> None:
        ids = [e.id for e in self.events]
        assert len(ids) == len(set(ids))

    @invariant()
    def the_state_makes_sense(self) -> None:
        state = self.whole.state
        assert (state.level is Level.NORMAL) == (state.alarm_id == "")
        assert not (state.latched and (state.acknowledged or not self.machine.alarm.latch))
        assert not (state.active and self.machine.alarm.latch and state.latched)

    @invariant()
    def the_record_alternates(self) -> None:
        """Raised, then changes of level, then cleared; nothing else changes the level. Catching up aside."""
        level: dict[str, Level] = {}
        for event in self.events:
            if event.kind not in CHANGES or not event.deciding_windows:
                continue
            before = level.get(event.alarm_id, Level.NORMAL)
            expected = {
                EventKind.RAISED: before is Level.NORMAL and event.level is not Level.NORMAL,
                EventKind.ESCALATED: (before, event.level) == (Level.ALERT, Level.DANGER),
                EventKind.DEESCALATED: (before, event.level) == (Level.DANGER, Level.ALERT),
                EventKind.CLEARED: before is not Level.NORMAL and event.level is Level.NORMAL,
            }
            assert expected[event.kind], event
            level[event.alarm_id] = event.level
        assert sum(v is not Level.NORMAL for v in level.values()) == self.whole.state.active

    @invariant()
    def those_outside_know_how_it_stands(self) -> None:
        """Of what was published, raised and cleared pair up, and unless suppressed the open one is the active one."""
        open_alarms: set[str] = set()
        for event in self.events:
            if event.notify and event.kind is EventKind.RAISED:
                open_alarms.add(event.alarm_id)
            if event.notify and event.kind is EventKind.CLEARED:
                assert event.alarm_id in open_alarms
                open_alarms.remove(event.alarm_id)
        state = self.whole.state
        if not state.suppressed:
            assert open_alarms == ({state.alarm_id} if state.active else set())

    @invariant()
    def nothing_is_published_while_suppressed(self) -> None:
        shelved = out = False
        for event in self.events:
            if event.kind in CHANGES:
                assert event.notify != (shelved or out)
            shelved = event.kind is EventKind.SHELVED or (shelved and event.kind is not EventKind.UNSHELVED)
            out = event.kind is EventKind.OUT_OF_SERVICE or (out and event.kind is not EventKind.IN_SERVICE)


AlarmMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAlarm = AlarmMachine.TestCase


@settings(max_examples=60, deadline=None)
@given(st.integers(5, 9), st.floats(3.1, 80.0), st.integers(0, 3))
def test_a_passing_sound_is_not_completed_by_windows_a_little_beyond_the_limit(
    loud: int, times: float, before: int
) -> None:
    """Seven of nine have to deviate alike: five or six loud windows among weak ones raise nothing, seven do."""
    raising = config.Machine(id="m", source=config.SimulatedSource(), alarm=config.Alarm(window_votes="7/9"))
    weak = 1.01 * -math.log10(LIMITS.alert_p)
    at = min(before, 9 - loud)
    scores = [weak] * at + [times * weak] * loud + [weak] * (9 - loud - at)
    alarm, raised = Alarm(raising, LIMITS, AlarmState()), False
    for i, score in enumerate(scores):
        window = WindowResult(
            index=i, start_s=0.0, duration_s=10.0, utc_s=5.0 * i, origin="", state=State.ANOMALOUS, quality=QUALITY,
            p_value=10.0**-score,
        )  # fmt: skip
        raised |= any(event.kind is EventKind.RAISED for event in alarm.update(window, True))
    assert raised == (loud >= 7)
