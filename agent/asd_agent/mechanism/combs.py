"""Lines that a train of impacts makes in an envelope spectrum, and how much those that are there speak for it.

A train makes harmonics of its rate, with sidebands where something modulates it: the shaft a defect that turns through
the load zone, the cage a rolling element (Randall & Antoni, Mech. Syst. Signal Process. 25, 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from asd_agent.mechanism.evidence import LineEvidence
from asd_agent.mechanism.lines import SpeedLine
from asd_agent.types import Floats, Samples

HARMONICS = 8
VISIBLE = (2, 3, 5, 8)  # how many of them rise above the noise
PRESENT = 0.9  # that one of those is seen
SIDE_PRESENT = (0.5, 0.3)  # sidebands one and two spacings away
SIDE_HARMONICS = 4
RESOLVED_BINS = 1.5  # a line nearer to a shaft harmonic cannot be told from it
RATE_STEP = 0.2  # bins of the first harmonic
LOWEST_RATE_HZ = 3.0
UNEXPLAINED_ORDERS = (0.3, 20.0)


@dataclass(frozen=True)
class Spectra:
    """What a window (or many) shows: lines of the envelope and of the vibration itself."""

    envelope: LineEvidence
    raw: LineEvidence
    shaft_ratios: tuple[float, ...] = (1.0,)
    speed_lines: tuple[SpeedLine, ...] = ()
    synchronous_hz: float | None = None

    def without(self, lines_hz: Floats, *, raw: bool = False) -> Spectra:
        """A copy with lines of the envelope muted, and of the vibration too."""
        rest = self.raw.without(lines_hz) if raw else self.raw
        return replace(self, envelope=self.envelope.without(lines_hz), raw=rest)


def centre(spectra: Spectra, rate_hz: Floats, shaft_hz: Floats) -> Floats:
    """ln e of the harmonics of a rate; broadcast over rates and speeds."""
    return _visible([comb_lines(spectra, h * rate_hz, shaft_hz, PRESENT) for h in range(1, HARMONICS + 1)])


def _visible(harmonics: Sequence[Floats | Samples]) -> Floats:
    """ln e when the first two, three, five or all harmonics rise above the noise, each as probable: the mean of e."""
    options: list[Floats] = []
    total = np.zeros(harmonics[0].shape)
    for number, log_e in enumerate(harmonics, 1):
        total = total + log_e
        if number in VISIBLE:
            options.append(total)
    best = np.max(options, axis=0)
    return np.asarray(best + np.log(np.mean([np.exp(option - best) for option in options], axis=0)))


def sides(spectra: Spectra, rate_hz: Floats, shaft_hz: Floats, step_hz: Floats | float) -> Floats:
    """ln e of sidebands `step_hz` and twice that from the harmonics."""
    total = np.zeros(np.broadcast_shapes(rate_hz.shape, shaft_hz.shape), np.float32)
    for h in range(1, SIDE_HARMONICS + 1):
        for k, side in enumerate(SIDE_PRESENT, 1):
            presence = side if h < 3 else round(0.7 * side, 3)
            total += comb_lines(spectra, h * rate_hz - k * step_hz, shaft_hz, presence)
            total += comb_lines(spectra, h * rate_hz + k * step_hz, shaft_hz, presence)
    return np.asarray(total, np.float64)


def comb_lines(spectra: Spectra, hz: Floats, shaft_hz: Floats, presence: float) -> Floats:
    """ln e of lines at `hz`; those that are not resolved from a shaft harmonic say nothing."""
    return np.asarray(spectra.envelope.log_e(hz, presence) * resolved(spectra, hz, shaft_hz))


def resolved(spectra: Spectra, hz: Floats, shaft_hz: Floats) -> npt.NDArray[np.bool_]:
    """Further than RESOLVED_BINS from every harmonic of every shaft."""
    clear = np.ones(np.broadcast_shapes(hz.shape, shaft_hz.shape), bool)
    margin = RESOLVED_BINS * spectra.envelope.df_hz
    for ratio in spectra.shaft_ratios:
        base = ratio * shaft_hz
        clear &= np.abs(hz - np.rint(hz / base) * base) > margin
    return clear


def lattice_lines(rate_hz: float, shaft_hz: float, cage_hz: float) -> Floats:
    """Harmonics of a rate with up to three sidebands at the shaft and at the cage."""
    steps = np.arange(-3, 4)
    near = (np.abs(steps)[:, None] + np.abs(steps)[None, :]) <= 4
    offsets = (steps[:, None] * shaft_hz + steps[None, :] * cage_hz)[near]
    lines = np.unique(np.arange(0, HARMONICS + 1)[:, None] * rate_hz + offsets[None, :])
    return np.asarray(lines[lines > 0])


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A train at any rate: what a component has to explain better than."""

    log_e: float
    hz: float
    harmonics: int


def unexplained(spectra: Spectra, low_shaft_hz: float, high_shaft_hz: float) -> Unexplained | None:
    """The strongest train of impacts at any rate. Its rate is uniform in the logarithm, so it pays for being free."""
    df = spectra.envelope.df_hz
    first = max(LOWEST_RATE_HZ, UNEXPLAINED_ORDERS[0] * low_shaft_hz)
    last = min(UNEXPLAINED_ORDERS[1] * high_shaft_hz, spectra.envelope.top_hz / 3)
    if last <= first:
        return None
    rates = np.arange(first, last, df * RATE_STEP)
    prior = -np.log(rates) - logsumexp(-np.log(rates))
    total = _visible([spectra.envelope.log_e(h * rates, PRESENT) for h in range(1, HARMONICS + 1)])
    at = int(np.argmax(total))
    seen = spectra.envelope.stands_out(rates[at] * np.arange(1.0, HARMONICS + 1))
    return Unexplained(float(logsumexp(total + prior)), float(rates[at]), int(np.count_nonzero(seen)))
