"""The local page under load, and killed: what it costs the daemon.

    python benchmarks/page.py load [--minutes 10] [--viewers 20]    viewers for minutes; how late windows are
    python benchmarks/page.py kill [--times 50]                     the page killed again and again; is a window lost?
    python benchmarks/page.py year                                  a stored year opens; how long, how much memory

Each writes its part of results/page.json. A viewer holds the event stream, opens a machine's plot every 10 s, and one
in five also watches the live spectrogram.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import host
import msgspec
import yaml

from asd_agent import config
from asd_agent.errors import AsdError
from asd_agent.service import client
from asd_agent.service.control import ask
from asd_agent.store import Reader, ScoreRow, Store, scoreblock, scores, summary
from asd_agent.types import State, rfc3339

RESULTS = Path(__file__).parent / "results" / "page.json"
MACHINES = ("m1", "m2")
LOOK_EVERY_S = 10.0
SAMPLE_S = 0.25
WARM_UP_S = 20.0
INSERT = "INSERT INTO score_blocks (machine, since_ms, until_ms, windows, summary, data) VALUES (?, ?, ?, ?, ?, ?)"


@contextlib.contextmanager
def agent(folder: Path, port: int) -> Iterator[config.Config]:
    """A calibrated daemon on simulated machines."""
    machines = [
        config.Machine(id=name, source=config.SimulatedSource(seed=i), window_s=2.0, hop_s=1.0)
        for i, name in enumerate(MACHINES)
    ]
    settings = config.Config(
        agent=config.Agent(id="bench", state_dir=str(folder / "state"), log_level="warning"),
        machines=machines,
        web=config.Web(listen=f"127.0.0.1:{port}"),
    )
    (folder / "agent.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(settings)))
    with started("run", folder):
        until(lambda: client.status(settings) is not None)
        for name in MACHINES:
            ask(settings, "calibrate", machine=name, duration_s=30.0, promote=True)
        until(lambda: all(m.health.baseline for m in client.status(settings).machines), 120.0)
        yield settings


@contextlib.contextmanager
def started(command: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{command}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "asd_agent", command, "-c", str(folder / "agent.yaml")], stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: Any, patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(AsdError, OSError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain")
        time.sleep(0.1)


def answers(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
        return bool(answer.status == 200)


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident, and of it the process's own."""
    status = Path(f"/proc/{pid}/status").read_text()
    kb = {k: int(v.split()[0]) for k, v in (line.split(":", 1) for line in status.splitlines()) if k.startswith("Rss")}
    return sum(kb.values()) / 1024, kb["RssAnon"] / 1024


def lags(settings: config.Config, seconds: float, pid: int | None = None) -> dict[str, float]:
    """Of the windows in that time, in ms, and the most memory that the page took."""
    found: dict[tuple[str, str], float] = {}
    rss = own = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for machine in client.status(settings).machines:
            if machine.health.last_window_end is not None and machine.health.lag_s is not None:
                found[machine.machine, machine.health.last_window_end] = 1000 * machine.health.lag_s
        if pid is not None:
            now = memory_mib(pid)
            rss, own = max(rss, now[0]), max(own, now[1])
        time.sleep(SAMPLE_S)
    dropped = sum(m.health.windows_dropped for m in client.status(settings).machines)
    spread = statistics.quantiles(found.values(), n=100)
    made = {"windows": len(found), "dropped": dropped, "lag_ms_median": spread[49], "lag_ms_95": spread[94]}
    return {k: round(v, 2) for k, v in (made | ({"page_rss_mib": rss, "page_own_mib": own} if pid else {})).items()}


async def viewer(port: int, number: int, counts: dict[str, int]) -> None:
    """Holds /events, and looks at a plot now and then."""

    async def stream(path: str) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
                while line := await reader.readline():
                    counts["messages"] += line.startswith(b"data:")
            await asyncio.sleep(1.0)

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S * (1 + number / 40))
            now, machine = time.time(), MACHINES[number % len(MACHINES)]
            path = f"/api/v1/machines/{machine}/scores?since={rfc3339(now - 21_600)}&until={rfc3339(now)}&points=800"
            for target in (f"/machines/{machine}", path):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
                head = await reader.readline()
                await reader.read()
                writer.close()
                counts["pages" if b" 200 " in head else "failed"] += 1

    paths = ["/events"] + ([f"/live/{MACHINES[0]}"] if number % 5 == 0 else [])
    await asyncio.gather(*map(stream, paths), look())


