"""Real bearings: records of every rig, constants chosen without a rig, and other ways to find the lines.

`held_out`: the constants of the decision are set to coarse values and chosen anew by a search over some rigs only; the
others are judged once with what was chosen. The form of the test (which hypotheses, which families) was developed with
all rigs at hand; only its constants are held out here.

`methods`: the joint test on envelope spectra made in other ways. Kurtogram (Antoni, Mech. Syst. Signal Process. 21,
2007): squared envelope of the band with the highest kurtosis. Spectral coherence (Antoni, Xin & Hamzaoui, Mech. Syst.
Signal Process. 92, 2017): the short-time Fourier transform's products with its own shifted bins, transformed over time;
the mean of their squared coherence over the carrier frequency is the enhanced envelope spectrum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import scipy.fft

from asd_agent.config.kinematics import Mechanism
from asd_agent.mechanism import Analyser, families, naming
from asd_agent.mechanism.analyse import Analysis
from asd_agent.mechanism.envelope import against_background
from asd_agent.mechanism.kurtosis import kurtogram
from asd_agent.mechanism.naming import Lines, diagnose_trains, lines_of, spectra_of
from asd_agent.mechanism.spectrum import Spectrum
from asd_agent.types import Floats, Samples

EXPECTED = {"B": "rolling element", "I": "inner race", "O": "outer race", "N": ""}
TOLERANCES = {"2 %": 0.02, "15 %": 0.15}
WRONG = 5.0  # right names that one wrong name costs, where constants are chosen
SEARCHED: dict[tuple[Any, str], tuple[float, ...]] = {  # the first value is where the search begins
    (naming, "LIMIT"): (0.05, 0.01, 0.001),
    (naming, "CALM_LIMIT"): (0.01, 0.001, 0.0001),
    (naming, "IMPULSIVE"): (1.0, 3.0, 6.0),
    (naming, "MARGIN"): (0.0, 1.0, 3.0),
    (naming, "OWN_SUPPORT"): (2.3, 4.6, 9.2),
    (naming, "CLOSE"): (0.7, 1.5, 3.0),
    (naming, "FAR_LOUDER"): (1.2, 2.3, 4.6),
    (naming, "CAGE_FITS"): (0.02, 0.009, 0.005),
    (families, "ELSEWHERE"): (0.0, 1.0, 3.0),
    (families, "OWN"): (3.0, 6.0, 9.0),
}


@dataclass(frozen=True)
class Record:
    rig: str
    name: str
    samples: Samples
    rate_hz: int
    nominal_hz: float
    expected: str  # part; "" = healthy
    mains_hz: float


def cwru(data: Path) -> list[Record]:
    found = []
    for path in sorted((data / "cwru").glob("*.npz")):
        stored = np.load(path)
        kind = EXPECTED["N" if "Normal" in path.name else path.name.split("End_")[1][0]]
        rate, shaft_hz = int(stored["rate_hz"]), float(stored["shaft_rpm"]) / 60
        found.append(Record("cwru", path.stem, stored["acceleration_g"], rate, shaft_hz, kind, 60.0))
    return found


def hit(data: Path, rig: str) -> list[Record]:
    found = []
    for path in sorted((data / "hit_bearing").glob(f"{rig}_*.npz")):
        stored = np.load(path)
        kind = EXPECTED[path.stem.split("_")[1][0]]
        rate, shaft_hz = int(stored["rate_hz"]), float(stored["nominal_rpm"]) / 60
        found.append(Record(rig, path.stem, stored["acceleration"], rate, shaft_hz, kind, 50.0))
    return found


def kinematics(*bearings: dict[str, Any], **more: Any) -> Mechanism:
    return msgspec.convert({"mains_hz": 60, "bearings": list(bearings), **more}, Mechanism)


@dataclass(frozen=True)
class Prepared:
    """A record taken apart once, with the speed known to some tolerance."""

    record: Record
    analyser: Analyser
    whole: Analysis
    lines: Lines

    @property
    def named(self) -> str:
        speeds = self.analyser.speed_range(None)
        found = diagnose_trains(self.analyser, spectra_of(self.analyser, self.lines), speeds, None)
        return found.named.train.part if found.named is not None else ""


def prepared(record: Record, tolerance: float) -> Prepared:
    keys = {"mains_hz": record.mains_hz, "shaft_hz": record.nominal_hz, "speed_tolerance": tolerance}
    analyser = Analyser(kinematics({"name": "DE", "type": "6205"}, **keys), record.rate_hz)
    whole = analyser.analyse(record.samples)
    return Prepared(record, analyser, whole, lines_of(analyser, whole, analyser.speed_range(None)))


def counts(members: Sequence[Prepared]) -> dict[str, int]:
    out = {"faults": 0, "right": 0, "wrong": 0, "normal": 0, "blamed": 0}
    for one in members:
        name, expected = one.named, one.record.expected
        out["faults"] += bool(expected)
        out["normal"] += not expected
        out["right"] += bool(expected) and expected in name
        out["wrong"] += bool(expected) and bool(name) and expected not in name
        out["blamed"] += not expected and bool(name)
    return out


def words(found: dict[str, int]) -> str:
    return (
        f"{found['right']} of {found['faults']}, wrong {found['wrong']}, normal blamed {found['blamed']} of "
        f"{found['normal']}"
    )


# -- constants chosen without a rig


def held_out(data: Path) -> dict[str, Any]:
    """Chosen on CWRU, judged on the two other rigs; beside what ships on the same records."""
    rigs = {"cwru": cwru(data), "hit": [*hit(data, "mfs"), *hit(data, "own")]}
    ready = {
        rig: {way: [prepared(r, tolerance) for r in members] for way, tolerance in TOLERANCES.items()}
        for rig, members in rigs.items()
    }

    def judged() -> dict[str, Any]:
        return {rig: {way: words(counts(m)) for way, m in ways.items()} for rig, ways in ready.items()}

    values = chosen([m for members in ready["cwru"].values() for m in members])
    found = using(values, judged)
    return {
        "constants chosen on CWRU": {"held out: two other rigs": found["hit"], "CWRU itself": found["cwru"]},
        "constants that ship": judged(),
        "chosen": {name: value for (_, name), value in values.items()},
    }


Values = dict[tuple[Any, str], float]


def chosen(members: Sequence[Prepared]) -> Values:
    """One constant after the other, once; the first of equal values stays."""
    values: Values = {key: options[0] for key, options in SEARCHED.items()}
    for key, options in SEARCHED.items():
        scores = [using({**values, key: option}, lambda: _score(counts(members))) for option in options]
        values[key] = options[int(np.argmax(scores))]
    return values


def _score(found: dict[str, int]) -> float:
    return found["right"] - WRONG * (found["wrong"] + found["blamed"])


def using(values: Values, work: Callable[[], Any]) -> Any:
    """What `work` returns with other constants in place."""
    before = {(module, name): getattr(module, name) for module, name in values}
    try:
        for (module, name), value in values.items():
            setattr(module, name, value)
        return work()
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


# -- other ways to find the lines


def methods(data: Path) -> dict[str, Any]:
    """Every record with the speed known to 15 %, the joint test on one spectrum made by each method."""
    members = [prepared(r, 0.15) for r in (*cwru(data), *hit(data, "mfs"), *hit(data, "own"))]
    ways: dict[str, Callable[[Prepared], Lines]] = {
        "as shipped: full band, then the mean of narrow bands": lambda p: p.lines,
        "full band alone": lambda p: replace(p.lines, bands=p.lines.full, band_count=1),
        "mean of narrow bands alone": lambda p: replace(p.lines, full=p.lines.bands),
        "band of the kurtogram": lambda p: _only(p.lines, band_envelope(p.whole.angular, len(p.lines.full))),
        "spectral coherence": lambda p: _only(p.lines, coherence_envelope(p.whole.angular, len(p.lines.full))),
    }
    out = {}
    for name, way in ways.items():
        there = [replace(p, lines=way(p)) for p in members]
        rigs = {rig: counts([p for p in there if p.record.rig == rig]) for rig in ("cwru", "mfs", "own")}
        parts = {
            part: f"{sum(part in p.named for p in own)} of {len(own)}"
            for part in ("inner race", "outer race", "rolling element")
            if (own := [p for p in there if p.record.rig == "cwru" and p.record.expected == part])
        }
        out[name] = {**{rig: words(found) for rig, found in rigs.items()}, "cwru by part": parts}
        print(name, out[name], flush=True)
    return out


def _only(lines: Lines, power: Samples) -> Lines:
    return replace(lines, full=power, bands=power, band_count=1)


def band_envelope(spectrum: Spectrum, keep: int) -> Samples:
    """[keep] whitened squared envelope spectrum of the kurtogram's best band."""
    low, high = kurtogram(spectrum, narrowest_hz=min(1000.0, spectrum.rate_hz / 8)).best_hz
    first, last = int(low / spectrum.df_hz), int(high / spectrum.df_hz)
    analytic = scipy.fft.ifft(spectrum.bins[first:last], n=2 * max(last - first, keep))
    power = np.abs(analytic) ** 2
    bins = scipy.fft.rfft(power - power.mean())[:keep]
    return against_background((np.abs(bins) ** 2).astype(np.float32), spectrum.df_hz)


