"""asd-agent schema: what an editor, a consumer or a generator of code needs, as JSON."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec

KINDS = ("config", "mqtt", "asyncapi")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        choices=KINDS,
        help="config: JSON Schema of agent.yaml; mqtt: JSON Schema of the payloads; asyncapi: topics and payloads",
    )


def run(args: argparse.Namespace) -> int:
    sys.stdout.write(text(args.kind))
    return 0


def text(kind: str) -> str:
    """One of KINDS as indented JSON with a stable order; the files in docs/schema are made of it."""
    return msgspec.json.format(msgspec.json.encode(_document(kind)), indent=2).decode() + "\n"


def _document(kind: str) -> dict[str, Any]:
    from asd_agent import __version__, config
    from asd_agent.publish import schemas

    if kind == "config":
        return schemas.config_schema(config.Config, "asd-agent: agent.yaml")
    if kind == "mqtt":
        return schemas.mqtt()
    from asd_agent.service import commands

    return schemas.asyncapi(__version__, {verb: commands.VERBS[verb] for verb in config.REQUEST_VERBS})
