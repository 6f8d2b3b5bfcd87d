"""The edge node's connection: a client of its own, with a clean session and NDEATH as its will."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable

import msgspec
import structlog
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import MQTTProtocolVersion

from asd_agent import config
from asd_agent.errors import PublishError
from asd_agent.publish import payloads
from asd_agent.publish.connection import Connection
from asd_agent.publish.messages import Messages
from asd_agent.publish.requests import Handler, Request, RequestDesk
from asd_agent.publish.retry import Retry
from asd_agent.publish.sparkplug import metrics
from asd_agent.publish.sparkplug.session import NAMESPACE, REBIRTH, Session
from asd_agent.publish.sparkplug.wire import Payload, Value, WireError, decode
from asd_agent.store import Message

log = structlog.get_logger(__name__)

TURN_S = 0.5
WAITING = 1000  # native messages that wait for the thread
STOP_S = 3.0


class HostState(msgspec.Struct, frozen=True):
    """STATE of a host application."""

    online: bool
    timestamp: int  # ms since 1970, UTC


class _HostGone(Exception):  # noqa: N818 - a state, not a mistake
    pass


class EdgeNode:
    """One thread owns connection and session; `tell` may be called from any and never blocks."""

    def __init__(
        self,
        settings: config.Mqtt,
        sparkplug: config.Sparkplug,
        messages: Messages,
        machines: Iterable[str],
        handler: Handler,
        retry: Retry | None = None,
    ) -> None:
        self._settings, self._host = settings, sparkplug.primary_host
        self._client_id = f"asd-agent-{messages.topics.agent}-sparkplug"
        node = sparkplug.node or messages.topics.agent
        self._session = Session(sparkplug.group, node, machines, _now_ms)
        self._desk = RequestDesk(settings, handler, messages, self._answered)
        self._retry = retry or Retry()
        self._news: deque[tuple[int, Message]] = deque(maxlen=WAITING)
        self._arrivals: deque[MQTTMessage] = deque()
        self._host_state: HostState | None = None
        self._stopping = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="sparkplug", daemon=True)

    def start(self) -> None:
        self._desk.start()
        self._thread.start()

    def stop(self) -> None:
        """NDEATH, then disconnect."""
        self._stopping.set()
        self._desk.stop()
        self._thread.join(STOP_S)

    def tell(self, message: Message) -> None:
        """A native message of a machine: what it says becomes metrics."""
        self._news.append((_now_ms(), message))

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._serve()
            except _HostGone:
                self._retry.reset()
                continue
            except PublishError as exc:
                if str(exc) != self._trouble:
                    log.warning("sparkplug: not connected", detail=str(exc))
                self._trouble = str(exc)
            except Exception:
                log.error("sparkplug failed, will retry", exc_info=True)
            self._pause(self._retry.next_s())

    def _pause(self, seconds: float) -> None:
        """What happens meanwhile is remembered for the next birth."""
        deadline = time.monotonic() + seconds
        while not self._stopping.is_set() and (left_s := deadline - time.monotonic()) > 0:
            self._digest()
            self._stopping.wait(min(left_s, TURN_S))

    def _serve(self) -> None:
        """One connection, from CONNECT to its end. Raises PublishError, or _HostGone to connect anew at once."""
        connection = self._connect()
        try:
            born = False
            while not self._stopping.is_set():
                self._hear(connection)
                self._send(connection, self._digest())
                if not born and self._may_be_born():
                    self._send(connection, self._session.births())
                    born = True
                if born and not self._may_be_born():
                    raise _HostGone
                connection.turn(TURN_S)
        finally:
            self._leave(connection)

    def _connect(self) -> Connection:
        version = MQTTProtocolVersion.MQTTv5 if self._settings.protocol == "5" else MQTTProtocolVersion.MQTTv311
        self._arrivals.clear()
        self._host_state = None
        connection = Connection(
            self._settings,
            version,
            client_id=self._client_id,
            will=self._session.will(),
            on_message=self._arrivals.append,
        )
        connection.open()
        self._retry.reset()
        self._trouble = ""
        log.info("sparkplug: connected", url=self._settings.url)
        connection.subscribe(self._session.topic("NCMD"))
        connection.subscribe(self._session.topic("DCMD", "+"))
        if self._host is not None:
            connection.subscribe(f"{NAMESPACE}/STATE/{self._host}")
        return connection

    def _leave(self, connection: Connection) -> None:
        """A planned end says NDEATH itself: a broker keeps the will back after a DISCONNECT."""
        try:
            connection.send(self._session.death())
            connection.close()
        finally:
            connection.abort()

    def _may_be_born(self) -> bool:
        return self._host is None or (self._host_state is not None and self._host_state.online)

    def _send(self, connection: Connection, messages: Iterable[Message]) -> None:
        for message in messages:
            connection.send(message)

    def _digest(self) -> list[Message]:
        """Native messages become data."""
        found: list[Message] = []
        while self._news:
            at_ms, message = self._news.popleft()
            machine, _, what = message.topic.rpartition("/")
            name = machine.rpartition("/")[2]
            if what == "availability":
                found += self._session.available(name, message.payload == payloads.ONLINE)
            else:
                found += self._session.tell(name, metrics.values(payloads.decode(message.payload)), at_ms)
        return found

    # -- what hosts say

    def _hear(self, connection: Connection) -> None:
        while self._arrivals:
            message = self._arrivals.popleft()
            if message.topic.startswith(f"{NAMESPACE}/STATE/"):
                self._see_host(message.payload)
                continue
            try:
                command = decode(bytes(message.payload))
            except WireError as exc:
                log.warning("sparkplug: command not understood", topic=message.topic, error=str(exc))
                continue
            if message.topic == self._session.topic("NCMD"):
                if any(m.name == REBIRTH and m.value is True for m in command.metrics) and self._may_be_born():
                    self._send(connection, self._session.births())
            else:
                self._obey(message.topic.rpartition("/")[2], command)

    def _see_host(self, data: bytes | bytearray) -> None:
        try:
            state = msgspec.json.decode(data, type=HostState)
        except msgspec.DecodeError as exc:
            log.warning("sparkplug: STATE not understood", host=self._host, error=str(exc))
            return
        if self._host_state is None or state.timestamp >= self._host_state.timestamp:
            self._host_state = state

    def _obey(self, machine: str, command: Payload) -> None:
        device = self._session.devices.get(machine)
        if device is None:
            log.warning("sparkplug: command for an unknown device", device=machine[:64])
            return
        for metric in command.metrics:
            name = metric.name or device.names.get(metric.alias or 0, "")
            self._do(machine, name, metric.value)

    def _do(self, machine: str, name: str, value: Value) -> None:
        found = metrics.command(name, value)
        if found is None:
            log.warning("sparkplug: this metric cannot be written", device=machine, metric=name[:64])
            return
        verb, arguments = found
        payload = msgspec.json.encode({"machine": machine, "by": "Sparkplug", **arguments})
        self._desk.receive(Request(verb, payload))

    def _answered(self, message: Message) -> None:
        """Sparkplug has no answers: the metrics show what came of it, and the desk logs what it refuses."""


def _now_ms() -> int:
    return round(time.time() * 1000)
