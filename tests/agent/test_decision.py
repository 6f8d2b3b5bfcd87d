"""Votes, persistence, event rate and overload in one decision; its memory over a restart."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from asd_agent import config
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.fusion import Spread
from asd_agent.decide.persistence import Steadiness
from asd_agent.decide.votes import NUISANCE_PATIENCE_S
from asd_agent.reasons import Change, Deviation, SoundKind, Trigger
from asd_agent.scoring.decision import Decision, Memory
from asd_agent.service import memory_file
from asd_agent.types import AlarmEvent, AlarmState, DetectorScore, EventKind, Quality, State, WindowResult

MACHINE = config.Machine(id="m", source=config.SimulatedSource(), window_s=10.0, hop_s=5.0)
DETECTORS = ("background", "logmel")
LEAK = Deviation(
    kind=SoundKind.LEAK, windows=8, changes=(Change(quantity="level", change_db=2.1, band_hz=(3000.0, 6000.0), z=4.0),)
)
LIMITS = Thresholds(alert_p=1e-3, danger_p=1e-6, alert_clear_p=1e-2, danger_clear_p=1e-5)
STEADINESS = Steadiness(
    detectors=list(DETECTORS), centre=[0.0] * 2, high=[0.5] * 2, day=[1.0] * 2, block=[0.3] * 2, high_block=[0.5] * 2
)
MANIFEST: Any = SimpleNamespace(
    thresholds=lambda machine: LIMITS,
    states=[
        SimpleNamespace(
            name="running", transients_per_hour=0.0, steadiness=STEADINESS,
            fusion=SimpleNamespace(spread=Spread(within=1.0, between=1.0, windows=60, blocks=6, sessions=2)),
        )
    ],
    report=SimpleNamespace(seconds=3600.0, windows=720, excluded={}),
)  # fmt: skip


def window(i: int, z: float, **more: Any) -> WindowResult:
    noise = 0.2 * np.random.default_rng(i).standard_normal(2)
    scores = tuple(DetectorScore(n, 1.0, z + e, 0.5) for n, e in zip(DETECTORS, noise, strict=True))
    fields = {"state": State.NORMAL, "p_value": 0.3, "detectors": scores, "operating": "running", "transient_p": 0.5}
    return WindowResult(
        index=i, start_s=5.0 * i, duration_s=10.0, utc_s=1e9 + 5.0 * i, origin="",
        quality=Quality((), -20.0, 0.5, 0.0, 0.0), **(fields | more),
    )  # fmt: skip


def heard(decision: Decision, z: list[float], first: int = 0, **more: Any) -> list[AlarmEvent]:
    return [
        event
        for i, value in enumerate(z, first)
        for event in decision.update(window(i, value, **more), True, lambda _: LEAK)
    ]


def of(events: list[AlarmEvent], *kinds: EventKind) -> list[AlarmEvent]:
    return [e for e in events if e.kind in kinds]


def test_what_stays_raises_although_no_window_votes_and_clears_when_it_goes() -> None:
    decision = Decision(MACHINE, MANIFEST, AlarmState())
    events = heard(decision, [0.0] * 300 + [2.5] * 60 + [0.0] * 60)
    raised, cleared = of(events, EventKind.RAISED, EventKind.CLEARED)
    assert (raised.kind, cleared.kind) == (EventKind.RAISED, EventKind.CLEARED)
    assert raised.course is not None
    assert raised.course.typical in raised.deciding_windows
    assert raised.course.z[-1] >= raised.course.limit > raised.course.normal
    assert cleared.course is None
    assert raised.trigger is cleared.trigger is Trigger.PERSISTENCE
    assert 1e9 + 300 * 5 < raised.utc_s <= 1e9 + 300 * 5 + 50
    assert re.fullmatch(
        r"leak-like: 3\.0-6\.0 kHz louder by 2 dB for 4\d s, median of 8 windows; persistence, p \de-\d+",
        raised.reason,
    )
    assert raised.deviation == LEAK
    assert raised.grounds is not None
    assert raised.grounds.windows == 8
    assert cleared.utc_s > 1e9 + 360 * 5  # it stood as long as the deviation stayed
    assert decision.alarm.state.trigger is None


def test_votes_say_that_it_was_votes() -> None:
    decision = Decision(MACHINE, MANIFEST, AlarmState())
    deviating = {"state": State.ANOMALOUS, "p_value": 1e-4}
    events = heard(decision, [0.0] * 300)
    events += heard(decision, [0.0] * 30, 300, **deviating)
    assert [e.trigger for e in of(events, EventKind.RAISED)] == [Trigger.VOTES]


def test_a_recognised_nuisance_delays_for_some_minutes_and_never_silences() -> None:
    decision = Decision(MACHINE, MANIFEST, AlarmState())
    heard(decision, [0.0] * 300)
    events = heard(decision, [3.0] * 200, 300, nuisance="Rain (z 9)")
    (raised,) = of(events, EventKind.RAISED)
    after_s = raised.utc_s - (1e9 + 300 * 5)
    assert NUISANCE_PATIENCE_S < after_s < NUISANCE_PATIENCE_S + 60


@pytest.mark.parametrize("state", [State.NOT_ASSESSABLE, State.OFF])
def test_windows_that_are_not_judged_neither_raise_nor_clear(state: State) -> None:
    decision = Decision(MACHINE, MANIFEST, AlarmState())
    events = heard(decision, [0.0] * 300 + [2.5] * 30)
    assert decision.alarm.state.active
    events = heard(decision, [9.0] * 40, 330, state=state, p_value=None, detectors=())
    assert decision.alarm.state.active
    assert not of(events, EventKind.CLEARED)


@pytest.mark.parametrize("cut", [50, 299, 305, 330])
def test_a_restart_between_any_two_windows_changes_nothing(cut: int, tmp_path: Any) -> None:
    z = [0.0] * 300 + [2.5] * 40 + [0.0] * 40
    whole, first = Decision(MACHINE, MANIFEST, AlarmState()), Decision(MACHINE, MANIFEST, AlarmState())
    expected = heard(whole, z)
    events = heard(first, z[:cut])
    memory_file.save(tmp_path, memory_file.encoded("v1", first.memory))
    second = Decision(MACHINE, MANIFEST, first.alarm.state, memory_file.load(tmp_path, "v1"))
    events += heard(second, z[cut:], cut)
    assert events == expected
    assert msgspec.json.encode(second.memory) == msgspec.json.encode(whole.memory)


def test_the_memory_of_another_baseline_is_not_taken_over(tmp_path: Any) -> None:
    memory_file.save(tmp_path, memory_file.encoded("v1", Memory(transients_s=[1.0])))
    assert memory_file.load(tmp_path, "v2") is None
    found = memory_file.load(tmp_path, "v1")
    assert found is not None
    assert found.transients_s == [1.0]
    (tmp_path / memory_file.FILE).write_text("{")
    assert memory_file.load(tmp_path, "v1") is None
