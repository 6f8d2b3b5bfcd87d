"""The shaft's speed from the sound: a comb of harmonics over the whitened log spectrum, with a confidence.

A comb at f is scored by its teeth minus half of what stands between them, which tells f from f/2 and 2f. The estimate
is used only when the teeth are mostly present, stand out of the spectrum's own noise, and nothing else explains as
much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent.mechanism.spectrum import Floor, Spectrum, local_maximum
from asd_agent.types import Samples

TEETH = (20, 10, 6)
DEFAULT_RANGE_HZ = (12.0, 65.0)
WIDEST_RANGE_HZ = (8.0, 65.0)  # where the joint test looks when nothing is known
CEILING = 2.0  # log10 over the floor: a very strong line counts no more than 20 dB
PRESENT = 0.9  # a tooth 9 dB over the floor
NAMING_TOLERANCE = 0.005  # of a speed that spectral lines are placed by
ENOUGH = 0.5  # confidence from which a speed is used
NEAR = 0.02  # of a known speed: few combs fit by chance
SURE = 0.7  # no need to try other numbers of teeth
FLOOR_HZ = 6.0
Source = Literal["given", "configured", "estimated"]


@dataclass(frozen=True, slots=True)
class Speed:
    """What is known of the reference shaft's speed in a window."""

    hz: float
    source: Source
    confidence: float = 1.0  # 0..1
    running: bool = True
    tolerance: float = 0.001  # relative uncertainty, one-sided

    @property
    def reliable(self) -> bool:
        """Good enough to name a component by."""
        return self.running and self.confidence >= ENOUGH and self.tolerance <= NAMING_TOLERANCE


