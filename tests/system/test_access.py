"""The access rules of docs/mqtt.md on a real mosquitto: who may publish and read what."""

from __future__ import annotations

import getpass
import queue
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mosquitto import BINARY, Collector, Mosquitto, wait_for
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from asd_agent import config
from asd_agent.publish import Messages, Publisher
from asd_agent.store import Store

PASSWD = shutil.which("mosquitto_passwd")
USERS = ("hall-1", "hall-2", "grafana", "control-room")
V5 = MQTTProtocolVersion.MQTTv5
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(BINARY is None or PASSWD is None, reason="needs mosquitto (see tests/system/packages.sh)"),
]


def documented_rules() -> str:
    """The block of docs/mqtt.md."""
    text = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text()
    (rules,) = re.findall(r"^```\n(# each agent.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return str(rules)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    (folder / "acl").write_text(documented_rules())
    (folder / "passwords").touch(mode=0o600)
    for name in USERS:
        subprocess.run([str(PASSWD), "-b", str(folder / "passwords"), name, f"{name}'s"], check=True)
    shutil.chown(folder / "passwords", getpass.getuser())
    lines = ("allow_anonymous false", f"password_file {folder}/passwords", f"acl_file {folder}/acl")
    running = Mosquitto(folder, *lines)
    running.start()
    yield running
    running.stop()


class Person:
    """A client of MQTT 5, which is told what is refused."""

    def __init__(self, port: int, name: str) -> None:
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=V5)
        self._client.username_pw_set(name, f"{name}'s")
        self._client.on_connect = lambda *_: self._answers.put(None)
        self._client.on_publish = lambda client, userdata, mid, reason, properties: self._answers.put(reason)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._answers.get(timeout=10)

    def may_publish(self, topic: str) -> bool:
        self._client.publish(topic, "{}", qos=1)
        return not self._answers.get(timeout=10).is_failure

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def reading(port: int, name: str, topic: str) -> Collector:
    return Collector(port, topic, protocol=V5, configure=lambda client: client.username_pw_set(name, f"{name}'s"))


def test_each_may_do_what_the_documented_rules_say_and_no_more(broker: Mosquitto, tmp_path: Path) -> None:
    asked: list[str] = []
    grafana = reading(broker.port, "grafana", "asd/#")
    (tmp_path / "password").write_text("hall-1's")
    settings = config.Mqtt(url=broker.url, username="hall-1", password_file=str(tmp_path / "password"))
    messages = Messages("hall-1", "asd", lambda: True)
    other, person, dashboard = (Person(broker.port, name) for name in ("hall-2", "control-room", "grafana"))
    with Store(tmp_path / "state") as store:
        agent = Publisher(settings, messages, store.outbox, lambda verb, data: asked.append(verb) or "done")
        agent.start()
        wait_for(lambda: agent.state.connected, f"the agent connects: {agent.state.detail}")
        store.outbox.put([messages.of(messages.health("m", status="good", reasons=(), source_available=True))])
        wait_for(lambda: store.outbox.depth() == 0, "the agent may publish below its own id")
        assert not agent._delivery.refused
        wait_for(lambda: bool(grafana.payloads("asd/hall-1/m/health")), "a dashboard reads everything")

        for topic in ("asd/hall-1/m/alarm", "asd/hall-1/availability", "asd/hall-1/request/ack"):
            assert not other.may_publish(topic), f"another agent: {topic}"
            assert not dashboard.may_publish(topic), f"a dashboard: {topic}"
        assert other.may_publish("asd/hall-2/m/alarm")

        for verb in ("ack", "shelve", "unshelve", "status"):
            assert person.may_publish(f"asd/hall-1/request/{verb}")
        for topic in ("asd/hall-1/request/calibrate", "asd/hall-1/request/promote", "asd/hall-1/m/alarm"):
            assert not person.may_publish(topic), f"the control room: {topic}"
        wait_for(lambda: sorted(asked) == ["ack", "shelve", "status", "unshelve"], "the agent is asked that much")
        wait_for(lambda: bool(grafana.payloads("asd/hall-1/response/ack")), "answers may be read")
        agent.stop()
    spy = reading(broker.port, "hall-2", "asd/hall-1/#")
    assert spy.messages == []  # not even what is retained
    for one in (other, person, dashboard):
        one.close()
    for collector in (grafana, spy):
        collector.close()
