"""Requests: answered in order, where the asker wants it, and no request ends the desk."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, get_args

import msgspec
import pytest
from structlog.testing import capture_logs

from asd_agent import config
from asd_agent.errors import UsageError
from asd_agent.publish import Messages
from asd_agent.publish.requests import LOCAL_ONLY, MAX_BYTES, WAITING, Request, RequestDesk
from asd_agent.service import commands
from asd_agent.store import Message

Ask = Callable[[Request], Message]
SETTINGS = config.Mqtt(
    url="mqtt://broker", requests=("status", "ack", "shelve", "calibrate"), response_topics=("panel/+/answers",)
)


def handler(verb: str, data: dict[str, Any]) -> Any:
    if data.get("fail"):
        raise RuntimeError("a bug with a secret: hunter2")
    if data.get("machine") == "x":
        raise UsageError("there is no machine 'x'")
    return {"verb": verb, **data}


@pytest.fixture
def ask() -> Iterator[Ask]:
    answers: queue.Queue[Message] = queue.Queue()
    desk = RequestDesk(SETTINGS, handler, Messages("hall-1", "asd", lambda: True), answers.put)
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
        (Request("ack", b'{"machine": "x", "transaction": 4}'), "there is no machine 'x'"),
        (Request("ack", b'{"fail": true}'), "internal error: see the agent's log"),
        (Request("promote", b'{"transaction": 4}'), "not served over MQTT (mqtt.requests allows: status, ack, shelve,"),
        (Request("dance", b"{}"), "not served over MQTT"),
        (Request("calibrate", b'{"machine": "m", "paths": ["/etc/shadow"]}'), "'paths' is not accepted over MQTT"),
        (Request("ack", b"[1]"), "not a JSON object"),
        (Request("ack", b"{"), "not a JSON object"),
        (Request("ack", b'{"a": "\xff"}'), "not a JSON object"),
        (Request("ack", b" " * MAX_BYTES + b"{}"), "longer than"),
        (Request("ack", b"{}", retained=True), "retained requests are refused"),
    ],
)
def test_an_error_is_one_line_and_the_desk_goes_on(ask: Ask, request_: Request, error: str) -> None:
    with capture_logs() as lines:
        found = json.loads(ask(request_).payload)
    assert found["status"] == "error"
    assert [(line["event"], line["verb"]) for line in lines] in (
        [("request refused", request_.verb)],
        [("request failed", request_.verb)],
    )
    assert error in found["error"]
    assert "\n" not in found["error"]
    assert "hunter2" not in json.dumps(found)
    assert found["transaction"] == (4 if b"transaction" in request_.payload else None)
    assert json.loads(ask(Request("ack", b"")).payload)["status"] == "ok"


@pytest.mark.parametrize(
    ("options", "topic"),
    [
        ("panel/7/answers", "panel/7/answers"),
        ("panel/7/commands", "asd/hall-1/response/ack"),
        ("homeassistant/device/x/config", "asd/hall-1/response/ack"),
        ("asd/hall-1/response", "asd/hall-1/response/ack"),
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
    desk = RequestDesk(SETTINGS, lambda verb, data: go.wait(10), Messages("a", "asd", lambda: True), answers.put)
    desk.start()
    for _ in range(WAITING + 2):  # one may be in hand
        desk.receive(Request("status", b"{}"))
    assert "busy" in json.loads(answers.get(timeout=10).payload)["error"]
    go.set()
    answered = [json.loads(answers.get(timeout=10).payload)["status"] for _ in range(WAITING + 1)]
    assert answered.count("ok") >= WAITING
    desk.stop()


def test_no_verb_takes_a_file_over_mqtt() -> None:
    """A new argument that names files must be among those that only the control socket takes."""
    named = {
        field.name
        for verb in vars(commands).values()
        if isinstance(verb, type) and issubclass(verb, msgspec.Struct)
        for field in msgspec.structs.fields(verb)
        if "path" in field.name or "file" in field.name or "folder" in field.name
    }
    assert named == set(LOCAL_ONLY)


def test_every_verb_can_be_allowed() -> None:
    local = {"live", "log"}  # for the local page only
    served = set(commands.Commands(None)._verbs) - local  # type: ignore[arg-type]
    assert served == set(get_args(config.RequestVerb))
