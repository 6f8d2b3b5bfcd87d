"""Real normal sound, injected faults and everyday nuisance for the detection benchmark. Deterministic.

Machines: the compressor (idle: every day against the two others; loaded), two fans heard by eight microphones (every
other one calibrates), a motor at eight speeds, and seven machines of DCASE 2023. Where a machine was recorded on one
occasion only, the beginning of every recording calibrates and its end is judged.

Additive faults and nuisance pass through a synthetic room first; a level is theirs relative to the machine's. Faults
that are no sound of their own scale with the level instead: see `spoil`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

from asd_agent.capture.simulate import fault_signal, mix_at
from asd_agent.types import Samples

FAULTS = ("bearing", "knocks", "hiss", "squeal", "modulation", "lost band", "speed")
LEVELS_DB = (-5.0, -10.0, -15.0, -20.0)
FADE_S = 0.02
ROOM_S = 0.3  # reverberation time


@dataclass(frozen=True)
class Recording:
    samples: Samples  # [n]
    origin: str  # names the occasion: folder and date


@dataclass(frozen=True)
class Machine:
    name: str
    rate_hz: int
    window_s: float
    calibration: list[Recording]
    test: list[Samples]  # windows of unseen normal sound, in order of time
    faulty: list[Samples] = field(default_factory=list)  # real faults


def rng_of(*key: object) -> np.random.Generator:
    """The same numbers for the same key, in whatever order things are asked for."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def machines(data: Path) -> list[Machine]:
    return [*compressor(data), *fans(data), motor(data), *dcase(data)]


def compressor(data: Path, window_s: float = 4.0) -> list[Machine]:
    days = {day: compressor_day(data, "rest", day) for day in ("20260302", "20260327", "20260328")}
    out = []
    for unseen, sound in days.items():
        known = [Recording(x, f"rest/{day}_0.flac") for day, x in days.items() if day != unseen]
        out.append(Machine(f"compressor idle {unseen[4:]}", 48_000, window_s, known, _cut(sound, 48_000, window_s)))
    loaded = compressor_day(data, "run", "20260329")
    first, last = loaded[: 26 * 48_000], loaded[26 * 48_000 :]
    known = [Recording(first, "run/20260329_0.flac")]
    return [*out, Machine("compressor loaded", 48_000, 2.0, known, _cut(last, 48_000, 2.0))]


def compressor_day(data: Path, state: str, day: str) -> Samples:
    """The clips of a day in one, cross-faded. 48 kHz."""
    paths = sorted((data / "compressor" / state).glob(f"{day}_*.flac"))
    return join([_read(path)[0][:, 0] for path in paths], 48_000)


def fans(data: Path) -> list[Machine]:
    out = []
    for path in sorted((data / "eight_channel").glob("*.flac")):
        x, rate_hz = _read(path)
        known = [Recording(x[:, c], f"{path.stem}/channel{c}.flac") for c in range(0, 8, 2)]
        test = [w for c in range(1, 8, 2) for w in _cut(x[:, c], rate_hz, 2.0)]
        out.append(Machine(f"fan {path.stem[-1]}", rate_hz, 2.0, known, test))
    return out


def motor(data: Path) -> Machine:
    known, test = [], []
    for path in sorted((data / "bldc_m1" / "healthy").glob("*.flac")):
        x = _at_16k(path)
        known.append(Recording(x[: 6 * 16_000], f"motor/{path.name}"))
        test += _cut(x[6 * 16_000 :], 16_000, 2.0)
    faulty = [
        w
        for p in sorted((data / "bldc_m1" / "propeller").glob("*.flac"))
        for w in _cut(_at_16k(p)[6 * 16_000 :], 16_000, 2.0)
    ]
    return Machine("motor", 16_000, 2.0, known, test, faulty)


def dcase(data: Path) -> list[Machine]:
    out = []
    for folder in sorted((data / "dcase2023_samples").iterdir()):
        known, test = [], []
        for path in sorted(folder.rglob("*_normal_*.wav")):
            x, rate_hz = _read(path)
            known.append(Recording(x[: 6 * rate_hz, 0], f"{folder.name}/{path.name}"))
            test += _cut(x[6 * rate_hz :, 0], rate_hz, 2.0)
        out.append(Machine(folder.name, 16_000, 2.0, known, test))
    return out