async def load(settings: config.Config, port: int, pid: int, viewers: int, seconds: float) -> dict[str, Any]:
    counts = {"messages": 0, "pages": 0, "failed": 0}
    tasks = [asyncio.create_task(viewer(port, number, counts)) for number in range(viewers)]
    found = await asyncio.to_thread(lags, settings, seconds, pid)
    broken = [str(task.exception()) for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    return found | counts | {"broken": broken}


def run_load(folder: Path, port: int, minutes: float, viewers: int) -> dict[str, Any]:
    with agent(folder, port) as settings:
        time.sleep(WARM_UP_S)
        alone = lags(settings, 60 * minutes / 4)
        with started("web", folder) as page:
            until(lambda: answers(port))
            watched = asyncio.run(load(settings, port, page.pid, viewers, 60 * minutes))
        after = lags(settings, 60 * minutes / 4)
    quiet = (alone["lag_ms_median"] + after["lag_ms_median"]) / 2
    hop_ms = 1000.0
    return {
        "viewers": viewers, "minutes": minutes, "alone_before": alone, "watched": watched, "alone_after": after,
        "median_lag_added_ms": round(watched["lag_ms_median"] - quiet, 2),
        "added_share_of_hop": round((watched["lag_ms_median"] - quiet) / hop_ms, 5),
    }  # fmt: skip


def run_kill(folder: Path, port: int, times: int) -> dict[str, Any]:
    with agent(folder, port) as settings:
        time.sleep(3.0)
        for _ in range(times):
            with started("web", folder):
                until(lambda: answers(port))
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/machines/m1", timeout=5).read()
        status = client.status(settings)
        time.sleep(12.0)  # scores are written every 10 s
        gaps = 0
        for name in MACHINES:
            index = [row.index for row in Reader(settings.state_dir).scores(name)]
            gaps += sum(b - a - 1 for a, b in pairwise(index))
        return {
            "killed": times,
            "windows": sum(m.health.windows_scored for m in status.machines),
            "windows_missing_in_store": gaps,
            "windows_dropped": sum(m.health.windows_dropped for m in status.machines),
            "scores_dropped": status.sink.scores_dropped,
        }


def run_year(folder: Path, port: int) -> dict[str, Any]:
    """A year at a hop of 5 s, opened cold and again."""
    machine = config.Machine(id="m1", source=config.SimulatedSource())
    settings = config.Config(
        agent=config.Agent(id="bench", state_dir=str(folder / "state")), machines=[machine],
        web=config.Web(listen=f"127.0.0.1:{port}"),
    )  # fmt: skip
    (folder / "agent.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(settings)))
    now = time.time()
    count = write_year(folder / "state", now)
    with started("web", folder) as page:
        until(lambda: _up(port))
        spans: dict[str, Any] = {"windows": count}
        for name, days in (("day", 1), ("month", 30), ("year", 365)):
            url = (
                f"http://127.0.0.1:{port}/api/v1/machines/m1/scores?since={rfc3339(now - 86_400 * days)}"
                f"&until={rfc3339(now)}&points=1000"
            )
            for when in ("first", "again"):
                began = time.monotonic()
                data = json.loads(urllib.request.urlopen(url, timeout=120).read())
                spans[f"{name}_{when}_s"] = round(time.monotonic() - began, 3)
            spans[f"{name}_windows"] = data["windows"]
        spans["page_rss_mib"], spans["page_own_mib"] = map(round, memory_mib(page.pid))
    return spans


def _up(port: int) -> bool:
    with contextlib.suppress(urllib.error.HTTPError):
        return answers(port)
    return True


def write_year(state_dir: Path, now: float) -> int:
    """Hours of windows in the store's own blocks; a fault of a minute a month."""
    count = 365 * 24
    with Store(state_dir) as store:
        number = store._database.write(lambda db: scores._number(db, "m1"), durable=False)
        for hour in range(count):
            block = [row(now - 3600 * (count - hour) + 5 * i, 720 * hour + i, hour) for i in range(720)]
            times = round(block[0].utc_s * 1000), round(block[-1].utc_s * 1000)
            values = (number, *times, len(block), summary.encode(block), scoreblock.encode(block))
            store._database.write(lambda db, values=values: db.execute(INSERT, values), durable=False)
    return 720 * count


def row(utc_s: float, index: int, hour: int) -> ScoreRow:
    faulty = hour % 720 == 100 and index % 720 < 12
    score = 4.0 if faulty else abs(math.sin(index / 977)) * 1.5
    p = 10**-score
    state = State.ANOMALOUS if faulty else State.NORMAL
    detectors = dict.fromkeys(("spectrum", "modulation"), (0.5, score, p))
    return ScoreRow(utc_s=utc_s, index=index, state=state, p_value=p, operating="running", detectors=detectors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "kill", "year"))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--viewers", type=int, default=20)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="asd-page-") as name:
        folder, port = Path(name), args.port or free_port()
        if args.what == "load":
            found = run_load(folder, port, args.minutes, args.viewers)
        else:
            found = run_kill(folder, port, args.times) if args.what == "kill" else run_year(folder, port)
    print(json.dumps(found, indent=1))
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(before | {args.what: found | {"host": host.machine()}}, indent=1) + "\n")


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    main()
