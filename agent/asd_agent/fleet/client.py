"""Asks many agents through one broker: requests go out together, answers come in any order."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import msgspec
from paho.mqtt.client import MQTTMessage

from asd_agent import config
from asd_agent.errors import PublishError
from asd_agent.publish import payloads
from asd_agent.publish.connection import CONNECT_TIMEOUT_S, Connection, VersionRefused
from asd_agent.publish.mqtt import FALLBACK_S, VERSIONS
from asd_agent.publish.topics import Topics
from asd_agent.store import Message

T = TypeVar("T")
LISTEN_S = 1.0  # for the retained availability of all agents
TURN_S = 0.1


class FleetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """fleet.yaml: how an operator reaches the broker, and which agents there should be."""

    mqtt: config.Mqtt
    agents: list[config.Identifier] = []  # that must answer; empty = those that the broker knows


class Answer(msgspec.Struct, frozen=True):
    """Of one agent. `error` is its line, or ours where nothing came."""

    data: Any = None
    error: str = ""

    def typed(self, kind: type[T]) -> T | None:
        """None where there is no answer of this version."""
        try:
            return None if self.error else msgspec.convert(self.data, kind)
        except msgspec.ValidationError:
            return None


class FleetClient:
    """A context. Everything happens in the thread that calls; raises PublishError when the broker is lost."""

    def __init__(self, settings: FleetConfig) -> None:
        self._settings = settings
        self._base = settings.mqtt.base_topic
        self._online: dict[str, bool] = {}
        self._answers: dict[str, Answer] = {}  # by transaction
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        versions = VERSIONS[self._settings.mqtt.protocol]
        for version in versions:
            last = version is versions[-1]
            name = f"asd-fleet-{uuid.uuid4().hex[:12]}"
            connection = Connection(self._settings.mqtt, version, name, on_message=self._arrived)
            try:
                connection.open(CONNECT_TIMEOUT_S if last else FALLBACK_S)
            except VersionRefused:
                if last:
                    raise
                continue
            self._connection = connection
            break
        connection.subscribe(f"{self._base}/+/availability")
        connection.subscribe(f"{self._base}/+/response/+")
        self._until(lambda: False, LISTEN_S)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def agents(self) -> dict[str, bool]:
        """Id -> online; those of fleet.yaml, and those that the broker knows."""
        listed = {agent: self._online.get(agent, False) for agent in self._settings.agents}
        return dict(sorted((listed or self._online).items()))

    def ask(self, requests: Mapping[str, tuple[str, dict[str, Any]]], patience_s: float = 10.0) -> dict[str, Answer]:
        """Agent -> verb and arguments; the answers by agent. Who is silent for so long has an error."""
        assert self._connection is not None
        open_: dict[str, str] = {}
        for agent, (verb, arguments) in requests.items():
            transaction = uuid.uuid4().hex
            open_[transaction] = agent
            payload = msgspec.json.encode({**arguments, "transaction": transaction})
            while self._connection.room <= 0:
                self._connection.turn(TURN_S)
            self._connection.send(Message(topic=Topics(self._base, agent).request(verb), payload=payload))
        self._until(lambda: open_.keys() <= self._answers.keys(), patience_s)
        silent = Answer(error=f"no answer within {patience_s:g} s")
        return {agent: self._answers.pop(transaction, silent) for transaction, agent in open_.items()}

    def _until(self, reached: Callable[[], bool], patience_s: float) -> None:
        if self._connection is None:
            raise PublishError(f"{self._settings.mqtt.url}: not connected")
        deadline = time.monotonic() + patience_s
        while not reached() and time.monotonic() < deadline:
            self._connection.turn(TURN_S)

    def wait(self, seconds: float) -> None:
        """Time passes; the connection is kept."""
        self._until(lambda: False, seconds)

    def _arrived(self, message: MQTTMessage) -> None:
        rest = message.topic.removeprefix(f"{self._base}/").split("/")
        if rest[1:] == ["availability"]:
            self._online[rest[0]] = bytes(message.payload) == payloads.ONLINE
            return
        try:
            answer = payloads.decode(bytes(message.payload))
        except msgspec.MsgspecError:
            return
        if isinstance(answer, payloads.Response) and isinstance(answer.transaction, str):
            self._answers[answer.transaction] = Answer(answer.data, answer.error or "")
