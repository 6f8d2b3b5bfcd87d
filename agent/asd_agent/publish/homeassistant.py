"""Home Assistant's MQTT discovery: the agent and each of its machines as devices, made of the native topics.

Device-based messages (`homeassistant/device/<id>/config`) need Home Assistant 2024.11; `homeassistant-components` sends
one message per entity, as older versions need it. Entities and ids are the same, so that a change of style keeps them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from asd_agent import __version__, config
from asd_agent.publish import payloads
from asd_agent.publish.topics import Topics
from asd_agent.store import Message
from asd_agent.types import EventKind

Json = dict[str, Any]
SCORE_LAPSES_S = 60.0  # at least; and three intervals between scores
CALIBRATE_S = 600.0
BY = "Home Assistant"


class Discovery:
    """All discovery messages of one agent. Unique ids are topics: they hold no characters that could be ambiguous."""

    def __init__(self, settings: config.Mqtt, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics

    @property
    def active(self) -> bool:
        """Without discovery in the configuration there is only what must be removed."""
        return self._settings.discovery is not None

    @property
    def birth_topic(self) -> str:
        """Home Assistant says `online` there when it has started."""
        return f"{self._settings.discovery_prefix}/status"

    def messages(self, machines: Iterable[config.Machine]) -> list[Message]:
        """Retained, one or more for each device."""
        devices = [self._agent(), *(self._machine(machine) for machine in machines)]
        return [message for device in devices for message in self._messages(*device)]

    def changes(self, machines: Iterable[config.Machine], held: Iterable[Message]) -> list[Message]:
        """What to send when `held` are the retained messages so far: the new and changed ones; empty ones remove."""
        wanted = {m.topic: m for m in self.messages(machines)} if self.active else {}
        ours = {m.topic: m for m in held if m.topic.endswith("/config")}  # below an earlier prefix too
        gone = [Message(topic=topic, payload=b"", retain=True) for topic in ours if topic not in wanted]
        return gone + [m for m in wanted.values() if ours.get(m.topic) != m]

    def _messages(self, root: str, device: Json, components: Mapping[str, Json]) -> Iterable[Message]:
        prefix, origin = self._settings.discovery_prefix, {"name": "asd-agent", "sw_version": __version__}
        if self._settings.discovery == "homeassistant":
            content = {"device": device, "origin": origin, "components": components, "qos": 1}
            yield _retained(f"{prefix}/device/{object_id(root)}/config", content)
            return
        for name, component in components.items():
            content = {k: v for k, v in component.items() if k != "platform"}
            topic = f"{prefix}/{component['platform']}/{object_id(root)}/{name}/config"
            yield _retained(topic, {**content, "device": device, "origin": origin, "qos": 1})

    def _agent(self) -> tuple[str, Json, Mapping[str, Json]]:
        root = self._topics.root
        device = {
            "identifiers": [root],
            "name": self._topics.agent,
            "manufacturer": "asd-agent",
            "model": "agent",
            "sw_version": __version__,
        }
        connected = _connectivity(root, "Connected", self._topics.availability)
        return root, device, {"connected": connected}

    def _machine(self, machine: config.Machine) -> tuple[str, Json, Mapping[str, Json]]:
        root = f"{self._topics.root}/{machine.id}"
        device = {
            "identifiers": [root],
            "name": machine.id,
            "manufacturer": "asd-agent",
            "model": "machine",
            "via_device": self._topics.root,
        }
        components = {**self._alarm(machine.id), **self._scores(machine), **self._chain(machine.id)}
        components |= self._buttons(machine.id)
        for name, component in components.items():
            component["unique_id"] = f"{root}/{name}"
        return root, device, components

    def _alarm(self, machine: str) -> dict[str, Json]:
        """Level `unknown` becomes Home Assistant's unknown, which for a text is that very word: never OK."""
        topics, available = self._topics, self._available(machine)
        attributes = {
            "json_attributes_topic": topics.alarm(machine),
            "json_attributes_template": _template("value_json | tojson", "{}"),
        }
        shown: dict[str, Json] = {
            "alarm": {
                "platform": "binary_sensor",
                "name": "Alarm",
                "device_class": "problem",
                "state_topic": topics.alarm(machine),
                "value_template": _template("{'unknown': 'None', 'normal': 'OFF'}.get(value_json.level, 'ON')"),
                **attributes,
            },
            "level": {
                "platform": "sensor",
                "name": "Alarm level",
                "state_topic": topics.alarm(machine),
                "value_template": _template("value_json.level"),
            },
            "event": {
                "platform": "event",
                "name": "Last event",
                "state_topic": topics.event(machine),
                "event_types": [kind.value for kind in EventKind],
            },
        }
        if self._settings.picture_max_kb:
            shown["picture"] = {
                "platform": "image",
                "name": "Last alarm",
                "image_topic": topics.picture(machine),
                "content_type": "image/png",
            }
        return {name: {**component, **available} for name, component in shown.items()}

    def _scores(self, machine: config.Machine) -> dict[str, Json]:
        topic = self._topics.score(machine.id)
        lapses_s = max(SCORE_LAPSES_S, 3 * max(self._settings.score_interval_s, machine.hop_s))
        common = {"state_topic": topic, "expire_after": round(lapses_s), **self._available(machine.id)}
        number = {"state_class": "measurement", "suggested_display_precision": 2}
        return {
            "score": {
                "platform": "sensor",
                "name": "Score",
                "value_template": "{{ 'None' if value_json.score is none else value_json.score }}",
                "json_attributes_topic": topic,
                "json_attributes_template": "{{ {'reason': value_json.reason, 'nuisance': value_json.nuisance,"
                " 'state': value_json.state} | tojson }}",
                **number,
                **common,
            },
            "limit": {
                "platform": "sensor",
                "name": "Score limit",
                "value_template": "{{ 'None' if value_json.score_limit is none else value_json.score_limit }}",
                "entity_category": "diagnostic",
                **number,
                **common,
            },
            "operating": {
                "platform": "sensor",
                "name": "Operating state",
                "value_template": _template("value_json.operating or 'unknown'"),
                **common,
            },
        }

    def _chain(self, machine: str) -> dict[str, Json]:
        root = f"{self._topics.root}/{machine}"
        source = _connectivity(root, "Source", self._topics.machine_availability(machine))
        return {
            "chain": {
                "platform": "sensor",
                "name": "Measuring chain",
                "entity_category": "diagnostic",
                "state_topic": self._topics.health(machine),
                "value_template": _template("value_json.status"),
                "json_attributes_topic": self._topics.health(machine),
                "json_attributes_template": _template("{'reasons': value_json.reasons} | tojson", "{}"),
                **self._available(),
            },
            "source": {**source, **self._available()},
        }

    def _buttons(self, machine: str) -> dict[str, Json]:
        """Only for what `mqtt.requests` allows."""
        wanted: tuple[tuple[config.RequestVerb, str, Json], ...] = (
            ("ack", "Acknowledge", {}),
            ("shelve", "Shelve one hour", {"minutes": 60}),
            ("calibrate", "Calibrate", {"duration_s": CALIBRATE_S, "promote": True}),
        )
        buttons: dict[str, Json] = {}
        for verb, name, arguments in wanted:
            if verb in self._settings.requests:
                who = {} if verb == "calibrate" else {"by": BY}
                buttons[verb] = {
                    "platform": "button",
                    "name": name,
                    "command_topic": self._topics.request(verb),
                    "payload_press": msgspec.json.encode({"machine": machine, **who, **arguments}).decode(),
                    **self._available(),
                }
        if "calibrate" in buttons:
            buttons["calibrate"]["entity_category"] = "config"
        return buttons

    def _available(self, machine: str = "") -> Json:
        topics = [self._topics.availability]
        if machine:
            topics.append(self._topics.machine_availability(machine))
        return {"availability": [{"topic": topic} for topic in topics], "availability_mode": "all"}


def object_id(root: str) -> str:
    """Home Assistant allows letters, digits, _ and - only; the digest keeps ids apart that would become equal."""
    digest = hashlib.blake2b(root.encode(), digest_size=4).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', root)}_{digest}"


def _template(expression: str, otherwise: str = "") -> str:
    """Topics are emptied when a machine is removed: then there is no JSON."""
    return f"{{% if value_json is defined %}}{{{{ {expression} }}}}{{% else %}}{otherwise}{{% endif %}}"


def _connectivity(root: str, name: str, topic: str) -> Json:
    return {
        "platform": "binary_sensor",
        "name": name,
        "unique_id": f"{root}/{name.lower()}",
        "device_class": "connectivity",
        "entity_category": "diagnostic",
        "state_topic": topic,
        "payload_on": payloads.ONLINE.decode(),
        "payload_off": payloads.OFFLINE.decode(),
    }


def _retained(topic: str, content: Json) -> Message:
    return Message(topic=topic, payload=msgspec.json.encode(content), retain=True)
