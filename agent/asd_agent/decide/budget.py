"""From a budget of false alarms per month to the p-value that a window must fall below, and back.

Three kinds of evidence share the budget. Votes get half of it: their limit hardly moves with the share (twice the
budget lowers it by 0.1 to 0.2 standard deviations), and they alone can say "danger". Persistence gets four tenths, the
event rate, which counts whole events and rarely uses its share up, the rest.

The model of a normal month. Window scores are slow + fast, Gaussian, with the variances of `Spread`. The slow part
(weather, load, a door left open) is drawn anew every day and shared by all windows of the day; given it, windows exceed
a limit independently of each other with probability p. An alarm begins where the count of exceeding windows among the
last n rises to k, which at one window has the chance

    up(p) = C(n-1, k-1) p^k (1-p)^(n-k+1)

and a day with w windows is free of alarms with exp(-w up(p) - P(k of n at its start)). Alarms of one day have one cause
and count as one: the budget is of days with a false alarm. Votes therefore cut what single windows do, but not what a
drifting day does, and the limit cannot be bought down by votes alone.

Windows that overlap share sound. k of n windows a hop apart touch as little sound as k' = 1 + floor((k-1) hop / window)
separate windows do, within at most n' = 1 + ceil((n-1) hop / window); k' and n' take their place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent import config
from asd_agent.decide.fusion import Spread
from asd_agent.decide.tail import tail, z_of
from asd_agent.types import Floats, Level, State

DAYS_PER_MONTH = 365.25 / 12
VOTES_SHARE, PERSISTENCE_SHARE, EVENTS_SHARE = 0.5, 0.4, 0.1  # of alarm.false_alarms_per_month
DAY_S = 86_400.0
LARGEST_P = 0.05  # a limit that every twentieth normal window passes is none
SMALLEST_P = 1e-200
_GRID = np.linspace(-6.0, 6.0, 121)  # of the slow part, in standard deviations
_WEIGHTS = np.exp(-(_GRID**2) / 2) / np.exp(-(_GRID**2) / 2).sum()
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """p-values of a window: p <= `*_p` votes for the level; p > `*_clear_p` votes for clearing it."""

    alert_p: float
    danger_p: float
    alert_clear_p: float
    danger_clear_p: float

    @classmethod
    def of(cls, alarm: config.Alarm, spread: Spread, window_s: float, hop_s: float) -> Self:
        """What keeps a machine like the calibrated one within alarm.false_alarms_per_month."""
        votes = Votes.of(alarm, window_s, hop_s)
        alert = tail(limit(VOTES_SHARE * alarm.false_alarms_per_month, spread, votes) / spread.total)
        alert = min(max(alert, SMALLEST_P), LARGEST_P)
        danger = alert / alarm.danger_factor
        back = 1 - alarm.deadband  # of the score -log10 p
        return cls(alert_p=alert, danger_p=danger, alert_clear_p=alert**back, danger_clear_p=danger**back)

    @classmethod
    def strictest(cls, alarm: config.Alarm, spreads: Sequence[Spread], window_s: float, hop_s: float) -> Self:
        """Of several operating states: the limits of the one that asks for the smallest p."""
        return min((cls.of(alarm, spread, window_s, hop_s) for spread in spreads), key=lambda t: t.alert_p)

    def state(self, p_value: float, off: bool) -> State:
        """Of one window with a p-value; `off`: the operating state that it is nearest to is the machine's being off."""
        if p_value <= self.alert_p:
            return State.ANOMALOUS
        return State.OFF if off else State.NORMAL

    def level(self, p_value: float) -> Level:
        """Of one window alone, before votes."""
        if p_value <= self.danger_p:
            return Level.DANGER
        return Level.ALERT if p_value <= self.alert_p else Level.NORMAL


@dataclass(frozen=True)
class Votes:
    """k of n separate windows, and how many windows begin in a day."""

    k: int
    n: int
    windows_per_day: float

    @classmethod
    def of(cls, alarm: config.Alarm, window_s: float, hop_s: float) -> Self:
        k, n = alarm.raise_votes(window_s, hop_s)
        share = min(hop_s / window_s, 1.0)
        return cls(
            k=1 + math.floor((k - 1) * share + 1e-9),
            n=1 + math.ceil((n - 1) * share - 1e-9),
            windows_per_day=DAY_S / hop_s,
        )

    def alarm_day(self, p: Floats) -> Floats:
        """Chance p of a window to exceed the limit -> chance of a day with an alarm, of the same shape."""
        k, n = self.k, self.n
        up = math.comb(n - 1, k - 1) * p**k * (1 - p) ** (n - k + 1)
        at_start = sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))
        return np.asarray(-np.expm1(-self.windows_per_day * up - at_start), dtype=np.float64)


def false_alarms_per_month(
    score: npt.ArrayLike, fast: npt.ArrayLike, slow: npt.ArrayLike, votes: Votes, stray: npt.ArrayLike = 0.0
) -> Floats:
    """Expected days with a false alarm per month when windows vote above `score` (in held-out units).

    score, fast, slow: of one shape [...] or scalar, the last two standard deviations; stray: chance of a single window
    to exceed any limit, whatever the machine does (a slammed door). -> [...].
    """
    score, fast, slow, stray = (np.asarray(v, dtype=np.float64)[..., None] for v in (score, fast, slow, stray))
    gaussian = 0.5 * _erfc((score - slow * _GRID) / fast / math.sqrt(2))
    p = np.minimum(gaussian + stray, 1.0)
    return np.asarray(DAYS_PER_MONTH * (votes.alarm_day(p) @ _WEIGHTS), dtype=np.float64)


def limit(budget_per_month: float, spread: Spread, votes: Votes) -> float:
    """The score (in held-out units) above which windows vote, for that many days with a false alarm per month."""
    low, high = 0.0, 38.0 * spread.total
    if false_alarms_per_month(low, spread.fast, spread.slow, votes) <= budget_per_month:
        return low
    for _ in range(50):
        middle = (low + high) / 2
        rate = float(false_alarms_per_month(middle, spread.fast, spread.slow, votes))
        low, high = (middle, high) if rate > budget_per_month else (low, middle)
    return high


def limit_of(thresholds: Thresholds, spread: Spread) -> float:
    """The same from thresholds."""
    return z_of(thresholds.alert_p) * spread.total
