"""Stored windows of one machine decided again, under other settings.

`Replay` hands the stored windows to the daemon's own `scoring.decision`. A restart of the daemon, another baseline and
what people did (acknowledged, shelved) come at the places where they were. What only the sound could show is not known
here: a window that deviates by these limits and did not by those of then is not checked for a broken signal chain.

A year of one machine has six million windows, and in nearly all of them nothing can happen: those are left out (see
`screen`). That both ways give the same is a property test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from asd_agent import config
from asd_agent.baseline import Manifest
from asd_agent.decide.alarm import STANDS_FROM, Alarm, without_votes
from asd_agent.decide.budget import Thresholds
from asd_agent.errors import UsageError
from asd_agent.scoring.decision import Decision
from asd_agent.store.history import History
from asd_agent.types import AlarmEvent, AlarmState, EventKind
from asd_agent.whatif.screen import Screen, Segment


class Replay:
    """Not thread-safe. `feed` it the history of a machine in order, then `finish`."""

    def __init__(
        self,
        machine: config.Machine,
        manifest: Callable[[str], Manifest | None],
        commands: Iterable[AlarmEvent] = (),
        *,
        screened: bool = True,
    ) -> None:
        """`manifest` of a version, None when it is gone: its windows are left out and counted in `lost`. `commands`:
        the events of people, in order of time. `screened`: False goes through every single window."""
        self._machine = machine
        self._manifest = manifest
        self._commands = deque(c for c in commands if c.kind in _ACTS)
        self._screened = screened
        self._decision = Decision(machine, None, AlarmState())
        self._version: str | None = None
        self._last_index = -1
        self.windows = 0
        self.judged = 0
        self.stepped = 0  # windows that were gone through one by one
        self.lost: dict[str, int] = {}  # version -> windows
        self.limits: Thresholds | None = None  # of the newest baseline

    @property
    def state(self) -> AlarmState:
        return self._decision.alarm.state

    def feed(self, history: History) -> list[AlarmEvent]:
        """The next windows -> the events of the alarm."""
        found: list[AlarmEvent] = []
        for first, end in self._segments(history):
            found += self._obey(float(history.utc_s[first]) + self._machine.window_s)
            version = history.words[history.baseline[first]]
            self._begin(version, int(history.index[first]))
            self._last_index = int(history.index[end - 1])
            self.windows += end - first
            if version and self._decision.thresholds is None:
                self.lost[version] = self.lost.get(version, 0) + end - first
            else:
                found += self._go_through(
                    Segment(history, first, end, self._decision.thresholds, self._machine.window_s)
                )
        return found

    def finish(self) -> list[AlarmEvent]:
        """What people did after the last window."""
        return self._obey(np.inf)

    # -- what interrupts the row of windows

    def _segments(self, history: History) -> list[tuple[int, int]]:
        """(first, end) of windows of one baseline without a restart, a command or a clock set back between them."""
        if not len(history):
            return []
        cuts = np.ones(len(history), bool)
        cuts[1:] = (np.diff(history.baseline) != 0) | (np.diff(history.index) <= 0) | (np.diff(history.utc_s) < 0)
        ends_s = np.maximum.accumulate(history.utc_s + self._machine.window_s)
        at = np.searchsorted(ends_s, [c.utc_s for c in self._commands], side="right")
        cuts[at[at < len(cuts)]] = True
        firsts = np.flatnonzero(cuts).tolist()
        return list(zip(firsts, [*firsts[1:], len(history)], strict=True))

    def _begin(self, version: str, index: int) -> None:
        """The decision for a segment, as the daemon makes it at its start and for another baseline."""
        state = self._decision.alarm.state
        restarted = index <= self._last_index
        if version == self._version and not restarted:
            return
        memory = self._decision.memory if version == self._version else None
        self._version = version
        manifest = self._manifest(version) if version else None
        self._decision = Decision(self._machine, manifest, without_votes(state) if restarted else state, memory)
        if manifest is not None:
            self.limits = self._decision.thresholds

    def _obey(self, before_utc_s: float) -> list[AlarmEvent]:
        """What people did until then, where it has a meaning now: an alarm that is not there cannot be acknowledged."""
        found: list[AlarmEvent] = []
        while self._commands and self._commands[0].utc_s < before_utc_s:
            command = self._commands.popleft()
            try:
                found += _ACTS[command.kind](self._decision.alarm, command)
            except UsageError:
                continue
        return found

    # -- windows

    def _go_through(self, segment: Segment) -> list[AlarmEvent]:
        found: list[AlarmEvent] = []
        watched = [self._decision.watch(result) for result in segment.results()]
        stands = np.array([w.standing is not None and w.standing.share >= STANDS_FROM for w in watched], bool)
        screen = Screen(segment, self._machine, self._decision.thresholds, stands)
        self.judged += screen.judged
        i = 0
        while i < len(segment):
            if self._screened and (to := screen.past(i, self._decision)) > i:
                i = to
                if screen.votes_at(i):  # the margin brings all that count; older ones would be counted beside them
                    self._decision.alarm.state = without_votes(self._decision.alarm.state)
            found += self._decision.decide(next(segment.results(i, i + 1)), watched[i], True)
            i += 1
            self.stepped += 1
        return found


_Act = Callable[[Alarm, AlarmEvent], tuple[AlarmEvent, ...]]
_ACTS: dict[EventKind, _Act] = {
    EventKind.ACKNOWLEDGED: lambda alarm, c: alarm.acknowledge(c.by, c.comment, c.utc_s, True),
    EventKind.SHELVED: lambda alarm, c: alarm.shelve(c.until_utc_s, c.reason, c.by, c.utc_s, True),
    EventKind.UNSHELVED: lambda alarm, c: alarm.unshelve(c.by, c.reason, c.utc_s, True),
    EventKind.OUT_OF_SERVICE: lambda alarm, c: alarm.out_of_service(True, c.by, c.reason, c.utc_s, True),
    EventKind.IN_SERVICE: lambda alarm, c: alarm.out_of_service(False, c.by, c.reason, c.utc_s, True),
}
