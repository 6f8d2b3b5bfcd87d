"""What the mechanism analysis finds, how often it is wrong, and what it costs.

    python benchmarks/mechanism.py bearings DATA     bearing vibration of three rigs, by how well the speed is known
    python benchmarks/mechanism.py held_out DATA     the same with constants that were chosen without the rig
    python benchmarks/mechanism.py methods DATA      ways to find the lines: bands, kurtogram, spectral coherence
    python benchmarks/mechanism.py simulated         every component's fault, its line 10 dB above the floor
    python benchmarks/mechanism.py compressor DATA   real sound: false alarms on other days, injected faults
    python benchmarks/mechanism.py cost              CPU time of a window, beside TSFEL where it is installed

DATA is the folder with the real recordings. Results go to benchmarks/results/mechanism_<what>.json (-o elsewhere).
TSFEL is no dependency: install it somewhere and put it on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import host
import numpy as np
import scipy.fft
import soundfile
from mechanism_rigs import Record, cwru, held_out, hit, kinematics, methods
from mechanism_simulated import simulated
from scipy.stats import beta

from asd_agent.capture.simulate import fault_signal, mix_at
from asd_agent.config.kinematics import Mechanism
from asd_agent.mechanism import Analyser, MechanismBaseline, Speed
from asd_agent.mechanism.bearings import bearing_findings
from asd_agent.mechanism.diagnose import diagnose
from asd_agent.mechanism.kurtosis import kurtogram
from asd_agent.mechanism.spectrum import transform
from asd_agent.types import Samples

WAYS = ("2 %", "15 %", "unknown")  # how well the speed is known
DAYS = ("20260302", "20260327", "20260328")
FAULTS = ("bearing", "squeal", "hiss", "knocks", "imbalance", "hiss 2-4 kHz", "tone 3.1 kHz")
QUIET_DB = 12.0  # this far below the day's median level the machine was not running
RUN_MS = 0.88  # rfft of 160000 float32 on the machine idle: scales times measured while others compute


def bearings(data: Path) -> dict[str, Any]:
    """Every record of every rig, with the speed known to 2 %, to 15 %, and not at all."""
    rigs = {"cwru": cwru(data), "mfs": hit(data, "mfs"), "own": hit(data, "own")}
    records = [judged(record) for members in rigs.values() for record in members]
    absent = {rig: absent_bearings(members) for rig, members in rigs.items()}
    summary = {rig: rig_summary([r for r in records if r["rig"] == rig]) for rig in rigs}
    return {"summary": {**summary, "bearings that are not there, blamed": absent}, "records": records}


def judged(one: Record) -> dict[str, Any]:
    kind = one.expected
    record: dict[str, Any] = {"rig": one.rig, "file": one.name, "expected": kind}
    keys: dict[str, dict[str, Any]] = {
        "2 %": {"shaft_hz": one.nominal_hz, "speed_tolerance": 0.02},
        "15 %": {"shaft_hz": one.nominal_hz, "speed_tolerance": 0.15},
        "unknown": {},
    }
    for way in WAYS:
        config = kinematics({"name": "DE", "type": "6205"}, **{"mains_hz": one.mains_hz, **keys[way]})
        found = diagnose(one.samples, one.rate_hz, config)
        named = next((f for f in found if f.component), None)
        record[way] = {
            "component": named.component if named else "",
            "p": named.p_value if named else None,
            "order": round(named.order, 4) if named and named.order else None,
            "words": found[0].words if found else "",
            "right": named is not None and bool(kind) and kind in named.component,
            "wrong": named is not None and (not kind or kind not in named.component),
        }
    return record


def rig_summary(records: list[dict[str, Any]]) -> dict[str, str]:
    summary = {}
    for way in WAYS:
        parts = []
        for kind in ("inner race", "outer race", "rolling element"):
            members = [r for r in records if r["expected"] == kind]
            if members:
                parts.append(f"{kind} {sum(r[way]['right'] for r in members)} of {len(members)}")
        healthy = [r for r in records if not r["expected"]]
        wrong = sum(r[way]["wrong"] for r in records if r["expected"])
        blamed = sum(r[way]["wrong"] for r in healthy)
        summary[way] = ", ".join([*parts, f"wrong {wrong}", f"normal blamed {blamed} of {len(healthy)}"])
    return summary


def absent_bearings(records: list[Record]) -> str:
    """Another bearing is configured, with the speed of the name plate."""
    blamed = trials = 0
    for one in records:
        for other in other_bearings(12):
            config, speed = kinematics(other, mains_hz=one.mains_hz), Speed(one.nominal_hz, "given")
            found = diagnose(one.samples, one.rate_hz, config, speed=speed)
            blamed, trials = blamed + any(f.component for f in found), trials + 1
    return f"{blamed} of {trials}"


def other_bearings(count: int) -> list[dict[str, Any]]:
    """Bearings whose lines do not fall on those of a 6205 or simple fractions of them."""
    rng = np.random.default_rng(1)
    own = np.outer((3.5848, 5.4152, 4.7135), (1 / 3, 1 / 2, 2 / 3, 1, 1.5, 2, 3)).ravel()
    found: list[dict[str, Any]] = []
    while len(found) < count:
        balls, ratio = int(rng.integers(6, 17)), float(rng.uniform(0.15, 0.32))
        lines = np.array([balls / 2 * (1 - ratio), balls / 2 * (1 + ratio), (1 - ratio**2) / ratio])
        if lines.max() < 7.7 and lines.min() > 1.7 and (np.abs(lines[:, None] / own - 1) > 0.03).all():
            found.append({"name": "X", "balls": balls, "ball_d": ratio, "pitch_d": 1.0})
    return found


def compressor(data: Path) -> dict[str, Any]:
    return {f"windows of {2 * n} s": compressor_windows(data / "compressor" / "rest", n) for n in (1, 2)}


def compressor_windows(folder: Path, clips: int) -> dict[str, Any]:
    analyser = Analyser(Mechanism(), 48_000)
    sounds = {day: day_windows(folder, day, clips) for day in DAYS}
    values = {day: [analyser.indicators(x).values for x in windows] for day, windows in sounds.items()}
    alarms, faults = [], {}
    for known in DAYS:
        baseline = MechanismBaseline.fit(values[known], np.arange(len(values[known])) * 5 // len(values[known]))
        for other in DAYS:
            if other != known:
                p = np.array([baseline.judge(v).p_value for v in values[other]], float)
                alarms.append({"calibrated": known, "judged": other, "n": len(p), **rates(p)})
        if known == "20260327":
            faults = injected(sounds["20260328"], baseline, analyser)
    pooled = {str(q): sum(a[str(q)]["count"] for a in alarms) for q in (0.05, 0.01, 0.001)}
    total = sum(a["n"] for a in alarms)
    return {
        "false alarms": alarms,
        "false alarms, all pairs of days": {q: rate(k, total) for q, k in pooled.items()},
        "faults at -10 dB, calibrated 20260327, judged 20260328": faults,
    }


def day_windows(folder: Path, day: str, clips: int) -> list[Samples]:
    """Windows of `clips` clips joined by a cross-fade of 10 ms; without those in which the machine stood still."""
    loaded = [soundfile.read(p, dtype="float32")[0] for p in sorted(folder.glob(f"{day}_*.flac"))]
    level = np.array([20 * np.log10(x.std()) for x in loaded])
    running = [x for x, db in zip(loaded, level, strict=True) if db > np.median(level) - QUIET_DB]
    return [join(running[i : i + clips]) for i in range(0, len(running) - clips + 1, clips)]


def join(parts: list[Samples], fade: int = 480) -> Samples:
    out = parts[0]
    up = np.sqrt(np.linspace(0, 1, fade, dtype=np.float32))
    for x in parts[1:]:
        out = np.concatenate([out[:-fade], out[-fade:] * up[::-1] + x[:fade] * up, x[fade:]])
    return out


def rates(p: np.ndarray) -> dict[str, Any]:
    return {str(q): rate(int((p < q).sum()), len(p)) for q in (0.05, 0.01, 0.001)}


def rate(count: int, n: int) -> dict[str, Any]:
    """With the exact 95 % interval (Clopper & Pearson)."""
    low = 0.0 if count == 0 else float(beta.ppf(0.025, count, n - count + 1))
    high = 1.0 if count == n else float(beta.ppf(0.975, count + 1, n - count))
    return {"count": count, "n": n, "rate": round(count / n, 4), "interval": [round(low, 4), round(high, 4)]}


def injected(windows: list[Samples], baseline: MechanismBaseline, analyser: Analyser) -> dict[str, Any]:
    out = {}
    for kind in FAULTS:
        p, words = [], []
        for i, x in enumerate(windows[:20]):
            mixed = mix_at(x, fault(kind, len(x), np.random.default_rng(i)), -10.0)
            p.append(baseline.judge(analyser.indicators(mixed).values).p_value)
            found = diagnose(mixed, 48_000, Mechanism(), baseline)
            words.append(found[0].words if found else "")
        found_share = float(np.mean(np.array(p) < 0.01))
        out[kind] = {"p < 0.01": found_share, "median p": float(np.median(p)), "first words": words[:3]}
    return out


def fault(kind: str, n: int, rng: np.random.Generator) -> Samples:
    if kind == "tone 3.1 kHz":
        return np.sin(2 * np.pi * 3100 * np.arange(n) / 48_000).astype(np.float32)
    if kind == "hiss 2-4 kHz":
        bins = np.fft.rfft(rng.standard_normal(n))
        hz = np.arange(len(bins)) * 48_000 / n
        bins[(hz < 2000) | (hz > 4000)] = 0
        return np.fft.irfft(bins, n).astype(np.float32)
    return fault_signal(kind, n, 48_000, rng)


def cost(rounds: int = 60) -> dict[str, Any]:
    """Milliseconds of CPU per 10 s window, one thread. Minima; and medians scaled by an FFT that takes turns with them,
    because other work on the machine slows both alike."""
    x = window(16_000)
    plain, full = Analyser(Mechanism(), 16_000), Analyser(everything(), 16_000)
    spectrum = transform(x, 16_000)
    fast, wide = Analyser(Mechanism(), 48_000), window(48_000)
    out: dict[str, Any] = {
        "machine": host.cpu_model(),
        "16 kHz, no kinematics": timed(lambda: plain.indicators(x), x, rounds),
        "16 kHz, two bearings, gear, motor, fan, belt": timed(lambda: full.indicators(x), x, rounds),
        "48 kHz, no kinematics": timed(lambda: fast.indicators(wide), x, 50),
        "kurtogram alone (not in the hot path)": timed(lambda: kurtogram(spectrum), x, 20),
        "indicators": {"no kinematics": len(plain.indicators(x).values), "all": len(full.indicators(x).values)},
        "values of a window, bytes": 8 * len(full.indicators(x).values),
    }
    whole = full.analyse(x)
    out["joint test, two bearings (anomalous windows only)"] = timed(lambda: bearing_findings(full, whole, None), x, 30)
    out["judgement"] = timed(judgement(full, x), x, 50)
    peer = tsfel(x)
    if peer is not None:
        mine = out["16 kHz, two bearings, gear, motor, fan, belt"]["min_ms"]
        out["TSFEL, statistical and spectral domains"] = peer
        out["times faster"] = round(peer["min_ms"] / mine, 1)
        out["times faster, per feature"] = round(peer["ms_per_feature"] / (mine / out["indicators"]["all"]), 1)
    return out


def window(rate_hz: int) -> Samples:
    t = np.arange(10 * rate_hz) / rate_hz
    lines = sum(0.1 * np.sin(2 * np.pi * 24.87 * k * t + k) for k in range(1, 8))
    return (np.random.default_rng(0).standard_normal(len(t)) + lines).astype(np.float32)


def everything() -> Mechanism:
    return kinematics(
        {"name": "DE", "type": "6205"},
        {"name": "NDE", "type": "6203"},
        shaft_hz=24.9,
        poles=4,
        rotor_bars=28,
        gears=[{"name": "G1", "teeth": 23, "wheel_teeth": 57}],
        blades=[{"name": "fan", "count": 7}],
        belts=[{"name": "V", "pulley_d": 100, "length": 1200}],
    )


def judgement(analyser: Analyser, x: Samples) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    values = analyser.indicators(x).values
    normal = [{k: v + rng.standard_normal() for k, v in values.items()} for _ in range(40)]
    baseline = MechanismBaseline.fit(normal)
    return lambda: baseline.judge(values)


def timed(work: Callable[[], object], x: Samples, rounds: int) -> dict[str, float]:
    work()
    own, reference = [], []
    for _ in range(rounds):
        start = time.process_time()
        scipy.fft.rfft(x)
        middle = time.process_time()
        work()
        own.append(time.process_time() - middle)
        reference.append(middle - start)
    scaled = RUN_MS * float(np.median(np.array(own)) / np.median(reference))
    return {
        "min_ms": round(1000 * min(own), 3),
        "median_ms": round(1000 * float(np.median(own)), 3),
        "scaled_ms": round(scaled, 3),
        "reference_min_ms": round(1000 * min(reference), 3),
    }


def tsfel(x: Samples) -> dict[str, float] | None:
    try:
        import tsfel as peer
    except ImportError:
        return None
    warnings.simplefilter("ignore")
    wanted = peer.get_features_by_domain("statistical") | peer.get_features_by_domain("spectral")
    own, features = [], 0
    for _ in range(4):
        start = time.process_time()
        features = peer.time_series_features_extractor(wanted, x.astype(float), fs=16_000, verbose=0).shape[1]
        own.append(time.process_time() - start)
    ms = 1000 * min(own)
    return {"min_ms": round(ms, 1), "features": features, "ms_per_feature": round(ms / features, 3)}


WHAT: dict[str, tuple[Callable[..., Any], bool]] = {  # name -> (function, needs DATA)
    "bearings": (bearings, True),
    "held_out": (held_out, True),
    "methods": (methods, True),
    "simulated": (simulated, False),
    "compressor": (compressor, True),
    "cost": (cost, False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("data", type=Path, nargs="?", help="the folder with the real recordings")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    work, needs_data = WHAT[arguments.what]
    if needs_data and arguments.data is None:
        parser.error(f"{arguments.what} needs DATA")
    result = work(arguments.data) if needs_data else work()
    output = arguments.output or Path(__file__).parent / "results" / f"mechanism_{arguments.what}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result.get("summary", result), indent=1))


if __name__ == "__main__":
    main()
