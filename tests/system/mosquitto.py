"""A mosquitto of our own on a free loopback port, with its own configuration, and a client that collects."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

BINARY = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
PATIENCE_S = 20.0
SCHEMA = Path(__file__).parents[2] / "docs" / "schema" / "mqtt.json"


def wait_for(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s in vain: {what}"
        time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Mosquitto:
    """`lines` go into its configuration, after the listener. Sessions and retained messages survive a restart."""

    def __init__(self, folder: Path, *lines: str) -> None:
        assert BINARY is not None
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._file = folder / "mosquitto.conf"
        self._file.write_text(
            "\n".join(
                [
                    f"listener {self.port} 127.0.0.1",
                    *(lines or ("allow_anonymous true",)),
                    f"user {getpass.getuser()}",  # else it gives up root, and cannot save in our folder
                    "persistence true",
                    f"persistence_location {folder}/",
                    "set_tcp_nodelay true",
                    "max_queued_messages 100000",
                    "",
                ]
            )
        )
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([str(BINARY), "-c", str(self._file)], stdout=log, stderr=log)
        wait_for(self._answers, f"mosquitto answers on port {self.port}: {self.log}")

    def stop(self) -> None:
        """As an administrator does: it saves what it must not forget."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
            assert "Error saving" not in self.log

    def kill(self) -> None:
        """Nothing is saved."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def running(self) -> bool:
        return self._process is not None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"mosquitto ended: {self.log}"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class Collector:
    """An independent subscriber: all messages in the order in which they came."""

    def __init__(
        self,
        port: int,
        topic: str = "#",
        *,
        session: str = "",
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
        configure: Callable[[Client], object] = lambda client: None,
    ) -> None:
        """With a `session` name the broker keeps messages for us while we are away."""
        self.messages: list[MQTTMessage] = []
        self._subscribed = threading.Event()
        v5 = protocol is MQTTProtocolVersion.MQTTv5
        self.client = client = Client(
            CallbackAPIVersion.VERSION2,
            session,
            protocol=protocol,
            clean_session=None if v5 else not session,
        )
        client.reconnect_delay_set(0.05, 0.2)
        client.on_connect = lambda *_: client.subscribe(topic, qos=1)
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = self._message
        configure(client)
        client.connect_async("127.0.0.1", port)
        client.loop_start()
        assert self._subscribed.wait(PATIENCE_S)

    def _message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        self.messages.append(message)

    def check_contract(self) -> int:
        """Validates every JSON payload that came against the published schema; how many there were."""
        validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
        payloads = [json.loads(m.payload) for m in list(self.messages) if m.payload.startswith(b'{"schema":"asd/')]
        for payload in payloads:
            validator.validate(payload)
        return len(payloads)

    def payloads(self, topic: str) -> list[bytes]:
        return [bytes(m.payload) for m in list(self.messages) if m.topic == topic]

    def last(self, topic: str) -> bytes | None:
        found = self.payloads(topic)
        return found[-1] if found else None

    def close(self) -> None:
        """What came must be as the contract says."""
        self.client.disconnect()
        self.client.loop_stop()
        self.check_contract()
