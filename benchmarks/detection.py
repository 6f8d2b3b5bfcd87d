"""How well deviations are told from normal sound, on real machines with injected faults and everyday nuisance.

    python benchmarks/detection.py --data ../shared/data [--bundle FOLDER ...] [--quick] [-o benchmarks/results]
        [--name detection]

Everything goes through the classes that ship: Pipeline.describe and judge, calibrate.build, VoteFilter, EventRate and
Alarm. `--bundle` names the encoders, `default` alone without it; the published figures are with `spectral` and one of
mn04_as, those named detection_spectral with `spectral` alone:

    asd-export bundle mn04_as_mAP_432.pt --layers 2,4,7,11,13,16 --labels --window-s any -o FOLDER

Beside our detectors stand two of others: log-mel mean and deviation with a plain nearest neighbour, and the challenge's
autoencoder (where torch is installed), on windows of equal level, values standardised, trained for 40 epochs or 1500
steps, whichever is more: a minute of sound is little for it.

Prints, and writes as detection.json and detection.md: AUC and pAUC (p 0.1) of every fault over machines and levels
(-5 to -20 dB); AUC of the minimum over three separate windows; AUC after calibration with 6, 10 and 20 windows;
nuisance above the score that 5 % of clean windows exceed; streams on the compressor with default votes: false alarms,
nuisance episodes, single events, delay to alarm.
Deterministic; some minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import sounds
from sounds import FAULTS, LEVELS_DB, Machine, rng_of

from asd_agent import bank, config
from asd_agent.calibration import build as calibrate
from asd_agent.config.kinematics import Mechanism
from asd_agent.scoring.decision import Decision
from asd_agent.scoring.detectors import embeddings
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.types import AlarmState, Block, Description, EventKind, Samples, State, Window, WindowResult
from asd_agent.windowing.windower import Windower

FUSION, EXPLAINED = "fusion", "fusion, unless explained by a nuisance sound"
LOGMEL, AUTOENCODER = "log-mel 1-NN", "autoencoder"
EPOCHS, STEPS = 40, 1500  # of the autoencoder, at least
FEW = (6, 10, 20)  # calibration windows
Scores = dict[str, float]  # detector -> score of a window


class Judge:
    """A calibrated machine, and the detectors of others beside ours."""

    def __init__(self, machine: Machine, bundles: list[str], hop_s: float | None = None, peers: bool = True) -> None:
        hop_s = hop_s or machine.window_s
        self.rate_hz = machine.rate_hz
        self.settings = config.Machine(
            id="m", source=config.StdinSource(rate_hz=machine.rate_hz), window_s=machine.window_s, hop_s=hop_s,
            bundle=bundles, mechanism=Mechanism(),
        )  # fmt: skip
        bare = open_pipeline(self.settings, None)
        listen = config.Machine(**{**_fields(self.settings), "hop_s": machine.window_s / 2})
        normal = [
            bare.describe(w) for r in machine.calibration
            for w in windows(r.samples, machine.rate_hz, listen, bare, r.origin)
        ]  # fmt: skip
        self.baseline = calibrate.build(listen, normal, bare, "benchmark")
        self.pipeline = Pipeline(self.settings, bare.encoders, self.baseline)
        self.logmel = next(k for k in self.pipeline.outputs if k.endswith("logmel_stats"))
        self._nearest = bank.fit("euclidean", embeddings(normal, self.logmel))
        self._error = _autoencoder([r.samples for r in machine.calibration], machine.rate_hz) if peers else None
        self._fewer = {n: self._with(n, listen, normal, bare) for n in FEW if peers and n < len(normal)}

    def _with(self, n: int, listen: config.Machine, normal: list[Description], bare: Pipeline) -> Pipeline:
        """Calibrated with n windows only, evenly over the calibration."""
        chosen = [normal[i] for i in np.linspace(0, len(normal) - 1, n).round().astype(int)]
        all_of_them = config.Machine(**{**_fields(listen), "quality": config.QualityLimits(off_db=None)})
        return Pipeline(self.settings, bare.encoders, calibrate.build(all_of_them, chosen, bare, "benchmark"))

    def describe(self, sound: Samples) -> list[Description]:
        return [self.pipeline.describe(w) for w in windows(sound, self.rate_hz, self.settings, self.pipeline)]

    def scores(self, sound: Samples) -> Scores | None:
        """Of one window; None when it cannot be judged."""
        (description,) = self.describe(sound)
        result = self.pipeline.judge(description)
        if result.score is None:
            return None
        found = dict.fromkeys(self.baseline.manifest.detectors, 0.0)  # a state of few windows has no mechanism
        found |= {d.name: d.z for d in result.detectors}
        found[FUSION] = score(self.pipeline, description)
        found[EXPLAINED] = 0.0 if result.nuisance else found[FUSION]
        found[LOGMEL] = float(self._nearest.distance(description.embeddings[self.logmel][None])[0])
        if self._error is not None:
            found[AUTOENCODER] = self._error(sound)
        return found | {f"{FUSION}, {n} windows": score(p, description) for n, p in self._fewer.items()}


def score(pipeline: Pipeline, description: Description) -> float:
    """-log10 p, not yet rounded for the store: there half of all normal windows are 0.0 to 0.3, and many the same."""
    return -math.log10(max(state.judge(description).p_value for state in pipeline.states))


def windows(
    sound: Samples, rate_hz: int, settings: config.Machine, pipeline: Pipeline, origin: str = ""
) -> Iterator[Window]:
    block = Block(sound[:, None], rate_hz, start_frame=0, utc_s=0.0, monotonic_s=0.0, origin=origin, last=True)
    yield from Windower(rate_hz, settings.window_s, settings.hop_s, pipeline.rates).push(block, 0)


def one_machine(data: Path, name: str, bundles: list[str], most: int) -> dict[str, Any]:
    """Faults and nuisance in single windows of a machine (at most so many), and the minimum over three.

    Every window has each fault at two levels, by turns -5 and -15 or -10 and -20 dB.
    """
    machine = next(m for m in sounds.machines(data) if m.name == name)
    judge = Judge(machine, bundles)
    normal = [s for x in machine.test if (s := judge.scores(x))]
    usual = {detector: [s[detector] for s in normal] for detector in normal[0]}
    chosen = range(0, len(machine.test), -(-len(machine.test) // most))
    turns = list(enumerate(chosen))
    auc: dict[str, dict[str, list[float]]] = {d: {} for d in usual}
    pauc: dict[str, dict[str, list[float]]] = {d: {} for d in usual}
    three: dict[str, list[float]] = {}
    for kind in FAULTS:
        found = [
            [s for n, i in turns if n % 2 == at % 2 and (s := judge.scores(_spoilt(machine, i, kind, level)))]
            for at, level in enumerate(LEVELS_DB)
        ]
        for detector, scores in usual.items():
            auc[detector][kind] = [area(scores, [s[detector] for s in some]) for some in found]
            pauc[detector][kind] = [area(scores, [s[detector] for s in some], 0.1) for some in found]
        three[kind] = [area(lowest(usual[FUSION]), lowest([s[FUSION] for s in some])) for some in found]
    if machine.faulty:
        real = [s for x in machine.faulty if (s := judge.scores(x))]
        for detector, scores in usual.items():
            auc[detector]["propeller"] = [area(scores, [s[detector] for s in real])]
    pool = sounds.nuisance(data, machine.rate_hz)
    nuisance: dict[str, list[bool]] = defaultdict(list)
    for i, turn in itertools.product(chosen, range(3)):
        category, sound = _disturbed(machine, i, turn, pool)
        if s := judge.scores(sound):
            for detector in (FUSION, EXPLAINED):
                above = bool(s[detector] > np.quantile(usual[detector], 0.95))
                nuisance[detector].append(above)
                nuisance[f"{detector}: {category}"].append(above)
    return {"auc": auc, "pauc": pauc, "three": three, "nuisance": dict(nuisance)}


def evaluate(data: Path, bundles: list[str], most: int, episodes: int) -> dict[str, Any]:
    """Means over machines and levels, and the streams; two jobs at a time."""
    names = [m.name for m in sounds.machines(data)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        live = pool.submit(streams, data, bundles, episodes)
        jobs = [pool.submit(one_machine, data, name, bundles, most) for name in names]
        return summary(names, [job.result() for job in jobs], live.result())


def summary(names: list[str], found: list[dict[str, Any]], streamed: dict[str, Any]) -> dict[str, Any]:
    """Means over machines and levels."""
    detectors = dict.fromkeys(d for f in found for d in f["auc"] if not d.startswith(f"{FUSION}, "))
    detectors[EXPLAINED] = None
    kinds = [*FAULTS, "propeller"]

    def mean(what: str) -> dict[str, dict[str, float]]:
        return {
            detector: {
                kind: _mean([np.mean(f[what][detector][kind]) for f in having])
                for kind in kinds
                if (having := [f for f in found if kind in f[what].get(detector, {})])
            }
            for detector in detectors
        }

    nuisance: dict[str, list[bool]] = defaultdict(list)
    for f in found:
        for key, values in f["nuisance"].items():
            nuisance[key] += values
    return {
        "machines": names,
        "auc": mean("auc"),
        "pauc": mean("pauc"),
        "auc_of_fusion_by_level": {
            str(level): _mean([f["auc"][FUSION][k][i] for f in found for k in FAULTS])
            for i, level in enumerate(LEVELS_DB)
        },
        "auc_of_three_windows": {k: _mean([np.mean(f["three"][k]) for f in found]) for k in FAULTS},
        "few_windows": {
            str(n): {
                "machines": len(having),
                "auc": _mean([f["auc"][name][k] for f in having for k in FAULTS]),
                "auc_of_all_windows": _mean([f["auc"][FUSION][k] for f in having for k in FAULTS]),
            }
            for n in FEW
            if (having := [f for f in found if (name := f"{FUSION}, {n} windows") in f["auc"]])
        },
        "nuisance_above_5_percent": {k: _mean(v) for k, v in sorted(nuisance.items())},
        "streams": streamed,
    }


def streams(data: Path, bundles: list[str], episodes: int) -> dict[str, Any]:
    """The compressor at rest with default votes and budget, 10 s windows every 5 s; 20260328 is the unseen day."""
    rate_hz = 48_000
    (machine,) = [m for m in sounds.compressor(data, 10.0) if m.name.endswith("0328")]
    judge = Judge(machine, bundles, hop_s=5.0, peers=False)
    day = sounds.compressor_day(data, "rest", "20260328")
    pool = sounds.nuisance(data, rate_hz)
    clean = Stream(judge).run(day)
    changed: dict[str, list[bool]] = defaultdict(list)
    single: dict[str, list[bool]] = defaultdict(list)
    anomalous, seconds = 0, 0.0
    for n in range(episodes):
        rng = rng_of("episode", n)
        category = sorted(pool)[n % len(pool)]
        length = round(rng.uniform(10, 30) * rate_hz)
        sound = _part(day, 90, rng)
        start = 30 * rate_hz
        loud = sounds.disturb(sound, pool[category], start, length, rng.uniform(-20, 0), rate_hz, ("episode", n))
        run = Stream(judge).run(loud)
        changed[category].append(run.raised)
        anomalous += run.anomalous
        seconds += 90
    for n in range(max(episodes // 3, 6)):
        rng = rng_of("single", n)
        category = ("dog_bark", "person_sneeze", "knock")[n % 3]
        sound = _part(day, 60, rng)
        if category == "knock":
            clip = sounds.fault_signal("knocks", rate_hz, rate_hz, rng)[: round(0.25 * rate_hz)]
        else:
            clip = pool[category][int(rng.integers(len(pool[category])))][: 2 * rate_hz]
        loud = sounds.disturb(sound, [clip], 25 * rate_hz, len(clip), 10.0, rate_hz, ("single", n))
        run = Stream(judge).run(loud)
        single[category].append(run.raised or run.repeated)
    delay: dict[str, list[float]] = defaultdict(list)
    for kind in FAULTS:
        for level in LEVELS_DB:
            rng = rng_of("delay", kind, level)
            sound = _part(day, 90, rng)
            sound[30 * rate_hz :] = sounds.spoil(sound[30 * rate_hz :], rate_hz, kind, level, rng)
            run = Stream(judge).run(sound)
            delay[f"{level:g} dB"].append(math.inf if run.raised_s is None else run.raised_s - 30)
    return {
        "clean": {
            "hours": len(day) / rate_hz / 3600,
            "alarms": int(clean.raised),
            "anomalous_windows": clean.anomalous,
        },
        "nuisance": {
            "episodes": episodes,
            "raised_changed": _mean([r for v in changed.values() for r in v]),
            "by_category": {k: _mean(v) for k, v in changed.items()},
            "alarms_per_hour": 3600 * sum(r for v in changed.values() for r in v) / seconds,
            "anomalous_windows_per_episode": anomalous / episodes,
        },
        "single_events_that_raised": {k: _mean(v) for k, v in single.items()},
        "delay_s": {
            k: {"found": _mean(np.isfinite(v)), "median": float(np.median(v)) if np.median(v) < 1e9 else None}
            for k, v in delay.items()
        },
        "report": judge.baseline.manifest.report.facts,
    }


class Stream:
    """Windows of a recording through the decision that runs live."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._decision = Decision(judge.settings, judge.baseline.manifest, AlarmState())
        self.raised_s: float | None = None
        self.repeated = False
        self.anomalous = 0

    @property
    def raised(self) -> bool:
        return self.raised_s is not None

    def run(self, sound: Samples) -> Stream:
        for description in self._judge.describe(sound):
            self._hear(self._judge.pipeline.judge(description))
        return self

    def _hear(self, result: WindowResult) -> None:
        self.anomalous += result.state is State.ANOMALOUS
        events = self._decision.update(result, True)
        rate = self._decision.event_rate
        self.repeated |= rate is not None and rate.count >= rate.allowed
        if self.raised_s is None and any(e.kind is EventKind.RAISED for e in events):
            self.raised_s = result.utc_s + result.duration_s


