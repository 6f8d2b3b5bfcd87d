"""Requests over MQTT, as Zigbee2MQTT has them: `request/<verb>` is answered on `response/<verb>`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from asd_agent.errors import AsdError
from asd_agent.publish.messages import Messages
from asd_agent.store import Message

log = structlog.get_logger(__name__)

Handler = Callable[[str, dict[str, Any]], Any]

MAX_BYTES = 64 << 10
WAITING = 16


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
    """

    def __init__(self, handler: Handler, messages: Messages, reply: Callable[[Message], object]) -> None:
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
            self._answer(request, error="busy: too many requests at once, try again")

    def _run(self) -> None:
        while (request := self._queue.get()) is not None:
            self._serve(request)

    def _serve(self, request: Request) -> None:
        if request.retained:
            self._answer(request, error="retained requests are refused: publish without the retain flag")
            return
        try:
            data = _arguments(request.payload)
        except ValueError as exc:
            self._answer(request, error=str(exc))
            return
        transaction = data.pop("transaction", None)
        try:
            answer = self._handler(request.verb, data)
        except AsdError as exc:
            self._answer(request, error=str(exc), transaction=transaction)
        except Exception:
            log.error("request failed", verb=request.verb, exc_info=True)
            self._answer(request, error="internal error: see the agent's log", transaction=transaction)
        else:
            self._answer(request, data=answer, transaction=transaction)

    def _answer(self, request: Request, **fields: Any) -> None:
        topics = self._messages.topics
        topic = request.response_topic
        # A options for another of our own topics could pass for a message of ours.
        if topic is None or not _publishable(topic) or topics.is_own(topic):
            topic = topics.response(request.verb)
        self._reply(self._messages.response(topic, correlation=request.correlation, **fields))


def _arguments(payload: bytes) -> dict[str, Any]:
    """The request's JSON object; nothing at all is an empty one. Raises ValueError."""
    if len(payload) > MAX_BYTES:
        raise ValueError(f"the request is longer than {MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(payload, type=dict[str, Any]) if payload.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ValueError(f"the request is not a JSON object: {exc}") from exc


def _publishable(topic: str) -> bool:
    return bool(topic) and not set("#+\0") & set(topic) and not topic.startswith("$")
