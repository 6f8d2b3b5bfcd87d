"""What the agent costs on this box: a window, its start, its memory.

    python benchmarks/agent.py [-o benchmarks/results/agent.json]

* window: `pipeline.step` (quality, encoder, transient, judgement on a baseline of 120 windows) against the bare
  `session.run` on the same 10 s of the simulated machine, at 16 and 48 kHz native. Processor time of the one thread
  that does it, so that a busy box disturbs little; the two take turns in one process that is set up like the daemon;
  ratio = median of the ratios of neighbours.
* start: from the process's first instruction to the first score, less the window itself, of a real daemon with one live
  simulated machine and the default bundle.
* memory: resident set of that daemon after a while, without and with a broker.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does

import argparse
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import host
import numpy as np
import onnxruntime
import yaml

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.calibration.build import build
from asd_agent.capture.simulate import machine_blocks
from asd_agent.demo.broker import Broker
from asd_agent.errors import AsdError
from asd_agent.memory import lean_malloc
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.service.control import ask
from asd_agent.types import Window
from asd_agent.windowing.quality import assess
from asd_agent.windowing.transients import strongest_transient
from asd_agent.windowing.windower import Windower

WINDOWS = 120
ROUNDS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", default="default")
    parser.add_argument("--settle", type=float, default=45.0, metavar="SECONDS", help="until memory is read")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "agent.json")
    args = parser.parse_args()
    report: dict[str, Any] = {
        "machine": host.machine(),
        "load_average_at_start": os.getloadavg()[0],
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "bundle": args.bundle,
        "daemon": [daemon(args.bundle, args.settle, broker) for broker in (False, True)],
        "window": [window(args.bundle, rate_hz) for rate_hz in (16_000, 48_000)],
    }
    text = json.dumps(report, indent=2)
    print(text)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text + "\n", encoding="utf-8")


# -- one window


def window(bundle: str, rate_hz: int) -> dict[str, Any]:
    """Milliseconds of a step, of its parts, and of the bare session."""
    lean_malloc()
    machine = simulated(bundle, rate_hz, pace="fast")
    baseline, windows = calibrated(machine)
    pipeline = open_pipeline(machine, baseline)
    (encoder,) = pipeline.encoders.values()
    session, names = encoder._session, encoder._names
    step_s, bare_s = [], []
    for i in range(ROUNDS):
        item = windows[i % len(windows)]
        batch = item.resampled[encoder.bundle.meta.rate_hz][None, :]
        bare_s.append(seconds(lambda batch=batch: session.run(names, {"waveform": batch})))
        step_s.append(seconds(lambda item=item: pipeline.step(item)))
    ratios = [a / b for a, b in zip(step_s, bare_s, strict=True)]
    return {
        "rate_hz": rate_hz,
        "window_s": machine.window_s,
        "baseline_windows": WINDOWS,
        "step_ms": 1e3 * statistics.median(step_s),
        "bare_session_ms": 1e3 * statistics.median(bare_s),
        "ratio": statistics.median(ratios),
        "ratio_of_minima": min(step_s) / min(bare_s),
        "parts_ms": parts(pipeline, windows),
    }


def parts(pipeline: Pipeline, windows: list[Window]) -> dict[str, float]:
    """Medians of what a step consists of, each alone."""
    machine = pipeline.machine
    (encoder,) = pipeline.encoders.values()
    rate_hz = encoder.bundle.meta.rate_hz
    descriptions = [pipeline.describe(item) for item in windows]
    works: dict[str, Callable[[int], object]] = {
        "quality": lambda i: assess(windows[i], machine.window_s, machine.quality),
        "sudden_moment": lambda i: strongest_transient(windows[i].resampled[rate_hz], rate_hz),
        "embed": lambda i: encoder.embed(windows[i].resampled[rate_hz]),
        "judge": lambda i: pipeline.judge(descriptions[i]),
    }
    found = {}
    for name, work in works.items():
        times = [seconds(lambda i=i, work=work: work(i)) for i in range(len(windows)) for _ in range(3)]
        found[name] = 1e3 * statistics.median(times)
    return found


def calibrated(machine: config.Machine) -> tuple[Baseline, list[Window]]:
    """A baseline of so many windows, and some later windows of the same machine."""
    pipeline = open_pipeline(machine, None)
    source = machine.source
    assert isinstance(source, config.SimulatedSource)
    windower = Windower(source.rate_hz, machine.window_s, machine.hop_s, pipeline.rates)
    descriptions, later = [], []
    for block in machine_blocks(source):
        for item in windower.push(block, 0):
            if len(descriptions) < WINDOWS:
                descriptions.append(pipeline.describe(item))
            else:
                later.append(item)
        if len(later) >= 12:
            break
    return build(machine, descriptions, pipeline, "20260101T000000Z"), later


# -- the daemon


def daemon(bundle: str, settle_s: float, with_broker: bool) -> dict[str, Any]:
    """Start and memory of a daemon with one machine that has a baseline."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        machine = simulated(bundle, 16_000, pace="live")
        store = BaselineStore(folder / "state", machine.id)
        store.write(calibrated(simulated(bundle, 16_000, pace="fast"))[0])
        store.promote()
        settings = {
            "agent": {"id": "bench", "state_dir": str(folder / "state")},
            "machines": [json.loads(json.dumps(config_of(machine)))],
        }
        broker = stack.enter_context(Broker(folder)) if with_broker else None
        if broker is not None:
            settings["mqtt"] = {"url": f"mqtt://127.0.0.1:{broker.port}"}
        path = folder / "agent.yaml"
        path.write_text(yaml.safe_dump(settings))
        began = time.monotonic()
        process = stack.enter_context(running(path, folder / "daemon.log"))
        loaded = config.load(path)
        while not (status := answer(loaded)) or status["machines"][0]["health"]["windows_scored"] < 1:
            assert process.poll() is None, (folder / "daemon.log").read_text()
            time.sleep(0.02)
        first_s = time.monotonic() - began
        time.sleep(max(0.0, began + settle_s - time.monotonic()))
        memory = {key: kib / 1024 for key, kib in memory_of(process.pid).items()}
        status = answer(loaded)
        return {
            "broker": broker.name if broker is not None else None,
            "first_score_beyond_the_window_s": first_s - machine.window_s,
            "memory_after_s": settle_s,
            "windows": status["machines"][0]["health"]["windows_scored"],
            "memory_mib": memory,
        }


@contextlib.contextmanager
def running(path: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "asd_agent", "run", "-c", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def answer(settings: config.Config) -> dict[str, Any]:
    try:
        found: dict[str, Any] = ask(settings, "status")
    except AsdError:
        return {}
    return found


def memory_of(pid: int) -> dict[str, int]:
    """KiB: all that is resident, our share of it, and what is ours alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {
        "rss": sizes["Rss"],
        "pss": sizes["Pss"],
        "private": sizes["Private_Clean"] + sizes["Private_Dirty"],
    }


# -- shared


def simulated(bundle: str, rate_hz: int, pace: str) -> config.Machine:
    return config.Machine(id="m", source=config.SimulatedSource(rate_hz=rate_hz, pace=pace), bundle=bundle)


def config_of(machine: config.Machine) -> dict[str, Any]:
    source = machine.source
    assert isinstance(source, config.SimulatedSource)
    return {
        "id": machine.id,
        "source": {"kind": "simulated", "rate_hz": source.rate_hz, "pace": source.pace},
        "bundle": machine.bundle,
    }


def seconds(work: Callable[[], object]) -> float:
    """Of this thread on a processor."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


if __name__ == "__main__":
    main()
