"""The operating state from an MQTT topic: learnt by name, refused when new, confirmed by one request."""

from __future__ import annotations

import json
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


def test_states_are_told_learnt_and_confirmed(tmp_path):
    with Broker(tmp_path) as broker:
        machine = {
            "id": "m",
            "source": {"kind": "simulated"},
            "window_s": 1,
            "hop_s": 0.5,
            "operating": {"topic": "plc/m/state", "settle_s": 0.2},
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
        client, answers = Client(CallbackAPIVersion.VERSION2), []
        client.on_message = lambda _client, _data, message: answers.append(json.loads(message.payload))
        try:

            def status():
                try:
                    return ask(settings, "status")
                except DaemonAbsent:
                    return None

            def of_machine(key):
                return status()["machines"][0][key]

            wait(lambda: (found := status()) and found["mqtt"]["connected"])
            client.connect("127.0.0.1", broker.port)
            client.subscribe("asd/t/response/#", 1)
            client.loop_start()
            assert "no operating state is told" in str(of_machine("health"))
            client.publish("plc/m/state", "pumping", qos=1, retain=True)
            wait(lambda: of_machine("told_operating") == "pumping")
            ask(settings, "calibrate", machine="m", duration_s=6.0, promote=True)
            wait(lambda: ask(settings, "calibration", machine="m")["phase"] == "done")
            wait(lambda: of_machine("state") in ("normal", "anomalous") and of_machine("operating") == "pumping")

            client.publish("plc/m/state", '{"state": "purging"}', qos=1, retain=True)
            wait(lambda: of_machine("state") == "not_assessable" and "'purging' is not in" in of_machine("reason"))
            wait(lambda: "new operating state 'purging' since" in of_machine("unknown_state"))
            client.publish("asd/t/request/extend", json.dumps({"machine": "m", "transaction": 7}), qos=1)
            answer = wait(lambda: answers and answers[-1])
            assert (answer["status"], answer["transaction"]) == ("ok", 7)
            assert "the state 'purging'" in answer["data"]
            wait(lambda: of_machine("operating") == "purging" and of_machine("state") in ("normal", "anomalous"))
            assert of_machine("unknown_state") == ""
        finally:
            client.loop_stop()
            daemon.terminate()
            assert daemon.wait(20) == 0
