"""The edge node on a real broker, each message decoded by npm's sparkplug-payload (Eclipse Tahu's JavaScript).

The tests are named after the assertions of the Sparkplug 3.0.0 specification that apply to an edge node.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import node, npm
from mosquitto import BINARY, Collector, Mosquitto, wait_for

from asd_agent import config
from asd_agent.publish import Messages
from asd_agent.publish.retry import Retry
from asd_agent.publish.sparkplug import EdgeNode, metrics
from asd_agent.publish.sparkplug.wire import DataType, Metric, Payload, encode
from asd_agent.types import AlarmState, Level, State
from store_cases import alarm_state, normal_window

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow_client,
    pytest.mark.skipif(BINARY is None, reason="needs mosquitto (see tests/system/packages.sh)"),
]
MESSAGES = Messages("hall-1", "asd", lambda: True)
PACKAGE = "sparkplug-payload@1"
DECODE = """
const spb = require('sparkplug-payload').get('spBv1.0');
const lines = require('fs').readFileSync(0, 'utf8').split('\\n').filter(l => l);
const plain = (k, v) => v && v.low !== undefined ? Number(BigInt(v.high >>> 0) * 4294967296n + BigInt(v.low >>> 0)) : v;
console.log(JSON.stringify(lines.map(l => spb.decodePayload(Buffer.from(l, 'hex'))), plain));
"""
ENCODE = """
const spb = require('sparkplug-payload').get('spBv1.0');
const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));
process.stdout.write(Buffer.from(spb.encodePayload(given)).toString('hex'));
"""
STATE = "spBv1.0/STATE/scada"


@dataclass
class Heard:
    kind: str
    device: str
    topic: str
    qos: int
    retain: bool
    payload: dict[str, Any]

    def metric(self, name: str) -> dict[str, Any]:
        return next(m for m in self.payload["metrics"] if m.get("name") == name)


@dataclass
class Story:
    """All that the edge node said, in order, and the verbs that it was asked for."""

    heard: list[Heard]
    asked: list[tuple[str, dict[str, Any]]]
    marks: dict[str, int]  # how many messages there were when something happened

    def of(self, kind: str, since: str = "", until: str = "") -> list[Heard]:
        part = self.heard[self.marks.get(since, 0) : self.marks.get(until)]
        return [h for h in part if h.kind == kind]


def host_command(folder: Path, name: str, value: object, kind: str) -> bytes:
    """Encoded by the independent implementation."""
    given = {"timestamp": int(time.time() * 1000), "metrics": [{"name": name, "type": kind, "value": value}]}
    return bytes.fromhex(node(folder, ENCODE, stdin=json.dumps(given).encode()).decode())


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = npm(PACKAGE)
    broker = Mosquitto(tmp_path_factory.mktemp("broker"))
    broker.start()
    host = Collector(broker.port, "spBv1.0/#", session="host")
    asked: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
    edge = edge_node(broker, asked)
    marks: dict[str, int] = {}

    def mark(name: str) -> None:
        marks[name] = len(messages(host))

    def until(kind: str, count: int, since: str = "") -> None:
        def come() -> bool:
            return sum(f"/{kind}/" in m.topic for m in messages(host)[marks.get(since, 0) :]) >= count

        wait_for(come, f"{count} {kind} after {since or 'the start'}")

    edge.tell(MESSAGES.of(MESSAGES.alarm("m1", AlarmState())))
    edge.start()
    time.sleep(1.5)
    mark("host online")
    host.client.publish(STATE, json.dumps({"online": True, "timestamp": 1000}), qos=1, retain=True)
    until("DBIRTH", 2)
    mark("data")
    edge.tell(MESSAGES.of(MESSAGES.score("m1", normal_window(7, np.random.default_rng(1)), score_limit=4.0)))
    edge.tell(MESSAGES.of(MESSAGES.alarm("m1", alarm_state(level=Level.DANGER, mode=State.NORMAL))))
    until("DDATA", 2, "data")
    mark("source gone")
    edge.tell(MESSAGES.machine_availability("m2", online=False))
    until("DDEATH", 1, "source gone")
    edge.tell(MESSAGES.machine_availability("m2", online=True))
    until("DBIRTH", 1, "source gone")
    mark("rebirth")
    host.client.publish("spBv1.0/plant/NCMD/hall-1", host_command(folder, "Node Control/Rebirth", True, "Boolean"))
    until("DBIRTH", 2, "rebirth")
    mark("commands")
    dcmd = "spBv1.0/plant/DCMD/hall-1/m1"
    host.client.publish(dcmd, host_command(folder, metrics.ACKNOWLEDGE, True, "Boolean"))
    host.client.publish(dcmd, host_command(folder, metrics.SHELVE, 30.0, "Double"))
    host.client.publish(dcmd, b"\xff\xff not a payload")
    host.client.publish("spBv1.0/plant/DCMD/hall-1/nobody", encode(Payload(1, (Metric(True, metrics.ACKNOWLEDGE),))))
    by_alias = encode(Payload(1, (Metric(True, alias=alias_of(metrics.UNSHELVE)),)))
    host.client.publish(dcmd, by_alias)
    commands = [asked.get(timeout=10) for _ in range(3)]
    mark("old state")
    host.client.publish(STATE, json.dumps({"online": False, "timestamp": 999}), qos=1)
    edge.tell(MESSAGES.of(MESSAGES.alarm("m1", AlarmState(mode=State.NORMAL))))
    until("DDATA", 1, "old state")
    mark("host offline")
    host.client.publish(STATE, json.dumps({"online": False, "timestamp": 2000}), qos=1, retain=True)
    until("NDEATH", 1, "host offline")
    edge.tell(MESSAGES.of(MESSAGES.alarm("m1", alarm_state(level=Level.ALERT, mode=State.NORMAL))))
    time.sleep(1.5)
    mark("host back")
    host.client.publish(STATE, json.dumps({"online": True, "timestamp": 3000}), qos=1, retain=True)
    until("DDATA", 1, "host back")
    broker.stop()
    mark("broker back")
    broker.start()
    until("DBIRTH", 2, "broker back")
    mark("stop")
    edge.stop()
    until("NDEATH", 1, "stop")
    yield Story(decoded(folder, messages(host)), commands, marks)
    host.close()
    broker.stop()


def edge_node(broker: Mosquitto, asked: queue.Queue[tuple[str, dict[str, Any]]]) -> EdgeNode:
    settings = config.Mqtt(url=broker.url)
    sparkplug = config.Sparkplug(group="plant", primary_host="scada")
    limits = ((0.05, 0.1), (0.1, 0.2))

    def handler(verb: str, data: dict[str, Any]) -> str:
        asked.put((verb, data))
        return "done"

    return EdgeNode(settings, sparkplug, MESSAGES, ["m1", "m2"], handler, Retry(limits))


def messages(host: Collector) -> list[Any]:
    kinds = ("NBIRTH", "DBIRTH", "DDATA", "NDATA", "NDEATH", "DDEATH")
    return [m for m in list(host.messages) if m.topic.split("/")[2] in kinds]


def alias_of(name: str) -> int:
    position = next(i for i, d in enumerate(metrics.MACHINE) if d.name == name)
    return 1 + position


def decoded(folder: Path, heard: list[Any]) -> list[Heard]:
    lines = "\n".join(bytes(m.payload).hex() for m in heard).encode()
    payloads = json.loads(node(folder, DECODE, stdin=lines))
    found = []
    for message, payload in zip(heard, payloads, strict=True):
        _, _, kind, _, *device = message.topic.split("/")
        found.append(Heard(kind, "".join(device), message.topic, message.qos, message.retain, payload))
    return found


def test_tck_id_topics_nbirth_topic_mqtt_seq_num_timestamp(story: Story) -> None:
    for birth in story.of("NBIRTH"):
        assert birth.topic == "spBv1.0/plant/NBIRTH/hall-1"
        assert (birth.qos, birth.retain) == (0, False)
        assert birth.payload["seq"] == 0
        assert abs(birth.payload["timestamp"] / 1000 - time.time()) < 600


def test_tck_id_topics_nbirth_metrics(story: Story) -> None:
    for birth in story.of("NBIRTH"):
        assert all(m["name"] and m["type"] and "value" in m for m in birth.payload["metrics"])


def test_tck_id_topics_nbirth_bdseq_included_matching_increment(story: Story) -> None:
    """One number for the births and the death of a connection; the next CONNECT has the next one."""
    numbers = [(h.kind, h.metric("bdSeq")["value"]) for h in story.heard if h.kind in ("NBIRTH", "NDEATH")]
    births = [number for kind, number in numbers if kind == "NBIRTH"]
    assert births[:3] == [0, 0, 1]  # rebirth keeps it; a CONNECT for the host that came back
    assert births[3] >= 2  # after the broker's restart, maybe with attempts in vain
    deaths = [number for kind, number in numbers if kind == "NDEATH"]
    assert deaths[0] == 0
    assert deaths[-1] == births[-1]


def test_tck_id_topics_nbirth_rebirth_metric(story: Story) -> None:
    for birth in story.of("NBIRTH"):
        rebirth = birth.metric("Node Control/Rebirth")
        assert (rebirth["type"], rebirth["value"]) == ("Boolean", False)
        assert "alias" not in rebirth


def test_tck_id_payloads_name_birth_data_requirement_and_alias_uniqueness(story: Story) -> None:
    births = story.of("DBIRTH", until="rebirth")[:2]
    aliases = [m["alias"] for b in births for m in b.payload["metrics"]]
    assert len(set(aliases)) == len(aliases) == 2 * len(metrics.MACHINE)
    assert [m["name"] for m in births[0].payload["metrics"]] == [d.name for d in metrics.MACHINE]


def test_tck_id_payloads_alias_data_cmd_requirement(story: Story) -> None:
    for data in story.of("DDATA"):
        assert all("alias" in m and not m.get("name") for m in data.payload["metrics"])


def test_tck_id_topics_dbirth_topic_mqtt_seq_timestamp_metrics(story: Story) -> None:
    for birth in story.of("DBIRTH"):
        assert birth.topic == f"spBv1.0/plant/DBIRTH/hall-1/{birth.device}"
        assert (birth.qos, birth.retain) == (0, False)
        assert birth.payload["timestamp"] > 0
        assert all(m["name"] and m["type"] for m in birth.payload["metrics"])
    first = story.of("DBIRTH")[0]
    assert first.metric("Alarm/Level")["value"] == "unknown"  # not calibrated: never normal
    assert first.metric("Score/Value").get("value") is None
    units = {m["name"]: m["properties"]["engUnit"]["value"] for m in first.payload["metrics"] if m.get("properties")}
    assert units == {"Score/Sound Level": "dBFS", "Chain/Lag": "s", metrics.SHELVE: "min"}


def test_tck_id_payloads_sequence_num_incrementing(story: Story) -> None:
    """Each message of a connection but NDEATH has the next number, NBIRTH 0."""
    expected = 0
    for heard in story.heard:
        if heard.kind == "NDEATH":
            continue
        expected = 0 if heard.kind == "NBIRTH" else (expected + 1) % 256
        assert heard.payload["seq"] == expected, heard.topic


def test_tck_id_topics_ddata_topic_mqtt_timestamp_payload(story: Story) -> None:
    data = story.of("DDATA", since="data", until="source gone")
    assert all((d.topic, d.qos, d.retain) == ("spBv1.0/plant/DDATA/hall-1/m1", 0, False) for d in data)
    names = {1 + i: d.name for i, d in enumerate(metrics.MACHINE)}
    told = {names[m["alias"]]: m["value"] for d in data for m in d.payload["metrics"] if m.get("value") is not None}
    assert told["Alarm/Level"] == "danger"
    assert told["Alarm/Active"] is True
    assert told["Score/Limit"] == 4.0
    assert told["Score/State"] == "normal"
    assert all(m["timestamp"] > 0 for d in data for m in d.payload["metrics"])


def test_tck_id_topics_ndeath_payload_and_seq(story: Story) -> None:
    for death in story.of("NDEATH"):
        assert death.topic == "spBv1.0/plant/NDEATH/hall-1"
        assert death.payload.get("seq") in (None, 0)  # the decoder gives 0 for none: see the bytes below
        assert [m["name"] for m in death.payload["metrics"]] == ["bdSeq"]
        assert not death.retain


def test_tck_id_operational_behavior_device_ddeath(story: Story) -> None:
    death = story.of("DDEATH", since="source gone", until="rebirth")
    assert [d.topic for d in death] == ["spBv1.0/plant/DDEATH/hall-1/m2"]
    assert [b.device for b in story.of("DBIRTH", since="source gone", until="rebirth")] == ["m2"]


def test_tck_id_operational_behavior_data_commands_rebirth_action(story: Story) -> None:
    part = story.heard[story.marks["rebirth"] : story.marks["commands"]]
    assert [h.kind for h in part] == ["NBIRTH", "DBIRTH", "DBIRTH"]


def test_tck_id_message_flow_device_birth_publish_nbirth_wait(story: Story) -> None:
    assert [h.kind for h in story.heard[:3]] == ["NBIRTH", "DBIRTH", "DBIRTH"]


def test_tck_id_topics_dcmd_payload(story: Story) -> None:
    assert story.asked == [
        ("ack", {"machine": "m1", "by": "Sparkplug"}),
        ("shelve", {"machine": "m1", "by": "Sparkplug", "minutes": 30.0}),
        ("unshelve", {"machine": "m1", "by": "Sparkplug"}),
    ]


def test_tck_id_message_flow_edge_node_birth_publish_phid_wait_online(story: Story) -> None:
    assert story.marks["host online"] == 0  # nothing is said before the host is there
    after = story.heard[story.marks["host offline"] : story.marks["host back"]]
    assert {h.kind for h in after} == {"NDEATH"}


def test_tck_id_operational_behavior_edge_node_termination_host_offline_timestamp(story: Story) -> None:
    assert [h.kind for h in story.heard[story.marks["old state"] : story.marks["host offline"]]] == ["DDATA"]


def test_tck_id_payloads_metric_is_historical_for_what_happened_meanwhile(story: Story) -> None:
    data = story.of("DDATA", since="host back", until="broker back")[0]
    assert all(m["isHistorical"] for m in data.payload["metrics"])
    assert "alert" in [m["value"] for m in data.payload["metrics"]]


def test_tck_id_operational_behavior_edge_node_intentional_disconnect_ndeath(story: Story) -> None:
    assert [h.kind for h in story.heard[story.marks["stop"] :]] == ["NDEATH"]


def test_a_death_has_no_sequence_number_in_its_bytes() -> None:
    """tck-id-topics-ndeath-seq: the field is absent, which a decoder cannot tell from 0."""
    number = Metric(5, "bdSeq", data_type=DataType.INT64)
    assert encode(Payload(None, (number,), 0)) == encode(Payload(None, (number,))) + b"\x18\x00"
