"""Is a reading only a part of a stronger family of lines? Sidebands of a train look like trains themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asd_agent.mechanism.combs import RATE_STEP, UNEXPLAINED_ORDERS, Spectra, centre, lattice_lines, sides
from asd_agent.mechanism.hypotheses import Reading, train_log_e
from asd_agent.mechanism.shaft_speed import CLEAR, SpeedBelief
from asd_agent.types import Floats

ELSEWHERE = 1.0  # ln e
HALVED = 6.0  # the same for a family at a fraction of the rate, which holds every line of it
FREE_STEP = 0.5  # bins
CAGE_ORDERS = (0.35, 0.45)
OWN = 6.0  # ln e of a reading's lines at its best place, without counting trials


def explained_elsewhere(spectra: Spectra, reading: Reading, belief: SpeedBelief) -> bool:
    """A family at another rate, with sidebands at the shaft, shows more and holds the reading's lines too."""
    own = score_of(spectra, reading)
    near = 2 * spectra.envelope.df_hz
    for shaft_hz in (reading.shaft_hz, *belief.likely_hz):
        family = _strongest_family(spectra, shaft_hz, reading.train.shaft)
        if family is None or family.score <= own + ELSEWHERE or abs(family.hz - reading.hz) < near:
            continue
        parts = round(reading.hz / family.hz)
        if parts > 1 and abs(parts * family.hz - reading.hz) < near and family.score <= own + HALVED:
            continue
        if score_of(spectra.without(family.lines()), reading) < OWN:
            return True
    return False


@dataclass(frozen=True)
class Family:
    """Harmonics of any rate with sidebands at the shaft and, where they are there, at a cage."""

    hz: float
    shaft_hz: float
    cage_hz: float
    score: float

    def lines(self) -> Floats:
        return lattice_lines(self.hz, self.shaft_hz, self.cage_hz)


def score_of(spectra: Spectra, reading: Reading) -> float:
    """ln e of a reading's lines at its best place within a bin."""
    nudge = np.arange(-1.0, 1.01, RATE_STEP) * spectra.envelope.df_hz
    shaft = np.full(len(nudge), reading.shaft_hz)
    return float(train_log_e(spectra, reading.train, reading.hz + nudge, shaft, reading.pattern).max())


def _strongest_family(spectra: Spectra, shaft_hz: float, ratio: float) -> Family | None:
    df = spectra.envelope.df_hz
    last = min(UNEXPLAINED_ORDERS[1] * shaft_hz, spectra.envelope.top_hz / 3)
    rates = np.arange(UNEXPLAINED_ORDERS[0] * shaft_hz, last, df * FREE_STEP)
    if not len(rates):
        return None
    own = ratio * shaft_hz
    here = np.full(len(rates), shaft_hz)
    total = centre(spectra, rates, here) + np.maximum(sides(spectra, rates, here, own), 0.0)
    at = int(np.argmax(total))
    cages = np.arange(CAGE_ORDERS[0] * own, CAGE_ORDERS[1] * own, df / 2)
    side = sides(spectra, np.full(len(cages), rates[at]), np.full(len(cages), shaft_hz), cages)
    best = int(np.argmax(side))
    return Family(float(rates[at]), own, float(cages[best]) if side[best] > CLEAR else 0.0, float(total[at]))
