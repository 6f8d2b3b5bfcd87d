"""Discovery messages: complete, unambiguous ids, removal of what is gone. Home Assistant itself: tests/system."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from asd_agent import config
from asd_agent.publish.homeassistant import Discovery, object_id
from asd_agent.publish.topics import Topics
from asd_agent.store import Message

MACHINES = [config.Machine(id=name, source=config.SimulatedSource()) for name in ("m1", "pump.2")]


def discovery(**more: Any) -> Discovery:
    fields = {"discovery": "homeassistant", **more}
    return Discovery(config.Mqtt(url="mqtt://broker", **fields), Topics("asd", "hall-1"))


def contents(messages: list[Message]) -> list[dict[str, Any]]:
    return [json.loads(m.payload) for m in messages]


def test_a_device_message_for_the_agent_and_each_machine() -> None:
    messages = discovery().messages(MACHINES)
    assert all(re.fullmatch(r"homeassistant/device/[A-Za-z0-9_-]+/config", m.topic) for m in messages)
    assert all(m.retain and m.qos == 1 for m in messages)
    agent, machine, _ = contents(messages)
    assert agent["device"]["identifiers"] == ["asd/hall-1"]
    assert machine["device"]["via_device"] == "asd/hall-1"
    assert {c["platform"] for c in machine["components"].values()} == {
        "binary_sensor", "sensor", "event", "image", "button",
    }  # fmt: skip
    assert set(machine["components"]) == {
        "alarm", "level", "event", "picture", "score", "limit", "operating", "chain", "source", "ack", "shelve",
    }  # fmt: skip


def test_both_styles_have_the_same_entities_and_ids() -> None:
    device = {c["unique_id"] for d in contents(discovery().messages(MACHINES)) for c in d["components"].values()}
    components = contents(discovery(discovery="homeassistant-components").messages(MACHINES))
    assert {c["unique_id"] for c in components} == device
    assert len(components) == len(device)
    assert all("platform" not in c and c["device"]["identifiers"] for c in components)


@pytest.mark.parametrize(
    ("requests", "buttons"),
    [((), set()), (("status", "ack"), {"ack"}), (("ack", "shelve", "calibrate"), {"ack", "shelve", "calibrate"})],
)
def test_a_button_for_what_the_agent_will_do(requests: tuple[str, ...], buttons: set[str]) -> None:
    machine = contents(discovery(requests=requests).messages(MACHINES[:1]))[1]
    found = {name for name, c in machine["components"].items() if c["platform"] == "button"}
    assert found == buttons
    for name in found:
        component = machine["components"][name]
        assert component["command_topic"] == f"asd/hall-1/request/{name}"
        assert json.loads(component["payload_press"])["machine"] == "m1"


def test_ids_that_differ_stay_different() -> None:
    roots = ["asd/a_b/c", "asd/a/b_c", "asd/a.b/c", "asd/a-b/c", "asd_a/b/c"]
    assert len({object_id(root) for root in roots}) == len(roots)


def test_only_what_changed_is_sent_and_what_is_gone_is_removed() -> None:
    one = discovery()
    held = one.messages(MACHINES)
    foreign = [Message(topic="asd/hall-1/m1/alarm", payload=b"{}", retain=True)]
    assert one.changes(MACHINES, held + foreign) == []
    gone = one.changes(MACHINES[:1], held + foreign)
    assert [(m.topic, m.payload, m.retain) for m in gone] == [(held[2].topic, b"", True)]
    off = Discovery(config.Mqtt(url="mqtt://broker"), Topics("asd", "hall-1"))
    assert {(m.topic, m.payload) for m in off.changes(MACHINES, held)} == {(m.topic, b"") for m in held}
    fewer = discovery(requests=())
    assert [m.topic for m in fewer.changes(MACHINES, held)] == [m.topic for m in held[1:]]
