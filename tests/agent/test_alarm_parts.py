"""The windows of an alarm add up: it names a part that its first windows did not show, and forgets it at its end."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from asd_agent import config
from asd_agent.calibration.build import build
from asd_agent.publish.messages import Messages
from asd_agent.scoring.course import Course
from asd_agent.scoring.decision import Decision
from asd_agent.scoring.parts import AlarmParts
from asd_agent.scoring.pipeline import Pipeline, Step, open_pipeline
from asd_agent.store.commits import state_after
from asd_agent.types import AlarmEvent, AlarmState, Block, EventKind, State
from asd_agent.windowing.windower import Windower
from mechanism_machine import CONFIG, SHAFT_HZ, Faults, machine

RATE, WINDOW_S = 16_000, 8.0
MACHINE = config.Machine(
    id="m", source=config.StdinSource(rate_hz=RATE), window_s=WINDOW_S, hop_s=WINDOW_S, mechanism=CONFIG,
    alarm=config.Alarm(window_votes="3/5", clear_votes="3/5"),
)  # fmt: skip
HISS, BEARING = 1.0, 0.8  # what is heard at once, and what is too faint for one window


def sounds(count: int, faults: Faults, first: int) -> list[np.ndarray]:
    """The speed wanders by 0.3 % from window to window."""
    return [machine(first + i, faults, shaft_hz=SHAFT_HZ * (1 + 0.003 * np.sin(i)), rate_hz=RATE) for i in range(count)]


def steps(pipeline: Pipeline, found: list[np.ndarray], first: int = 0) -> list[Step]:
    block = Block(np.concatenate(found)[:, None], RATE, 0, 1e9 + first * WINDOW_S, 0.0, last=True)
    return [pipeline.step(w) for w in Windower(RATE, WINDOW_S, WINDOW_S, pipeline.rates).push(block, 0)]


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    bare = open_pipeline(MACHINE, None)
    known = [step.description for step in steps(bare, sounds(40, Faults(), 0))]
    return Pipeline(MACHINE, bare.encoders, build(MACHINE, known, bare, "v"))


@pytest.fixture(scope="module")
def faulty(pipeline: Pipeline) -> list[Step]:
    found = steps(pipeline, sounds(18, Faults(hiss=HISS, outer=BEARING), 1000), 100)
    assert np.mean([step.result.state is State.ANOMALOUS for step in found]) > 0.8
    return found


@pytest.fixture(scope="module")
def healthy(pipeline: Pipeline) -> list[Step]:
    return steps(pipeline, sounds(8, Faults(), 2000), 200)


class Walk:
    """As the daemon does it."""

    def __init__(self, pipeline: Pipeline, state: AlarmState) -> None:
        assert pipeline.baseline is not None
        self.pipeline = pipeline
        self.decision = Decision(MACHINE, pipeline.baseline.manifest, state)
        self.parts = AlarmParts(MACHINE, state)
        self.course = Course(pipeline)
        self.events: list[AlarmEvent] = []

    @property
    def state(self) -> AlarmState:
        return self.decision.alarm.state

    def take(self, found: list[Step]) -> Walk:
        for step in found:
            self.course.add(step)
            part = self.parts.see(self.pipeline, step, self.state)
            self.events += self.decision.update(step.result, True, partial(self.course.explain, step), part)
        return self

    def of(self, *kinds: EventKind) -> list[AlarmEvent]:
        return [event for event in self.events if event.kind in kinds]


def test_a_part_is_named_by_many_windows_in_the_alarm_that_stands(pipeline, faulty) -> None:
    walk = Walk(pipeline, AlarmState()).take(faulty)
    (raised,) = walk.of(EventKind.RAISED)
    named = walk.of(EventKind.NAMED)
    assert raised.part is None or not raised.part.component
    assert [event.alarm_id for event in named] == [raised.alarm_id]
    assert named[0].id != raised.id
    assert named[0].part is not None
    assert named[0].part.component == "bearing DE outer race"
    assert named[0].part.windows >= 4
    assert named[0].reason.startswith(
        f"bearing DE outer race, from {named[0].part.windows} windows: periodic impacts at"
    )
    state = walk.state
    assert state.alarm_id == raised.alarm_id
    assert state.part is not None
    assert state.part.windows == 16  # the last look
    assert len(state.part.levels_db) <= 8
    assert state.reason.startswith(state.part.words)
    assert state.reason.count("BPFO") == 1
    assert state_after(walk.events).part == named[0].part


def test_what_is_published_names_it(pipeline, faulty) -> None:
    walk = Walk(pipeline, AlarmState()).take(faulty)
    messages = Messages("agent", "asd", lambda: True)
    (named,) = walk.of(EventKind.NAMED)
    event = messages.event(named)
    alarm = messages.alarm("m", walk.state)
    assert event.part == named.part
    assert alarm.part == walk.state.part
    assert alarm.alarm_id == event.alarm_id
    assert "bearing DE outer race, from " in alarm.reason


def test_it_is_forgotten_when_the_alarm_clears(pipeline, faulty, healthy) -> None:
    walk = Walk(pipeline, AlarmState()).take(faulty).take(healthy)
    assert len(walk.of(EventKind.CLEARED)) == 1
    assert walk.state.part is None
    assert walk.parts.see(pipeline, healthy[0], walk.state) is None


def test_the_same_windows_say_the_same_again(pipeline, faulty, healthy) -> None:
    one = Walk(pipeline, AlarmState()).take(faulty).take(healthy)
    two = Walk(pipeline, AlarmState()).take(faulty).take(healthy)
    assert one.events == two.events


def test_after_a_restart_the_name_stays_and_the_looks_stay_paid(pipeline, faulty) -> None:
    before = Walk(pipeline, AlarmState()).take(faulty).state
    after = Walk(pipeline, before).take(faulty[:5])
    assert not after.of(EventKind.NAMED)
    assert after.state.part is not None
    assert after.state.part.component == "bearing DE outer race"
    assert before.part is not None
    verdict = after.parts.see(pipeline, faulty[5], after.state)
    assert verdict is not None
    assert verdict.looks > before.part.looks


def test_the_bearing_of_an_alarm_that_is_only_hiss_is_not_blamed(pipeline) -> None:
    walk = Walk(pipeline, AlarmState()).take(steps(pipeline, sounds(18, Faults(hiss=HISS), 3000), 300))
    assert walk.of(EventKind.RAISED)
    assert not walk.of(EventKind.NAMED)
    assert walk.state.part is not None
    assert walk.state.part.why_unnamed is not None
