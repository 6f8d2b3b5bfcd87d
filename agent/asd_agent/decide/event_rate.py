"""Transients that come back more often than calibration and budget allow.

A single transient never raises an alarm. More of them within an hour than the calibration lets expect do. Pure: no
clock, times come in with the results.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from asd_agent import config
from asd_agent.decide.alarm import Standing
from asd_agent.decide.budget import EVENTS_SHARE
from asd_agent.reasons import Grounds, Trigger
from asd_agent.types import WindowResult

HOUR_S = 3600.0
EPISODE_S = 30.0  # what happens within it happened once
PRIOR_EVENTS = 0.5  # Jeffreys' prior of a Poisson rate


class EventRate:
    """Counts transients. Not thread-safe."""

    def __init__(
        self,
        machine: config.Machine,
        transients_per_hour: float,
        calibrated_s: float,
        times_s: Iterable[float] = (),
    ) -> None:
        """`transients_per_hour` of the calibration, which lasted `calibrated_s`; `times_s`: as kept over a restart."""
        self._p = machine.alarm.transient_p
        expected = transients_per_hour * calibrated_s / HOUR_S + PRIOR_EVENTS
        chance = EVENTS_SHARE * machine.alarm.false_alarms_per_month / (30 * 24)
        self.allowed = max(machine.alarm.transient_repeats, most(expected, calibrated_s / HOUR_S, chance) + 1)
        self._times: deque[float] = deque(times_s)

    def update(self, result: WindowResult) -> bool:
        """Whether the last hour had as many moments as it takes for an alarm. Those of one half minute count once."""
        moment_s = result.utc_s + (result.transient_at_s or 0.0)
        sudden = result.transient_p is not None and result.transient_p <= self._p and not result.nuisance
        if sudden and (not self._times or moment_s - self._times[-1] >= EPISODE_S):
            self._times.append(moment_s)
        while self._times and self._times[-1] > moment_s + EPISODE_S:  # the clock has been set back
            self._times.pop()
        while self._times and moment_s - self._times[0] > HOUR_S:
            self._times.popleft()
        return len(self._times) >= self.allowed

    @property
    def standing(self) -> Standing:
        """What it says of an alarm."""
        lasts_s = self._times[-1] - self._times[0] if self._times else 0.0
        grounds = Grounds(lasts_s=lasts_s, windows=self.count, of=self.allowed)
        return Standing(Trigger.EVENT_RATE, self.count / self.allowed, grounds)

    @property
    def times_s(self) -> list[float]:
        """To keep over a restart."""
        return list(self._times)

    @property
    def count(self) -> int:
        """In the last hour."""
        return len(self._times)


def most(events: float, hours: float, chance: float) -> int:
    """The number of events that the next hour exceeds with at most `chance`, when `hours` had `events`: negative
    binomial, the Poisson distribution with a rate that is known no better than that (a Gamma posterior)."""
    rest, k = 1.0, 0
    log_p = events * math.log(hours / (hours + 1)) if hours > 0 else -math.inf
    while k < 120:
        rest -= math.exp(log_p)
        if rest <= chance:
            return k
        log_p += math.log((events + k) / (k + 1)) - math.log(hours + 1)
        k += 1
    return k
