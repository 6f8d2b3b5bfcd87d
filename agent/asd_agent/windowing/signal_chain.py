"""The fingerprint of the signal chain: what microphone, gain and sound card do to any sound.

Third octave by third octave, the level in its quietest moments (a low quantile over time:
what knocks and hisses for a moment does not count), the frequency above which there is next to nothing, the native rate
and the DC. Compared with what calibration saw in the same operating state:

    gain    all bands have moved by about the same: their median. Judgements do not depend on it.
    edge    from some frequency up to the top all bands are far below the quietest that calibration ever heard there,
            and the step is steep: another microphone, or sound that came through a lower sample rate. No fault of a
            machine does that: faults add sound, and what they take away ends in the noise of the room.

A window costs about a millisecond: once a minute, and where a window deviates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import msgspec
import numpy as np

from asd_agent.types import Description, Fingerprint, Floats, Samples, Window

CENTRES_HZ = tuple(100.0 * 2 ** (k / 3) for k in range(24))  # 100 Hz to 20 kHz
USABLE = 0.45  # of the rate: above it the converter's own filter acts
SEGMENT_S = 0.043
SEGMENTS = 64  # of a window, evenly over it
QUIET_SHARE = 0.2  # of the segments
NOTHING_DB = -160.0

LOST_DB = 8.0  # below the quietest window of the calibration, gain taken off
STEEP_DB = 4.0  # two bands below the edge at most so much is missing
FEWEST_LOST = 3  # bands
EDGE_MOVED = 0.9  # an edge below so much of the one in calibration is a new one
LOUDER_DB = 3.0  # above calibration: sound that somebody added, no edge
CLIFF_DB, CLIFF_FROM_HZ = 20.0, 1000.0  # so much less within a third octave is an edge

EVERY_S = 60.0
EVERY_WHILE_CALIBRATING_S = 15.0


class ChainFloor(msgspec.Struct, frozen=True, kw_only=True):
    """Third-octave levels of the quietest moments in one operating state (`Fingerprint.floor_db`)."""

    median_db: list[float]
    low_db: list[float]  # of the quietest window


class SignalChain(msgspec.Struct, frozen=True, kw_only=True):
    """The fingerprint of the signal chain at calibration, and the levels that were normal then."""

    source: str  # the device key
    level_dbfs: float  # median over the windows
    level_low_dbfs: float  # 2nd percentile
    level_high_dbfs: float  # 98th percentile
    levels: dict[str, tuple[float, float]] = {}  # operating state -> 2nd and 98th percentile of its windows
    floors: dict[str, ChainFloor] = {}  # operating state -> what the chain lets through there
    rate_hz: int = 0  # native; 0 = not known
    edge_hz: float = 0.0  # above it there was next to nothing
    dc: float = 0.0  # full scale = 1
    mixer: dict[str, str] = {}  # control -> setting, where the system could say


def fingerprint(samples: Samples, rate_hz: int) -> Fingerprint:
    """samples [n] at the native rate."""
    size = max(64, 2 ** round(math.log2(SEGMENT_S * rate_hz)))
    power, dc = _spectra(samples, size), float(np.mean(samples, dtype=np.float64))
    step_hz = rate_hz / size
    edges = [c * 2 ** (side / 6) for c in CENTRES_HZ for side in (-1, 1) if c * 2 ** (1 / 6) <= USABLE * rate_hz]
    places = np.clip(np.round(np.array(edges) / step_hz).astype(int), 1, power.shape[1] - 1)
    total = np.cumsum(power, axis=1)
    bands = total[:, places[1::2]] - total[:, places[::2] - 1]
    quiet = np.quantile(bands, QUIET_SHARE, axis=0)
    floor_db = np.maximum(10 * np.log10(np.maximum(quiet, 1e-30)), NOTHING_DB)
    return Fingerprint(rate_hz, tuple(round(float(v), 2) for v in floor_db), _edge_hz(power.mean(axis=0), step_hz), dc)


def _spectra(samples: Samples, size: int) -> Floats:
    """samples [n] -> power of full scale in each bin, [segments, size / 2 + 1]."""
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    count = min(SEGMENTS, max(1, len(samples) // size))
    starts = np.linspace(0, len(samples) - size, count).astype(int)
    taper = np.hanning(size).astype(np.float32)
    segments = np.stack([samples[at : at + size] for at in starts])
    segments = (segments - segments.mean(axis=1, keepdims=True)) * taper
    spectra = np.abs(np.fft.rfft(segments, axis=1)) ** 2
    return np.asarray(2 * spectra / (size * float(np.dot(taper, taper))), np.float64)


def _edge_hz(power: Floats, step_hz: float) -> float:
    """power [bins] -> the highest frequency from which on the level falls off a cliff; else half the rate."""
    level = 10 * np.log10(np.maximum(power, 1e-30))
    total = np.concatenate(([0.0], np.cumsum(level)))

    def mean(low: Floats, high: Floats) -> Floats:
        first, last = np.round(low).astype(int), np.minimum(np.round(high).astype(int), len(level))
        return np.asarray((total[last] - total[first]) / np.maximum(last - first, 1))

    at = np.arange(round(CLIFF_FROM_HZ / step_hz), round(2 * USABLE * (len(level) - 1)), dtype=float)
    falls = mean(0.8 * at, 0.97 * at) - mean(1.06 * at, 1.25 * at)
    cliffs = np.flatnonzero(falls >= CLIFF_DB)
    if not len(cliffs):
        return (len(level) - 1) * step_hz
    last = cliffs[-1] - np.argmax(falls[cliffs[-1] :: -1] < CLIFF_DB)  # where the last cliff begins
    steepest = last + 1 + int(np.argmax(falls[last + 1 : cliffs[-1] + 1])) if last < cliffs[-1] else cliffs[-1]
    return float(at[steepest] * step_hz)


@dataclass(frozen=True)
class Comparison:
    gain_db: float  # of the chain now, against calibration
    lost_hz: float | None  # nothing above it any more


def compare(now: Fingerprint, normal: ChainFloor, edge_hz: float) -> Comparison | None:
    """`edge_hz`: of the calibration. None where there is too little in common."""
    count = min(len(now.floor_db), len(normal.median_db))
    if count <= FEWEST_LOST:
        return None
    level, middle = np.array(now.floor_db[:count]), np.array(normal.median_db[:count])
    gain_db = float(np.median(level - middle))
    # dB below the quietest window. A louder machine is no gain: what it does not make louder is not missing.
    missing = np.array(normal.low_db[:count]) - (level - min(gain_db, 0.0))
    above = next((i for i, c in enumerate(CENTRES_HZ[:count]) if c / 2 ** (1 / 6) >= 1.02 * now.edge_hz), count)
    if now.edge_hz < EDGE_MOVED * edge_hz and count / 2 <= above < count:  # a cliff that was not there
        louder = level[above:] - gain_db - middle[above:]
        if missing[above] >= LOST_DB and louder.max() < LOUDER_DB:
            return Comparison(gain_db, now.edge_hz)
    lost = count
    while lost and missing[lost - 1] >= LOST_DB:
        lost -= 1
    if count - lost < FEWEST_LOST or lost < count / 2 or missing[lost - 2] >= STEEP_DB:
        return Comparison(gain_db, None)
    return Comparison(gain_db, min(now.edge_hz, CENTRES_HZ[lost]))


def lost_words(lost_hz: float, chain: SignalChain) -> str:
    return (
        f"nothing above {lost_hz / 1000:.1f} kHz, in calibration up to {chain.edge_hz / 1000:.0f} kHz: "
        "another microphone or sample rate"
    )


class Sampler:
    """Takes the fingerprint of one window in `every_s` seconds. Not thread-safe."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._origin, self._next_s = "", 0.0

    def add(self, window: Window, description: Description, every_s: float | None = None) -> Description:
        """The description with the fingerprint of the window, where it is its turn."""
        if not description.quality.assessable:
            return description
        new = window.origin != self._origin or window.start_s < self._next_s - (every_s or self._every_s)
        if not new and window.start_s < self._next_s:
            return description
        self._origin, self._next_s = window.origin, window.start_s + (every_s or self._every_s)
        return replace(description, fingerprint=fingerprint(window.samples, window.rate_hz))


def floors(states: Iterable[tuple[str, Sequence[Description]]]) -> dict[str, ChainFloor]:
    """Windows of each operating state -> what the chain lets through there."""
    found = {}
    for name, windows in states:
        seen = [d.fingerprint.floor_db for d in windows if d.fingerprint is not None]
        if seen:
            levels = np.array([f[: min(map(len, seen))] for f in seen])
            found[name] = ChainFloor(
                median_db=np.median(levels, axis=0).round(2).tolist(), low_db=levels.min(axis=0).tolist()
            )
    return found


def of_calibration(windows: Sequence[Description]) -> dict[str, Any]:
    """Rate, edge and DC of most windows, as the fields of SignalChain; empty when none was looked at."""
    seen = [d.fingerprint for d in windows if d.fingerprint is not None]
    if not seen:
        return {}
    return {
        "rate_hz": round(median(f.rate_hz for f in seen)),
        "edge_hz": float(median(f.edge_hz for f in seen)),
        "dc": float(median(f.dc for f in seen)),
    }
