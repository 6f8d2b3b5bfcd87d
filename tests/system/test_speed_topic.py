"""The shaft's speed from an MQTT topic reaches the mechanism analysis of the running daemon."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import yaml
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from asd_agent import config
from asd_agent.demo.broker import Broker
from asd_agent.service.control import DaemonAbsent, ask

pytestmark = pytest.mark.system


def wait(condition, limit_s: float = 60.0):
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


def test_rpm_is_heard_and_nonsense_is_ignored(tmp_path):
    with Broker(tmp_path) as broker:
        machine = {
            "id": "m",
            "source": {"kind": "simulated"},
            "window_s": 1,
            "hop_s": 1,
            "mechanism": {"speed_topic": "plc/motor/rpm"},
        }
        path = tmp_path / "agent.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "agent": {"id": "t", "state_dir": str(tmp_path / "state")},
                    "mqtt": {"url": f"mqtt://127.0.0.1:{broker.port}"},
                    "machines": [machine],
                }
            )
        )
        settings = config.load(path)
        daemon = subprocess.Popen(
            [sys.executable, "-m", "asd_agent", "run", "-c", str(path)], stderr=subprocess.DEVNULL
        )
        client = Client(CallbackAPIVersion.VERSION2)
        try:

            def status():
                try:
                    return ask(settings, "status")
                except DaemonAbsent:
                    return None

            wait(lambda: (found := status()) and found["mqtt"]["connected"])
            client.connect("127.0.0.1", broker.port)
            client.loop_start()
            speed = lambda: status()["machines"][0]["told_shaft_hz"]  # noqa: E731
            assert speed() is None
            client.publish("plc/motor/rpm", "1494", qos=1, retain=True)
            assert wait(speed) == pytest.approx(24.9)
            client.publish("plc/motor/rpm", "fast", qos=1).wait_for_publish(10)
            client.publish("plc/motor/rpm", '{"rpm": 2988}', qos=1)
            wait(lambda: speed() == pytest.approx(49.8))
        finally:
            client.loop_stop()
            daemon.terminate()
            assert daemon.wait(20) == 0
