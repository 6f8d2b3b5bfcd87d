"""The contract over MQTT for programs: JSON Schema of the payloads, and an AsyncAPI 3 document of the topics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import msgspec

from asd_agent.publish import payloads
from asd_agent.publish.topics import Topics

Json = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
PARAMETERS = {
    "base": "mqtt.base_topic of the configuration (asd)",
    "agent": "agent.id of the configuration",
    "machine": "id of a machine in the configuration",
    "verb": "one of mqtt.requests",
}
_MACHINE = "{machine}"


class Channel(NamedTuple):
    """A topic, what is on it and how it is sent."""

    name: str
    address: str
    payload: str  # name of the message
    what: str
    retain: bool
    qos: int = 1


def channels() -> list[Channel]:
    """All topics to which the agent publishes, with the parameters of PARAMETERS in their addresses."""
    topics = Topics("{base}", "{agent}")
    return [
        Channel("availability", topics.availability, "Availability", "the agent is connected (its will)", True),
        Channel(
            "machineAvailability",
            topics.machine_availability(_MACHINE),
            "Availability",
            "the machine's source delivers sound",
            True,
        ),
        *(
            Channel(c.name, topics.of_machine(_MACHINE, c.name), kind.__name__, c.what, c.retain, c.qos)
            for kind, c in payloads.CHANNELS.items()
        ),
        Channel("picture", topics.picture(_MACHINE), "Picture", "spectrogram of the last alarm", True),
        Channel("response", topics.response("{verb}"), "Response", "the answer to a request", False),
    ]


def mqtt() -> Json:
    """One JSON Schema for every JSON payload; `schema` tells which of them it is."""
    schema = msgspec.json.schema(payloads.Payload)
    return {"$schema": DIALECT, "title": "asd-agent: MQTT payloads", **schema}


def config_schema(kind: type[msgspec.Struct], title: str) -> Json:
    """Of a configuration file, for editors."""
    return {"$schema": DIALECT, "title": title, **msgspec.json.schema(kind)}


def asyncapi(version: str, requests: Mapping[str, type[msgspec.Struct]]) -> Json:
    """An AsyncAPI 3.0 document, seen from the agent. `requests`: each verb and the struct of its arguments."""
    structs: list[type] = [*get_args(payloads.Payload), *requests.values()]
    refs, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    messages: Json = {
        "Availability": {"contentType": "text/plain", "payload": {"type": "string", "enum": ["online", "offline"]}},
        "Picture": {"contentType": "image/png", "payload": {"type": "string", "format": "binary"}},
    }
    for kind, ref in zip(structs, refs, strict=True):
        messages[kind.__name__] = {"contentType": "application/json", "payload": ref}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "asd-agent",
            "version": version,
            "description": "Alarms, scores and health of machines that are listened to, and requests to the agent.",
        },
        "defaultContentType": "application/json",
        "channels": {c.name: _channel(c.address, c.payload, c.what) for c in channels()}
        | {_request(v): _channel(_request_address(v), k.__name__, f"request {v!r}") for v, k in requests.items()},
        "operations": {f"send_{c.name}": _operation("send", c.name, c.qos, c.retain) for c in channels()}
        | {f"receive_{_request(v)}": _operation("receive", _request(v), 1, False) for v in requests},
        "components": {"messages": messages, "schemas": schemas},
    }


def _request(verb: str) -> str:
    return f"request_{verb}"


def _request_address(verb: str) -> str:
    return Topics("{base}", "{agent}").request(verb)


def _channel(address: str, message: str, what: str) -> Json:
    return {
        "address": address,
        "description": what,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "parameters": {n: {"description": words} for n, words in PARAMETERS.items() if f"{{{n}}}" in address},
    }


def _operation(action: str, channel: str, qos: int, retain: bool) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "bindings": {"mqtt": {"qos": qos, "retain": retain, "bindingVersion": "0.2.0"}},
    }
