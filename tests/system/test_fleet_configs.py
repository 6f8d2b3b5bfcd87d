"""configs/fleet with the programs that read it: Debian's prometheus and promtool, Node-RED from npm."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from clients import npm
from mosquitto import BINARY, Collector, free_port, wait_for

from asd_agent.publish import Messages
from asd_agent.types import EventKind
from store_cases import alarm_event

FLEET = Path(__file__).parents[2] / "configs" / "fleet"
MESSAGES = Messages("hall-1", "asd", lambda: True)
pytestmark = pytest.mark.system
needs_prometheus = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's package prometheus")


@needs_prometheus
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "asd-agent-rules.yml"],
        ["test", "rules", "asd-agent-rules-test.yml"],
    ],
)
def test_promtool_accepts_configuration_and_rules(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=FLEET, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> set[str]:
    """Of all rules and panels, for any agent and machine."""
    rules = re.findall(r"^ +expr: (.*)$", (FLEET / "asd-agent-rules.yml").read_text(), re.MULTILINE)
    dashboard = json.loads((FLEET / "grafana" / "fleet.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return {re.sub(r"\$(agent|machine)\b", ".*", expression) for expression in [*rules, *panels]}


@contextmanager
def prometheus(folder: Path, page_port: int) -> Iterator[int]:
    """A real one that scrapes the page each second."""
    text = (FLEET / "prometheus.yml").read_text()
    text = text.replace("localhost:8070", f"127.0.0.1:{page_port}").replace("15s", "1s")
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(FLEET / "asd-agent-rules.yml", folder)
    port = free_port()
    command = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, "--storage.tsdb.path=data"], cwd=folder, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def page(site: Any) -> Iterator[None]:
    """The local page, which serves /metrics."""
    with (site.folder / "web.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "asd_agent", "web", "-c", str(site.path)], stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def query(port: int, expression: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


@needs_prometheus
@pytest.mark.timeout(180)
def test_a_real_prometheus_scrapes_the_agent_and_its_rules_fire(site: Any, tmp_path: Path) -> None:
    page_port = free_port()
    site.configure(web={"listen": f"127.0.0.1:{page_port}"})
    site.start()
    site.until(state="normal")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with page(site), prometheus(folder, page_port) as port:
        wait_for(lambda: _scraped(port), (folder / "prometheus.log").read_text()[-2000:], 60)
        names = {name for e in expressions() for name in re.findall(r"\basd_\w+", e)}
        for name in names:
            assert query(port, name), f"{name} is not among the agent's metrics"
        for expression in expressions():
            query(port, expression)  # an error of syntax is an answer 400
        site.play("faulty")
        site.until(level="danger")
        firing = 'ALERTS{alertname="MachineDanger", alertstate="firing"}'
        wait_for(lambda: bool(query(port, firing)), "the rule fires", 30)
        assert query(port, firing)[0]["metric"]["machine"] == "m"
    site.stop()


def _scraped(port: int) -> bool:
    try:
        return bool(query(port, "asd_machine_score"))
    except OSError:
        return False


@contextmanager
def node_red(folder: Path, broker_port: int) -> Iterator[Path]:
    """The flow that is shipped, on our broker."""
    package = npm("node-red@4")
    flow = json.loads((FLEET / "node-red-flow.json").read_text())
    for item in flow:
        if item["type"] == "mqtt-broker":
            item |= {"broker": "127.0.0.1", "port": str(broker_port)}
    folder.mkdir()
    (folder / "flow.json").write_text(json.dumps(flow))
    (folder / "settings.js").write_text(f"module.exports = {{ uiHost: '127.0.0.1', uiPort: {free_port()} }};")
    command = ["node", str(package / "node_modules" / "node-red" / "red.js"), "--userDir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--settings", str(folder / "settings.js"), str(folder / "flow.json")],
            stdout=log,
            stderr=log,
            env={**os.environ, "HOME": str(folder)},
        )
    try:
        yield folder / "log"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow_client
@pytest.mark.timeout(1800)
@pytest.mark.skipif(BINARY is None, reason="needs mosquitto (see tests/system/packages.sh)")
def test_node_red_passes_alarms_on_and_acknowledges(broker: Any, tmp_path: Path) -> None:
    with node_red(tmp_path / "node-red", broker.port) as log:
        collector = Collector(broker.port)
        wait_for(lambda: "Connected to broker" in log.read_text(), "Node-RED connects", 90)
        for kind in (EventKind.RAISED, EventKind.RAISED, EventKind.ACKNOWLEDGED, EventKind.CLEARED):
            message = MESSAGES.of(
                MESSAGES.event(alarm_event(f"e-{kind}", kind=kind))
            )  # the first one is delivered twice
            collector.client.publish(message.topic, message.payload, qos=1).wait_for_publish(10)
        wait_for(lambda: len(collector.payloads("plant/notifications")) >= 2, "notifications")
        told = [json.loads(payload) for payload in collector.payloads("plant/notifications")]
        assert [t["title"] for t in told] == ["m1: raised, alert", "m1: cleared, alert"]
        assert {t["agent"] for t in told} == {"hall-1"}
        collector.client.publish("plant/acknowledge", json.dumps({"agent": "hall-1", "machine": "m1", "by": "eva"}), 1)
        wait_for(lambda: collector.last("asd/hall-1/request/ack") is not None, "the request")
        request = json.loads(collector.last("asd/hall-1/request/ack") or b"{}")
        assert request == {"machine": "m1", "by": "eva", "reason": ""}
        collector.close()
