"""One test over the shaft's speed, the slip of the cage and the component that is struck.

A hypothesis is a component, a rate of impacts and a shaft speed that fit each other within the range of slip. It
predicts lines in the envelope spectrum: harmonics of the rate, with sidebands at the shaft (a defect that turns through
the load zone) or at the cage (rolling elements). The speed itself has witnesses of its own: what is configured, the
shaft's harmonics in the vibration, its lines in the envelope, and the sidebands. All of it is one sum of ln e-values;
the mean of e over rates, speeds and sideband patterns counts the trials (see evidence.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from asd_agent.mechanism.combs import HARMONICS, RATE_STEP, Spectra, centre, comb_lines, lattice_lines, resolved, sides
from asd_agent.mechanism.lines import Train
from asd_agent.mechanism.shaft_speed import SpeedBelief
from asd_agent.types import Floats

CAGE_PRESENT = (0.6, 0.4, 0.4, 0.3, 0.3)  # the cage's own lines beside a struck rolling element
NUDGE_BINS = 0.6
MOST_RATES = 80  # looked at with every slip, per pattern
IMPOSSIBLE = -50.0


@dataclass(frozen=True, slots=True)
class Pattern:
    """Sidebands around the harmonics of a rate: `spacing` in orders of the reference shaft, 0 = none."""

    name: str  # "" shaft cage
    spacing: float


@dataclass(frozen=True, slots=True)
class Reading:
    """A component's best explanation of the spectrum."""

    train: Train
    log_e: float  # ln e-value against "no such train", averaged over all speeds, slips and patterns
    hz: float  # rate of the impacts
    shaft_hz: float
    pattern: Pattern
    own_log_e: float  # the same without the lines that every part of the bearing shares (the cage's)
    harmonics: int  # that stand out and are resolved from the shaft's harmonics
    hidden: int  # of the first three, not resolved from a shaft harmonic

    @property
    def order(self) -> float:
        return self.hz / self.shaft_hz

    @property
    def p_value(self) -> float:
        """Holds after all the searching over speed, slip and pattern; not corrected for several components."""
        return float(np.exp(-max(self.log_e, 0.0)))


def train_readings(spectra: Spectra, trains: Sequence[Train], belief: SpeedBelief) -> list[Reading]:
    found = [_best(spectra, train, belief) for train in trains]
    return sorted((r for r in found if r is not None), key=lambda r: -r.log_e)


def patterns(train: Train) -> list[Pattern]:
    """Sidebands at the shaft for a defect on the turning ring and for a modulated load, at the cage for rolling
    elements and for unequal ones."""
    shaft, cage = Pattern("shaft", train.shaft), Pattern("cage", train.cage)
    return {
        "bpfo": [Pattern("", 0.0), shaft, cage],
        "bpfi": [shaft, Pattern("", 0.0)],
        "bsf2": [cage],
        "ftf": [Pattern("", 0.0), shaft],
    }[train.kind]


def _best(spectra: Spectra, train: Train, belief: SpeedBelief) -> Reading | None:
    grid, weights = belief.grid, belief.weights
    df = spectra.envelope.df_hz
    slips = _slips(train, grid[-1], df)
    first, last = train.order * grid[0] * (1 + slips[0]), train.order * grid[-1] * (1 + slips[-1])
    rates = np.arange(first, min(last, spectra.envelope.top_hz / 2), df * RATE_STEP)
    if not len(rates):
        return None
    options = patterns(train)
    totals, own, best, where = [], [], -np.inf, None
    for pattern in options:
        middle = rates / (train.order * (1 + slips[len(slips) // 2]))
        rough = train_log_e(spectra, train, rates, middle, pattern)
        kept = rates[np.argpartition(-rough, MOST_RATES)[:MOST_RATES]] if len(rates) > MOST_RATES else rates
        shaft = kept[:, None] / (train.order * (1 + slips))
        total = train_log_e(spectra, train, kept[:, None], shaft, pattern)
        total = total + np.interp(shaft, grid, weights, left=IMPOSSIBLE, right=IMPOSSIBLE)
        totals.append(logsumexp(total))
        own.append(logsumexp(total - _cage_lines(spectra, train, shaft)))
        at = np.unravel_index(int(np.argmax(total)), total.shape)
        if total[at] > best:
            best, where = float(total[at]), (float(kept[at[0]]), float(shaft[at]), pattern)
    assert where is not None
    trials = np.log(len(options) * len(rates) * len(slips))
    log_e, own_log_e = float(logsumexp(totals) - trials), float(logsumexp(own) - trials)
    return Reading(train, log_e, *where, own_log_e, *_seen(spectra, train, *where[:2]))


def _seen(spectra: Spectra, train: Train, hz: float, shaft_hz: float) -> tuple[int, int]:
    """(lines that stand out and are resolved from the shaft's harmonics, of the first three harmonics those hidden). An
    error of half a bin in the rate is two in its fourth harmonic, so the rate is nudged to where most stand out."""
    nudge = np.arange(-NUDGE_BINS, NUDGE_BINS + 0.01, RATE_STEP) * spectra.envelope.df_hz
    lines = (hz + nudge)[:, None] * np.arange(1.0, HARMONICS + 1)
    if train.kind == "bsf2":
        cage = train.cage * shaft_hz * np.arange(1.0, len(CAGE_PRESENT) + 1)
        lines = np.concatenate([lines, np.broadcast_to(cage, (len(nudge), len(cage)))], axis=1)
    seen = resolved(spectra, lines, np.full(lines.shape, shaft_hz))
    out = np.count_nonzero(spectra.envelope.stands_out(lines) & seen, axis=1)
    return int(out.max()), int(np.count_nonzero(~seen[len(nudge) // 2, :3]))


def _slips(train: Train, fastest_hz: float, df_hz: float) -> Floats:
    """Relative shifts of the rate, in steps of a bin of the speed."""
    low, high = train.slip
    count = max(3, int(np.ceil((high - low) * fastest_hz / df_hz)) + 1)
    return np.linspace(low, high, count)


def train_log_e(spectra: Spectra, train: Train, rate_hz: Floats, shaft_hz: Floats, pattern: Pattern) -> Floats:
    """Broadcast over rates and speeds. Lines that are not resolved from a shaft harmonic are no evidence."""
    total = centre(spectra, rate_hz, shaft_hz)
    if pattern.spacing:
        total = total + sides(spectra, rate_hz, shaft_hz, pattern.spacing * shaft_hz)
    return total + _cage_lines(spectra, train, shaft_hz)


def _cage_lines(spectra: Spectra, train: Train, shaft_hz: Floats) -> Floats | float:
    """Of a rolling element that passes the load zone with the cage."""
    if train.kind != "bsf2":
        return 0.0
    pairs = enumerate(CAGE_PRESENT, 1)
    return np.asarray(sum(comb_lines(spectra, k * train.cage * shaft_hz, shaft_hz, q) for k, q in pairs))


def lattice(reading: Reading) -> Floats:
    """Every line that a struck component can make: harmonics with sidebands at the shaft and at the cage, and the lines
    of both themselves. Another component whose support lies here has none of its own."""
    shaft_hz = reading.shaft_hz
    return lattice_lines(reading.hz, reading.train.shaft * shaft_hz, reading.train.cage * shaft_hz)


def loudness(spectra: Spectra, reading: Reading) -> float:
    """Mean ln power of the first three harmonics: which of two trains is the stronger."""
    return float(np.mean(np.log(spectra.envelope.power(reading.hz * np.arange(1.0, 4.0)) + 1e-3)))
