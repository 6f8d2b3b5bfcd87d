"""Requests over MQTT, as Zigbee2MQTT has them: `request/<verb>` is answered on `response/<verb>`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from paho.mqtt.client import topic_matches_sub

from asd_agent import config
from asd_agent.errors import AsdError, UsageError
from asd_agent.publish.messages import Messages
from asd_agent.store import Message

log = structlog.get_logger(__name__)

Handler = Callable[[str, dict[str, Any]], Any]

MAX_BYTES = 64 << 10
WAITING = 16
LOCAL_ONLY = ("paths",)  # arguments that name files: who may publish shall not make the daemon read any


@dataclass(frozen=True, slots=True)
class Request:
    """As it came in; `response_topic` and `correlation` are MQTT 5's."""

    verb: str
    payload: bytes
    retained: bool = False
    response_topic: str | None = None
    correlation: bytes = b""


class RequestDesk:
    """Runs the handler on a thread of its own, so that a long request does not hold up the network.

    `handler(verb, data)` returns what goes into `data` of the answer; an AsdError's line goes into `error`.
    Verbs that `mqtt.requests` does not list are refused. Each refusal is answered and logged.
    """

    def __init__(
        self, settings: config.Mqtt, handler: Handler, messages: Messages, reply: Callable[[Message], object]
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._messages = messages
        self._reply = reply
        self._queue: queue.Queue[Request | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="mqtt-requests", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After the request in hand; does not wait for it."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            pass  # a daemon thread: it ends with the process

    def receive(self, request: Request) -> None:
        """Never blocks: too many at once are answered with an error."""
        try:
            self._queue.put_nowait(request)
        except queue.Full:
            self._refuse(request, "busy: too many requests at once, try again")

    def _run(self) -> None:
        while (request := self._queue.get()) is not None:
            self._serve(request)

    def _serve(self, request: Request) -> None:
        transaction: object = None
        try:
            if request.retained:
                raise UsageError("retained requests are refused: publish without the retain flag")
            data = _arguments(request.payload)
            transaction = data.pop("transaction", None)
            self._admit(request.verb, data)
            answer = self._handler(request.verb, data)
        except AsdError as exc:
            self._refuse(request, str(exc), transaction)
        except Exception:
            log.error("request failed", verb=request.verb, exc_info=True)
            self._answer(request, error="internal error: see the agent's log", transaction=transaction)
        else:
            self._answer(request, data=answer, transaction=transaction)

    def _admit(self, verb: str, data: dict[str, Any]) -> None:
        """Raises UsageError for what is not served over MQTT."""
        allowed = self._settings.requests
        if verb not in allowed:
            raise UsageError(f"{verb!r} is not served over MQTT (mqtt.requests allows: {', '.join(allowed) or 'none'})")
        for name in LOCAL_ONLY:
            if name in data:
                raise UsageError(f"{verb}: {name!r} is not accepted over MQTT: ask on the agent's host")

    def _refuse(self, request: Request, error: str, transaction: object = None) -> None:
        log.warning("request refused", verb=request.verb[:40], error=error)
        self._answer(request, error=error, transaction=transaction)

    def _answer(self, request: Request, **fields: Any) -> None:
        topic = request.response_topic
        if topic is None or not self._may_answer_on(topic):
            topic = self._messages.topics.response(request.verb)
        self._reply(self._messages.response(topic, correlation=request.correlation, **fields))

    def _may_answer_on(self, topic: str) -> bool:
        """Below our own response/, or where the configuration allows: an answer elsewhere could pass for a message of
        another program."""
        topics = self._messages.topics
        if not topic or set("#+\0") & set(topic) or topic.startswith("$"):
            return False
        if topic.startswith(topics.response("")):
            return True
        return not topics.is_own(topic) and any(topic_matches_sub(f, topic) for f in self._settings.response_topics)


def _arguments(payload: bytes) -> dict[str, Any]:
    """The request's JSON object; nothing at all is an empty one. Raises UsageError."""
    if len(payload) > MAX_BYTES:
        raise UsageError(f"the request is longer than {MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(payload, type=dict[str, Any]) if payload.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UsageError(f"the request is not a JSON object: {exc}") from exc