def coherence_envelope(spectrum: Spectrum, keep: int, width_s: float = 0.008) -> Samples:
    """[keep] whitened enhanced envelope spectrum: the squared spectral coherence, averaged over the carrier."""
    x, rate = spectrum.samples, spectrum.rate_hz
    top_hz = keep * spectrum.df_hz
    width = int(2 ** round(np.log2(width_s * rate)))
    step = max(1, int(rate / (2.2 * top_hz)))
    frames = np.lib.stride_tricks.sliding_window_view(x, width)[::step]
    taper = np.hanning(width).astype(np.float32)
    z = scipy.fft.rfft(frames * taper, axis=1).astype(np.complex64)
    mean = (np.abs(z) ** 2).mean(axis=0) + 1e-20
    cyclic = np.arange(keep) * spectrum.df_hz
    total, weight = np.zeros((keep, z.shape[1]), np.complex64), np.zeros(keep)
    for shift in range(round(top_hz * width / rate) + 1):
        near = (
            _window_overlap(taper, cyclic - shift * rate / width, rate) * (-1) ** shift
        )  # phase of the frame's middle
        total += near[:, None] * _cyclic(z, shift, keep, len(x) / step, mean)
        weight += np.abs(near) ** 2
    coherence = np.abs(total) ** 2 / np.maximum(weight, 1e-6)[:, None]
    return against_background(coherence.mean(axis=1).astype(np.float32), spectrum.df_hz)


def _cyclic(z: Any, shift: int, keep: int, length: float, mean: Floats) -> Any:
    """[keep, bins] products with the bins `shift` lower, over the cyclic frequency; each bin pair of unit power."""
    product = np.zeros_like(z)
    product[:, shift:] = z[:, shift:] * z[:, : z.shape[1] - shift].conj()
    scale = np.ones_like(mean)
    scale[shift:] = np.sqrt(mean[shift:] * mean[: len(mean) - shift])
    product /= scale.astype(np.float32)
    if shift == 0:
        product -= product.mean(axis=0)
    return scipy.fft.fft(product, n=round(length), axis=0)[:keep]


def _window_overlap(taper: Samples, hz: Floats, rate_hz: int) -> Floats:
    """How much of a cyclic frequency a shift by a whole bin sees: the spectrum of the squared window."""
    n = np.arange(len(taper)) - (len(taper) - 1) / 2
    used = np.abs(hz) < 3.0 * rate_hz / len(taper)
    out = np.zeros(len(hz))
    out[used] = np.cos(2 * np.pi * np.outer(hz[used], n) / rate_hz) @ (taper.astype(float) ** 2)
    return out / float((taper**2).sum())
