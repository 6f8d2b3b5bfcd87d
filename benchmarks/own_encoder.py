"""What our own encoder adds to `spectral`, beside mn04: every window is described once by all bundles.

    python benchmarks/own_encoder.py --data ../shared/data --bundle default --bundle heldout=FOLDER --bundle mn04=FOLDER
        [--windows 6] [-o benchmarks/results/own_encoder.json]

The machines, faults, levels and rooms of benchmarks/detection.py, judged by the classes that ship, with the mechanism
analysis. A bundle without the outputs of `spectral` is judged beside it; `--windows` is how many windows of a machine
are given faults and nuisance (detection.py: 12). AUC is that of the fusion and of every detector alone. Beside them:
how many windows with a fault, with a real propeller fault and clean are called nuisance; and how many of those with
nuisance are recognised, of windows beyond the score that 5 % of clean windows exceed. The nuisance is the first 20
clips of each class of ESC-10 and the last 30 % of two speakers, at -20 to 0 dB; `heldout` is the bundle of
configs/train/own_heldout.yaml, which has never heard four of the classes. Real speech is in no training.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import detection
import numpy as np
import soundfile
import sounds
import soxr
from sounds import FAULTS, LEVELS_DB, Machine, rng_of

from asd_agent import config
from asd_agent.calibration import build as calibrate
from asd_agent.config.kinematics import Mechanism
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.scoring.pipeline import Pipeline, detector_name
from asd_agent.types import Description, Samples

FUSION, PROPELLER = "fusion", "propeller"
SPEAKERS = ("speech_george", "speech_jackson")
HELD_OUT = ("person_sneeze", "sea_waves", "helicopter", "clock_tick", *SPEAKERS)


@dataclass(frozen=True)
class Row:
    """One window and what it is."""

    description: Description
    kind: str  # calibration, clean, fault or nuisance
    what: str = ""  # kind of fault or nuisance
    level_db: float = 0.0


def machine_config(machine: Machine, bundles: list[str], hop: float = 1.0) -> config.Machine:
    return config.Machine(
        id="m", source=config.StdinSource(rate_hz=machine.rate_hz), window_s=machine.window_s,
        hop_s=hop * machine.window_s, bundle=bundles, mechanism=Mechanism(),
    )  # fmt: skip


def describe(data: Path, machine: Machine, encoders: dict[str, Encoder], most: int) -> list[Row]:
    pipeline = Pipeline(machine_config(machine, list(encoders)), encoders, None)

    def one(sound: Samples) -> Description:
        (window,) = detection.windows(sound, machine.rate_hz, pipeline.machine, pipeline)
        return pipeline.describe(window)

    listen = machine_config(machine, list(encoders), 0.5)
    rows = [
        Row(pipeline.describe(w), "calibration")
        for r in machine.calibration
        for w in detection.windows(r.samples, machine.rate_hz, listen, pipeline, r.origin)
    ]
    rows += [Row(one(x), "clean") for x in machine.test]
    rows += [Row(one(x), "fault", PROPELLER) for x in machine.faulty]
    chosen = range(0, len(machine.test), -(-len(machine.test) // most))
    for kind, (at, level) in itertools.product(FAULTS, enumerate(LEVELS_DB)):
        rows += [
            Row(one(detection._spoilt(machine, i, kind, level)), "fault", kind, level)
            for n, i in enumerate(chosen)
            if n % 2 == at % 2
        ]
    pool = everyday(data, machine.rate_hz)
    for i, (turn, category) in itertools.product(chosen, enumerate(pool)):
        if (i // chosen.step + turn) % 4 == 0:  # a quarter of the categories for each window
            key = (machine.name, i, category)
            level = rng_of("nuisance", *key).uniform(-20, 0)
            sound = machine.test[i]
            loud = sounds.disturb(sound, pool[category], 0, len(sound), level, machine.rate_hz, key)
            rows.append(Row(one(loud), "nuisance", category, level))
    return rows


def everyday(data: Path, rate_hz: int) -> dict[str, list[Samples]]:
    pool = sounds.nuisance(data, rate_hz)
    for name in SPEAKERS:
        x, native_hz = soundfile.read(data / "nuisance" / f"{name}.flac", dtype="float32", always_2d=True)
        end = soxr.resample(x[round(0.7 * len(x)) :, 0], native_hz, rate_hz, "HQ").astype(np.float32)
        pool[name] = [end[i : i + 3 * rate_hz] for i in range(0, len(end) - 3 * rate_hz, 3 * rate_hz)]
    return pool


@dataclass(frozen=True)
class Judged:
    scores: dict[str, float]
    nuisance: bool


def judge(machine: Machine, rows: list[Row], encoders: dict[str, Encoder]) -> Iterator[tuple[Row, Judged]]:
    """Windows that can be judged, by some of the encoders that described them."""
    count = len(encoders)

    def part(description: Description) -> Description:
        """Only these encoders' embeddings, under the names that a machine with only them gives them."""
        found = {
            detector_name(name, output.name, count): description.embeddings[f"{name}.{output.name}"]
            for name, encoder in encoders.items()
            for output in encoder.bundle.meta.outputs
            if description.embeddings
        }
        return replace(description, embeddings=found)

    bare = Pipeline(machine_config(machine, list(encoders), 0.5), encoders, None)
    normal = [part(r.description) for r in rows if r.kind == "calibration"]
    baseline = calibrate.build(bare.machine, normal, bare, "benchmark")
    pipeline = Pipeline(machine_config(machine, list(encoders)), encoders, baseline)
    for row in rows:
        if row.kind != "calibration":
            description = part(row.description)
            result = pipeline.judge(description)
            if result.score is not None:
                scores = {d.name: d.z for d in result.detectors} | {FUSION: detection.score(pipeline, description)}
                yield row, Judged(scores, bool(result.nuisance))