def area(normal: Sequence[float], odd: Sequence[float], p: float = 1.0) -> float:
    """AUC up to the false-positive rate p; p < 1 by McClish's formula, as the challenge does."""
    usual, high = np.asarray(normal), np.asarray(odd)
    if p == 1.0:
        return float(((high[:, None] > usual) + 0.5 * (high[:, None] == usual)).mean())
    limits = np.concatenate([[np.inf], np.sort(usual)[::-1]])
    hits = np.array([(high >= limit).mean() for limit in limits])
    rate = np.arange(len(limits)) / len(usual)
    grid = np.linspace(0, p, 101)
    partial = np.trapezoid(np.interp(grid, rate, hits), grid)
    return float(0.5 * (1 + (partial - p**2 / 2) / (p - p**2 / 2)))


def lowest(scores: Sequence[float]) -> list[float]:
    """Minimum of each window and its two successors in the list."""
    return [min(scores[i : i + 3]) for i in range(max(len(scores) - 2, 1))]


def _spoilt(machine: Machine, i: int, kind: str, level: float) -> Samples:
    return sounds.spoil(machine.test[i], machine.rate_hz, kind, level, rng_of(machine.name, i, kind, level))


def _disturbed(machine: Machine, i: int, turn: int, pool: dict[str, list[Samples]]) -> tuple[str, Samples]:
    rng = rng_of("nuisance", machine.name, i, turn)
    category, level = sorted(pool)[int(rng.integers(len(pool)))], rng.uniform(-20, 0)
    x = machine.test[i]
    return category, sounds.disturb(x, pool[category], 0, len(x), level, machine.rate_hz, (machine.name, i, turn))


