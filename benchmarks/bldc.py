"""A real BLDC motor with a damaged propeller against the healthy one, by windows of 2 s, through the shipping pipeline.

    python benchmarks/bldc.py [--data FOLDER] [--bundle NAME_OR_FOLDER] [--bundle ...] [-o results/bldc.json]

Two questions, two protocols:

* unseen speed: leave one speed out. For each of the six speeds that exist in both conditions, calibrate on the healthy
  motor at the seven other speeds and judge both conditions at the one left out: never heard, healthy or not.
* known speeds: calibrate on the first 6 s of the healthy motor at all eight speeds, judge the last 4 s of everything.

AUC of the fused score, and of each detector alone, over all windows judged (scores of all folds pooled), and by speed.
The left channel; windows of 2 s every second (unseen) or apart (known). Faulty is also louder, so every window is
scaled to one RMS before the pipeline sees it; and several propeller recordings really clip (rpm1850), which an agent
would refuse to judge: here `quality.clipped_share` is 1, so that they count, clipped as they are. healthy/rpm1400 was
recorded at 44.1 kHz, all others at 16 kHz: a bundle that hears the difference finds that recording odd.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asd_agent import config
from asd_agent.calibration.build import build
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.types import Level, Samples, Window, WindowResult
from asd_agent.windowing.recordings import recorded_windows

WINDOW_S = 2.0
KNOWN_S = 6.0
RMS = 0.05
FUSED = "fused"

ScoredWindow = dict[str, dict[bool, list[WindowResult]]]  # speed -> faulty? -> windows


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=here.parents[1] / "shared" / "data" / "bldc_m1")
    parser.add_argument("--bundle", action="append", help="several run side by side (default: spectral)")
    parser.add_argument("-o", "--output", type=Path, default=here / "results" / "bldc.json")
    args = parser.parse_args()
    report = {Path(bundle).name: evaluate(bundle, args.data) for bundle in args.bundle or ["spectral"]}
    text = json.dumps(report, indent=2)
    print(text)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text + "\n", encoding="utf-8")


def evaluate(bundle: str, data: Path) -> dict[str, Any]:
    began = time.perf_counter()
    healthy, faulty = (sorted((data / name).glob("*.flac")) for name in ("healthy", "propeller"))
    if not healthy or not faulty:
        raise SystemExit(f"{data}: no recordings healthy/*.flac and propeller/*.flac")
    return {
        "unseen_speed": figures(unseen_speed(bundle, healthy, faulty)),
        "known_speeds": figures(known_speeds(bundle, healthy, faulty)),
        "seconds": round(time.perf_counter() - began, 1),
    }


# -- the protocols


def unseen_speed(bundle: str, healthy: Sequence[Path], faulty: Sequence[Path]) -> ScoredWindow:
    machine = machine_of(bundle, hop_s=WINDOW_S / 2)
    judged: ScoredWindow = {}
    for bad in faulty:
        others = [path for path in healthy if path.stem != bad.stem]
        good = next(path for path in healthy if path.stem == bad.stem)
        pipeline = calibrated(machine, [w for path in others for w in windows(path, machine)])
        judged[bad.stem] = {
            is_faulty: [pipeline.step(w).result for w in windows(path, machine)]
            for is_faulty, path in ((False, good), (True, bad))
        }
    return judged


def known_speeds(bundle: str, healthy: Sequence[Path], faulty: Sequence[Path]) -> ScoredWindow:
    listening, apart = machine_of(bundle, hop_s=WINDOW_S / 2), machine_of(bundle, hop_s=WINDOW_S)
    known = [w for path in healthy for w in windows(path, listening) if w.start_s + WINDOW_S <= KNOWN_S]
    pipeline = calibrated(listening, known)
    judged: ScoredWindow = defaultdict(lambda: {False: [], True: []})
    for is_faulty, paths in ((False, healthy), (True, faulty)):
        for path in paths:
            judged[path.stem][is_faulty] = [
                pipeline.step(w).result for w in windows(path, apart) if w.start_s >= KNOWN_S
            ]
    return judged


def machine_of(bundle: str, hop_s: float) -> config.Machine:
    return config.Machine(
        id="bldc",
        source=config.StdinSource(rate_hz=16_000),
        window_s=WINDOW_S,
        hop_s=hop_s,
        bundle=bundle,
        quality=config.QualityLimits(clipped_share=1.0, off_db=None),
    )


def calibrated(machine: config.Machine, normal: Sequence[Window]) -> Pipeline:
    bare = open_pipeline(machine, None)
    return Pipeline(machine, bare.encoders, build(machine, [bare.describe(w) for w in normal], bare, "benchmark"))


def windows(path: Path, machine: config.Machine) -> Iterator[Window]:
    """As `score` cuts them, each at the same RMS."""
    for window in recorded_windows(path, machine, open_pipeline(machine, None).rates):
        gain = np.float32(RMS / np.sqrt(np.mean(np.square(window.samples, dtype=np.float64))))
        resampled: dict[int, Samples] = {rate: samples * gain for rate, samples in window.resampled.items()}
        yield replace(window, samples=window.samples * gain, resampled=resampled)


# -- figures


def figures(judged: ScoredWindow) -> dict[str, Any]:
    pooled = {faulty: [r for speed in judged.values() for r in speed[faulty]] for faulty in (False, True)}
    unusable = [r for results in pooled.values() for r in results if r.score is None]
    assert not unusable, unusable[0]
    detectors = [FUSED, *(d.name for d in pooled[False][0].detectors)]
    return {
        "windows": {"healthy": len(pooled[False]), "propeller": len(pooled[True])},
        "auc": {name: round(auc_of(pooled, name), 4) for name in detectors},
        "auc_by_speed": {
            speed: round(auc_of(both, FUSED), 4) for speed, both in sorted(judged.items()) if all(both.values())
        },
        "anomalous_share": {
            name: round(float(np.mean([r.level is not Level.NORMAL for r in pooled[faulty]])), 4)
            for name, faulty in (("healthy", False), ("propeller", True))
        },
    }


def auc_of(results: dict[bool, list[WindowResult]], name: str) -> float:
    good, bad = (np.array([score(r, name) for r in results[faulty]]) for faulty in (False, True))
    return auc(good, bad)


def score(result: WindowResult, name: str) -> float:
    if name == FUSED:
        assert result.score is not None
        return result.score
    return next(d.z for d in result.detectors if d.name == name)


def auc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Probability that an anomalous window scores higher than a normal one; ties count half."""
    greater = (anomalous[:, None] > normal[None, :]).mean()
    equal = (anomalous[:, None] == normal[None, :]).mean()
    return float(greater + equal / 2)


if __name__ == "__main__":
    main()
