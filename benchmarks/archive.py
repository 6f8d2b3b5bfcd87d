"""What `asd-agent archive` makes of a core: sound per second, its share of the bare encoder, workers, memory.

    python benchmarks/archive.py [--minutes 20] [--files 100000] [--engine processes] [-o results/archive.json]

Rates are per second of CPU time (of this process and its children), so that other work on the computer does not count;
the speed-up from one to two workers is of wall time, and the load of the computer stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import host
import numpy as np
import soundfile

from asd_agent import config
from asd_agent.archive import batches, run
from asd_agent.archive.calibrate import calibrate
from asd_agent.archive.engine import Engine
from asd_agent.archive.recordings import Naming
from asd_agent.archive.results import Results
from asd_agent.archive.worker import Job
from asd_agent.baseline import BaselineStore
from asd_agent.baseline.packed import pack
from asd_agent.capture.simulate import machine_blocks
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.windowing.recordings import recorded_windows

RATE = 16_000
RECORDING_S = 60
GOALS = {"of_the_bare_encoder": 0.9, "two_workers": 1.8}


def machine(bundle: str, window_s: float = 10.0) -> config.Machine:
    source = config.StdinSource(rate_hz=RATE)
    return config.Machine(id="m", source=source, bundle=bundle, window_s=window_s, hop_s=window_s / 2)


def sound(folder: Path, minutes: int) -> None:
    """Recordings of a minute, FLAC of 16 kHz, half an hour apart."""
    folder.mkdir()
    source = config.SimulatedSource(duration_s=minutes * 60.0, pace="fast")
    samples = np.concatenate([block.samples for block in machine_blocks(source)])[:, 0]
    for i in range(minutes):
        stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(1_772_323_200 + 1800 * i))
        soundfile.write(folder / f"{stamp}.flac", samples[60 * RATE * i : 60 * RATE * (i + 1)], RATE)


def cpu_s() -> float:
    """Of this process and of the children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def score(
    paths: Path, job: Job, baselines: dict[str, bytes], engine: Engine, watch: run.Watch = lambda _: None
) -> dict[str, float]:
    began, used = time.monotonic(), cpu_s()
    done = run.score([str(paths)], Naming(["m"]), job, baselines, engine, watch)
    return {"wall_s": time.monotonic() - began, "cpu_s": cpu_s() - used, "sound_s": done.now.seconds}


def bare(paths: Path, target: config.Machine) -> tuple[float, int]:
    """CPU seconds of nothing but the encoder on the windows of all recordings, and how many windows these are."""
    bundle = Bundle.load(target.bundles[0])
    encoder = Encoder(bundle)
    used, count = 0.0, 0
    for path in sorted(paths.iterdir()):
        windows = [w.resampled[bundle.meta.rate_hz] for w in recorded_windows(path, target, [bundle.meta.rate_hz])]
        before = time.process_time()
        for window in windows:
            encoder.embed(window)
        used += time.process_time() - before
        count += len(windows)
    return used, count


