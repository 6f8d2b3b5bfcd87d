"""Two lanes between single windows and alarms. Pure: no clock, times come in with the results.

    changed   has the sound changed? Which windows vote in the machine's alarm (`Alarm`):
              - a deviation between two different known states is the change of state itself: it does not vote;
              - deviating windows that all overlap may be one moment of sound: of them the strongest votes;
              - a deviation that a recognised nuisance sound explains does not vote, until it has stayed for too long;
              - everything else votes.
    event     did something happen? Transients, counted. A single one never raises an alarm; moments that come back
              more often within an hour than calibration and budget allow do: then normal windows vote for an alert.

Votes over several windows are the strongest means against nuisance sounds (detection-facts), these rules the second.
"""

from __future__ import annotations

import math

from asd_agent import config
from asd_agent.types import CHANGING, State, WindowResult

NUISANCE_PATIENCE_S = 600.0  # a nuisance sound that stays explains nothing any more
NUISANCE_BREAK_S = 120.0  # without it, it has gone
KNOWN_AFTER = 12  # deviating windows without a break, until they are called an unknown state


class VoteFilter:
    """Lets windows through to the alarm. Not thread-safe."""

    def __init__(self, machine: config.Machine) -> None:
        self._span = math.ceil(machine.window_s / machine.hop_s)  # windows that a change of state can touch
        self._operating = ""  # of the last window that was like a known state
        self._held: tuple[WindowResult, ...] = ()
        self._passing = False  # deviating windows have come in a row that do not all overlap
        self._nuisance_since_s = self._nuisance_last_s = -math.inf
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
        if not result.nuisance:
            return False
        if result.utc_s - self._nuisance_last_s > NUISANCE_BREAK_S:
            self._nuisance_since_s = result.utc_s
        self._nuisance_last_s = result.utc_s
        return result.utc_s - self._nuisance_since_s < NUISANCE_PATIENCE_S

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
