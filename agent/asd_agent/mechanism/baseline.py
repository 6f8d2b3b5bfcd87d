"""What normal indicators look like, and how far a window is from it: one calibrated p-value and where it comes from.

Per indicator a robust two-sided standard score; per family a Cauchy combination; over the families another; the
result is recalibrated on windows held out by contiguous blocks, because neighbouring windows resemble each other.
Beyond the ranks of a few dozen windows a Student tail is used: rank p-values would stop at 1 / (n + 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from asd_agent.errors import BaselineError, CalibrationError
from asd_agent.mechanism import statistics
from asd_agent.mechanism.regimes import split
from asd_agent.types import Floats

FEWEST = 8
FOLDS = 5
FORMAT = 1
APART = ("level", "context", "gate")  # not fused: a gain change must not alarm
DRIFT = 1.25  # later days stray further than the held-out blocks of one calibration did
CLIP_Z = 200.0
SMALLEST_SPREAD = 0.3


@dataclass(frozen=True, slots=True)
class Deviation:
    """One indicator against its baseline."""

    name: str
    value: float
    normal: float
    z: float  # signed robust standard score
    p_value: float  # two-sided

    @property
    def family(self) -> str:
        return statistics.family(self.name)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`p_value` and `z` are None for a window that cannot be judged (then `gates` says why)."""

    p_value: float | None
    z: float | None  # standard score of p_value, for joining with other detectors
    families: Mapping[str, float]  # p per fused family
    deviations: tuple[Deviation, ...]  # of the fused families, the largest first
    level: tuple[Deviation, ...] = ()  # kept apart
    regime: int = 0
    gates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def deviation(self, name: str) -> Deviation | None:
        return next((d for d in (*self.deviations, *self.level) if d.name == name), None)


