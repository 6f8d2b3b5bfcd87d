"""Whether a calibration keeps its promise: does the realised false-alarm rate lie inside the interval that it states?

    python benchmarks/coverage.py [--data ../shared/data] [--quick] [-o benchmarks/results]

Simulated machines: windows as embeddings of two detectors that shift from day to day by an amount that the calibration
does not know (one calibrated on a single day meets others with a mean square shift of 0.5 to 12, about the range of the
known cases), wander within a day, and have a tail heavier than a Gaussian. Each machine is calibrated by the classes
that ship (banks on held-out blocks, log scores, fusion, limits from budget and votes) and then heard for days that are
its own. The days with an alarm among them are the realised rate; `Support` states the interval (90 %). No alarm in 100
days is what a lower end below one in 100 days looks like, and counts as inside. The range of shifts is an assumption:
the figures show that estimates, votes, tail and drift fit together, not that every machine drifts so.

The compressor at rest: each of its three days, and each pair, calibrates with segments drawn again and again (block
bootstrap). The windows of the unseen days tell the realised share of p-values below 5 % and 1 %, and how often a day's
share lies in the 90 % interval for a single later day.

Prints, and writes coverage.json. Deterministic.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import sounds

from asd_agent import bank, config
from asd_agent.calibration import build as calibrate
from asd_agent.decide.blocks import blocks, leave_block_out
from asd_agent.decide.budget import DAY_S, DAYS_PER_MONTH, Thresholds
from asd_agent.decide.fusion import Fusion
from asd_agent.decide.logscore import LogScore
from asd_agent.decide.support import Possible, Support
from asd_agent.decide.tail import tail, z_of
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.types import Block, Description, Floats
from asd_agent.windowing.windower import Windower

DETECTORS, DIM = 2, 12
DAYS, WINDOWS = 100, 60  # that a machine is heard for after its calibration, and windows in each
DRIFT_MEDIAN, DRIFT_SIGMA = 0.75, 0.25  # log-normal: standard deviation of a day's shift, in those of windows
WANDER, STEADY = 0.4, 0.9  # standard deviation within a day, and how much of it stays from window to window
FREEDOM = 8  # of Student's t of single windows: 20 times as many beyond 4.5 standard deviations as a Gaussian has
BUDGET = 3.0  # days with a false alarm per month: rarer alarms would need years of simulation
VOTES = ("1/1", "3/5")
LEVELS = (0.05, 0.01)
CASES = ((1, 24), (1, 120), (2, 120), (5, 120), (5, 600))  # days of calibration, windows on them


@dataclass(frozen=True)
class Simulated:
    """A machine: what it does on its days."""

    rng: np.random.Generator
    drift: float

    @classmethod
    def draw(cls, seed: int) -> Simulated:
        rng = np.random.default_rng(seed)
        return cls(rng, DRIFT_MEDIAN * math.exp(DRIFT_SIGMA * rng.standard_normal()))

    def day(self, windows: int) -> list[Floats]:
        """Embeddings [windows, DIM] of every detector; they share half of what the day does."""
        rng = self.rng
        shared, out = rng.standard_normal(DIM), []
        heavy = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, windows))[:, None] / math.sqrt(FREEDOM / (FREEDOM - 2))
        wander = np.empty((windows, DIM))
        wander[0] = rng.standard_normal(DIM)
        for i, step in enumerate(rng.standard_normal((windows - 1, DIM)), 1):
            wander[i] = STEADY * wander[i - 1] + math.sqrt(1 - STEADY**2) * step
        for _ in range(DETECTORS):
            shift = self.drift * (shared + rng.standard_normal(DIM)) / math.sqrt(2)
            out.append(shift + WANDER * wander + heavy * rng.standard_normal((windows, DIM)))
        return out


@dataclass(frozen=True)
class Calibrated:
    banks: list[bank.Bank]
    logs: list[LogScore]
    fusion: Fusion
    held_out: list[float]

    @classmethod
    def of(cls, x: Sequence[Floats], session: Sequence[int]) -> Calibrated:
        """x: embeddings [n, dim] of every detector."""
        day = np.asarray(session)
        block = blocks(day)
        fit = partial(bank.fit, "whitened")
        held = [leave_block_out(fit, np.asarray(e, np.float32), block, day) for e in x]
        logs = [LogScore.fit(h) for h in held]
        z = np.array([[log.z(d) for d in h] for log, h in zip(logs, held, strict=True)]).T
        fusion = Fusion.fit(z, block, day)
        return cls([fit(e) for e in x], logs, fusion, [fusion.score(row) for row in z])

    def p_values(self, x: Sequence[Floats]) -> Floats:
        z = [[log.z(d) for d in one.distance(e)] for one, log, e in zip(self.banks, self.logs, x, strict=True)]
        return np.array([self.fusion.p_value(row) for row in zip(*z, strict=True)])


def promise(
    seed: int, days: int, windows: int, votes: Sequence[str] = VOTES, heard: int = DAYS
) -> list[dict[str, Any]]:
    """One machine, calibrated once, judged by each of `votes`: the stated interval and the realised rate."""
    machine = Simulated.draw(seed)
    parts = [machine.day(windows // days) for _ in range(days)]
    x = [np.concatenate([part[d] for part in parts]) for d in range(DETECTORS)]
    found = Calibrated.of(x, np.repeat(np.arange(days), windows // days))
    later = [found.p_values(machine.day(WINDOWS)) for _ in range(heard)]
    hop_s = DAY_S / WINDOWS
    out = []
    for vote in votes:
        alarm = config.Alarm(false_alarms_per_month=BUDGET, window_votes=vote)
        limits = Thresholds.of(alarm, found.fusion.spread, hop_s, hop_s)
        support = Support.of(limits, found.fusion, found.held_out, alarm, hop_s, hop_s)
        k, n = config.votes(vote, "votes")
        over = np.array([p <= limits.alert_p for p in later])
        counts = np.apply_along_axis(np.convolve, 1, over.astype(int), np.ones(n, int))
        realised = DAYS_PER_MONTH * float((counts >= k).any(axis=1).mean())
        out.append({
            "votes": vote, "realised": realised, "stated": support.per_month, "low": support.low, "high": support.high,
            "shift": float(np.mean([(np.median([_z(v) for v in p]) * found.fusion.spread.total) ** 2 for p in later])),
        })  # fmt: skip
    return out


def _z(p: float) -> float:
    return z_of(min(p, 1 - 1e-9))


def coverage(machines: int, cases: Sequence[tuple[int, int]] = CASES, heard: int = DAYS) -> list[dict[str, Any]]:
    out = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for days, windows in cases:
            found = list(
                pool.map(partial(promise, days=days, windows=windows, heard=heard), range(machines), chunksize=4)
            )
            out += [_row(days, windows, [f[i] for f in found]) for i in range(len(VOTES))]
    return out


def _row(days: int, windows: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    resolution = DAYS_PER_MONTH / DAYS  # no alarm in so many days is what a rate below that one looks like
    below = [f["realised"] < f["low"] - resolution for f in found]
    above = [f["realised"] > f["high"] for f in found]
    return {
        "days": days, "windows": windows, "votes": found[0]["votes"], "machines": len(found),
        "inside": round(1 - float(np.mean(above) + np.mean(below)), 3),
        "above": round(float(np.mean(above)), 3),
        "below": round(float(np.mean(below)), 3),
        "realised_per_month": _quantiles([f["realised"] for f in found]),
        "stated_per_month": round(float(np.median([f["stated"] for f in found])), 2),
        "interval": [round(float(np.median([f[e] for f in found])), 3) for e in ("low", "high")],
        "shift": _quantiles([f["shift"] for f in found]),
    }  # fmt: skip


def _quantiles(values: Sequence[float]) -> list[float]:
    """5 %, median, 95 %."""
    return [round(float(np.quantile(values, q)), 2) for q in (0.05, 0.5, 0.95)]


def resampled(data: Path, calibrations: int) -> list[dict[str, Any]]:
    """The compressor's days, calibrated in many ways."""
    rate_hz = 48_000
    settings = config.Machine(id="m", source=config.StdinSource(rate_hz=rate_hz), window_s=4.0, hop_s=2.0)
    bare = open_pipeline(settings, None)
    heard = {}
    for day in ("20260302", "20260327", "20260328"):
        sound = sounds.compressor_day(data, "rest", day)
        block = Block(sound[:, None], rate_hz, 0, 0.0, 0.0, origin=f"rest/{day}_0.flac", last=True)
        heard[day] = [bare.describe(w) for w in Windower(rate_hz, 4.0, 2.0, bare.rates).push(block, 0)]
    out = []
    for count in (1, 2):
        found = []
        for known in itertools.combinations(heard, count):
            for n in range(calibrations):
                rng = sounds.rng_of("coverage", known, n)
                normal = [d for day in known for d in _segments(heard[day], rng)]
                pipeline = Pipeline(settings, bare.encoders, calibrate.build(settings, normal, bare, "benchmark"))
                found += [_day(pipeline, heard[day], rng) for day in heard if day not in known]
        out.append({
            "days": count, "calibrations": len(found),
            **{f"share_below_{p:g}": round(float(np.mean([f[p][0] for f in found])), 4) for p in LEVELS},
            **{f"inside_at_{p:g}": round(float(np.mean([f[p][1] for f in found])), 3) for p in LEVELS},
        })  # fmt: skip
    return out