class Tally:
    """Figures of one combination over the machines."""

    def __init__(self) -> None:
        self.auc: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.by_level: dict[float, list[float]] = defaultdict(list)
        self.by_machine: dict[str, float] = {}
        self.called: dict[str, list[bool]] = defaultdict(list)
        self.recognised: dict[str, list[bool]] = defaultdict(list)

    def add(self, name: str, judged: list[tuple[Row, Judged]]) -> None:
        clean = [j for row, j in judged if row.kind == "clean"]
        limit = np.quantile([j.scores[FUSION] for j in clean], 0.95)
        groups: dict[tuple[str, float], list[Judged]] = defaultdict(list)
        for row, found in judged:
            if row.kind == "fault":
                groups[row.what, row.level_db].append(found)
            if row.kind == "nuisance" and found.scores[FUSION] > limit:
                self.recognised[row.what].append(found.nuisance)
            elif row.kind != "nuisance":
                self.called[row.what or "clean"].append(found.nuisance)
        areas: dict[tuple[str, str], list[float]] = defaultdict(list)
        for (kind, level), some in groups.items():
            for detector in clean[0].scores:
                normal = [j.scores.get(detector, 0.0) for j in clean]
                area = detection.area(normal, [j.scores.get(detector, 0.0) for j in some])
                areas[detector, kind].append(area)
                if detector == FUSION and kind != PROPELLER:
                    self.by_level[level].append(area)
        for (detector, kind), values in areas.items():
            self.auc[detector][kind].append(float(np.mean(values)))
        self.by_machine[name] = mean([np.mean(areas[FUSION, kind]) for kind in FAULTS])

    def figures(self) -> dict[str, Any]:
        auc = {d: {kind: mean(values) for kind, values in kinds.items()} for d, kinds in self.auc.items()}
        for kinds in auc.values():
            kinds["mean"] = mean([kinds[kind] for kind in FAULTS])
        held = [r for name in HELD_OUT for r in self.recognised.get(name, [])]
        others = [r for name, values in self.recognised.items() if name not in HELD_OUT for r in values]
        return {
            "auc": auc,
            "fusion_by_level": {f"{level:g}": mean(v) for level, v in sorted(self.by_level.items())},
            "fusion_by_machine": self.by_machine,
            "called_nuisance": {kind: mean(values) for kind, values in sorted(self.called.items())},
            "recognised": {kind: [mean(v), len(v)] for kind, v in sorted(self.recognised.items())},
            "recognised_in_all": [mean([*held, *others]), len(held) + len(others)],
            "recognised_of_kinds_held_out_by_own_heldout": [mean(held), len(held)],
            "recognised_of_the_others": [mean(others), len(others)],
        }


def complete(encoder: Encoder) -> bool:
    """Whether a bundle holds what `spectral` holds."""
    return any(output.name == "logmel" for output in encoder.bundle.meta.outputs)


def mean(values: Any) -> float:
    return round(float(np.mean(values)), 4) if len(values) else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument(
        "--bundle", action="append", default=[], metavar="[NAME=]FOLDER", help="beside spectral, where it lacks that"
    )
    parser.add_argument("--windows", type=int, default=6, help="of a machine, with faults and nuisance")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "own_encoder.json")
    args = parser.parse_args()
    named = [(b.partition("=")[0], b.partition("=")[2] or b) for b in ["spectral", *(args.bundle or ["default"])]]
    encoders = {name: Encoder(Bundle.load(folder)) for name, folder in named}
    others = [name for name in encoders if name != "spectral"]
    combinations = [["spectral"], *([n] if complete(encoders[n]) else ["spectral", n] for n in others)]
    tallies = {" + ".join(names): Tally() for names in combinations}
    for machine in sounds.machines(args.data):
        rows = describe(args.data, machine, encoders, args.windows)
        for names in combinations:
            some = {name: encoders[name] for name in names}
            tallies[" + ".join(names)].add(machine.name, list(judge(machine, rows, some)))
        print(machine.name, len(rows), "windows", flush=True)
    results = {name: tally.figures() for name, tally in tallies.items()}
    for name, found in results.items():
        print(f"\n{name}")
        for detector, kinds in found["auc"].items():
            print(f"  {detector:28s} {kinds['mean']:.3f}  " + " ".join(f"{k} {kinds[k]:.2f}" for k in FAULTS))
        print("  called nuisance", found["called_nuisance"])
        print("  recognised", found["recognised"])
    about = {"windows": args.windows, "bundles": {name: encoder.bundle.sha256 for name, encoder in encoders.items()}}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({**about, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
