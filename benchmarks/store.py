"""A year of scores of eight machines: its size on disk, and how long `asd-agent whatif` takes over it.

    python benchmarks/store.py [--days 365] [--only events] [-o benchmarks/results/store.json]

The scores of the first machine are made window by window (hop 5 s, the detectors of the default bundle and the
mechanism analysis): slow and fast Gaussian parts, nights when it is off, idle and loaded in turn, nuisance sounds,
transients, two dozen faults from a minute to four days, sound that cannot be judged, a restart a week. They go
through the functions that the daemon writes with, an hour to a block; single windows do not pass through the tail table
on their way, which only saves time. The other machines hold the same blocks: SQLite does not notice.

A second store has one machine that stays at its limit for 30 days, in and out of alarm: what is slowest to go through.

`whatif` is the command as a user starts it, `--votes 4/6 --budget 0.5`; processor time and peak memory are those of its
process. The files are in the page cache or not, as the box has it after they were written.

`events`: how long an alarm event with its two messages takes until it is on disk, with the journal of unsent events
(the second file that it is written to) and without, on the file system of the temporary folder.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import host
import numpy as np
import yaml

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.calibration.build import build
from asd_agent.capture.simulate import machine_blocks
from asd_agent.decide.tail import tail
from asd_agent.encode.bundle import Bundle
from asd_agent.publish import Messages
from asd_agent.scoring.pipeline import open_pipeline
from asd_agent.store import Message, ScoreRow, Store, scoreblock, scores
from asd_agent.store.rounding import kept_p
from asd_agent.types import AlarmEvent, AlarmState, EventKind, Level, State
from asd_agent.windowing.windower import Windower

DETECTORS = (*(o.name for o in Bundle.load("default").meta.outputs if o.role == "detector"), "mechanism")
INSERT = "INSERT INTO score_blocks (machine, since_ms, until_ms, windows, data) VALUES (?, ?, ?, ?, ?)"
MACHINES = 8
DAY_S = 86_400.0
LIMIT_P = 1e-4  # near that of the baseline; what is far beyond it is a fault
WINDOWS = 240  # of the calibration
EVENTS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--days", type=float, default=365.0)
    parser.add_argument("--only", choices=["events"], help="measure this, and keep the rest of the results")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "store.json")
    args = parser.parse_args()
    report: dict[str, Any] = json.loads(args.output.read_text()) if args.only else {}
    if not args.only:
        report |= {
            "machine": host.machine(),
            "load_average_at_start": os.getloadavg()[0],
            "versions": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "sqlite": sqlite3.sqlite_version,
            },
            "year": year(args.days, MACHINES, hovering_days=0.0),
            "at_the_limit_for_30_days": year(args.days, 1, hovering_days=30.0),
        }
    report["events"] = events()
    text = json.dumps(report, indent=2)
    print(text)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text + "\n", encoding="utf-8")


def events() -> dict[str, Any]:
    """Milliseconds for each of EVENTS events; by turns with and without the journal, as the host may be busy."""
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        Store(Path(one)) as both,
        Store(Path(other)) as database_only,
    ):
        database_only._database.recovery.journal.append = lambda data: None  # type: ignore[method-assign]
        stores = {"with_journal": both, "without": database_only}
        times: dict[str, list[float]] = {name: [] for name in stores}
        for number in range(EVENTS):
            for name, store in stores.items():
                began = time.perf_counter()
                assert store.commit_events(*transition(number))
                times[name].append(1000 * (time.perf_counter() - began))
        size = both._database.recovery.journal.size
    return {
        "events": EVENTS,
        "load_average": os.getloadavg()[0],
        "ms": {name: {"median": float(np.median(t)), "95": float(np.quantile(t, 0.95))} for name, t in times.items()},
        "journal_bytes_per_event": size / EVENTS,
    }


def transition(number: int) -> tuple[list[AlarmEvent], AlarmState, list[Message]]:
    event = AlarmEvent(
        id=f"{number:032x}", alarm_id="a" * 32, machine="m0", kind=EventKind.RAISED, level=Level.ALERT,
        utc_s=time.time(), time_synced=True, reason="2.0-4.1 kHz louder by 9 dB for 5 min; votes: 5 of 9 windows",
        deciding_windows=tuple(range(5)), score=5.2, evidence="evidence/m0/20260327T120000Z-85724fd0.flac",
    )  # fmt: skip
    state = AlarmState(level=Level.ALERT, mode=State.NORMAL, alarm_id="a" * 32, sequence=number + 1)
    return [event], state, Messages("bench", "asd", lambda: True).of_event(event, state)


def year(days: float, machines: int, hovering_days: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        version = calibrate(folder)
        began = time.process_time()
        windows = write(folder, days, machines, hovering_days, version)
        written_s = time.process_time() - began
        size = sum(path.stat().st_size for path in folder.glob("agent.db*"))
        asked = [ask(folder, machines, options) for options in ([], ["--votes", "4/6", "--budget", "0.5"])]
        return {
            "machines": machines,
            "days": days,
            "windows": windows * machines,
            "bytes_on_disk": size,
            "bytes_per_window": size / windows / machines,
            "detectors": len(DETECTORS),
            "made_in_s": written_s,
            "whatif": asked,
        }


def ask(folder: Path, machines: int, options: list[str]) -> dict[str, Any]:
    """The command over all that there is of one machine."""
    path = folder / "agent.yaml"
    settings = {
        "agent": {"id": "bench", "state_dir": str(folder)},
        "machines": [{"id": f"m{i}", "source": {"kind": "simulated"}} for i in range(machines)],
    }
    path.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "asd_agent", "whatif", "-c", str(path), "m0", "--since", "370d", "--json"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = json.loads(done.stdout)
    return {
        "options": options,
        "wall_s": wall_s,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mib": after.ru_maxrss / 1024,  # of the largest child so far
        "windows": answer["windows"],
        "judged": answer["judged"],
        "alarms": len(answer["now"]),
    }


# -- a year


def calibrate(folder: Path) -> str:
    """A baseline, for its thresholds."""
    machine = config.Machine(id="m0", source=config.SimulatedSource(pace="fast"))
    pipeline = open_pipeline(machine, None)
    windower = Windower(16_000, machine.window_s, machine.hop_s, pipeline.rates)
    found = []
    for block in machine_blocks(machine.source):
        found += [pipeline.describe(window) for window in windower.push(block, 0)]
        if len(found) >= WINDOWS:
            break
    store = BaselineStore(folder, machine.id)
    version = store.new_version()
    store.write(build(machine, found, pipeline, version))
    store.promote()
    return version


def write(folder: Path, days: float, machines: int, hovering_days: float, version: str) -> int:
    """Blocks of all machines; returns the windows of one."""
    count = 0
    with Store(folder) as store:
        numbers = store._database.write(
            lambda db: [scores._number(db, f"m{i}") for i in range(machines)], durable=False
        )
        for block in blocks(days, hovering_days, version):
            data = scoreblock.encode(block)
            times = round(block[0].utc_s * 1000), round(block[-1].utc_s * 1000)
            rows = [(number, *times, len(block), data) for number in numbers]
            store._database.write(lambda db, rows=rows: db.executemany(INSERT, rows), durable=False)
            count += len(block)
    return count


def blocks(days: float, hovering_days: float, version: str) -> Iterator[list[ScoreRow]]:
    rng = np.random.default_rng(1)
    hop_s, count = 5.0, scores.BLOCK_WINDOWS
    total = int(days * DAY_S / hop_s / count)
    start_s = math.floor(time.time() - total * count * hop_s)
    faults = sorted(zip(rng.uniform(0, total, 24), np.geomspace(60, 4 * DAY_S, 24) / hop_s / count, strict=True))
    slow, index = rng.standard_normal(len(DETECTORS)), 0
    for hour in range(total):
        if hour % (7 * 24) == 0:
            index = 0  # a restart
        where = hour + np.arange(count) / count
        level = np.zeros(count)  # of the fault, in standard deviations
        for at, length in faults:
            level[(where >= at) & (where < at + length)] = 9.0
        if total / 2 <= hour < total / 2 + hovering_days * 24:
            level += 3.2
        slow = 0.97 * slow + 0.24 * rng.standard_normal(len(DETECTORS))
        yield _block(rng, start_s + (hour * count + np.arange(count)) * hop_s, index, slow, level, hour % 24, version)
        index += count


def _block(
    rng: np.random.Generator, utc_s: Any, index: int, slow: Any, level: Any, hour: int, version: str
) -> list[ScoreRow]:
    count = len(utc_s)
    fast = rng.standard_normal((count + 1, len(DETECTORS)))
    z = 0.6 * slow + 0.8 * (fast[1:] + fast[:-1]) / math.sqrt(2) + level[:, None]  # half of each window is shared
    fused = z.mean(axis=1) * 1.3
    off = hour < 5
    operating = "off" if off else ("idle" if (index // count) % 3 else "loaded")
    chance = rng.random(count)
    event_z = rng.standard_normal(count)
    dbfs = -20 - 30 * off + rng.normal(0, 0.5, count)
    jitter_s = rng.uniform(0, 0.002, count)
    at_s = rng.uniform(0, 10, count)
    rows = []
    for i in range(count):
        plain = ScoreRow(
            utc_s=round(float(utc_s[i] + jitter_s[i]), 3), index=index + i, state=State.NOT_ASSESSABLE,
            quality=("clipping",), level_dbfs=float(dbfs[i]), baseline=version, reason="clipping",
        )  # fmt: skip
        if chance[i] < 2e-4:
            rows.append(plain)
            continue
        p = kept_p(tail(float(fused[i])))
        deviates = p <= LIMIT_P
        state = State.ANOMALOUS if deviates else (State.OFF if off else State.NORMAL)
        scored = {n: (float(3 * 1.2**v), float(v), tail(float(v))) for n, v in zip(DETECTORS, z[i], strict=True)}
        rows.append(
            ScoreRow(
                utc_s=plain.utc_s, index=index + i, state=state, level=Level.ALERT if deviates else Level.NORMAL,
                level_dbfs=plain.level_dbfs, p_value=p, embedding_distance=scored[DETECTORS[0]][0],
                embedding_p=tail(float(z[i, :-1].mean() * 1.2)), mechanism_p=scored["mechanism"][2], detectors=scored,
                baseline=version, operating=operating, transient_p=kept_p(tail(float(event_z[i]))),
                transient_at_s=round(float(at_s[i]), 3), nuisance="Speech (z 5.1)" if chance[i] > 0.998 else "",
                reason=f"logmel stats z {z[i].max():.1f}: 2.0-4.1 kHz +{z[i].max():.0f} dB" if deviates else "",
            )
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
