"""The publisher: keeps one connection to the broker for ever, and feeds it from the outbox."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import msgspec
import structlog
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import MQTTProtocolVersion

from asd_agent import config
from asd_agent.errors import PublishError, StoreError
from asd_agent.publish.connection import CONNECT_TIMEOUT_S, Connection, VersionRefused
from asd_agent.publish.delivery import Delivery
from asd_agent.publish.messages import Messages
from asd_agent.publish.requests import Handler, Request, RequestDesk
from asd_agent.publish.retry import NetworkNews, Retry
from asd_agent.store import Message, Outbox
from asd_agent.types import rfc3339

log = structlog.get_logger(__name__)

V5, V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
VERSIONS = {"auto": (V5, V311), "5": (V5,), "3.1.1": (V311,)}

OnMessage = Callable[[str, bytes], None]  # topic, payload of of what is subscribed to besides requests; must not block

QUEUE_MESSAGES = 200  # scores and answers that wait for the network
STALLED_S = 20.0  # messages under way without any answer: the connection is dead, whatever TCP says
STEADY_S = 5.0  # a connection that lasted so long was a good one
TURN_S = 1.0
LONGEST_REPORT = 64 << 10  # bytes of a message on a topic of the configuration: a speed or the name of a state
FALLBACK_S = 3.0  # without an answer to version 5 (amqtt misreads it and waits for more) the older one is tried


class ConnectionState(msgspec.Struct, frozen=True, kw_only=True):
    connected: bool
    detail: str  # one line for a person; never a credential
    since: str  # RFC 3339
    protocol: str = ""  # "5" or "3.1.1" while connected


class Publisher:
    """One thread owns the connection; the methods may be called from any, and never wait for the network.

    The broker may be absent at the start and go away at any time. Wrong credentials or certificates are shown
    in `state` and tried again like everything else: files are read anew for each attempt.
    """

    def __init__(
        self,
        settings: config.Mqtt,
        messages: Messages,
        outbox: Outbox,
        handler: Handler | None = None,
        *,
        topics: Collection[str] = (),
        on_message: OnMessage = lambda topic, payload: None,
        retry: Retry | None = None,
    ) -> None:
        self._settings = settings
        self._messages = messages
        self._outbox = outbox
        self._delivery = Delivery(outbox)
        self._topics, self._on_message = frozenset(topics), on_message
        self._desk = RequestDesk(settings, handler, messages, self.publish) if handler is not None else None
        self._retry = retry or Retry()
        self._network = NetworkNews()
        self._retained: dict[str, Message] = {}
        self._queue: deque[Message] = deque()
        self._lock = threading.Lock()  # of the two above
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._stopping = threading.Event()
        self._stop_by_s = 0.0  # monotonic
        self._dropped = 0
        self._was_connected = False  # during the present attempt
        self._outbox_trouble = ""
        self._state = ConnectionState(connected=False, detail="not started", since=rfc3339(time.time()))
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    @property
    def state(self) -> ConnectionState:
        state = self._state
        if state.connected and self._delivery.refused:
            detail = f"{state.detail}, but the broker refuses some messages: check its access rules"
            return msgspec.structs.replace(state, detail=detail)
        return state

    @property
    def dropped(self) -> int:
        """Messages given to `publish` that were not sent, since the start."""
        return self._dropped

    def start(self) -> None:
        self._outbox.listen(self._wake)
        if self._desk is not None:
            self._desk.start()
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Send what is waiting as far as the time allows, say offline and disconnect."""
        self._stop_by_s = time.monotonic() + timeout_s
        self._stopping.set()
        self._wake()
        if self._desk is not None:
            self._desk.stop()
        self._thread.join(timeout_s + 2.0)
        self._outbox.listen(None)

    def publish(self, message: Message) -> bool:
        """Now or never: for scores and answers. False, and counted, when there is no connection."""
        with self._lock:
            if not self._state.connected or len(self._queue) >= QUEUE_MESSAGES:
                self._dropped += 1
                return False
            self._queue.append(message)
        self._wake()
        return True

    def retain(self, message: Message) -> None:
        """The newest of its topic is what counts: sent now when connected, and again on every connect.

        For availability and health of the machines; alarm states go through the outbox.
        """
        with self._lock:
            self._retained[message.topic] = message
            if self._state.connected:
                self._queue.append(message)
        self._wake()

    def forget(self, machine: str) -> None:
        """A machine is no longer configured: the broker shall forget what it retains of it."""
        messages = self._messages.forget(machine)
        with self._lock:
            for message in messages:
                self._retained.pop(message.topic, None)
        self._outbox.put(messages)

    def _run(self) -> None:
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                self._session()
            except PublishError as exc:
                self._lost(str(exc))
            except Exception as exc:
                log.error("publisher failed, will retry", exc_info=True)
                self._lost(f"internal error ({type(exc).__name__}): see the log")
            if time.monotonic() - began_s > STEADY_S and self._was_connected:
                self._retry.reset()
            self._was_connected = False
            self._pause(self._retry.next_s())
        self._network.close()
        self._state = ConnectionState(connected=False, detail="stopped", since=rfc3339(time.time()))

    def _pause(self, seconds: float) -> None:
        """Before the next attempt; shorter when the network comes up meanwhile."""
        deadline = time.monotonic() + seconds
        self._network.drain()
        while not self._stopping.is_set() and (left_s := deadline - time.monotonic()) > 0:
            if self._network.wait(left_s, self._wake_read.fileno()):
                deadline = min(deadline, time.monotonic() + self._retry.network_up_s())
            self._drain_wake()

    def _session(self) -> None:
        """Connect and serve until the connection ends (PublishError) or `stop` has been called."""
        connection = self._connect()
        try:
            self._greet(connection)
            while True:
                self._pump(connection)
                if self._may_stop():
                    break
                connection.turn(TURN_S if not self._stopping.is_set() else 0.05, self._wake_read.fileno())
                self._drain_wake()
                if self._delivery.stalled_s() > STALLED_S:
                    raise PublishError(f"{self._settings.url}: no acknowledgement for {STALLED_S:.0f} s")
            connection.send(self._messages.availability(online=False))
            connection.close()
        finally:
            connection.abort()

    def _connect(self) -> Connection:
        versions = VERSIONS[self._settings.protocol]
        for version in versions:
            connection = Connection(
                self._settings,
                version,
                client_id=f"asd-agent-{self._messages.topics.agent}",
                will=self._messages.availability(online=False),
                on_ack=self._delivery.acknowledge,
                on_message=self._arrived,
            )
            last = version is versions[-1]
            try:
                connection.open(CONNECT_TIMEOUT_S if last else FALLBACK_S)
            except VersionRefused:
                if last:
                    raise
                continue
            self._found("5" if version is V5 else "3.1.1")
            return connection
        raise AssertionError("unreachable: versions is never empty")

    def _greet(self, connection: Connection) -> None:
        """What a broker must hear on each connect, before anything newer."""
        self._delivery.restart()
        if self._desk is not None:
            connection.subscribe(self._messages.topics.requests)
        for topic in self._topics:
            connection.subscribe(topic)
        stored = self._stored()
        with self._lock:
            now = [self._messages.availability(online=True), *stored, *self._retained.values()]
            self._queue.extendleft(reversed(now))

    def _stored(self) -> list[Message]:
        try:
            return self._outbox.retained()
        except StoreError as exc:
            log.warning("alarm states not sent again", error=str(exc))
            return []

    def _pump(self, connection: Connection) -> None:
        while connection.room > 0:
            with self._lock:
                if not self._queue:
                    break
                message = self._queue.popleft()
            connection.send(message)
        try:
            self._delivery.step(connection.send, connection.room)
            self._outbox_trouble = ""
        except StoreError as exc:  # stay connected: health is how anybody learns of it
            if not self._outbox_trouble:
                log.warning("outbox not sent, will retry", error=str(exc))
            self._outbox_trouble = str(exc)

    def _may_stop(self) -> bool:
        if not self._stopping.is_set():
            return False
        return (self._delivery.idle and not self._queue) or time.monotonic() >= self._stop_by_s

    def _arrived(self, message: MQTTMessage) -> None:
        if message.topic in self._topics:
            if len(message.payload) > LONGEST_REPORT:
                log.warning("message is too long and not read", topic=message.topic, bytes=len(message.payload))
                return
            self._on_message(message.topic, bytes(message.payload))
            return
        if self._desk is None:
            return
        properties: Any = message.properties
        self._desk.receive(
            Request(
                verb=message.topic.rpartition("/")[2],
                payload=bytes(message.payload),
                retained=message.retain,
                response_topic=getattr(properties, "ResponseTopic", None),
                correlation=getattr(properties, "CorrelationData", b""),
            )
        )

    def _found(self, protocol: str) -> None:
        detail = f"connected to {self._settings.url} (MQTT {protocol})"
        self._was_connected = True
        with self._lock:
            self._state = ConnectionState(connected=True, detail=detail, since=rfc3339(time.time()), protocol=protocol)
        log.info("broker connected", url=self._settings.url, protocol=protocol)

    def _lost(self, detail: str) -> None:
        with self._lock:
            self._dropped += sum(not message.retain for message in self._queue)  # those are sent again
            self._queue.clear()
            if not self._state.connected and self._state.detail == detail:
                return  # said already
            self._state = ConnectionState(connected=False, detail=detail, since=rfc3339(time.time()))
        log.warning("broker not connected", detail=detail)

    def _wake(self) -> None:
        try:
            self._wake_write.send(b"\0")
        except BlockingIOError:
            pass  # full of wake-ups already

    def _drain_wake(self) -> None:
        try:
            self._wake_read.recv(4096)
        except BlockingIOError:
            pass