def _segments(day: list[Description], rng: np.random.Generator, count: int = 6, length: int = 8) -> list[Description]:
    starts = sorted(rng.choice(len(day) // length, min(count, len(day) // length), replace=False) * length)
    return [d for at in starts for d in day[at : at + length]]


def _day(pipeline: Pipeline, day: list[Description], rng: np.random.Generator) -> dict[float, tuple[float, bool]]:
    """p -> share of the day's windows below it, and whether it lies in the predicted interval."""
    state = pipeline.states[0]
    found = np.array([r.p_value for d in day if (r := pipeline.judge(d)).p_value is not None])
    may_be = Possible.of(state.fusion.spread, state.fusion.spread.windows // 2)
    shift = may_be.centre + may_be.slow * rng.standard_normal(len(may_be.centre))
    out = {}
    for p in LEVELS:
        expected = np.array([tail(z) for z in (z_of(p) * state.fusion.spread.total - shift) / may_be.fast])
        shares = rng.binomial(len(found) // 2, expected) / (len(found) // 2)
        low, high = np.quantile(shares, (0.05, 0.95))
        share = float((found <= p).mean())
        out[p] = (share, bool(low <= share <= high))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="few machines; writes nothing")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    start = time.perf_counter()
    found = {
        "simulated": coverage(16 if args.quick else 40),
        "resampled_days": resampled(args.data, 3 if args.quick else 8),
    }
    for row in itertools.chain(*found.values()):
        print(json.dumps(row))
    if not args.quick:
        args.output.mkdir(exist_ok=True)
        (args.output / "coverage.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
