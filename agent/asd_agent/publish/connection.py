"""One MQTT connection from CONNECT to its end, driven by one thread: paho without threads of its own.

paho's own reconnection is not used: it keeps messages, credentials and TLS files of the first connection,
and a crash of its thread is silent. Here each connection is a new client, and the outbox is the queue.
"""

from __future__ import annotations

import select
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

import structlog
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from asd_agent import config
from asd_agent.errors import PublishError
from asd_agent.publish import broker
from asd_agent.store import Message

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_S = 10.0
MAX_IN_FLIGHT = 20  # messages sent and not yet acknowledged

# Reason codes of MQTT 5; paho translates those of 3.1.1
UNSPECIFIED = 0x80
UNSUPPORTED_VERSION = 0x84
BAD_CREDENTIALS = (0x86, 0x87)
TAKEN_OVER = 0x8E


class VersionRefused(PublishError):  # noqa: N818 - named after what happened
    """The broker does not speak this version of MQTT, or hung up on it or kept silent."""


class Connection:
    """Construct, `open`, then call `turn` again and again, all from one thread.

    `on_ack(mid, accepted)` and `on_message(message)` are called from `turn`. Construction, `open` and `turn`
    raise PublishError, one line, when there is no connection or none any more.
    """

    def __init__(
        self,
        settings: config.Mqtt,
        protocol: MQTTProtocolVersion,
        client_id: str,
        will: Message | None = None,
        on_ack: Callable[[int, bool], None] = lambda mid, accepted: None,
        on_message: Callable[[MQTTMessage], None] = lambda message: None,
    ) -> None:
        self._settings = settings
        self._address = broker.address(settings)
        self._v5 = protocol is MQTTProtocolVersion.MQTTv5
        self._on_ack = on_ack
        self._accepted = False
        self._limit = MAX_IN_FLIGHT
        self._in_flight: set[int] = set()
        self._refusal: ReasonCode | None = None
        self._end = ""  # why the connection is over
        self._error = ""  # the last one that paho tells only its log
        self._client = client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=protocol, reconnect_on_failure=False
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if settings.username is not None:
            client.username_pw_set(settings.username, broker.password(settings))
        if self._address.tls:
            client.tls_set_context(broker.tls_context(settings))
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_log = self._log
        client.on_connect = self._connack
        client.on_disconnect = self._disconnected
        client.on_publish = self._acknowledged
        client.on_subscribe = self._subscribed
        client.on_message = lambda client, userdata, message: on_message(message)

    def open(self, patience_s: float = CONNECT_TIMEOUT_S) -> None:
        """Connect and wait for the broker's yes. Raises VersionRefused when another version may do better."""
        try:
            self._client.connect(self._address.host, self._address.port, self._settings.keepalive_s)
        except OSError as exc:
            raise PublishError(broker.explain(exc, self._settings.url)) from exc
        deadline = time.monotonic() + patience_s
        while not self._accepted:
            if time.monotonic() > deadline:
                self.abort()
                version = "5" if self._v5 else "3.1.1"
                raise VersionRefused(f"{self._settings.url}: no answer: is it a broker for MQTT {version}?")
            self.turn(0.2)

    def turn(self, timeout_s: float, wake_fd: int | None = None) -> None:
        """Wait for the network (or `wake_fd`, or the timeout), then read and write what there is."""
        self._wait(timeout_s, wake_fd)
        client = self._client
        try:
            client.loop_read()
            if client.want_write():
                client.loop_write()
            client.loop_misc()
        except (OSError, ValueError, LookupError, struct.error) as exc:  # what paho lets out
            self.abort()
            raise PublishError(f"{self._settings.url}: broken packet ({type(exc).__name__}: {exc})") from exc
        if client.socket() is None:
            raise self._why()

    def send(self, message: Message) -> int:
        """Hand a message to the network; returns the number by which `on_ack` will call it (QoS 1)."""
        properties = _properties(message) if self._v5 else None
        mid = self._client.publish(message.topic, message.payload, message.qos, message.retain, properties).mid
        if message.qos:
            self._in_flight.add(mid)
        return mid

    def subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, qos=1)

    @property
    def room(self) -> int:
        """How many more messages may be under way: none while earlier ones still wait for the network."""
        return 0 if self._client.want_write() else self._limit - len(self._in_flight)

    def close(self) -> None:
        """Say goodbye, so that the broker discards the will. Never raises."""
        try:
            self._client.disconnect()
            deadline = time.monotonic() + 1.0
            while time.monotonic() < deadline:
                self.turn(0.1)
        except PublishError:
            pass

    def abort(self) -> None:
        """Close without a goodbye: the broker publishes the will. Never raises."""
        sock: Any = self._client.socket()
        if sock is not None:
            sock.close()

    def _wait(self, timeout_s: float, wake_fd: int | None) -> None:
        sock: Any = self._client.socket()
        if sock is None:
            return
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            timeout_s = 0.0  # decrypted already: the descriptor does not show it
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        if wake_fd is not None:
            poll.register(wake_fd, select.POLLIN)
        poll.poll(timeout_s * 1000)

    def _why(self) -> PublishError:
        url = self._settings.url
        if self._refusal is None:
            if self._accepted:
                return PublishError(f"{url}: {self._end or 'connection lost'}")
            if "SSL" in self._error:  # with TLS 1.3 a client learns late that its certificate is not accepted
                return PublishError(
                    f"{url}: the broker ends TLS ({self._error}): check mqtt.cert_file and mqtt.key_file"
                )
            return VersionRefused(f"{url}: the broker hangs up without an answer: is it an MQTT broker?")
        if self._refusal.value == UNSUPPORTED_VERSION:
            return VersionRefused(f"{url}: the broker does not speak this version of MQTT: set mqtt.protocol")
        if self._refusal.value in BAD_CREDENTIALS:
            who = "us without a user" if self._settings.username is None else "user or password"
            return PublishError(
                f"{url}: the broker refuses {who} ({self._refusal}): check mqtt.username and mqtt.password_file"
            )
        return PublishError(f"{url}: the broker refuses the connection ({self._refusal})")

    def _log(self, client: Client, userdata: Any, level: int, text: str) -> None:
        if level == LogLevel.MQTT_LOG_ERR:
            self._error = text

    def _connack(
        self, client: Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._refusal = reason
            return
        self._accepted = True
        # paho does not heed the broker's own limit.
        self._limit = min(MAX_IN_FLIGHT, getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT))

    def _disconnected(
        self, client: Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.value == TAKEN_OVER:
            self._end = "another client has taken our place: is there a second agent with this agent.id?"
        elif reason.is_failure and not self._end:
            self._end = "connection lost" if reason.value == UNSPECIFIED else f"connection ended ({reason})"

    def _acknowledged(
        self, client: Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if mid in self._in_flight:  # called for QoS 0 too
            self._in_flight.discard(mid)
            self._on_ack(mid, not reason.is_failure)

    def _subscribed(
        self,
        client: Client,
        userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            log.warning("the broker refuses requests: check its access rules", url=self._settings.url)


def _properties(message: Message) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType = _content_type(message.payload)
    if message.expiry_s:
        properties.MessageExpiryInterval = message.expiry_s
    if message.correlation:
        properties.CorrelationData = message.correlation
    return properties


def _content_type(payload: bytes) -> str:
    if payload.startswith(b"{"):
        return "application/json"
    return "image/png" if payload.startswith(b"\x89PNG") else "text/plain"
