"""The shaft's speed as a probability over a range: what is configured, and what the shaft's own lines say.

The joint test (hypotheses.py) weighs every speed by it; nothing is decided before the impacts have had their say.
Witnesses of the speed: the shaft's harmonics in the vibration and its lines in the envelope, gear meshes and blades,
the pole-pass sidebands of an induction motor and its slip below the synchronous speed, each with its own resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from asd_agent.mechanism.combs import Spectra, unexplained
from asd_agent.mechanism.lines import SpeedLine
from asd_agent.types import Floats

SHAFT_TEETH, SHAFT_PRESENT = 10, 0.5
ENVELOPE_TEETH, ENVELOPE_PRESENT = 3, 0.4
SPEED_STEP = 1 / 12
WELL_KNOWN = 0.01
VAGUE = 0.25  # a speed less known than this must be heard in the shaft's own lines
MOST_SLIP = 0.08  # of an induction motor under load
AT_MAINS = 0.5  # that an induction motor runs from the mains and not from an inverter
CLEAR = 3.0  # ln e of a speed against the mean over its range


@dataclass(frozen=True, slots=True)
class SpeedRange:
    """Where the reference shaft's speed may lie."""

    low_hz: float
    high_hz: float

    @classmethod
    def around(cls, hz: float, tolerance: float) -> SpeedRange:
        return cls(hz * (1 - tolerance), hz * (1 + tolerance))

    @property
    def middle_hz(self) -> float:
        return (self.low_hz + self.high_hz) / 2

    @property
    def tolerance(self) -> float:
        """Relative, one-sided."""
        return (self.high_hz - self.low_hz) / (self.high_hz + self.low_hz)

    def widened(self, tolerance: float) -> SpeedRange:
        """At least `tolerance` either side of the middle."""
        return SpeedRange.around(self.middle_hz, max(tolerance, self.tolerance))


@dataclass(frozen=True)
class SpeedBelief:
    """What the shaft's own lines say about its speed."""

    grid: Floats  # [n] Hz
    weights: Floats  # [n] ln of a prior whose mean is 1
    likely_hz: tuple[float, ...]  # speeds that clearly stand out

    def supports(self, shaft_hz: float, tolerance: float) -> bool:
        return any(abs(shaft_hz / hz - 1) <= tolerance for hz in self.likely_hz)

    def shaft_lines(self, top_hz: float) -> Floats:
        return np.concatenate([np.zeros(0), *(np.arange(1, int(top_hz / hz) + 1) * hz for hz in self.likely_hz)])


def believe(spectra: Spectra, speeds: SpeedRange, heard_hz: float | None = None) -> SpeedBelief:
    """From the harmonics in the vibration and in the envelope, with and without those of the strongest train: regular
    impacts fill the vibration with harmonics of their own rate, and a machine's impacts may come once per turn. A third
    witness is `heard_hz`, from a longer comb."""
    df = spectra.envelope.df_hz
    low, high = speeds.low_hz - 0.5 * df, speeds.high_hz + 0.5 * df
    grid = np.arange(low, high + df * SPEED_STEP, df * SPEED_STEP)
    options = [_speed_weights(spectra, grid)]
    free = unexplained(spectra, speeds.low_hz, speeds.high_hz)
    if free is not None:
        own = free.hz * np.arange(1.0, int(spectra.raw.top_hz / free.hz) + 1)
        options.append(_speed_weights(spectra.without(own, raw=True), grid))
    known = speeds.tolerance <= WELL_KNOWN
    likely = [_peak_hz(grid, w, df) for w in options if known or w.max() > CLEAR]
    if heard_hz is not None and low <= heard_hz <= high:
        likely = [heard_hz] if speeds.tolerance > VAGUE else [*likely, heard_hz]
        options.append(_around(grid, heard_hz, df))
    return SpeedBelief(grid, logsumexp(options, axis=0) - np.log(len(options)), tuple(likely))


def _around(grid: Floats, hz: float, df_hz: float) -> Floats:
    """ln of a prior about one speed, a bin wide."""
    weights = -0.5 * ((grid - hz) / df_hz) ** 2
    return np.asarray(weights - (logsumexp(weights) - np.log(len(grid))))


def _peak_hz(grid: Floats, weights: Floats, df_hz: float) -> float:
    """The mean of the most probable speed's neighbourhood: lines are a bin wide, so the maximum is a plateau."""
    near = np.abs(grid - grid[int(np.argmax(weights))]) < df_hz
    return float(np.average(grid[near], weights=np.exp(weights[near] - weights.max())))


def _speed_weights(spectra: Spectra, grid: Floats) -> Floats:
    """[n] ln of a prior of the speed whose mean is 1."""
    weights = speed_log_e(spectra, grid) + _below_synchronous(spectra.synchronous_hz, grid)
    return np.asarray(weights - (logsumexp(weights) - np.log(len(grid))))


def speed_log_e(spectra: Spectra, shaft_hz: Floats) -> Floats:
    """[n] ln e-values of the speeds: harmonics in the vibration and lines in the envelope."""
    total = np.zeros(len(shaft_hz))
    for k in range(1, SHAFT_TEETH + 1):
        total += spectra.raw.log_e(k * shaft_hz, SHAFT_PRESENT)
    for k in range(1, ENVELOPE_TEETH + 1):
        total += spectra.envelope.log_e(k * shaft_hz, ENVELOPE_PRESENT)
    for witness in spectra.speed_lines:
        total += _line_log_e(spectra, witness, shaft_hz)
    return total


def _line_log_e(spectra: Spectra, witness: SpeedLine, shaft_hz: Floats) -> Floats:
    """[n] ln e of a line whose place moves by several bins from one speed to the next: the mean of e over them."""
    step_hz = spectra.envelope.df_hz * SPEED_STEP
    parts = max(1, int(np.ceil(abs(witness.line.order) * SPEED_STEP)))
    nudges = (np.arange(parts) - (parts - 1) / 2) / parts * step_hz
    hz = np.abs(witness.line.order * (shaft_hz[:, None] + nudges) + witness.line.fixed_hz)
    return np.asarray(logsumexp(spectra.raw.log_e(hz, witness.presence), axis=1) - np.log(parts))


def _below_synchronous(synchronous_hz: float | None, grid: Floats) -> Floats:
    """[n] ln of a prior whose mean is 1: an induction motor at the mains turns a little slower than its field."""
    inside = np.zeros(len(grid), bool)
    if synchronous_hz is not None:
        inside = (grid <= synchronous_hz) & (grid >= (1 - MOST_SLIP) * synchronous_hz)
    if not inside.any() or inside.all():
        return np.zeros(len(grid))
    return np.asarray(np.log((1 - AT_MAINS) + AT_MAINS * inside / inside.mean()))
