"""The reference subscriber: knows every event that has arrived, and how often and in how many versions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

from mosquitto import Collector
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

PATIENCE_S = 30.0


class Reference:
    """Subscribes at the broker itself, past the proxy, with a session that the broker keeps."""

    def __init__(self, port: int, session: str) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._content: dict[str, bytes] = {}
        self.arrivals = 0
        self.conflicts = 0  # ids with two contents
        self.client = client = Client(CallbackAPIVersion.VERSION2, session, clean_session=False)
        client.reconnect_delay_set(0.05, 0.2)
        self._subscribed = threading.Event()
        client.on_connect = lambda *_: client.subscribe("asd/+/+/event", qos=1)
        client.on_disconnect = lambda *_: self._subscribed.clear()
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = lambda client, userdata, message: self._event(message)
        client.connect_async("127.0.0.1", port)
        client.loop_start()

    def _event(self, message: MQTTMessage) -> None:
        payload = bytes(message.payload)
        event_id = json.loads(payload)["id"]
        with self._lock:
            self.arrivals += 1
            self.conflicts += self._content.setdefault(event_id, payload) != payload

    def resubscribed(self) -> None:
        """Wait until the broker, which may have forgotten us, has us again."""
        assert self._subscribed.wait(PATIENCE_S), "the reference subscriber is not connected"

    def missing(self, ids: set[str]) -> set[str]:
        with self._lock:
            return ids - self._content.keys()

    @property
    def duplicates(self) -> int:
        """Arrivals of what had arrived before."""
        with self._lock:
            return self.arrivals - len(self._content)

    def retained(self, agent: str, machines: tuple[str, ...]) -> dict[str, dict[str, object]]:
        """The alarm states that a subscriber who comes now is told."""
        late = Collector(self._port, f"asd/{agent}/+/alarm")
        try:
            deadline = time.monotonic() + 1.0
            topics = {f"asd/{agent}/{machine}/alarm": machine for machine in machines}
            while time.monotonic() < deadline and any(late.last(topic) is None for topic in topics):
                time.sleep(0.01)
            return {m: json.loads(late.last(t) or b"{}") for t, m in topics.items()}
        finally:
            late.close()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def waited_s(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> float | None:
    """Seconds until the condition held; None = not within the time."""
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > patience_s:
            return None
        time.sleep(0.02)
    return time.monotonic() - began_s
