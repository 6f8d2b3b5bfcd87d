"""The AsyncAPI document against AsyncAPI's own parser."""

from __future__ import annotations

import json

import pytest
from clients import node, npm

from asd_agent.cli.schema import text

pytestmark = [pytest.mark.system, pytest.mark.slow_client]

PARSE = """
const { Parser } = require('@asyncapi/parser');
const text = require('fs').readFileSync(0, 'utf8');
new Parser().parse(text).then(({ document, diagnostics }) => {
  const serious = diagnostics.filter(d => d.severity <= 1).map(d => [d.severity, d.message, d.path.join('.')]);
  console.log(JSON.stringify({ channels: document ? document.channels().all().map(c => c.address()) : null, serious }));
});
"""


def parse(document: str) -> dict[str, list[object]]:
    found: dict[str, list[object]] = json.loads(node(npm("@asyncapi/parser@3"), PARSE, stdin=document.encode()))
    return found


def test_the_official_parser_accepts_the_document() -> None:
    found = parse(text("asyncapi"))
    assert found["serious"] == []
    assert "{base}/{agent}/{machine}/event" in found["channels"]
    assert "{base}/{agent}/request/ack" in found["channels"]


def test_the_official_parser_finds_a_mistake() -> None:
    broken = json.loads(text("asyncapi"))
    broken["operations"]["send_alarm"]["channel"]["$ref"] = "#/channels/nowhere"
    assert parse(json.dumps(broken))["serious"] != []
