"""The local page beside the demo, where the extra `web` is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

USUAL_PORT = 8070
START_S = 15.0
NEEDED = ("starlette", "uvicorn", "jinja2", "prometheus_client")


def free_port() -> int:
    """The usual one, or another when that is taken."""
    for port in (USUAL_PORT, 0):
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    return USUAL_PORT


@contextlib.contextmanager
def page(configuration: Path, port: int) -> Iterator[str]:
    """A line for the person at the terminal: where to look, or why there is no page."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        yield "no local page: it needs pip install 'asd-agent[web]'"
        return
    process = subprocess.Popen(
        [sys.executable, "-m", "asd_agent", "web", "-c", str(configuration)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        if _answers(process, port):
            yield f"watch it in a browser: http://127.0.0.1:{port}/"
        else:
            yield "the local page did not start"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return True
        time.sleep(0.1)
    return False
