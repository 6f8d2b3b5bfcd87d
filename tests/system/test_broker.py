"""The publisher against real brokers: versions, TLS, credentials, wills, retained states, requests."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mosquitto import BINARY, Collector, Mosquitto, free_port, wait_for
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from asd_agent import config
from asd_agent.publish import Messages, Publisher
from asd_agent.publish import mqtt as mqtt_module
from asd_agent.publish.retry import Retry
from asd_agent.store import Store
from store_cases import alarm_event, alarm_state

QUICK = ((0.05, 0.05), (0.2, 0.2))  # limits of the waits between attempts

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(BINARY is None, reason="needs mosquitto (see tests/system/packages.sh)"),
]

MESSAGES = Messages("hall-1", "asd", lambda: True)
V5 = MQTTProtocolVersion.MQTTv5
Publish = Callable[..., Publisher]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def publish(store: Store) -> Iterator[Publish]:
    """Starts a publisher on a URL; ends it with the test."""
    started = []

    def start(url: str, handler: Any = None, **settings: Any) -> Publisher:
        publisher = Publisher(config.Mqtt(url=url, **settings), MESSAGES, store.outbox, handler, retry=Retry(QUICK))
        started.append(publisher)
        publisher.start()
        return publisher

    yield start
    for publisher in started:
        publisher.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    running = Mosquitto(tmp_path / "broker")
    running.start()
    yield running
    running.stop()


def connected(publisher: Publisher) -> None:
    wait_for(lambda: publisher.state.connected, f"connects: {publisher.state.detail}")


def says(publisher: Publisher, words: str) -> None:
    wait_for(lambda: words in publisher.state.detail, f"{words!r} in {publisher.state.detail!r}")
    assert "\n" not in publisher.state.detail


def commit(store: Store, name: str) -> None:
    event, state = alarm_event(name), alarm_state(comment=name)
    assert store.commit_events([event], state, MESSAGES.of_event(event, state))


def arrives(collector: Collector, name: str) -> None:
    topic = "asd/hall-1/m1/event"
    wait_for(lambda: any(json.loads(p)["id"] == name for p in collector.payloads(topic)), f"event {name} arrives")


def test_version_5_with_content_type_and_expiring_scores(broker: Mosquitto, store: Store, publish: Publish) -> None:
    collector = Collector(broker.port, "asd/#", protocol=V5)
    publisher = publish(broker.url)
    connected(publisher)
    assert publisher.state.protocol == "5"
    assert broker.url in publisher.state.detail
    commit(store, "e1")
    score = MESSAGES.of(MESSAGES.health("m1", status="good", reasons=(), source_available=True))
    publisher.retain(score)
    assert publisher.publish(MESSAGES.response("asd/x", data=1))
    arrives(collector, "e1")
    wait_for(lambda: store.outbox.depth() == 0, "the outbox is empty")
    (event,) = [m for m in collector.messages if m.topic.endswith("/event")]
    assert event.properties is not None
    assert event.properties.ContentType == "application/json"
    (online,) = [m for m in collector.messages if m.topic == "asd/hall-1/availability"]
    assert (bytes(online.payload), online.properties.ContentType) == (b"online", "text/plain")  # type: ignore[union-attr]
    collector.close()


def test_scores_expire_where_the_broker_can(broker: Mosquitto, publish: Publish) -> None:
    import numpy as np

    from store_cases import normal_window

    collector = Collector(broker.port, "asd/+/+/score", protocol=V5)
    publisher = publish(broker.url)
    connected(publisher)
    publisher.publish(MESSAGES.of(MESSAGES.score("m1", normal_window(1, np.random.default_rng(1)))))
    wait_for(lambda: len(collector.messages) == 1, "the score arrives")
    assert 0 < collector.messages[0].properties.MessageExpiryInterval <= 60  # type: ignore[union-attr]
    assert not collector.messages[0].retain
    collector.close()


def test_version_3_1_1_when_told_so(broker: Mosquitto, store: Store, publish: Publish) -> None:
    collector = Collector(broker.port, "asd/#")
    publisher = publish(broker.url, protocol="3.1.1")
    connected(publisher)
    assert publisher.state.protocol == "3.1.1"
    commit(store, "e1")
    arrives(collector, "e1")
    wait_for(lambda: store.outbox.depth() == 0, "the outbox is empty")
    collector.close()


AMQTT = """
import asyncio, sys
from amqtt.broker import Broker

