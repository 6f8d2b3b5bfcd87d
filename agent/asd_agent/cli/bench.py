"""asd-agent bench: what a window costs on this host, and how many machines it can serve."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.cli import capacity
from asd_agent.cli.options import add_config, add_json
from asd_agent.cli.words import Row, print_json, say, show, track
from asd_agent.encode.bundle import Bundle, shipped
from asd_agent.encode.encoder import Encoder, choose_variant
from asd_agent.memory import lean_malloc
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.types import Block, Window
from asd_agent.windowing.windower import Windower

NATIVE_HZ = 48_000  # what most sound cards deliver; a calibrated machine's own rate wins
RUNS = 12


@dataclass(frozen=True)
class Host:
    cpu: str
    architecture: str
    cores: int  # that this process may use
    memory_mb: float


@dataclass(frozen=True)
class Cost:
    machine: str
    bundle: str
    variant: str
    chosen: bool  # by "auto" on this CPU
    window_ms: float  # of processor time, median of one window: cutting and resampling, encoder, scoring
    encoder_ms: float  # of which the bare session
    real_time_factor: float  # seconds of hop per second of work
    machines: int  # of this kind on this computer: its cores, one thread a window
    memory_mb: float  # resident, after the runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--bundle", action="append", default=[], metavar="DIR",
        help="measure this bundle instead of the configured and the shipped ones, with the first machine's windows; "
        "repeatable",
    )  # fmt: skip
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    lean_malloc()
    used = {name for machine in settings.machines for name in machine.bundles}
    others = args.bundle or [name for name in shipped() if name not in used]
    machines = [] if args.bundle else list(settings.machines)
    machines += [msgspec.structs.replace(settings.machines[0], id=n, bundle=n, mechanism=None) for n in others]
    costs = [cost for machine in track(machines, "measuring") for cost in measure(machine, settings)]
    if args.json:
        print_json({"host": host(), "costs": costs, "listed": capacity.listed()})
        return 0
    found = host()
    say(f"{found.cpu}, {found.cores} cores, {found.memory_mb:.0f} MB of memory")
    show(
        ("machine", "bundle", "variant", "ms/window", "encoder", "real time", "machines", "memory"),
        [
            Row((
                c.machine, c.bundle, c.variant + (" *" if c.chosen else ""), f"{c.window_ms:.1f}",
                f"{c.encoder_ms:.1f}", f"{c.real_time_factor:.0f} x", str(c.machines), f"{c.memory_mb:.0f} MB",
            ))
            for c in costs
        ],
    )  # fmt: skip
    say(
        f"* used on this CPU. machines: like this one, at its hop, on {capacity.LOAD:.0%} of {found.cores} cores. ms: "
        f"of one core, whatever else it does meanwhile; windows of noise at the calibrated sampling rate (else "
        f"{NATIVE_HZ // 1000} kHz), median of {RUNS}."
    )
    _compare(machines, costs)
    return 0


def _compare(machines: list[config.Machine], costs: list[Cost]) -> None:
    """How many machines of each kind this computer serves, and how listed computers do (docs, Capacity)."""
    rows, windows_s = capacity.listed(), {machine.id: machine.window_s for machine in machines}
    for cost in costs:
        if not cost.chosen:
            continue
        say(f"{cost.bundle}: this computer can serve {cost.machines} machines like {cost.machine}.")
        say(*capacity.comparison(cost.bundle, cost.variant, cost.window_ms, windows_s[cost.machine], rows), indent="  ")


def host() -> Host:
    """What this computer is."""
    named = [line for line in _lines("/proc/cpuinfo") if line.startswith(("model name", "Model"))]
    cpu = named[0].partition(":")[2].strip() if named else platform.machine()
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return Host(cpu=cpu, architecture=platform.machine(), cores=len(os.sched_getaffinity(0)), memory_mb=memory / 1024)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def measure(machine: config.Machine, settings: config.Config) -> list[Cost]:
    """One cost per precision variant; with several bundles the variants are those of the first."""
    bundles = {name: Bundle.load(name) for name in machine.bundles}
    first = next(iter(bundles))
    chosen = choose_variant(bundles[first])
    baseline = BaselineStore(settings.state_dir, machine.id).active() if settings.machine(machine.id) else None
    costs = []
    for variant in sorted(bundles[first].meta.variants):
        encoders = {name: Encoder(b, variant if name == first else "auto") for name, b in bundles.items()}
        pipeline = Pipeline(machine, encoders, baseline)
        window, cut_ms = _window(machine, pipeline, (baseline and baseline.manifest.chain.rate_hz) or NATIVE_HZ)
        pipeline.step(window)
        window_ms, encoder_ms = [], []
        for _ in range(RUNS):  # in turns, so that both see the same host
            began = time.process_time()
            pipeline.step(window)
            window_ms.append(1000 * (time.process_time() - began))
            began = time.process_time()
            for encoder in encoders.values():
                encoder.embed(window.resampled[encoder.bundle.meta.rate_hz])
            encoder_ms.append(1000 * (time.process_time() - began))
        per_window = statistics.median(window_ms) + cut_ms
        costs.append(
            Cost(
                machine=machine.id,
                bundle=", ".join(bundles[n].meta.name for n in bundles),
                variant=variant,
                chosen=variant == chosen,
                window_ms=per_window,
                encoder_ms=statistics.median(encoder_ms),
                real_time_factor=1000 * machine.hop_s / per_window,
                machines=capacity.machines(per_window, machine.hop_s, host().cores),
                memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            )
        )
    return costs


def _window(machine: config.Machine, pipeline: Pipeline, rate_hz: int) -> tuple[Window, float]:
    """A window of noise, resampled as a live one would be, and what cutting one costs a hop in ms."""
    noise = np.random.default_rng(0).normal(0, 0.1, (round(machine.window_s * rate_hz), 1)).astype(np.float32)
    windower = Windower(rate_hz, machine.window_s, machine.hop_s, pipeline.rates)
    block = Block(noise, rate_hz, 0, time.time(), time.monotonic(), last=True)
    began = time.process_time()
    window = windower.push(block, 0)[0]
    return window, 1000 * (time.process_time() - began) * machine.hop_s / machine.window_s
