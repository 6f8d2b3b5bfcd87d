"""An embedded MQTT broker on a free local port: mosquitto when it is installed, else amqtt."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from asd_agent.errors import AsdError

START_S = 20.0
AMQTT = """
import asyncio, sys
from amqtt.broker import Broker

async def main():
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:" + sys.argv[1]}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Broker:
    """A context: the broker runs inside, as a child process that ends with it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if found:
            conf = folder / "mosquitto.conf"
            conf.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
            self.name, self._command = "mosquitto", [found, "-c", str(conf)]
        else:
            self.name, self._command = "amqtt", [sys.executable, "-c", AMQTT, str(self.port)]
        self._log = folder / "broker.log"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        self._process.kill()
        said = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        hint = "; install it with: pip install 'asd-agent[demo]'" if "No module named" in said[-1] else ""
        raise AsdError(f"the embedded broker ({self.name}) did not start: {said[-1]}{hint}")

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
