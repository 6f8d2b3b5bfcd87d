"""Which windows vote in the machine's alarm. Pure: no clock, times come in with the results.

- A deviation between two different known operating states is the change of state itself: it does not vote.
- Deviating windows that all overlap may be one short sound: only the strongest of them votes.
- A deviation that a recognised nuisance sound explains does not vote, until that sound has stayed for too long.
- Everything else votes.

Votes over several windows are the strongest means against nuisance sounds, these rules the second.
"""

from __future__ import annotations

import math

from asd_agent import config
from asd_agent.types import Cause, State, WindowResult

NUISANCE_PATIENCE_S = 300.0  # a nuisance sound that stays explains nothing any more
NUISANCE_BREAK_S = 120.0  # without it, it has gone


class VoteFilter:
    """Lets windows through to the alarm. Not thread-safe."""

    def __init__(self, machine: config.Machine) -> None:
        self._span = math.ceil(machine.window_s / machine.hop_s)  # windows that a change of state can touch
        self._operating = ""  # of the last window that was like a known state
        self._held: tuple[WindowResult, ...] = ()
        self._passing = False  # deviating windows have come in a row that do not all overlap

    @property
    def holding(self) -> bool:
        """Deviating windows wait until it is clear whether they vote."""
        return bool(self._held)

    @property
    def passing(self) -> bool:
        """Deviating windows go straight through to the alarm."""
        return self._passing

    def admit(self, result: WindowResult, explained: bool = False) -> tuple[WindowResult, ...]:
        """A result -> the results that go to the alarm now, in order: none while it is unclear what they are.
        `explained`: by a recognised nuisance."""
        if result.cause is Cause.STATE_CHANGING:
            return ()  # reported so: neither a vote nor a break
        if result.state is not State.ANOMALOUS:
            return self._settled(result)
        if explained:
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


class Patience:
    """How long a recognised nuisance explains deviations: some minutes in a row, then it is evidence. Not
    thread-safe."""

    def __init__(self) -> None:
        self._since_s = self._last_s = -math.inf

    def explains(self, result: WindowResult) -> bool:
        """The next window."""
        if not result.nuisance:
            return False
        if result.utc_s - self._last_s > NUISANCE_BREAK_S:
            self._since_s = result.utc_s
        self._last_s = result.utc_s
        return result.utc_s - self._since_s < NUISANCE_PATIENCE_S
