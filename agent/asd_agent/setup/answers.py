"""What a person has to say, and the configuration that follows from it: short, commented, validated."""

from __future__ import annotations

import json
import re
import socket

import msgspec

from asd_agent import config
from asd_agent.errors import ConfigError, UsageError

HEAD = """\
# Configuration of asd-agent, written by `asd-agent init`.
# Every key, with its default and its meaning: `asd-agent init --example`.
# After a change: systemctl reload asd-agent; `asd-agent doctor` says what is wrong.
"""


class Answers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The few things that nobody can guess. `source` is a sound card by stable name, "simulated", or a path."""

    agent: str = ""  # id; empty = the name of this computer
    state_dir: str = "/var/lib/asd-agent"
    machine: str = "machine-1"
    source: str = "default"
    channel: int = 0
    broker: str | None = None  # mqtt[s]://host[:port]
    username: str | None = None
    password_file: str | None = None  # None = the systemd credential
    ca_file: str | None = None
    rpm: float | None = None  # of the shaft
    mains_hz: float | None = None
    bearings: tuple[str, ...] = ()  # "6205", or "DE=6205"
    gears: tuple[int, ...] = ()  # teeth of the pinions


def host_id() -> str:
    """The name of this computer as an id: "hall-1"."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", socket.gethostname()).strip("-_.")[:64] or "agent"


def configuration(answers: Answers) -> str:
    """The text of agent.yaml, which `config.load` takes. Raises ConfigError that names the answer."""
    text = "\n".join([HEAD, *_agent(answers), *_mqtt(answers), *_machine(answers), ""])
    try:
        config.parse(text, "agent.yaml")
    except ConfigError as exc:
        raise ConfigError(f"these answers make no valid configuration: {exc}") from exc
    return text


def _agent(answers: Answers) -> list[str]:
    return [
        "agent:",
        f"  id: {_word(answers.agent or host_id())}  # topic level: asd/<id>/...",
        f"  state_dir: {_word(answers.state_dir)}  # baselines, scores, alarms, evidence clips",
        "",
    ]


def _mqtt(answers: Answers) -> list[str]:
    if answers.broker is None:
        return ['# mqtt: {url: "mqtts://broker:8883"}  # without it alarms stay on this computer', ""]
    url = answers.broker if "://" in answers.broker else f"mqtt://{answers.broker}"
    lines = ["mqtt:", f"  url: {_word(url)}  # mqtts:// with TLS"]
    if answers.username:
        lines.append(f"  username: {_word(answers.username)}")
    if answers.password_file:
        lines.append(f"  password_file: {_word(answers.password_file)}")
    elif answers.username:
        lines.append("  # the password is the systemd credential mqtt-password, /etc/credstore/mqtt-password")
    if answers.ca_file:
        lines.append(f"  ca_file: {_word(answers.ca_file)}")
    return [*lines, ""]


def _machine(answers: Answers) -> list[str]:
    lines = [
        "machines:",
        f"  - id: {_word(answers.machine)}",
        f"    source: {source_words(answers.source, answers.channel)}",
        "    alarm:",
        "      false_alarms_per_month: 1  # the budget that you accept; limits follow from it",
    ]
    mechanism = _mechanism(answers)
    if mechanism:
        return [*lines, "    mechanism:  # what turns, so that alarms can name it", *mechanism]
    return [
        *lines,
        '    # mechanism: {shaft_hz: 24.9, mains_hz: 50, bearings: [{name: DE, type: "6205"}]}  # init --rpm',
    ]


def source_words(source: str, channel: int = 0) -> str:
    """A source as a line of YAML: a sound card, "simulated", or a recording or folder (with a slash or a suffix)."""
    at = f", channel: {channel}" if channel else ""
    if source == "simulated":
        return "{kind: simulated}"
    if source.startswith(("/", "./", "~")):
        return f"{{kind: directory, path: {_word(source)}, loop: true{at}}}"
    return f"{{kind: microphone, device: {_word(source)}{at}}}"


def _mechanism(answers: Answers) -> list[str]:
    lines = []
    if answers.rpm is not None:
        lines.append(f"      shaft_hz: {answers.rpm / 60:.4g}  # {answers.rpm:g} rpm")
    if answers.mains_hz is not None:
        lines.append(f"      mains_hz: {answers.mains_hz:g}")
    if answers.bearings:
        lines.append("      bearings:")
        for number, text in enumerate(answers.bearings, 1):
            name, equals, kind = text.partition("=")
            name, kind = (name, kind) if equals else (f"bearing {number}", text)
            lines.append(f"        - {{name: {_word(name)}, type: {json.dumps(kind)}}}")
    if answers.gears:
        lines.append("      gears:")
        lines += [f"        - {{name: stage {n}, teeth: {teeth}}}" for n, teeth in enumerate(answers.gears, 1)]
    return lines


def _word(text: str) -> str:
    """A string as YAML: plain where that is safe. Raises UsageError for control characters."""
    if any(ord(c) < 32 for c in text):
        raise UsageError(f"{text!r} contains control characters")
    return text if re.fullmatch(r"[A-Za-z/][A-Za-z0-9_./-]*", text) and text.lower() not in _TAKEN else json.dumps(text)


_TAKEN = {"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"}
