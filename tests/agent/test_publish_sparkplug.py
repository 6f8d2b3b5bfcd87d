"""Sparkplug's bytes and messages by themselves; tests/system/test_sparkplug.py decodes them independently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_agent.publish.sparkplug import metrics
from asd_agent.publish.sparkplug.session import REBIRTH, Session
from asd_agent.publish.sparkplug.wire import DataType, Metric, Payload, WireError, decode, encode
from asd_agent.store import Message

VALUES = st.one_of(
    st.booleans(),
    st.integers(0, 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.none(),
)
METRICS = st.builds(
    Metric,
    value=VALUES,
    name=st.text(),
    alias=st.none() | st.integers(0, 2**40),
    timestamp_ms=st.none() | st.integers(0, 2**45),
    data_type=st.none() | st.sampled_from(DataType).filter(lambda kind: kind is not DataType.INT32),
    historical=st.booleans(),
    unit=st.text(max_size=5),
)


@given(
    st.builds(Payload, st.none() | st.integers(0, 2**45), st.tuples(METRICS, METRICS), st.none() | st.integers(0, 255))
)
def test_what_is_written_can_be_read(payload: Payload) -> None:
    found = decode(encode(payload))
    assert (found.timestamp_ms, found.seq) == (payload.timestamp_ms, payload.seq)
    for read, written in zip(found.metrics, payload.metrics, strict=True):
        assert (read.value, read.name, read.alias, read.timestamp_ms) == (
            written.value,
            written.name,
            written.alias,
            written.timestamp_ms,
        )


@given(st.binary(max_size=200))
def test_bytes_of_anybody_are_a_payload_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except WireError:
        pass


def session() -> Session:
    return Session("g", "n", ["m1", "m2"], lambda: 1000)


def kinds(messages: list[Message]) -> list[str]:
    return [m.topic.split("/")[2] for m in messages]


def test_sequence_numbers_wrap_at_255_and_begin_with_a_birth() -> None:
    one = session()
    one.will()
    seqs = [decode(m.payload).seq for m in one.births()]
    for i in range(300):
        seqs += [decode(m.payload).seq for m in one.tell("m1", {"Score/Value": float(i)}, 1)]
    assert seqs == [i % 256 for i in range(303)]
    assert [decode(m.payload).seq for m in one.births()] == [0, 1, 2]


def test_only_changes_are_sent() -> None:
    one = session()
    one.will()
    one.births()
    assert kinds(one.tell("m1", {"Score/Value": 1.0, "Score/State": "normal"}, 1)) == ["DDATA"]
    assert one.tell("m1", {"Score/Value": 1.0}, 2) == []
    (message,) = one.tell("m1", {"Score/Value": 2.0, "Score/State": "normal"}, 3)
    assert len(decode(message.payload).metrics) == 1
    assert one.tell("unknown", {"Score/Value": 2.0}, 3) == []


def test_an_alarm_without_a_connection_is_sent_as_history() -> None:
    one = session()
    one.tell("m1", {"Alarm/Level": "danger"}, 11)
    one.tell("m1", {"Score/Value": 9.0}, 12)
    one.tell("m1", {"Alarm/Level": "normal"}, 13)
    one.will()
    births = one.births()
    assert kinds(births) == ["NBIRTH", "DBIRTH", "DBIRTH", "DDATA", "DDATA"]
    history = [decode(m.payload).metrics[0] for m in births[3:]]
    assert [(m.value, m.timestamp_ms) for m in history] == [("danger", 11), ("normal", 13)]
    assert one.births()[3:] == []


def test_a_machine_without_sound_dies_and_is_born_again() -> None:
    one = session()
    one.will()
    one.births()
    assert kinds(one.available("m2", alive=False)) == ["DDEATH"]
    assert one.tell("m2", {"Score/Value": 1.0}, 1) == []
    assert kinds(one.births()) == ["NBIRTH", "DBIRTH"]
    (birth,) = one.available("m2", alive=True)
    found = {m.name: m.value for m in decode(birth.payload).metrics}
    assert found["Score/Value"] == 1.0
    assert one.available("m2", alive=True) == []


def test_birth_and_death_carry_the_number_of_their_connect() -> None:
    one = session()
    for number in (*range(256), 0):
        will = decode(one.will().payload)
        birth = decode(one.births()[0].payload)
        assert [m.value for m in will.metrics] == [number]
        assert {m.name: m.value for m in birth.metrics}["bdSeq"] == number
        assert {m.name: m.value for m in birth.metrics}[REBIRTH] is False


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        (metrics.ACKNOWLEDGE, True, ("ack", {})),
        (metrics.ACKNOWLEDGE, False, None),
        (metrics.SHELVE, 30.0, ("shelve", {"minutes": 30.0})),
        (metrics.SHELVE, True, None),
        (metrics.UNSHELVE, True, ("unshelve", {})),
        ("Alarm/Level", "normal", None),
    ],
)
def test_what_a_host_may_write(name: str, value: object, found: object) -> None:
    assert metrics.command(name, value) == found  # type: ignore[arg-type]
