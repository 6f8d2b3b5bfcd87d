"""Requests: answered in order, where the asker wants it, and no request ends the desk."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asd_agent.errors import UsageError
from asd_agent.publish import Messages
from asd_agent.publish.requests import MAX_BYTES, WAITING, Request, RequestDesk
from asd_agent.store import Message

Ask = Callable[[Request], Message]


def handler(verb: str, data: dict[str, Any]) -> Any:
    if verb == "fail":
        raise RuntimeError("a bug with a secret: hunter2")
    if verb == "refuse":
        raise UsageError("there is no machine 'x'")
    return {"verb": verb, **data}


@pytest.fixture
def ask() -> Iterator[Ask]:
    answers: queue.Queue[Message] = queue.Queue()
    desk = RequestDesk(handler, Messages("hall-1", "asd", lambda: True), answers.put)
    desk.start()

    def ask_and_wait(request: Request) -> Message:
        desk.receive(request)
        return answers.get(timeout=10)

    yield ask_and_wait
    desk.stop()
    desk._thread.join(10)
    assert not desk._thread.is_alive()


def test_an_answer_carries_the_transaction_back(ask: Ask) -> None:
    answer = ask(Request("ack", b'{"machine": "m1", "transaction": "t-1"}', correlation=b"\x01"))
    assert (answer.topic, answer.qos, answer.retain) == ("asd/hall-1/response/ack", 1, False)
    assert answer.correlation == b"\x01"
    found = json.loads(answer.payload)
    assert found["schema"] == "asd/response/1"
    assert (found["status"], found["error"], found["transaction"]) == ("ok", None, "t-1")
    assert found["data"] == {"verb": "ack", "machine": "m1"}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Request("refuse", b'{"transaction": 4}'), "there is no machine 'x'"),
        (Request("fail", b"{}"), "internal error: see the agent's log"),
        (Request("ack", b"[1]"), "not a JSON object"),
        (Request("ack", b"{"), "not a JSON object"),
        (Request("ack", b'{"a": "\xff"}'), "not a JSON object"),
        (Request("ack", b" " * MAX_BYTES + b"{}"), "longer than"),
        (Request("ack", b"{}", retained=True), "retained requests are refused"),
    ],
)
def test_an_error_is_one_line_and_the_desk_goes_on(ask: Ask, request_: Request, error: str) -> None:
    found = json.loads(ask(request_).payload)
    assert found["status"] == "error"
    assert error in found["error"]
    assert "\n" not in found["error"]
    assert "hunter2" not in json.dumps(found)
    assert found["transaction"] == (4 if request_.verb == "refuse" else None)
    assert json.loads(ask(Request("ack", b"")).payload)["status"] == "ok"


@pytest.mark.parametrize(
    ("options", "topic"),
    [
        ("panel/7/answers", "panel/7/answers"),
        ("asd/hall-1/response/ack/panel-7", "asd/hall-1/response/ack/panel-7"),
        ("asd/hall-1/m1/event", "asd/hall-1/response/ack"),  # would pass for an alarm
        ("a/+/b", "asd/hall-1/response/ack"),
        ("#", "asd/hall-1/response/ack"),
        ("$SYS/x", "asd/hall-1/response/ack"),
        ("", "asd/hall-1/response/ack"),
        (None, "asd/hall-1/response/ack"),
    ],
)
def test_the_answer_goes_where_the_asker_wants_unless_that_could_mislead(
    ask: Ask, options: str | None, topic: str
) -> None:
    assert ask(Request("ack", b"{}", response_topic=options)).topic == topic


def test_too_many_at_once_are_told_so() -> None:
    go = threading.Event()
    answers: queue.Queue[Message] = queue.Queue()
    desk = RequestDesk(lambda verb, data: go.wait(10), Messages("a", "asd", lambda: True), answers.put)
    desk.start()
    for _ in range(WAITING + 2):  # one may be in hand
        desk.receive(Request("slow", b"{}"))
    assert "busy" in json.loads(answers.get(timeout=10).payload)["error"]
    go.set()
    answered = [json.loads(answers.get(timeout=10).payload)["status"] for _ in range(WAITING + 1)]
    assert answered.count("ok") >= WAITING
    desk.stop()