def rates(bundle: str, paths: Path, folder: Path, engine: str) -> dict[str, object]:
    target = machine(bundle)
    store = BaselineStore(folder / "state", "m")
    learn = Job(results=str(folder / "learn"), machines={"m": target}, calibrating=True)
    score(paths, learn, {}, Engine("processes", 1))
    baseline = calibrate(Results(learn.results), target, store)
    baselines = {"m": pack(store, baseline.manifest.version)}
    job = Job(results=str(folder / "one"), machines={"m": target})
    encoder_s, windows = bare(paths, target)
    marks: list[tuple[float, run.Totals]] = []
    batches.MOST_RECORDINGS = 4
    one = score(paths, job, baselines, Engine("processes", 1), lambda p: marks.append((cpu_s(), replace(p.now))))
    (first_s, first), (last_s, last) = marks[0], marks[-1]  # without the start, which a long archive does not feel
    core_s, sound_s, judged = last_s - first_s, last.seconds - first.seconds, last.windows - first.windows
    again_s, _ = bare(paths, target)
    encoder_s = (encoder_s + again_s) / 2
    timed = {}
    for workers in (1, 2):
        where = Job(results=str(folder / f"workers-{workers}"), machines={"m": target})
        timed[workers] = timed_workers(paths, where, baselines, engine, workers)
    return {
        "sound_h": round(one["sound_s"] / 3600, 3),
        "windows": windows,
        "hours_of_sound_per_core_second": round(sound_s / 3600 / core_s, 4),
        "encoder_ms_per_window": round(1000 * encoder_s / windows, 3),
        "archive_ms_per_window": round(1000 * core_s / judged, 3),
        "of_the_bare_encoder": round(encoder_s / windows / (core_s / judged), 3),
        "one_to_two_workers": round(timed[1] / timed[2], 2),
        "wall_s": {str(workers): round(seconds, 2) for workers, seconds in timed.items()},
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def timed_workers(paths: Path, job: Job, baselines: dict[str, bytes], engine: str, workers: int) -> float:
    """Wall seconds from the first finished part to the last: without the start of the workers."""
    marks: list[tuple[float, int]] = []
    # Two named workers even for one, so that it is a process of its own as well.
    batches.MOST_RECORDINGS = 1  # as many parts as recordings, to be dealt out
    settings = Engine("ray" if engine == "ray" else "processes", workers)  # type: ignore[arg-type]
    score(paths, job, baselines, settings, lambda p: marks.append((time.monotonic(), p.now.recordings)))
    (first, before), (last, after) = marks[0], marks[-1]
    return (last - first) / max(after - before, 1) * marks[-1][1]


def memory(folder: Path, files: int) -> dict[str, object]:
    """Highest resident memory of the command and of a worker, over an archive of short files."""
    source = folder / "short.wav"
    soundfile.write(source, np.zeros(RATE // 10), RATE)
    content = source.read_bytes()
    sizes, found = (files // 10, files), {}
    for count in sizes:
        many = folder / f"many-{count}"
        for i in range(count):
            day = many / f"{i // 2880:04d}"
            if i % 2880 == 0:
                day.mkdir(parents=True)
            stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(1_772_323_200 + 30 * i))
            (day / f"{stamp}.wav").write_bytes(content)
        peak = {"command": 0, "worker": 0}

        def watch(_: run.Progress, peak: dict[str, int] = peak) -> None:
            peak["command"] = max(peak["command"], rss_mb(os.getpid()))
            peak["worker"] = max([peak["worker"], *map(rss_mb, children())])

        job = Job(results=str(folder / f"out-{count}"), machines={"m": machine("spectral")}, calibrating=True)
        begin = rss_mb(os.getpid())
        done = run.score([str(many)], Naming(["m"]), job, {}, Engine("processes", 2), watch)
        assert done.now.recordings == count
        found[str(count)] = {"command_before_mb": begin} | {f"{k}_mb": v for k, v in peak.items()}
        shutil.rmtree(many)
    return found


def rss_mb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")), 0)


def children() -> list[int]:
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=20, help="of sound; every minute is a recording")
    parser.add_argument("--files", type=int, default=100_000, help="of the simulated archive; 0 = no memory test")
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes")
    parser.add_argument("--bundles", nargs="*", default=["spectral", "default"])
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found: dict[str, object] = {"machine": host.machine(), "engine": args.engine, "goals": GOALS, "bundles": {}}
        sound(folder / "sound", args.minutes)
        for bundle in args.bundles:
            (folder / bundle).mkdir()
            found["bundles"][bundle] = rates(bundle, folder / "sound", folder / bundle, args.engine)  # type: ignore[index]
            print(bundle, json.dumps(found["bundles"][bundle]), flush=True)  # type: ignore[index]
        if args.files:
            found["memory"] = memory(folder, args.files)
    text = json.dumps(found, indent=1)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