def from_message(payload: bytes) -> Speed | None:
    """An MQTT payload: the rpm as a number, or JSON with `rpm` and optionally `running`. None when it cannot be read;
    0 rpm is a standing machine."""
    try:
        data = msgspec.json.decode(payload, type=float | _Message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    message = data if isinstance(data, _Message) else _Message(rpm=float(data))
    if not 0 <= message.rpm < float("inf"):
        return None
    return Speed(message.rpm / 60, "given", running=message.running and message.rpm > 0, tolerance=0.002)


class _Message(msgspec.Struct):
    rpm: float
    running: bool = True


@dataclass(frozen=True, slots=True)
class Comb:
    hz: float
    z: float  # standard scores above what noise gives a comb
    present: float  # share of the teeth that stand out; low when only every second one does
    runner_up_hz: float
    runner_up_z: float

    @property
    def confidence(self) -> float:
        """0.5 is the limit of use: z 8.5, six teeth of ten, and a lead over anything that the comb does not explain."""
        lead = (self.z - self.runner_up_z) / 2.0
        return float(np.clip(min(self.z / 17.0, self.present / 1.2, 0.5 + 0.25 * (lead - 0.5)), 0.0, 1.0))


def estimate(spectrum: Spectrum, low_hz: float, high_hz: float) -> Comb:
    """The best comb in the range, over the numbers of teeth: machines show few harmonics or many."""
    prominence = _prominence(spectrum, (TEETH[0] + 1) * high_hz)
    combs: list[Comb] = []
    for teeth in TEETH:
        stop = int((teeth + 1) * high_hz / spectrum.df_hz) + 2
        combs.append(_best_comb(prominence[:stop], spectrum.df_hz, (low_hz, high_hz), teeth))
        if combs[-1].confidence >= SURE:
            break
    return max(combs, key=lambda comb: comb.confidence)


def comb_near(spectrum: Spectrum, hz: float, margin: float, teeth: int) -> Comb:
    """The best comb within a relative margin of a speed."""
    prominence = _prominence(spectrum, (teeth + 1) * hz * (1 + margin))
    return _best_comb(prominence, spectrum.df_hz, (hz * (1 - margin), hz * (1 + margin)), teeth)


def refine(spectrum: Spectrum, known: Speed) -> Speed:
    """A known speed, sharpened by the nearest comb within its tolerance if there is one; else as it was. Further away
    than NEAR a comb must be as clear as one that nothing is known of."""
    near = min(known.tolerance, NEAR) + 0.001
    comb = estimate(spectrum, known.hz * (1 - near), known.hz * (1 + near))
    if comb.z >= 4.0 and comb.present >= 0.35:
        return _speed(spectrum, comb, known.source, known.confidence)
    if known.tolerance > NEAR:
        comb = estimate(spectrum, known.hz * (1 - known.tolerance), known.hz * (1 + known.tolerance))
        if comb.confidence >= ENOUGH:
            return _speed(spectrum, comb, known.source, known.confidence)
    return known


def find(spectrum: Spectrum, low_hz: float, high_hz: float) -> Speed | None:
    """None when unsure."""
    comb = estimate(spectrum, low_hz, high_hz)
    return None if comb.confidence < ENOUGH else _speed(spectrum, comb, "estimated", comb.confidence)


def _speed(spectrum: Spectrum, comb: Comb, source: Source, confidence: float) -> Speed:
    return Speed(comb.hz, source, confidence, tolerance=max(0.001, 0.25 * spectrum.df_hz / comb.hz))


def _best_comb(prominence: Samples, df: float, range_hz: tuple[float, float], teeth: int) -> Comb:
    loose = local_maximum(prominence, 2)
    step_hz = 4.0 * df / teeth  # the last tooth moves by less than the reach of `loose`
    grid = np.arange(range_hz[0], range_hz[1] + step_hz, step_hz)
    scores = _scores(loose, df, grid, teeth)
    best = _sharpen(prominence, df, grid[int(np.argmax(scores))], step_hz, teeth)
    centre, spread = float(np.mean(loose)), float(np.std(np.minimum(loose, 1.0))) + 1e-6
    unit = spread * np.sqrt(1.25 / teeth)
    explained = _without(prominence, df, best)
    rest = _scores(local_maximum(explained, 2), df, grid, teeth)
    second = int(np.argmax(rest))
    stands = _look_up(loose, df, best * np.arange(1.0, teeth + 1)) > PRESENT
    return Comb(
        hz=float(best),
        z=float((scores.max() - 0.5 * centre) / unit),
        present=float(min(stands.mean(), stands[::2].mean() + 0.2)),
        runner_up_hz=float(grid[second]),
        runner_up_z=float((rest[second] - 0.5 * centre) / unit),
    )


def _prominence(spectrum: Spectrum, top_hz: float) -> Samples:
    """log10 of the power over its local median, clipped; up to `top_hz`."""
    stop = min(len(spectrum.log_power), int(top_hz / spectrum.df_hz) + 2)
    log_power = spectrum.log_power[:stop]
    floor = Floor.of(log_power, round(FLOOR_HZ / spectrum.df_hz)).at(np.arange(stop))
    return np.asarray(np.clip((log_power - floor) / np.float32(np.log(10)), -0.3, CEILING), np.float32)


def _scores(prominence: Samples, df_hz: float, grid: npt.NDArray[np.float64], teeth: int) -> Samples:
    """[grid] mean over the teeth that lie inside the spectrum, minus half the mean between them."""
    total = np.zeros(len(grid), np.float32)
    counted = np.zeros(len(grid), np.float32)
    places = (grid / df_hz).astype(np.float32)
    together = max(1, 8192 // len(grid))  # teeth per pass: few calls on short grids, small arrays on long ones
    for first in range(1, teeth + 1, together):
        k = np.arange(first, min(first + together, teeth + 1), dtype=np.float32)[:, None]
        tooth = (places * k + np.float32(0.5)).astype(np.int32)
        between = (places * (k - np.float32(0.5)) + np.float32(0.5)).astype(np.int32)
        score = prominence.take(tooth, mode="clip") - np.float32(0.5) * prominence.take(between, mode="clip")
        inside = tooth < len(prominence) - 1
        total += (score * inside).sum(axis=0)
        counted += inside.sum(axis=0)
    return np.asarray(total / np.maximum(counted, np.float32(0.6 * teeth)), np.float32)


def _look_up(prominence: Samples, df_hz: float, hz: npt.NDArray[np.float64]) -> Samples:
    bins = np.minimum(np.rint(hz / df_hz).astype(np.intp), len(prominence) - 1)
    return np.asarray(prominence[bins])


def _sharpen(prominence: Samples, df_hz: float, hz: float, step_hz: float, teeth: int) -> float:
    fine = hz + np.linspace(-1.5 * step_hz, 1.5 * step_hz, 61)
    scores = _scores(prominence, df_hz, fine, teeth)
    near = scores >= scores.max() - 0.1 * abs(scores.max())
    return float(np.average(fine[near], weights=scores[near] - scores[near].min() + 1e-6))


def _without(prominence: Samples, df_hz: float, hz: float) -> Samples:
    """The spectrum with all multiples of `hz` (and a few bins around) put on the floor."""
    out = prominence.copy()
    bins = np.rint(np.arange(hz, len(prominence) * df_hz, hz) / df_hz).astype(int)
    for shift in range(-4, 5):
        at = bins + shift
        at = at[(at >= 0) & (at < len(out))]
        out[at] = np.minimum(out[at], 0.2)
    return out