@dataclass(frozen=True)
class MechanismBaseline:
    names: tuple[str, ...]  # [indicators] fused and apart
    centre: Floats  # [regimes, indicators]
    scale: Floats  # [regimes, indicators]
    held_out: Floats  # [windows] raw score of every calibration window, judged by the others; NaN where gated
    speeds_hz: Floats  # [regimes, 2] lowest and highest speed seen; NaN = unknown

    @classmethod
    def fit(cls, windows: Sequence[Mapping[str, float]], blocks: npt.ArrayLike | None = None) -> MechanismBaseline:
        """windows: indicators of normal windows; blocks [windows]: equal numbers for windows of one stretch (file, or
        contiguous part), so that neighbours are never on both sides of a split. Gated windows are left out.

        Raises CalibrationError when fewer than 8 windows remain.
        """
        ids = np.arange(len(windows)) if blocks is None else np.asarray(blocks)
        usable = [i for i, w in enumerate(windows) if not gates_of(w)]
        if len(usable) < FEWEST:
            raise CalibrationError(
                f"mechanism: {len(usable)} usable windows of {len(windows)}; at least {FEWEST} needed: record longer"
            )
        names = _common_names([windows[i] for i in usable])
        values = _matrix([windows[i] for i in usable], names)
        folds = contiguous_folds(ids[usable], FOLDS)
        held_out = np.full(len(windows), np.nan)
        for fold in np.unique(folds):
            held = folds == fold
            held_out[np.array(usable)[held]] = _judge_fold(values, names, held)
        return cls(tuple(names), *_fit(values, names), held_out, _speeds(values, names))

    def held_out_z(self) -> Floats:
        """[windows] of the calibration, in their order: the z that `judge` would have given each had it not been
        learnt from. For calibrating a fusion with other detectors; NaN where gated."""
        return np.array(
            [statistics.upper_z(self._calibrated_p(r)) if np.isfinite(r) else np.nan for r in self.held_out]
        )

    def judge(self, indicators: Mapping[str, float]) -> Verdict:
        """A pure function of the indicators and the baseline. Raises BaselineError when they have little in common."""
        stops = gates_of(indicators)
        if stops:
            return Verdict(None, None, {}, (), gates=stops)
        values, z, raw = self._weigh(indicators)
        regime = int(np.argmin(raw))
        p = self._calibrated_p(float(raw[regime]))
        return Verdict(
            p_value=p,
            z=float(statistics.upper_z(p)),
            families={k: float(np.exp(v)) for k, v in family_log_p(z[regime], self._families).items()},
            deviations=self._deviations(values, z[regime], regime, self._fused),
            level=self._deviations(values, z[regime], regime, self._level),
            regime=regime,
            notes=self._notes(indicators),
        )

    def score(self, indicators: Mapping[str, float]) -> tuple[float, float] | None:
        """(p, z) of `judge` without its reasons, for every window in every state; None where gated. Raises as it."""
        if gates_of(indicators):
            return None
        p = self._calibrated_p(float(self._weigh(indicators)[2].min()))
        return p, float(statistics.upper_z(p))

    def _weigh(self, indicators: Mapping[str, float]) -> tuple[Floats, Floats, Floats]:
        """Indicators [n], their standard scores [regimes, n], raw score [regimes]. Raises BaselineError."""
        values = np.array([indicators.get(name, np.nan) for name in self.names])
        fused = self._fused
        if np.isfinite(values[fused]).sum() < 0.5 * fused.sum():
            raise BaselineError(
                "mechanism: the window's indicators do not match the baseline (another sampling rate or kinematics); "
                "calibrate again"
            )
        z = _scores(values[None], self.centre, self.scale)[:, 0]
        return values, z, _raw(z, self._families)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """For the baseline folder; `from_arrays` reads them back."""
        return {
            "format": np.array(FORMAT),
            "names": np.array(self.names),
            "centre": self.centre,
            "scale": self.scale,
            "held_out": self.held_out,
            "speeds_hz": self.speeds_hz,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> MechanismBaseline:
        """Raises BaselineError when something is missing or of another format."""
        try:
            if int(arrays["format"]) != FORMAT:
                raise BaselineError(f"mechanism: baseline format {arrays['format']} is not {FORMAT}; calibrate again")
            floats = {k: np.asarray(arrays[k], float) for k in ("centre", "scale", "held_out", "speeds_hz")}
            return cls(names=tuple(str(n) for n in arrays["names"]), **floats)
        except KeyError as exc:
            raise BaselineError(f"mechanism: the baseline lacks {exc}; calibrate again") from exc

    def _calibrated_p(self, raw: float) -> float:
        """Upper tail of the held-out scores, Student's for their number."""
        centre, spread = self._held_out_spread
        degrees = int(np.isfinite(self.held_out).sum()) - 1
        return float(max(stdtr(degrees, (centre - raw) / spread), statistics.SMALLEST_P))

    @cached_property
    def _held_out_spread(self) -> tuple[float, float]:
        """A location, and a scale that covers a heavy tail: events are part of normal sound."""
        known = self.held_out[np.isfinite(self.held_out)]
        centre = float(np.median(known))
        mad = 1.4826 * float(np.median(np.abs(known - centre)))
        tail = (float(np.quantile(known, 0.9)) - centre) / 1.2816
        return centre, DRIFT * max(mad, 0.7 * float(known.std()), tail, SMALLEST_SPREAD)

    @cached_property
    def _families(self) -> dict[str, npt.NDArray[np.intp]]:
        return fused_families(self.names)

    @cached_property
    def _fused(self) -> npt.NDArray[np.bool_]:
        return np.array([statistics.family(n) not in APART for n in self.names])

    @cached_property
    def _level(self) -> npt.NDArray[np.bool_]:
        return np.array([statistics.family(n) == "level" for n in self.names])

    def _deviations(
        self, values: Floats, z: Floats, regime: int, members: npt.NDArray[np.bool_]
    ) -> tuple[Deviation, ...]:
        p = np.exp(statistics.log_two_sided_p(np.nan_to_num(z)))
        order = [i for i in np.argsort(-np.abs(np.nan_to_num(z))) if members[i] and np.isfinite(z[i])]
        return tuple(
            Deviation(self.names[i], float(values[i]), float(self.centre[regime, i]), float(z[i]), float(p[i]))
            for i in order
        )

    def _notes(self, indicators: Mapping[str, float]) -> tuple[str, ...]:
        speed = indicators.get("context.speed_hz")
        if speed is None or not np.isfinite(self.speeds_hz).any():
            return ()
        low, high = np.nanmin(self.speeds_hz), np.nanmax(self.speeds_hz)
        if 0.97 * low <= speed <= 1.03 * high:
            return ()
        return (f"speed {speed:.2f} Hz was not calibrated ({low:.2f}-{high:.2f} Hz)",)


def gates_of(indicators: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(name[5:] for name in indicators if name.startswith("gate."))


def contiguous_folds(blocks: npt.NDArray[np.generic], folds: int) -> npt.NDArray[np.intp]:
    """[windows] block ids in order of recording -> [windows] fold numbers; a block is never divided, unless there are
    fewer blocks than two: then the windows are cut into `folds` runs."""
    changes = np.concatenate([[0], np.cumsum(blocks[1:] != blocks[:-1])])
    runs = int(changes[-1]) + 1
    if runs < 2:
        return np.asarray(np.arange(len(blocks)) * folds // len(blocks))
    return np.asarray(changes * min(folds, runs) // runs)


def fused_families(names: Sequence[str]) -> dict[str, npt.NDArray[np.intp]]:
    """Which indicators each fused family has."""
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if statistics.family(name) not in APART:
            members.setdefault(statistics.family(name), []).append(i)
    return {name: np.array(which) for name, which in members.items()}


def family_log_p(z: Floats, families: Mapping[str, npt.NDArray[np.intp]]) -> dict[str, float]:
    """[indicators] standard scores, NaN = not measured -> ln p of each family that was measured."""
    log_p = _families_log_p(z, families)
    return {name: float(v) for name, v in zip(families, log_p, strict=True) if np.isfinite(v)}


def _families_log_p(z: Floats, families: Mapping[str, npt.NDArray[np.intp]]) -> Floats:
    """[..., indicators] -> [..., families], NaN where nothing was measured."""
    members = list(families.values())
    starts = np.cumsum([0, *(len(which) for which in members[:-1])])
    log_p = statistics.log_two_sided_p(z[..., np.concatenate(members)])
    return statistics.log_cauchy_of_groups(log_p, starts)


def _raw(z: Floats, families: Mapping[str, npt.NDArray[np.intp]]) -> Floats:
    """[..., indicators] -> [...]: ln(-ln p) of the families together: near-Gaussian for normal windows, as the log of a
    distance is."""
    log_p = statistics.log_cauchy_of_groups(_families_log_p(z, families), np.zeros(1, np.intp))
    return np.asarray(np.log(-log_p[..., 0]), np.float64)


def _fit(values: Floats, names: list[str]) -> tuple[Floats, Floats]:
    """([regimes, indicators], [regimes, indicators]) centre and scale."""
    labels = split(values, names)
    parts = [statistics.centre_and_scale(values[labels == r], names) for r in np.unique(labels)]
    return np.stack([c for c, _ in parts]), np.stack([s for _, s in parts])


def _scores(values: Floats, centre: Floats, scale: Floats) -> Floats:
    """[windows, indicators] -> [regimes, windows, indicators]."""
    z = (values[None] - centre[:, None]) / scale[:, None]
    return np.asarray(np.clip(z, -CLIP_Z, CLIP_Z))


def _judge_fold(values: Floats, names: list[str], held: npt.NDArray[np.bool_]) -> Floats:
    """Raw scores of the held-out windows by a baseline of the others."""
    z = _scores(values[held], *_fit(values[~held], names))
    families = fused_families(names)
    return np.asarray(_raw(z, families).min(axis=0))


def _speeds(values: Floats, names: list[str]) -> Floats:
    labels = split(values, names)
    out = np.full((len(np.unique(labels)), 2), np.nan)
    if "context.speed_hz" in names:
        column = values[:, names.index("context.speed_hz")]
        for r in range(len(out)):
            seen = column[(labels == r) & np.isfinite(column)]
            if len(seen):
                out[r] = seen.min(), seen.max()
    return out


def _common_names(windows: Sequence[Mapping[str, float]]) -> list[str]:
    """Indicators present in at least half of the windows, in the order of the first window that has them."""
    counts: dict[str, int] = {}
    for window in windows:
        for name in window:
            counts[name] = counts.get(name, 0) + 1
    return [name for name, count in counts.items() if count >= max(FEWEST, 0.5 * len(windows))]


def _matrix(windows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Floats:
    return np.array([[window.get(name, np.nan) for name in names] for window in windows], float)
