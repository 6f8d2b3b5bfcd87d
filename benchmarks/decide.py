"""What fusion, p-values and operating states add to a window, in time and in memory.

    python benchmarks/decide.py [-o benchmarks/results/decide.json]

A machine with three operating states (told from each other by level and sound), the detectors of the default bundle and
the mechanism analysis. Every window is judged in every state, its p-values are fused, the decision takes it.
The distances to the banks are needed without any of that: one state's are measured apart and taken off.

* window: processor time of the one thread, median and 95th percentile over all windows of some minutes of sound.
* shadow: the same once more for a candidate of the same bundle, with what the store does in this thread.
* memory: resident set of a fresh process that reads the baseline and builds the pipeline with its decision,
  after minus before; encoders and libraries are loaded before. The banks are in it.
"""

from __future__ import annotations

import os

from asd_agent.scoring.pipeline import NOTHING_REPORTED, Step

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import host
import msgspec
import numpy as np

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.calibration.build import build
from asd_agent.capture.simulate import machine_blocks
from asd_agent.config.kinematics import Mechanism
from asd_agent.memory import lean_malloc
from asd_agent.scoring.decision import Decision
from asd_agent.scoring.operating import OperatingState
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.service.shadow import Shadow
from asd_agent.store import Store
from asd_agent.types import AlarmState, Description, Window
from asd_agent.windowing.windower import Windower

STATES = {"idle": (0, -32.0, 11.0), "loaded": (23, -20.0, 24.9), "purging": (7, -12.0, 49.0)}  # teeth, level, shaft
STATE_S = 900.0  # of sound of each, for the calibration
LATER_S = 120.0  # of each, to be judged
RATE_HZ = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "decide.json")
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)  # of this process, from a state directory
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(memory_here(args.memory)))
        return
    lean_malloc()
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name))
    report: dict[str, Any] = {
        "machine": host.machine(),
        "load_average_at_start": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        **found,
    }
    text = json.dumps(report, indent=2)
    print(text)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text + "\n", encoding="utf-8")


def measure(folder: Path) -> dict[str, Any]:
    machine = compressor()
    pipeline = open_pipeline(machine, None)
    heard = {name: described(pipeline, machine, name, STATE_S + LATER_S) for name in STATES}
    split = round(STATE_S / machine.hop_s)
    store = BaselineStore(folder, machine.id)
    baseline = build(machine, [d for found in heard.values() for d in found[:split]], pipeline, store.new_version())
    store.write(baseline)
    store.promote()
    pipeline = open_pipeline(machine, baseline)
    later = [d for found in heard.values() for d in found[split:]]
    store.write(replaced(baseline, store.new_version()))  # the same once more, as a candidate
    return {
        "states": {s.name: s.windows for s in baseline.manifest.states},
        "detectors": list(baseline.manifest.detectors),
        "windows": len(later),
        "window_ms": {**window_ms(pipeline, later), "shadow": shadow_ms(machine, folder, later)},
        "memory": json.loads(
            subprocess.run(
                [sys.executable, __file__, "--memory", str(folder)], capture_output=True, text=True, check=True
            ).stdout
        ),
    }


def window_ms(pipeline: Pipeline, later: list[Description]) -> dict[str, Any]:
    assert pipeline.baseline is not None
    decision = Decision(pipeline.machine, pipeline.baseline.manifest, AlarmState())

    def decide(description: Description) -> None:
        decision.update(pipeline.judge(description), True)

    def distances(state: OperatingState, description: Description) -> None:
        for detector in state.detectors:
            detector.score(description)

    for description in later[:20]:  # warm
        decide(description)
    whole = [ms(lambda d=d: decide(d)) for d in later]
    by_state = [[ms(lambda s=s, d=d: distances(s, d)) for d in later] for s in pipeline.states]
    one = max(by_state, key=lambda times: float(np.median(times)))  # the largest bank: what a single state would cost
    added = np.array(whole) - np.array(one)
    return {
        "judge_and_decide": both(whole),
        "distances_of_one_state": both(one),
        "added": both(added.tolist()),
    }


def shadow_ms(machine: config.Machine, folder: Path, later: list[Description]) -> dict[str, float]:
    """A candidate beside the active baseline, of the same bundle and size; with the store that gathers its scores."""
    with Store(folder) as store:
        shadow = Shadow(machine, BaselineStore(folder, machine.id), store)
        window = Window(np.zeros(1, np.float32), RATE_HZ, {}, 0, 0, 0.0, 0.0)  # its descriptions are there already
        result = open_pipeline(machine, None).judge(later[0])  # the shadow looks at the description only
        times = [
            ms(lambda d=d: shadow.see(Step(window, NOTHING_REPORTED, d, result), True)) for d in (*later[:20], *later)
        ]
        status = shadow.status()
        assert status is not None
        assert status.windows_scored == len(times), status
    return both(times[20:])


def replaced(baseline: Baseline, version: str) -> Baseline:
    return msgspec.structs.replace(baseline, manifest=msgspec.structs.replace(baseline.manifest, version=version))


def both(times: list[float]) -> dict[str, float]:
    return {"median": float(np.median(times)), "p95": float(np.quantile(times, 0.95))}


def described(pipeline: Pipeline, machine: config.Machine, state: str, seconds: float) -> list[Description]:
    teeth, level, shaft = STATES[state]
    source = config.SimulatedSource(
        rate_hz=RATE_HZ, pace="fast", duration_s=seconds + 10, gear_teeth=teeth, level_dbfs=level, shaft_hz=shaft
    )
    start_s = 1e6 * (1 + list(STATES).index(state))  # another session
    windower = Windower(RATE_HZ, machine.window_s, machine.hop_s, pipeline.rates)
    windows = [w for block in machine_blocks(source) for w in windower.push(block, 0)]
    return [pipeline.describe(replace(w, utc_s=start_s + w.start_s)) for w in windows]


def memory_here(folder: Path) -> dict[str, float]:
    """MiB, before and after the baseline is at work."""
    lean_malloc()
    machine = compressor()
    empty = open_pipeline(machine, None)
    windower = Windower(RATE_HZ, machine.window_s, machine.hop_s, empty.rates)
    windows = []
    for block in machine_blocks(config.SimulatedSource(rate_hz=RATE_HZ, pace="fast")):
        windows += windower.push(block, 0)
        if len(windows) >= 4:
            break
    descriptions = [empty.describe(w) for w in windows]
    before = resident_mib()
    baseline = BaselineStore(folder, machine.id).active()
    assert baseline is not None
    pipeline = open_pipeline(machine, baseline)
    decision = Decision(machine, baseline.manifest, AlarmState())
    for description in descriptions:
        decision.update(pipeline.judge(description), True)
    after = resident_mib()
    arrays = sum(values.nbytes for values in baseline.arrays.values()) / 2**20
    return {"before_mib": before, "after_mib": after, "added_mib": after - before, "of_which_arrays_mib": arrays}


def compressor() -> config.Machine:
    return config.Machine(
        id="m", source=config.SimulatedSource(rate_hz=RATE_HZ), mechanism=Mechanism(shaft_hz=24.9, mode="join")
    )


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def ms(work: Callable[[], object]) -> float:
    """Of this thread on a processor."""
    began = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - began)


if __name__ == "__main__":
    main()
