"""Address, credentials and TLS files: what is wrong is said in one line without any secret."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asd_agent import config
from asd_agent.errors import ConfigError, PublishError
from asd_agent.publish import Messages, Publisher, broker
from asd_agent.publish.connection import Connection
from asd_agent.publish.mqtt import V5, V311
from asd_agent.publish.retry import Retry
from asd_agent.store import Message, Store

QUICK = ((0.01, 0.01), (0.02, 0.02))


def mqtt(url: str = "mqtt://127.0.0.1", **fields: object) -> config.Mqtt:
    return config.Mqtt(url=url, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("mqtt://broker", ("broker", 1883, False)),
        ("mqtts://broker", ("broker", 8883, True)),
        ("mqtts://broker.example:4711", ("broker.example", 4711, True)),
        ("mqtt://[::1]:1884", ("::1", 1884, False)),
    ],
)
def test_addresses(url: str, wanted: tuple[str, int, bool]) -> None:
    found = broker.address(mqtt(url))
    assert (found.host, found.port, found.tls) == wanted


@pytest.mark.parametrize("url", ["mqtt://broker:99999", "mqtt://:1883", "mqtt://broker:x"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(PublishError, match=r"mqtt\.url"):
        broker.address(mqtt(url))


def test_the_password_comes_from_the_file_else_from_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    file = tmp_path / "password"
    file.write_text("s3cret ä\n")
    assert broker.password(mqtt(username="u", password_file=str(file))) == "s3cret ä"
    assert broker.password(mqtt(username="u")) is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert broker.password(mqtt(username="u")) is None
    (tmp_path / "mqtt-password").write_text("rotated")
    assert broker.password(mqtt(username="u")) == "rotated"
    assert broker.password(mqtt()) is None  # no user, no password
    file.write_text("changed")
    assert broker.password(mqtt(username="u", password_file=str(file))) == "changed"


def test_a_password_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"mqtt\.password_file .*missing: cannot be read \(No such file"):
        broker.password(mqtt(username="u", password_file=str(tmp_path / "missing")))
    (tmp_path / "binary").write_bytes(b"\xff\xfehunter2")
    with pytest.raises(PublishError, match="is not UTF-8") as caught:
        broker.password(mqtt(username="u", password_file=str(tmp_path / "binary")))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
def test_bad_certificate_files_name_the_key_and_the_file(tmp_path: Path, key: str, content: bytes | None) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(PublishError, match=rf"mqtt\.{key} .*file\.pem.*: (cannot be read|not usable)") as caught:
        broker.tls_context(mqtt("mqtts://broker", **{key: str(file)}))
    assert "\n" not in str(caught.value)


def test_the_broker_is_always_verified() -> None:
    context = broker.tls_context(mqtt("mqtts://broker"))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("mqtt_lines", "machine", "error"),
    [
        ("url: mqtt://b, ca_file: ca.pem", "m1", "mqtt: url mqtt:// is not encrypted"),
        ("url: mqtts://b, key_file: key.pem", "m1", "mqtt: key_file needs cert_file"),
        ("url: mqtt://b", "request", "machines: the id 'request' is a topic of the agent itself"),
    ],
)
def test_settings_that_would_mislead_are_refused(tmp_path: Path, mqtt_lines: str, machine: str, error: str) -> None:
    file = tmp_path / "agent.yaml"
    machines = f"[{{id: {machine}, source: {{kind: simulated}}}}]"
    file.write_text(f"agent: {{id: a}}\nmqtt: {{{mqtt_lines}}}\nmachines: {machines}\n")
    with pytest.raises(ConfigError, match=error) as caught:
        config.load(file)
    assert str(file) in str(caught.value)


def listen(serve: Callable[[socket.socket], None]) -> str:
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with server, server.accept()[0] as peer:
            peer.settimeout(5)
            serve(peer)

    threading.Thread(target=run, daemon=True).start()
    return f"mqtt://127.0.0.1:{server.getsockname()[1]}"


def test_something_that_is_no_broker() -> None:
    def speak_http(peer: socket.socket) -> None:
        peer.recv(100)
        peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    url = listen(speak_http)
    with pytest.raises(PublishError, match=rf"^{url}: .*is it an MQTT broker\?$"):
        Connection(mqtt(url), V311, "test").open()


def test_a_broken_answer_ends_the_connection_and_not_the_thread() -> None:
    def speak_nonsense(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(b"\x20\x01\x00")  # a CONNACK that is too short
        peer.recv(1000)

    with pytest.raises(PublishError):
        Connection(mqtt(listen(speak_nonsense)), V311, "test").open()


def test_a_second_agent_with_the_same_id_is_named() -> None:
    def take_over(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(b"\x20\x03\x00\x00\x00" + b"\xe0\x02\x8e\x00")  # CONNACK, DISCONNECT

    connection = Connection(mqtt(listen(take_over)), V5, "test")

    def serve() -> None:
        connection.open()
        for _ in range(100):
            connection.turn(0.1)

    with pytest.raises(PublishError, match=r"is there a second agent with this agent\.id\?"):
        serve()


def test_a_broker_may_allow_fewer_messages_at_once() -> None:
    def answer(peer: socket.socket) -> None:
        peer.recv(1000)
        peer.sendall(b"\x20\x06\x00\x00\x03\x21\x00\x03")  # CONNACK with Receive Maximum 3
        while peer.recv(1000):
            pass

    connection = Connection(mqtt(listen(answer)), V5, "test")
    connection.open()
    assert connection.room == 3
    connection.send(Message(topic="t", payload=b"x"))
    assert connection.room == 2
    connection.abort()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_without_a_broker_scores_are_dropped_and_counted_and_the_rest_waits(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
    messages = Messages("hall-1", "asd", lambda: True)
    with Store(tmp_path) as store:
        publisher = Publisher(mqtt(url), messages, store.outbox, retry=Retry(QUICK))
        assert publisher.state.detail == "not started"
        publisher.start()
        try:
            wait_for(lambda: "connection refused" in publisher.state.detail, "the state says why")
            since = publisher.state.since
            for _ in range(3):
                assert not publisher.publish(Message(topic="t", payload=b"x", qos=0))
            publisher.retain(messages.machine_availability("m1", online=True))
            store.outbox.put([Message(topic="t", payload=b"kept")])
            time.sleep(0.1)  # some more attempts: they are no news
            assert publisher.dropped == 3
            assert publisher.state.since == since
            assert store.outbox.depth() == 1
        finally:
            publisher.stop()
        assert publisher.state.detail == "stopped"


def test_a_missing_password_file_is_shown_and_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "password"
    settings = mqtt("mqtt://127.0.0.1:1", username="hall-1", password_file=str(file))
    with Store(tmp_path / "state") as store:
        publisher = Publisher(settings, Messages("hall-1", "asd", lambda: True), store.outbox, retry=Retry(QUICK))
        publisher.start()
        try:
            wait_for(lambda: "cannot be read" in publisher.state.detail, "the state names the file")
            assert str(file) in publisher.state.detail
            file.write_text("secret")
            wait_for(lambda: "refused" in publisher.state.detail, "it went on as soon as the file was there")
        finally:
            publisher.stop()
