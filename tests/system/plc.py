"""A daemon with one simulated machine, and a client that tells it things over MQTT, as a controller would."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import yaml
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from asd_agent import config
from asd_agent.demo.broker import Broker
from asd_agent.service.control import DaemonAbsent, ask


def wait(condition, limit_s: float = 60.0):
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


class Plc:
    def __init__(self, settings: config.Config, client: Client) -> None:
        self.settings, self.client = settings, client

    def status(self, key: str):
        """Of the machine."""
        return self._status()["machines"][0][key]

    def score(self, key: str):
        """Of the newest window; empty before the first."""
        return (self.status("score") or {}).get(key, "")

    def _status(self):
        try:
            return ask(self.settings, "status")
        except DaemonAbsent:
            return None

    def connected(self) -> bool:
        found = self._status()
        return bool(found and found["sink"]["mqtt"]["connected"])


@contextlib.contextmanager
def plc(folder, **machine):
    """The daemon runs and is connected; it must end well."""
    with Broker(folder) as broker:
        path = folder / "agent.yaml"
        settings = {
            "agent": {"id": "t", "state_dir": str(folder / "state")},
            "mqtt": {"url": f"mqtt://127.0.0.1:{broker.port}", "requests": ["extend"]},
            "machines": [{"id": "m", "source": {"kind": "simulated"}, "window_s": 1, **machine}],
        }
        path.write_text(yaml.safe_dump(settings))
        daemon = subprocess.Popen(
            [sys.executable, "-m", "asd_agent", "run", "-c", str(path)], stderr=subprocess.DEVNULL
        )
        client = Client(CallbackAPIVersion.VERSION2)
        try:
            made = Plc(config.load(path), client)
            wait(made.connected)
            client.connect("127.0.0.1", broker.port)
            client.loop_start()
            yield made
        finally:
            client.loop_stop()
            daemon.terminate()
            assert daemon.wait(20) == 0
