"""A real Home Assistant with its MQTT integration, a real mosquitto and a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from clients import python
from daemons import machine
from mosquitto import BINARY, free_port, wait_for

from asd_agent.types import utc_s

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow_client,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(BINARY is None, reason="needs mosquitto (see tests/system/packages.sh)"),
]
DRIVER = Path(__file__).with_name("homeassistant_driver.py")
CONFIGURATION = "homeassistant:\n  name: test\nhttp:\n  server_host: 127.0.0.1\n  server_port: {port}\n"
START_S, PATIENCE_S = 900.0, 60.0
# The last version for Python 3.11 has no device-based discovery; it needs an older josepy than pip chooses today.
VERSIONS = [
    pytest.param("3.13", ["homeassistant"], "homeassistant", id="device"),
    pytest.param("3.11", ["homeassistant==2024.3.3", "josepy<2"], "homeassistant-components", id="components"),
]


class HomeAssistant:
    """It installs what its integrations need at its first start."""

    def __init__(self, interpreter: Path, folder: Path, broker_port: int) -> None:
        self._command = [str(interpreter), str(DRIVER), str(folder), str(broker_port)]
        self._environment = {**os.environ, "PATH": f"{interpreter.parent}:{os.environ['PATH']}"}
        for name in ("PYTHONPATH", "VIRTUAL_ENV"):
            self._environment.pop(name, None)
        folder.mkdir(exist_ok=True)
        (folder / "configuration.yaml").write_text(CONFIGURATION.format(port=free_port()))
        self._log = folder / "driver.log"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
            )
        assert self._read() == {"ready": True}

    def _read(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line and "No matching distribution" in self._log.read_text():
            pytest.skip("Home Assistant cannot install what its integrations need")
        assert line, self._log.read_text()[-3000:]
        return json.loads(line)

    def ask(self, do: str, **more: str) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def state(self, unique_id: str) -> str | None:
        found = self.ask("states").get(unique_id)
        return found["state"] if found else None

    @property
    def said(self) -> str:
        return f"{sorted(self.ask('states'))} {self._log.read_text()[-3000:]}"

    def until(self, unique_id: str, *states: str | None) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (now := self.state(unique_id)) not in states:
            assert time.monotonic() < deadline, f"{unique_id} is {now}, not {states}: {self.said}"
            time.sleep(0.3)

    def stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.write('{"do": "stop"}\n')
            self._process.stdin.close()
            self._process.wait(60)
            self._process = None


@pytest.mark.parametrize(("version", "packages", "style"), VERSIONS)
def test_entities_follow_the_machine_and_a_button_acknowledges(
    version: str, packages: list[str], style: str, tmp_path: Path, broker: Any, site: Any
) -> None:
    home = HomeAssistant(python(version, *packages), tmp_path / "home", broker.port)
    site.configure(mqtt={"url": broker.url, "discovery": style, "requests": ["ack", "shelve", "calibrate"]})
    site.start()
    site.until(state="normal")
    home.start()
    try:
        _story(home, site, broker, style)
    finally:
        home.stop()


def _story(home: HomeAssistant, site: Any, broker: Any, style: str) -> None:
    home.until("asd/a/m/alarm", "off")
    assert home.ask("devices") == {"a": None, "m": "a"}
    expected = {f"asd/a/m/{name}" for name in (
        "alarm", "level", "event", "picture", "score", "limit", "operating", "chain", "source", "ack", "shelve",
        "calibrate",
    )} | {"asd/a/connected"}  # fmt: skip
    states = home.ask("states")
    assert set(states) == expected
    assert states["asd/a/m/alarm"]["attributes"]["device_class"] == "problem"
    home.until("asd/a/m/level", "normal")
    home.until("asd/a/m/source", "on")
    home.until("asd/a/m/chain", "good", "function_check", "maintenance_required", "out_of_specification")
    home.ask("press", unique_id="asd/a/m/calibrate")
    site.until_reason("calibrating")
    assert site.ask("calibration", machine="m")["phase"] == "listening"
    home.until("asd/a/m/chain", "function_check")
    site.ask("cancel_calibration", machine="m")
    site.play("faulty")
    home.until("asd/a/m/alarm", "on")
    home.until("asd/a/m/level", "danger")
    wait_for(
        lambda: home.ask("states")["asd/a/m/event"]["attributes"]["event_type"] in ("raised", "escalated"), "event"
    )
    assert float(home.state("asd/a/m/score") or 0) > float(home.state("asd/a/m/limit") or 99)
    wait_for(lambda: home.state("asd/a/m/picture") not in ("unknown", "unavailable"), "the picture", PATIENCE_S)
    home.ask("press", unique_id="asd/a/m/ack")
    wait_for(lambda: site.status()["alarm"]["acknowledged"], "the button acknowledges")
    assert site.status()["alarm"]["acknowledged_by"] == "Home Assistant"
    home.ask("press", unique_id="asd/a/m/shelve")
    wait_for(
        lambda: utc_s(site.status()["alarm"]["shelved_until"] or "1970-01-01T00:00:00Z") > time.time() + 3000,
        "the button shelves",
    )
    # Either side restarts: what stood stands again.
    home.stop()
    home.start()
    home.until("asd/a/m/level", "danger")
    site.stop()
    home.until("asd/a/m/alarm", "unavailable")
    home.until("asd/a/connected", "off")
    site.play("normal")
    site.start()
    home.until("asd/a/m/alarm", "off")
    # A machine that is gone goes there too; one that is not calibrated is unknown, never OK.
    site.stop()
    site.configure(machine(site.folder, "new"), mqtt={"url": broker.url, "discovery": style})
    site.start()
    home.until("asd/a/m/alarm", None)
    home.until("asd/a/new/alarm", "unknown")
    home.until("asd/a/new/level", "unknown")
    assert {name for name in home.ask("states") if name.startswith("asd/a/m/")} == set()
    site.stop()
