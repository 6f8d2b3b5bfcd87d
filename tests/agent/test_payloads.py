"""What is published: the topics, versioned schemas, ids that stay, numbers that JSON knows."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_agent.publish import Messages, ScoreInterval, payloads
from asd_agent.types import AlarmState, Level, Quality, State, WindowResult, rfc3339
from store_cases import UTC_S, alarm_event, alarm_state, normal_window

MESSAGES = Messages("hall-1", "asd", lambda: True)
RNG = np.random.default_rng(1)


def as_json(payload: bytes) -> dict[str, object]:
    def no_constants(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found: dict[str, object] = json.loads(payload, parse_constant=no_constants)
    return found


@given(st.floats(0, 4e9))
def test_times_are_utc_with_milliseconds(utc_s: float) -> None:
    text = rfc3339(utc_s)
    assert text.endswith("Z")
    assert len(text) == len("2026-03-27T12:00:00.000Z")
    assert datetime.fromisoformat(text).astimezone(UTC).timestamp() == pytest.approx(utc_s, abs=0.00051)


def test_an_event() -> None:
    event = alarm_event("e1", evidence="evidence/m1/x.flac", baseline="v1", until_utc_s=UTC_S + 60)
    message = MESSAGES.of(MESSAGES.event(event))
    assert (message.topic, message.qos, message.retain) == ("asd/hall-1/m1/event", 1, False)
    assert as_json(message.payload) == {
        "schema": "asd/event/1",
        "id": "e1",
        "agent": "hall-1",
        "time": "2026-03-27T12:00:00.000Z",
        "time_synced": True,
        "machine": "m1",
        "alarm_id": "alarm-1",
        "event_type": "raised",
        "level": "alert",
        "reason": "800 Hz louder (z 7)",
        "trigger": None,
        "deciding_windows": [3, 4, 5],
        "score": 4.25,
        "by": "",
        "comment": "",
        "until": "2026-03-27T12:01:00.000Z",
        "evidence": "evidence/m1/x.flac",
        "baseline": "v1",
        "suppressed": False,
        "nuisances": [],
        "nearest_cause": None,
        "deviation": None,
        "grounds": None,
        "part": None,
    }
    assert next(iter(as_json(message.payload))) == "schema"
    assert MESSAGES.of(MESSAGES.event(event)).payload == message.payload  # the same again, whenever it is made


def test_an_alarm_state_is_retained_and_its_event_goes_before_it() -> None:
    event, state = alarm_event("e1"), alarm_state(acknowledged=True, acknowledged_by="kim")
    first, second = MESSAGES.of_event(event, state)
    assert (first.topic, first.retain) == ("asd/hall-1/m1/event", False)
    assert (second.topic, second.retain, second.qos) == ("asd/hall-1/m1/alarm", True, 1)
    found = as_json(second.payload)
    assert (found["schema"], found["level"], found["alarm_id"]) == ("asd/alarm/1", "alert", "alarm-1")
    assert (found["acknowledged"], found["acknowledged_by"]) == (True, "kim")
    assert (found["since"], found["shelved_until"]) == ("2026-03-27T12:00:00.000Z", None)


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (AlarmState(), "unknown"),  # no baseline yet
        (AlarmState(mode=State.NORMAL), "normal"),
        (AlarmState(mode=State.OFF), "normal"),
        (AlarmState(mode=State.NOT_ASSESSABLE), "unknown"),  # a dead microphone is no healthy machine
        (AlarmState(mode=State.NOT_ASSESSABLE, level=Level.DANGER), "danger"),  # an alarm stands
    ],
)
def test_nobody_says_normal_of_a_machine_that_cannot_be_judged(state: AlarmState, level: str) -> None:
    assert as_json(MESSAGES.of(MESSAGES.alarm("m1", state)).payload)["level"] == level


def test_an_event_without_notification_only_changes_the_state() -> None:
    messages = MESSAGES.of_event(alarm_event("e1", notify=False), alarm_state())
    assert [message.topic for message in messages] == ["asd/hall-1/m1/alarm"]


def test_a_score_expires_and_is_neither_kept_nor_confirmed() -> None:
    message = MESSAGES.of(MESSAGES.score("m1", normal_window(7, RNG), baseline="v1", score_limit=3.5))
    assert (message.topic, message.qos, message.retain) == ("asd/hall-1/m1/score", 0, False)
    assert message.expiry_s > 0
    found = as_json(message.payload)
    assert found["schema"] == "asd/score/1"
    assert (found["window"], found["state"], found["score_limit"], found["window_count"]) == (7, "normal", 3.5, 1)
    assert isinstance(found["detectors"], list)
    assert len(found["detectors"]) == 5
    assert len(message.payload) < 1000


def test_what_json_does_not_know_becomes_null() -> None:
    result = WindowResult(
        index=1,
        start_s=0.0,
        duration_s=10.0,
        utc_s=UTC_S,
        origin="",
        state=State.NOT_ASSESSABLE,
        quality=Quality(("silence", "flat"), -math.inf, 0.0, math.nan, 0.0),
        reason="silence",
    )
    found = as_json(MESSAGES.of(MESSAGES.score("m1", result, score_limit=math.inf)).payload)
    assert found["score"] is found["level_dbfs"] is found["score_limit"] is None
    assert (found["state"], found["quality"]) == ("not_assessable", ["silence", "flat"])


def test_health_and_availability() -> None:
    message = MESSAGES.of(
        MESSAGES.health("m1", status="failure", reasons=("source unavailable",), source_available=False, outbox=3)
    )
    assert (message.topic, message.retain) == ("asd/hall-1/m1/health", True)
    found = as_json(message.payload)
    assert (found["schema"], found["status"], found["outbox"]) == ("asd/health/1", "failure", 3)
    online, offline = MESSAGES.availability(online=True), MESSAGES.machine_availability("m1", online=False)
    assert (online.topic, online.payload, online.retain) == ("asd/hall-1/availability", b"online", True)
    assert (offline.topic, offline.payload, offline.retain) == ("asd/hall-1/m1/availability", b"offline", True)
    assert [(m.topic, m.payload, m.retain) for m in MESSAGES.forget("m1")] == [
        (f"asd/hall-1/m1/{what}", b"", True) for what in ("availability", "alarm", "health", "picture")
    ]


def test_a_response_has_the_fields_of_zigbee2mqtt() -> None:
    good = as_json(MESSAGES.response("t", data={"a": 1}, transaction=7).payload)
    assert (good["status"], good["data"], good["error"], good["transaction"]) == ("ok", {"a": 1}, None, 7)
    bad = as_json(MESSAGES.response("t", error="no such machine").payload)
    assert (bad["status"], bad["data"], bad["error"]) == ("error", None, "no such machine")


def test_subscribers_can_read_every_payload() -> None:
    event, state = alarm_event("e1"), alarm_state()
    made = [
        MESSAGES.of(MESSAGES.event(event)),
        MESSAGES.of(MESSAGES.alarm("m1", state)),
        MESSAGES.of(MESSAGES.score("m1", normal_window(1, RNG))),
        MESSAGES.of(MESSAGES.health("m1", status="good", reasons=(), source_available=True)),
        MESSAGES.response("t", data=[1]),
    ]
    kinds = [type(payloads.decode(message.payload)).__name__ for message in made]
    assert kinds == ["Event", "Alarm", "Score", "Health", "Response"]
    ids = [payloads.decode(message.payload).id for message in made]
    assert len(set(ids)) == len(ids)
    with pytest.raises(msgspec.ValidationError):
        payloads.decode(b'{"schema": "asd/event/9"}')


def score_of(index: int, score: float | None, state: State = State.NORMAL) -> payloads.Score:
    base = normal_window(index, RNG)
    result = WindowResult(
        index=index,
        start_s=base.start_s,
        duration_s=10.0,
        utc_s=UTC_S + 5 * index,
        origin="",
        state=state,
        quality=base.quality,
        p_value=None if score is None else 10.0**-score,
        level=Level.NORMAL,
    )
    return MESSAGES.score("m1", result)


def test_an_interval_is_spoken_for_by_its_most_anomalous_window() -> None:
    interval = ScoreInterval(60.0)
    scores = [0.1, None, 5.0, 0.3, *[0.2] * 20]
    windows = [score_of(i, s) for i, s in enumerate(scores)]
    due = [interval.add(window) for window in windows]
    spoken = [(i, d) for i, d in enumerate(due) if d is not None]
    assert [i for i, _ in spoken] == [10, 21]  # window 10 ends 60 s after the first one began
    payload = payloads.decode(MESSAGES.of(spoken[0][1]).payload)
    assert isinstance(payload, payloads.Score)
    assert payload.id == windows[2].id  # the window's own, as in the status
    assert (payload.window, payload.window_count, payload.states) == (2, 11, {State.NORMAL: 11})


def test_an_interval_without_any_assessable_window_speaks_too() -> None:
    interval = ScoreInterval(20.0)
    found = [interval.add(score_of(i, None, State.NOT_ASSESSABLE)) for i in range(3)]
    assert found[:2] == [None, None]
    assert found[2] is not None
    assert found[2].states == {State.NOT_ASSESSABLE: 3}


def test_without_an_interval_every_window_is_due() -> None:
    interval = ScoreInterval(0.0)
    for i in range(3):
        due = interval.add(score_of(i, 1.0))
        assert due is not None
        assert due.window == i
