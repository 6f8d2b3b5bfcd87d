"""Two lanes between single windows and alarms. Pure: no clock, times come in with the results.

    changed   has the sound changed? Which windows vote in the machine's alarm (`Alarm`):
              - a deviation between two different known states is the change of state itself: it does not vote;
              - deviating windows that all overlap may be one moment of sound: of them the strongest votes;
              - a deviation that a recognised foreign sound explains does not vote, until it has stayed for too long;
              - everything else votes.
    event     did something happen? Sudden moments, counted. A single one never raises an alarm; moments that come back
              more often within an hour than calibration and budget allow do: then normal windows vote for an alert.

Votes over several windows are the strongest means against foreign sounds (detection-facts), these rules the second.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

from asd_agent import config
from asd_agent.types import CHANGING, Level, State, WindowResult

FOREIGN_PATIENCE_S = 600.0  # a foreign sound that stays explains nothing any more
FOREIGN_BREAK_S = 120.0  # without it, it has gone
HOUR_S = 3600.0
EPISODE_S = 30.0  # what happens within it happened once
KNOWN_AFTER = 12  # deviating windows without a break, until they are called an unknown state
PRIOR_EVENTS = 0.5  # Jeffreys' prior of a Poisson rate


class ChangedLane:
    """Lets windows through to the alarm. Not thread-safe."""

    def __init__(self, machine: config.Machine) -> None:
        self._span = math.ceil(machine.window_s / machine.hop_s)  # windows that a change of state can touch
        self._operating = ""  # of the last window that was like a known state
        self._held: tuple[WindowResult, ...] = ()
        self._passing = False  # deviating windows have come in a row that do not all overlap
        self._foreign_since_s = self._foreign_last_s = -math.inf
        self.unknown: Unknown | None = None

    @property
    def holding(self) -> bool:
        """Windows wait until it is clear what they are."""
        return bool(self._held)

    @property
    def passing(self) -> bool:
        """Deviating windows go straight through to the alarm."""
        return self._passing

    def admit(self, result: WindowResult) -> tuple[WindowResult, ...]:
        """A result -> the results that go to the alarm now, in order: none while it is unclear what they are."""
        if result.state is State.NOT_ASSESSABLE and result.reason == CHANGING:
            return ()  # told so: neither a vote nor a break
        self._follow(result)
        if result.state is not State.ANOMALOUS:
            return self._settled(result)
        if self._explained(result):
            return ()
        self._held = (*self._held, result)
        if not self._passing and len(self._held) <= self._span:
            return ()
        self._passing = True
        return self._release()

    def _settled(self, result: WindowResult) -> tuple[WindowResult, ...]:
        """The machine is in a known state again, or cannot be judged."""
        known = result.state in (State.NORMAL, State.OFF)
        changed = known and bool(self._operating) and result.operating != self._operating
        held = self._release()
        if not self._passing:  # windows that all overlap
            held = () if changed else tuple(sorted(held, key=lambda r: r.score or 0.0)[-1:])
        self._passing = False
        if known:
            self._operating = result.operating
        return (*held, result)

    def _release(self) -> tuple[WindowResult, ...]:
        held, self._held = self._held, ()
        return held

    def _explained(self, result: WindowResult) -> bool:
        if not result.foreign:
            return False
        if result.utc_s - self._foreign_last_s > FOREIGN_BREAK_S:
            self._foreign_since_s = result.utc_s
        self._foreign_last_s = result.utc_s
        return result.utc_s - self._foreign_since_s < FOREIGN_PATIENCE_S

    def _follow(self, result: WindowResult) -> None:
        if result.state is State.ANOMALOUS:
            before = self.unknown or Unknown(result.utc_s, 0)
            self.unknown = Unknown(before.since_utc_s, before.windows + 1)
        elif result.state in (State.NORMAL, State.OFF):
            self.unknown = None


class Unknown:
    """Windows in a row that are like no known state."""

    def __init__(self, since_utc_s: float, windows: int) -> None:
        self.since_utc_s, self.windows = since_utc_s, windows

    @property
    def lasting(self) -> bool:
        """Long enough to be called a state: a new way of running, or a fault that stays. A person decides."""
        return self.windows >= KNOWN_AFTER


class EventLane:
    """Counts sudden moments. Not thread-safe."""

    def __init__(self, machine: config.Machine, events_per_hour: float, calibrated_s: float) -> None:
        """`events_per_hour` of the calibration, which lasted `calibrated_s`."""
        self._p = machine.alarm.event_p
        expected = events_per_hour * calibrated_s / HOUR_S + PRIOR_EVENTS
        chance = machine.alarm.false_alarms_per_month / (30 * 24)
        self.allowed = max(machine.alarm.event_repeats, most(expected, calibrated_s / HOUR_S, chance) + 1)
        self._times: deque[float] = deque()

    def update(self, result: WindowResult) -> bool:
        """Whether the last hour had as many moments as it takes for an alarm. Those of one half minute count once."""
        moment_s = result.utc_s + (result.event_at_s or 0.0)
        sudden = result.event_p is not None and result.event_p <= self._p and not result.foreign
        if sudden and (not self._times or moment_s - self._times[-1] >= EPISODE_S):
            self._times.append(moment_s)
        while self._times and moment_s - self._times[0] > HOUR_S:
            self._times.popleft()
        return len(self._times) >= self.allowed

    def vote(self, result: WindowResult, alert_p: float) -> WindowResult:
        """A normal window as it votes while moments come back too often: for an alert, with `alert_p`."""
        if len(self._times) < self.allowed or result.state is not State.NORMAL or result.p_value is None:
            return result
        reason = f"{self.count} sudden moments within an hour, fewer than {self.allowed} are expected"
        p_value = min(result.p_value, alert_p)
        return replace(result, state=State.ANOMALOUS, level=Level.ALERT, p_value=p_value, reason=reason)

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
