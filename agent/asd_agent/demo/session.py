"""Runs the demo: a real daemon as a child, a real MQTT subscriber, and a table of what arrives."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from asd_agent import config
from asd_agent.demo import plan as plans
from asd_agent.demo.broker import Broker
from asd_agent.demo.page import free_port, page
from asd_agent.demo.screen import Lines, Screen
from asd_agent.errors import AsdError
from asd_agent.service import client
from asd_agent.service.control import DaemonAbsent, ask

START_S = 30.0
MACHINE = "machine-1"


def run(source: str, *, fast: bool, minutes: float | None, as_json: bool = False) -> int:
    """0 when the demo showed what it should: for the simulated machine an alarm that came and went."""
    plan = plans.FAST if fast else plans.NORMAL
    with tempfile.TemporaryDirectory(prefix="asd-demo-") as name:
        folder = Path(name)
        with Broker(folder) as broker:
            page_port = free_port()
            settings = plans.settings(source, plan, folder, broker.port, page_port)
            screen = (Lines if as_json else Screen)(source, broker.name, broker.port)
            with (
                _daemon(settings, folder) as process,
                _subscriber(broker.port) as arrivals,
                page(folder / "agent.yaml", page_port) as where,
            ):
                screen.say(where)
                began = time.monotonic()
                _calibrate(settings, plan, screen, process)
                seconds = 60 * minutes if minutes else plan.listen_s if source == "simulated" else 60.0
                until = max(began + plan.calibrate_s, time.monotonic()) + seconds
                return _listen(screen, arrivals, process, until, expect_alarm=source == "simulated")


@contextlib.contextmanager
def _daemon(settings: config.Config, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    path, log = folder / "agent.yaml", folder / "daemon.log"
    path.write_text(yaml.safe_dump(msgspec.to_builtins(settings), sort_keys=False))
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "asd_agent", "run", "-c", str(path)],
            stdout=sink,
            stderr=sink,
            stdin=subprocess.DEVNULL,
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                raise AsdError(f"the daemon did not start: {said[-1]}")
            with contextlib.suppress(DaemonAbsent):
                ask(settings, "status")
                break
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _subscriber(port: int) -> Iterator[queue.Queue[tuple[str, dict[str, Any]]]]:
    """Everything below asd/demo, as (last level of the topic, payload)."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    arrivals: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe(f"asd/demo/{MACHINE}/#", qos=1)

    def on_message(_client: Client, _data: Any, message: Any) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            payload = msgspec.json.decode(message.payload)
            if isinstance(payload, dict):
                arrivals.put((message.topic.rsplit("/", 1)[-1], payload))

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        yield arrivals
    finally:
        client.disconnect()
        client.loop_stop()


def _calibrate(settings: config.Config, plan: plans.Plan, screen: Screen, process: subprocess.Popen[bytes]) -> None:
    ask(settings, "calibrate", machine=MACHINE, duration_s=plan.calibrate_s, promote=True)
    while process.poll() is None:
        state = client.calibration(settings, MACHINE)
        screen.calibrating(state.done, state.windows, plan.calibrate_s * (1 - state.done))
        if state.report is not None:
            screen.calibrated(state.report.advice)
            return
        if state.phase not in ("listening", "fitting"):
            raise AsdError(f"the calibration failed: {state.error}")
        time.sleep(0.25)
    raise AsdError("the daemon ended during the calibration")


def _listen(
    screen: Screen,
    arrivals: queue.Queue[tuple[str, dict[str, Any]]],
    process: subprocess.Popen[bytes],
    until: float,
    *,
    expect_alarm: bool,
) -> int:
    kinds: list[str] = []
    with contextlib.suppress(queue.Empty):
        while True:  # what arrived while it was learning
            arrivals.get_nowait()
    with screen:
        while time.monotonic() < until:
            if process.poll() is not None:
                raise AsdError("the daemon ended unexpectedly")
            try:
                topic, payload = arrivals.get(timeout=0.25)
            except queue.Empty:
                continue
            if topic == "score":
                screen.score(payload)
            elif topic == "event":
                kinds.append(payload["event_type"])
                screen.event(payload)
                if expect_alarm and payload["event_type"] == "cleared":
                    break
    shown = kinds.count("raised"), kinds.count("cleared")
    screen.summary(*shown)
    return 0 if not expect_alarm or shown == (1, 1) else 1
