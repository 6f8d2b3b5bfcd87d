"""Days of real machines as endless sound, with episodes of faults and nuisance at a level inside their own band.

The recordings at hand are minutes, a stream is hours. A day's recordings are cut into pieces of 2 s, which follow each
other in random order without end, every piece once before any comes again. Recordings of different conditions (speeds)
are not mixed: the stream stays in one of them for a minute. What calibrates is heard in its own order, once.

A level in dB is the power of the added sound over that of the machine, inside the band that holds 5 to 95 % of the
energy of the added sound. Whether a leak can be heard depends on what the machine does where the leak is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
from sounds import Recording, compressor_day, fans, in_room, motor, rng_of

from asd_agent import config
from asd_agent.capture.simulate import SimulatedMachine, fault_signal
from asd_agent.types import Floats, Samples

PIECE_S = 2.0
FADE_S = 0.02
HELD_PIECES = 30  # of a condition, before another one comes
LOOP_S = 20.0  # a fault repeats after it; it is a random signal, not a melody
FAULTS = {"leak": "hiss", "bearing": "bearing", "squeal": "squeal", "knock": "knocks"}
ESC_DEVELOPMENT = ("dog_bark", "rain", "sea_waves", "baby_cry", "clock_tick")
BEDS_DEVELOPMENT = ("birds", "waves", "city", "fireplace", "speech_george", "boat")
EQ_KNOTS = 7  # of a day's own colour, over the octaves from 60 Hz


@dataclass(frozen=True, eq=False)
class Day:
    """An endless stream of one day's pieces."""

    name: str
    rate_hz: int
    conditions: tuple[tuple[Samples, ...], ...]  # pieces, all of one length

    @classmethod
    def of(cls, name: str, rate_hz: int, recordings: Sequence[Samples]) -> Day:
        """Every recording is a condition of its own."""
        n = round(PIECE_S * rate_hz)
        pieces = [tuple(x[i : i + n] for i in range(0, len(x) - n + 1, n)) for x in recordings]
        return cls(name, rate_hz, tuple(p for p in pieces if p))

    def span(self, first: int, end: int) -> Samples:
        """Samples first..end of the stream. [end - first]"""
        fade = round(FADE_S * self.rate_hz)
        step = len(self.conditions[0][0]) - fade
        out = np.zeros(end - first, np.float32)
        up = np.linspace(0, 1, fade, dtype=np.float32)
        for k in range(max(first // step - 1, 0), -(-end // step) + 1):
            piece = self._piece(k).copy()
            piece[:fade] *= up
            piece[-fade:] *= up[::-1]
            at = k * step - first
            a, b = max(at, 0), min(at + len(piece), len(out))
            if a < b:
                out[a:b] += piece[a - at : b - at]
        return out

    def _piece(self, k: int) -> Samples:
        stay, inside = divmod(k, HELD_PIECES)
        turn, place = divmod(stay, len(self.conditions))
        pieces = self.conditions[_shuffled(f"{self.name} {turn}", len(self.conditions))[place]]
        turn, place = divmod(inside if len(self.conditions) > 1 else k, len(pieces))
        return pieces[_shuffled(f"{self.name} {stay if len(self.conditions) > 1 else 0} {turn}", len(pieces))[place]]

    def power(self, low_hz: float, high_hz: float) -> float:
        """Mean square of the day's sound inside a band."""
        f, power = _spectrum(self)
        return float(power[(f >= low_hz) & (f <= max(high_hz, low_hz + f[1]))].sum())

    def coloured(self, name: str, eq_db: float, gain_db: float) -> Day:
        """The same day through another air: a smooth random equaliser (standard deviation `eq_db`) and gain."""
        rng = rng_of("colour", self.name, name)
        n = len(self.conditions[0][0])
        f = np.fft.rfftfreq(n, 1 / self.rate_hz)
        octave = np.log2(np.maximum(f, 60.0) / 60.0)
        knots = np.linspace(0, octave[-1], EQ_KNOTS)
        curve = np.interp(octave, knots, eq_db * rng.standard_normal(EQ_KNOTS)) + gain_db * rng.standard_normal()
        gain = 10 ** (curve / 20)

        def heard(piece: Samples) -> Samples:
            return np.fft.irfft(np.fft.rfft(piece) * gain, n).astype(np.float32)

        return Day(f"{self.name} {name}", self.rate_hz, tuple(tuple(map(heard, c)) for c in self.conditions))


@lru_cache(maxsize=4)
def _spectrum(day: Day) -> tuple[Floats, Floats]:
    """Frequencies, and the mean square of each over all pieces."""
    pieces = [p for c in day.conditions for p in c]
    n = len(pieces[0])
    power = np.mean([np.abs(np.fft.rfft(p)) ** 2 for p in pieces], axis=0) * 2 / n**2
    return np.fft.rfftfreq(n, 1 / day.rate_hz), np.asarray(power, np.float64)


@cache
def _shuffled(key: str, n: int) -> tuple[int, ...]:
    return tuple(rng_of("order", key).permutation(n).tolist())


@dataclass(frozen=True)
class Site:
    """A machine, what calibrates it, and days that it was never heard on."""

    name: str
    rate_hz: int
    window_s: float
    hop_s: float
    calibration: tuple[Recording, ...]
    days: tuple[Day, ...]
    development: bool  # constants were chosen here; else held out
    thorough: bool = False  # many episodes


@dataclass(frozen=True)
class Loop:
    """A sound that is added, again and again, and the band that holds 5 to 95 % of its energy."""

    samples: Samples
    band_hz: tuple[float, float]
    power: float  # mean square inside the band

    @classmethod
    def of(cls, x: Samples, rate_hz: int) -> Loop:
        power, step = np.abs(np.fft.rfft(x)) ** 2, rate_hz / len(x)
        share = np.cumsum(power) / power.sum()
        low, high = np.searchsorted(share, 0.05), np.searchsorted(share, 0.95)
        return cls(x, (low * step, high * step), 2 * float(power[low : high + 1].sum()) / len(x) ** 2)

    def at(self, level_db: float, day: Day) -> Samples:
        return self.samples * np.float32(10 ** (level_db / 20) * np.sqrt(day.power(*self.band_hz) / self.power))


@dataclass(frozen=True)
class Episode:
    """Sound added to a day, for `seconds` from `start_s` on."""

    day: Day
    what: str  # "fault" or "nuisance"
    kind: str
    level_db: float
    seconds: float
    start_s: float
    held_out: bool  # a kind that no constant was chosen on
    name: str
    loop: Callable[[], Loop]

    def span(self, first_s: float, end_s: float) -> Samples:
        """The stream from first_s to end_s, the added sound included."""
        rate_hz = self.day.rate_hz
        first, end = round(first_s * rate_hz), round(end_s * rate_hz)
        out = self.day.span(first, end)
        start, stop = round(self.start_s * rate_hz), round((self.start_s + self.seconds) * rate_hz)
        a, b = max(start, first), min(stop, end)
        if a < b:
            place = np.arange(a - start, b - start)
            ramp = np.clip(np.minimum(place, stop - start - place) / (0.05 * rate_hz), 0, 1).astype(np.float32)
            out[a - first : b - first] += ramp * np.take(self.loop().at(self.level_db, self.day), place, mode="wrap")
        return out


@lru_cache(maxsize=32)
def fault(kind: str, rate_hz: int, key: str) -> Loop:
    """A fault in a synthetic room, without a seam where it repeats."""
    rng = rng_of("fault", kind, key)
    n, fade = round(LOOP_S * rate_hz), rate_hz
    raw = fault_signal(FAULTS[kind], n + 2 * fade, rate_hz, rng, shaft_hz=rng.uniform(20, 30))
    return Loop.of(_looped(in_room(raw, rate_hz, rng)[fade:], fade), rate_hz)


def _looped(x: Samples, fade: int) -> Samples:
    """x [n + fade] -> [n] that can follow itself: its end fades into its beginning, at equal power."""
    t = np.linspace(0, np.pi / 2, fade, dtype=np.float32)
    out = x[:-fade].copy()
    out[:fade] = out[:fade] * np.sin(t) + x[-fade:] * np.cos(t)
    return out


@dataclass(frozen=True)
class Nuisance:
    kind: str
    path: Path
    held_out: bool

    def loop(self, rate_hz: int, key: str) -> Loop:
        return _everyday(self.path, rate_hz, key)


@lru_cache(maxsize=32)
def _everyday(path: Path, rate_hz: int, key: str) -> Loop:
    """A recording without silence at its ends, in a synthetic room."""
    x, native = soundfile.read(path, dtype="float32", always_2d=True)
    clip = soxr.resample(x[: 60 * native, 0], native, rate_hz, "HQ").astype(np.float32)
    loud = np.flatnonzero(np.abs(clip) > 0.05 * np.abs(clip).max())
    return Loop.of(in_room(clip[loud[0] : loud[-1] + 1], rate_hz, rng_of("nuisance", path.name, key)), rate_hz)


def short_nuisance(data: Path) -> list[Nuisance]:
    """ESC-10 and the recordings of everyday sound."""
    found = [
        Nuisance(folder.name, path, folder.name not in ESC_DEVELOPMENT)
        for folder in sorted(p for p in (data / "esc10").iterdir() if p.is_dir())
        for path in sorted(folder.glob("*.ogg"))[:4]
    ]
    return found + beds(data)


def beds(data: Path) -> list[Nuisance]:
    return [
        Nuisance(path.stem, path, path.stem not in BEDS_DEVELOPMENT)
        for path in sorted((data / "nuisance").glob("*.*"))
        if path.suffix in (".ogg", ".flac")
    ]


# -- machines


def sites(data: Path) -> list[Site]:
    return [*compressor(data), *simulated(), *short_recordings(data)]


def compressor(data: Path) -> list[Site]:
    """Idling and switched off: a day against the others. The last day idling and all that is off is held out."""
    out = []
    for state, days in (("rest", ("20260302", "20260327", "20260328")), ("off", ("20260302", "20260326", "20260328"))):
        heard = {day: compressor_day(data, state, day) for day in days}
        for unseen in days if state == "rest" else days[1:]:
            known = tuple(Recording(heard[d], f"{state}/{d}_0.flac") for d in days if d != unseen)
            day = Day.of(f"{state} {unseen}", 48_000, [heard[unseen]])
            name, idling = f"compressor {state} {unseen[4:]}", state == "rest"
            out.append(Site(name, 48_000, 10.0, 5.0, known, (day,), idling and unseen != days[-1], thorough=idling))
    return out


def simulated(seconds: int = 200) -> list[Site]:
    """Machines that never were, with a colour of its own every day; the second one is held out."""
    out = []
    for number, (seed, shaft_hz, teeth) in enumerate(((1, 24.9, 23), (2, 16.3, 31))):
        rate_hz = 16_000
        raw = []
        for day in range(5):
            source = config.SimulatedSource(
                rate_hz=rate_hz, seed=100 * seed + day, shaft_hz=shaft_hz, gear_teeth=teeth,
                speed_change=0.004, load_change=0.15, level_dbfs=-25.0,
            )  # fmt: skip
            sound = SimulatedMachine(source).take(seconds * rate_hz)
            raw.append(
                Day.of(f"simulated {seed} day {day} eq {EQ_DB}", rate_hz, [sound]).coloured(
                    "air of the day", EQ_DB, GAIN_DB
                )
            )
        known = tuple(
            Recording(day.span(0, seconds * rate_hz), f"day{i} {EQ_DB} dB/x.flac") for i, day in enumerate(raw[:3])
        )
        out.append(Site(f"simulated {seed}", rate_hz, 10.0, 5.0, known, tuple(raw[3:]), number == 0))
    return out


# Of a day's colour, beside load and speed that wander on another day in another way. The compressor's days at rest
# differ by 0.15 to 0.48 of what its seconds do (mean spectra by third octaves); a simulated machine varies less.
EQ_DB, GAIN_DB = 0.1, 0.1


def short_recordings(data: Path) -> list[Site]:
    """Recordings of 10 s: the first 6 s calibrate, the rest is heard. Two of the four machines are held out."""
    m = motor(data)
    out = [_short(m.name, [(r.samples, r.origin) for r in m.calibration], m.test, True)]
    for name in ("ToyCar", "gearbox"):
        known, later = [], []
        for path in sorted((data / "dcase2023_samples" / name).rglob("*_normal_*.wav")):
            x, rate_hz = soundfile.read(path, dtype="float32")
            known.append((x[: 6 * rate_hz], f"{name}/{path.name}"))
            later.append(x[6 * rate_hz :])
        out.append(_short(name, known, later, name == "ToyCar"))
    fan = fans(data)[0]
    return [*out, _short(fan.name, [(r.samples, r.origin) for r in fan.calibration], fan.test, False)]


def _short(name: str, known: list[tuple[Samples, str]], later: list[Samples], development: bool) -> Site:
    recordings = tuple(Recording(x, origin) for x, origin in known)
    return Site(name, 16_000, 2.0, 1.0, recordings, (Day.of(name, 16_000, later),), development)
