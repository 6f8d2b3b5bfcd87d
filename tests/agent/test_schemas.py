"""The published contracts: committed as generated, complete, and true of what is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator

from asd_agent import config
from asd_agent.cli.schema import KINDS, text
from asd_agent.publish import Messages, payloads
from asd_agent.service.commands import VERBS
from asd_agent.types import AlarmState
from store_cases import alarm_event, alarm_state, normal_window

ROOT = Path(__file__).parents[2]
MESSAGES = Messages("hall-1", "asd", lambda: True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_schema_is_the_one_of_this_code(kind: str) -> None:
    path = ROOT / "docs" / "schema" / f"{kind}.json"
    assert path.read_text() == text(kind), f"asd-agent schema {kind} > docs/schema/{kind}.json"


@pytest.mark.parametrize("kind", ["config", "mqtt"])
def test_it_is_a_json_schema(kind: str) -> None:
    Draft202012Validator.check_schema(json.loads(text(kind)))


def test_every_payload_is_valid_by_its_schema() -> None:
    event, state = alarm_event("e1"), alarm_state()
    rng = np.random.default_rng(1)
    validator = Draft202012Validator(json.loads(text("mqtt")), format_checker=Draft202012Validator.FORMAT_CHECKER)
    for message in (
        MESSAGES.of(MESSAGES.event(event)),
        MESSAGES.of(MESSAGES.alarm("m1", state)),
        MESSAGES.of(MESSAGES.alarm("m1", AlarmState())),
        MESSAGES.of(MESSAGES.score("m1", normal_window(1, rng))),
        MESSAGES.of(MESSAGES.health("m1", status="good", reasons=(), source_available=True)),
        MESSAGES.response("t", data=[1]),
    ):
        validator.validate(json.loads(message.payload))
    assert not validator.is_valid({"schema": "asd/event/9"})


def test_the_example_configurations_are_valid_by_the_schema() -> None:
    validator = Draft202012Validator(json.loads(text("config")))
    for path in (ROOT / "configs" / "agent").glob("*.yaml"):
        validator.validate(yaml.safe_load(path.read_text()))
    assert not validator.is_valid({"agent": {"id": "a"}, "machines": []})


def test_each_channel_and_message_is_in_the_asyncapi_document() -> None:
    document: dict[str, Any] = json.loads(text("asyncapi"))
    names = {kind.__name__ for kind in get_args(payloads.Payload)} | {kind.__name__ for kind in VERBS.values()}
    assert set(document["components"]["messages"]) == names | {"Availability", "Picture"}
    assert {f"request_{verb}" for verb in config.REQUEST_VERBS} <= set(document["channels"])
    assert document["channels"]["alarm"]["address"] == "{base}/{agent}/{machine}/alarm"
    assert document["operations"]["send_alarm"]["bindings"]["mqtt"]["retain"] is True


def test_one_field_has_one_meaning() -> None:
    """A name that several messages share has the same type and description in each."""
    defined: dict[str, dict[str, Any]] = {}
    components = json.loads(text("mqtt"))["$defs"]
    shared = [components[kind.__name__]["properties"] for kind in get_args(payloads.Payload)]
    for properties in shared:
        for name, schema in properties.items():
            if name in ("schema", "level", "reason", "baseline", "score", "status", "level_dbfs"):
                continue  # the level of a window, of an alarm, ...: each described by its message
            assert defined.setdefault(name, schema) == schema, name


def test_the_page_for_people_names_every_field_and_topic() -> None:
    page = (ROOT / "docs" / "mqtt.md").read_text()
    for kind in get_args(payloads.Payload):
        for field in payloads.msgspec.structs.fields(kind):
            assert f"`{field.encode_name}`" in page, f"{kind.__name__}.{field.encode_name}"
    for verb in config.REQUEST_VERBS:
        assert f"`{verb}`" in page, verb