def spoil(x: Samples, rate_hz: int, kind: str, level_db: float, rng: np.random.Generator) -> Samples:
    """x [n] with a fault. Of -5, -10, -15, -20 dB: modulation (7 to 25 Hz) has sidebands of that power, a lost octave
    loses 12, 6, 3, 1.5 dB, the speed changes by 8, 4, 2, 1 %."""
    t = np.arange(len(x)) / rate_hz
    if kind == "modulation":
        depth = np.sqrt(2) * 10 ** (level_db / 20)
        return np.asarray(x * (1 + depth * np.sin(2 * np.pi * (rng.uniform(7, 25) * t + rng.random()))), np.float32)
    if kind == "lost band":
        centre = 2 ** rng.uniform(np.log2(300), np.log2(4000))
        f = np.fft.rfftfreq(len(x), 1 / rate_hz)
        octaves = np.abs(np.log2(np.maximum(f, 1e-9) / centre))
        loss_db = 12 * 2 ** ((level_db + 5) / 5) * np.clip((0.6 - octaves) / 0.2, 0, 1)
        return np.fft.irfft(np.fft.rfft(x) * 10 ** (-loss_db / 20), len(x)).astype(np.float32)
    if kind == "speed":
        factor = 1 + rng.choice((-1, 1)) * 0.08 * 2 ** ((level_db + 5) / 5)
        long = np.concatenate([x, x[-2::-1]])  # faster sound is shorter
        return np.asarray(np.interp(np.arange(len(x)) * factor, np.arange(len(long)), long), np.float32)
    fault = fault_signal(kind, len(x) + rate_hz, rate_hz, rng, shaft_hz=rng.uniform(20, 30))
    return mix_at(x, in_room(fault, rate_hz, rng)[rate_hz:], level_db)


def in_room(x: Samples, rate_hz: int, rng: np.random.Generator) -> Samples:
    """x [n] as a microphone across the room hears it: direct sound and a decaying tail 3 dB below it."""
    n = round(ROOM_S * rate_hz)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail[: round(0.005 * rate_hz)] = 0
    tail *= np.sqrt(0.5 / np.sum(tail**2))
    tail[0] = 1.0
    size = 1 << (len(x) + n).bit_length()
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(tail, size), size)[: len(x)].astype(np.float32)


def nuisance(data: Path, rate_hz: int) -> dict[str, list[Samples]]:
    """Category -> clips at `rate_hz`, silence at their ends cut off."""
    out: dict[str, list[Samples]] = {}
    for folder in sorted(p for p in (data / "esc10").iterdir() if p.is_dir()):
        for path in sorted(folder.glob("*.ogg"))[:20]:
            x, native = _read(path)
            clip = soxr.resample(x[:, 0], native, rate_hz, "HQ").astype(np.float32)
            loud = np.flatnonzero(np.abs(clip) > 0.05 * np.abs(clip).max())
            if len(loud):
                out.setdefault(folder.name, []).append(clip[loud[0] : loud[-1] + 1])
    return out


def disturb(
    x: Samples, clips: list[Samples], start: int, length: int, level_db: float, rate_hz: int, key: object
) -> Samples:
    """x [n] with clips one after the other from `start` for `length` samples, each at `level_db` to the machine."""
    rng = rng_of("disturb", key)
    sound, at = x.copy(), start
    rms = float(np.sqrt(np.mean(x**2)))
    while at < start + length:
        clip = in_room(clips[rng.integers(len(clips))], rate_hz, rng)[: start + length - at]
        sound[at : at + len(clip)] += clip * np.float32(
            10 ** (level_db / 20) * rms / max(float(np.sqrt(np.mean(clip**2))), 1e-9)
        )
        at += len(clip) + round(rng.uniform(0, 1) * rate_hz)
    return sound


def join(clips: list[Samples], rate_hz: int) -> Samples:
    """Clips in one, with a short linear cross-fade: one of equal power could rise above full scale."""
    n = round(FADE_S * rate_hz)
    up = np.linspace(0, 1, n, dtype=np.float32)
    out = [clips[0]]
    for clip in clips[1:]:
        out[-1], seam = out[-1][:-n], out[-1][-n:] * up[::-1] + clip[:n] * up
        out += [seam, clip[n:]]
    return np.concatenate(out)


def _cut(x: Samples, rate_hz: int, window_s: float) -> list[Samples]:
    n = round(window_s * rate_hz)
    return [x[i : i + n] for i in range(0, len(x) - n + 1, n)]


def _at_16k(path: Path) -> Samples:
    x, rate_hz = _read(path)
    return x[:, 0] if rate_hz == 16_000 else soxr.resample(x[:, 0], rate_hz, 16_000, "HQ").astype(np.float32)


def _read(path: Path) -> tuple[Samples, int]:
    x, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return x, rate_hz