async def main():
    config = {"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}}, "sys_interval": 0}
    config["plugins"] = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = Broker(config)
    await broker.start()
    await asyncio.sleep(120)

asyncio.run(main())
"""


def test_a_broker_without_version_5(tmp_path: Path, store: Store, publish: Publish) -> None:
    pytest.importorskip("amqtt")
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", AMQTT, str(port)], stderr=subprocess.DEVNULL)
    try:
        publisher = publish(f"mqtt://127.0.0.1:{port}")
        connected(publisher)
        assert publisher.state.protocol == "3.1.1"
        collector = Collector(port, "asd/#")
        commit(store, "e1")
        arrives(collector, "e1")
        collector.close()
        publisher.stop()
    finally:
        process.kill()
        process.wait()


def test_a_broker_that_comes_later_and_goes_away(tmp_path: Path, store: Store, publish: Publish) -> None:
    broker = Mosquitto(tmp_path / "broker")
    publisher = publish(broker.url)
    says(publisher, "connection refused: is the broker running?")
    commit(store, "e1")
    broker.start()
    try:
        collector = Collector(broker.port, "asd/#", session="collector")
        connected(publisher)
        wait_for(lambda: store.outbox.depth() == 0, "e1 has gone, perhaps before the collector was there")
        broker.stop()
        wait_for(lambda: not publisher.state.connected, "notices that the broker is gone")
        commit(store, "e2")
        assert not publisher.publish(MESSAGES.response("t"))
        assert publisher.dropped == 1
        broker.start()
        arrives(collector, "e2")
        wait_for(lambda: store.outbox.depth() == 0, "the outbox is empty")
        collector.close()
    finally:
        broker.stop()


def test_a_broker_that_hangs(
    broker: Mosquitto, store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_module, "STALLED_S", 0.5)
    monkeypatch.setattr(mqtt_module, "TURN_S", 0.1)
    publisher = publish(broker.url)
    connected(publisher)
    broker.signal(signal.SIGSTOP)
    try:
        commit(store, "e1")
        says(publisher, "no acknowledgement for")
        assert store.outbox.depth() == 2
    finally:
        broker.signal(signal.SIGCONT)
    wait_for(lambda: store.outbox.depth() == 0, "delivered once it lives again")


def test_what_a_broker_must_hold_is_there_again_after_it_forgot(tmp_path: Path, store: Store, publish: Publish) -> None:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    publisher = publish(broker.url)
    connected(publisher)
    commit(store, "e1")
    publisher.retain(MESSAGES.machine_availability("m1", online=True))
    publisher.retain(MESSAGES.of(MESSAGES.health("m1", status="good", reasons=(), source_available=True)))
    publisher.retain(MESSAGES.of(MESSAGES.health("m1", status="failure", reasons=("x",), source_available=False)))
    wait_for(lambda: store.outbox.depth() == 0, "the outbox is empty")
    broker.stop()
    (tmp_path / "broker" / "mosquitto.db").unlink()
    broker.start()
    try:
        collector = Collector(broker.port, "asd/#")
        wait_for(lambda: collector.last("asd/hall-1/m1/health") is not None, "health is retained")
        wait_for(lambda: collector.last("asd/hall-1/m1/alarm") is not None, "the alarm is retained")
        assert json.loads(collector.last("asd/hall-1/m1/alarm") or b"")["comment"] == "e1"
        assert json.loads(collector.last("asd/hall-1/m1/health") or b"")["status"] == "failure"
        assert collector.last("asd/hall-1/m1/availability") == b"online"
        assert collector.last("asd/hall-1/availability") == b"online"
        publisher.forget("m1")
        wait_for(lambda: collector.last("asd/hall-1/m1/alarm") == b"", "the machine is forgotten")
        collector.close()
        late = Collector(broker.port, "asd/#")
        wait_for(lambda: late.last("asd/hall-1/availability") is not None, "retained messages come")
        assert {m.topic for m in late.messages} == {"asd/hall-1/availability"}
        late.close()
    finally:
        broker.stop()


def test_the_will_speaks_for_a_killed_agent_and_not_for_a_stopped_one(
    broker: Mosquitto, store: Store, publish: Publish, tmp_path: Path
) -> None:
    topic = "asd/hall-1/availability"
    collector = Collector(broker.port, topic)
    script = Path(__file__).with_name("alarm_source.py")
    source = subprocess.Popen([sys.executable, str(script), str(tmp_path / "s"), str(broker.port), "1", "1"])
    try:
        wait_for(lambda: collector.last(topic) == b"online", "the source is online")
    finally:
        source.kill()
        source.wait()
    wait_for(lambda: collector.last(topic) == b"offline", "the will says offline")
    publisher = publish(broker.url)
    wait_for(lambda: collector.last(topic) == b"online", "online again")
    publisher.stop()
    wait_for(lambda: collector.last(topic) == b"offline", "it says goodbye")
    time.sleep(0.2)
    assert collector.payloads(topic) == [b"online", b"offline", b"online", b"offline"]
    collector.close()


def test_requests_are_answered_where_the_asker_wants(broker: Mosquitto, publish: Publish) -> None:
    asked: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    def handler(verb: str, data: dict[str, Any]) -> dict[str, Any]:
        asked.put((verb, data))
        return {"done": verb}

    old = Collector(broker.port, "asd/hall-1/response/#")
    new = Collector(broker.port, "panel/#", protocol=V5)
    old.client.publish("asd/hall-1/request/rollback", "{}", qos=1, retain=True).wait_for_publish(10)
    connected(publish(broker.url, handler, response_topics=("panel/#",)))
    topic = "asd/hall-1/response/"
    wait_for(lambda: old.last(topic + "rollback") is not None, "the retained request is answered")
    refusal = json.loads(old.last(topic + "rollback") or b"")
    assert (refusal["status"], "retained" in refusal["error"]) == ("error", True)
    old.client.publish("asd/hall-1/request/ack", '{"machine": "m1", "transaction": 5}', qos=1)
    wait_for(lambda: old.last(topic + "ack") is not None, "the request is answered")
    answer = json.loads(old.last(topic + "ack") or b"")
    assert (answer["status"], answer["transaction"], answer["data"]) == ("ok", 5, {"done": "ack"})
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = "panel/7"
    properties.CorrelationData = b"\x00\x2a"
    new.client.publish("asd/hall-1/request/shelve", "{}", qos=1, properties=properties)
    wait_for(lambda: new.last("panel/7") is not None, "the answer comes where it is wanted")
    assert new.messages[-1].properties.CorrelationData == b"\x00\x2a"  # type: ignore[union-attr]
    assert [asked.get(timeout=5) for _ in range(2)] == [("ack", {"machine": "m1"}), ("shelve", {})]
    assert asked.empty()
    old.close()
    new.close()


def passwords(folder: Path, **users: str) -> list[str]:
    file = folder / "passwords"
    file.touch(mode=0o600)
    for user, word in users.items():
        subprocess.run(["mosquitto_passwd", "-b", str(file), user, word], check=True, capture_output=True)
    return ["allow_anonymous false", f"password_file {file}"]


def test_a_wrong_password_is_said_tried_again_and_never_shown(
    tmp_path: Path, store: Store, publish: Publish, capfd: pytest.CaptureFixture[str]
) -> None:
    broker = Mosquitto(tmp_path / "broker", *passwords(tmp_path, **{"hall-1": "correct-horse"}))
    broker.start()
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    try:
        for settings in ({}, {"protocol": "3.1.1"}):
            publisher = publish(broker.url, username="hall-1", password_file=str(file), **settings)
            says(publisher, "the broker refuses user or password")
            says(publisher, "check mqtt.username and mqtt.password_file")
            publisher.stop()
        nobody = publish(broker.url)
        says(nobody, "the broker refuses us without a user")
        nobody.stop()
        publisher = publish(broker.url, username="hall-1", password_file=str(file))
        says(publisher, "the broker refuses user or password")
        commit(store, "e1")
        assert store.outbox.depth() == 2
        file.write_text("correct-horse\n")  # somebody mends it: no restart needed
        connected(publisher)
        wait_for(lambda: store.outbox.depth() == 0, "the outbox is empty")
        for secret in ("hunter2", "correct-horse"):
            assert secret not in "".join(capfd.readouterr()) + publisher.state.detail + broker.log
    finally:
        broker.stop()


def test_messages_that_the_broker_may_refuse_stay(tmp_path: Path, store: Store, publish: Publish) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite asd/hall-1/availability\n")
    broker = Mosquitto(tmp_path / "broker", "allow_anonymous true", f"acl_file {acl}")
    broker.start()
    try:
        publisher = publish(broker.url)
        connected(publisher)
        commit(store, "e1")
        says(publisher, "the broker refuses some messages: check its access rules")
        assert publisher.state.connected
        assert store.outbox.depth() == 2
    finally:
        broker.stop()


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, server.pem for 127.0.0.1, elsewhere.pem for another host, client.pem, and an unrelated other-ca.pem."""
    folder = tmp_path_factory.mktemp("certificates")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for ca in ("ca", "other-ca"):
        files = ["-keyout", f"{ca}.key", "-out", f"{ca}.pem"]
        openssl(folder, "req", "-x509", *new_key, *files, "-days", "2", "-subj", f"/CN={ca}")
    names = {"server": "IP:127.0.0.1", "elsewhere": "DNS:elsewhere.example", "client": "DNS:hall-1"}
    for name, alternative in names.items():
        (folder / f"{name}.cnf").write_text(f"subjectAltName={alternative}\n")
        openssl(folder, "req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed_by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", *signed_by, "-out", f"{name}.pem",
            "-extfile", f"{name}.cnf",
        )  # fmt: skip
    return folder


@pytest.fixture
def tls_broker(tmp_path: Path, certificates: Path) -> Iterator[Mosquitto]:
    lines = [
        f"cafile {certificates}/ca.pem",
        f"certfile {certificates}/server.pem",
        f"keyfile {certificates}/server.key",
        "require_certificate true",
        "use_identity_as_username true",
    ]
    running = Mosquitto(tmp_path / "broker", *lines)
    running.start()
    yield running
    running.stop()


def test_tls_with_client_certificates(
    tls_broker: Mosquitto, certificates: Path, store: Store, publish: Publish
) -> None:
    files = {
        "ca_file": f"{certificates}/ca.pem",
        "cert_file": f"{certificates}/client.pem",
        "key_file": f"{certificates}/client.key",
    }

    def trust(client: Any) -> None:
        client.tls_set(files["ca_file"], files["cert_file"], files["key_file"])

    publisher = publish(tls_broker.url.replace("mqtt:", "mqtts:"), **files)
    connected(publisher)
    collector = Collector(tls_broker.port, "asd/#", configure=trust)
    for i in range(50):
        commit(store, f"e{i}")
    arrives(collector, "e49")
    wait_for(lambda: store.outbox.depth() == 0, "the outbox is empty")
    collector.close()


def test_tls_mistakes_are_named_and_tried_again(
    tls_broker: Mosquitto, certificates: Path, tmp_path: Path, publish: Publish
) -> None:
    url = tls_broker.url.replace("mqtt:", "mqtts:")
    good = {
        "ca_file": f"{certificates}/ca.pem",
        "cert_file": f"{certificates}/client.pem",
        "key_file": f"{certificates}/client.key",
    }
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes((certificates / "other-ca.pem").read_bytes())
    publisher = publish(url, **{**good, "ca_file": str(ca_file)})
    says(publisher, "the broker's certificate is not accepted")
    says(publisher, "check mqtt.ca_file")
    ca_file.write_bytes((certificates / "ca.pem").read_bytes())
    connected(publisher)
    publisher.stop()

    system_cas = publish(url, cert_file=good["cert_file"], key_file=good["key_file"])
    says(system_cas, "the broker's certificate is not accepted")
    system_cas.stop()
    nobody = publish(url, ca_file=good["ca_file"])
    says(nobody, "check mqtt.cert_file")
    nobody.stop()
    swapped = publish(url, **{**good, "key_file": f"{certificates}/server.key"})
    says(swapped, "mqtt.key_file")
    swapped.stop()
    plain = publish(tls_broker.url)
    says(plain, "is it an MQTT broker?")
    plain.stop()


def test_a_certificate_for_another_host_is_not_accepted(tmp_path: Path, certificates: Path, publish: Publish) -> None:
    lines = [f"certfile {certificates}/elsewhere.pem", f"keyfile {certificates}/elsewhere.key"]
    broker = Mosquitto(tmp_path / "broker", *lines, "allow_anonymous true")
    broker.start()
    try:
        publisher = publish(broker.url.replace("mqtt:", "mqtts:"), ca_file=f"{certificates}/ca.pem")
        says(publisher, "IP address mismatch")
        assert not publisher.state.connected
    finally:
        broker.stop()


def test_tls_towards_a_plain_port(broker: Mosquitto, certificates: Path, publish: Publish) -> None:
    publisher = publish(broker.url.replace("mqtt:", "mqtts:"), ca_file=f"{certificates}/ca.pem")
    says(publisher, "is this the TLS port of a broker")