def _part(day: Samples, seconds: float, rng: np.random.Generator) -> Samples:
    n = round(seconds * 48_000)
    start = int(rng.integers(len(day) - n))
    return day[start : start + n].copy()


def _autoencoder(recordings: list[Samples], rate_hz: int) -> Callable[[Samples], float] | None:
    """Mean squared error of the challenge's autoencoder trained on the calibration; None without torch."""
    try:
        import soxr
        import torch

        from asd_train.autoencoder import Autoencoder, train
        from asd_train.logmel import log_mel
    except ImportError:
        return None
    torch.set_num_threads(1)

    def joined(x: Samples) -> torch.Tensor:
        x = x if rate_hz == 16_000 else soxr.resample(x, rate_hz, 16_000, "HQ")
        x = x - x.mean()
        mel = log_mel(x / max(float(np.sqrt(np.mean(x**2))), 1e-9), 16_000)
        frames = np.lib.stride_tricks.sliding_window_view(mel, 5, axis=0).transpose(0, 2, 1)
        return torch.from_numpy(frames.reshape(len(frames), -1).astype(np.float32))

    frames = torch.cat([joined(x) for x in recordings])
    mean, sd = frames.mean(dim=0), frames.std(dim=0).clamp_min(1e-3)
    options = Autoencoder(epochs=max(EPOCHS, -(-STEPS // -(-len(frames) // Autoencoder().batch_size))))
    model = train((frames - mean) / sd, options, lambda _: None)

    def error(x: Samples) -> float:
        with torch.inference_mode():
            frames = (joined(x) - mean) / sd
            return float((frames - model(frames)).square().mean())

    return error


def _fields(settings: config.Machine) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def table(results: dict[str, Any]) -> str:
    """Markdown: AUC by detector and fault."""
    lines = ["| AUC | " + " | ".join(FAULTS) + " | mean |", "|---" * (len(FAULTS) + 2) + "|"]
    for name, kinds in results["auc"].items():
        values = [kinds[k] for k in FAULTS]
        lines.append(f"| {name} | " + " | ".join(f"{v:.2f}" for v in values) + f" | {np.mean(values):.3f} |")
    three = [results["auc_of_three_windows"][k] for k in FAULTS]
    lines.append("| fusion, three windows | " + " | ".join(f"{v:.2f}" for v in three) + f" | {np.mean(three):.3f} |")
    lines += ["", "| calibration windows | machines | mean AUC | with all of them |", "|---|---|---|---|"]
    for n, few in results["few_windows"].items():
        lines.append(f"| {n} | {few['machines']} | {few['auc']:.3f} | {few['auc_of_all_windows']:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--bundle", action="append", default=[], help="an encoder; several judge side by side")
    parser.add_argument("--quick", action="store_true", help="few windows and episodes; writes nothing")
    parser.add_argument("--name", default="detection", help="of the files written")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    start = time.perf_counter()
    bundles = args.bundle or ["default"]
    results = evaluate(args.data, bundles, *((4, 10) if args.quick else (12, 30)))
    print(table(results))
    print(json.dumps({k: v for k, v in results.items() if k not in ("auc", "pauc")}, indent=1))
    if not args.quick:
        args.output.mkdir(exist_ok=True)
        (args.output / f"{args.name}.json").write_text(json.dumps(results, indent=1) + "\n")
        (args.output / f"{args.name}.md").write_text(table(results) + "\n")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
