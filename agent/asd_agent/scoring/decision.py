"""What follows in time from the results of one machine: which windows vote, the event rate, drift, and the alarm.

Live, in shadow, in what-if and in the archive the same object decides. It has no clock and no I/O: the same results and
commands from the same state give the same events, ids included.
"""

from __future__ import annotations

from collections.abc import Mapping

from asd_agent import config
from asd_agent.baseline import Manifest
from asd_agent.decide.alarm import Alarm, Events
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.drift import Drift, DriftState
from asd_agent.decide.event_rate import EventRate
from asd_agent.decide.tail import z_of
from asd_agent.decide.votes import VoteFilter
from asd_agent.types import AlarmState, State, WindowResult


class Decision:
    """Of one machine on one baseline; another baseline is another decision from the alarm's state. Not thread-safe."""

    def __init__(
        self, machine: config.Machine, manifest: Manifest | None, state: AlarmState,
        drifts: Mapping[str, DriftState] | None = None,
    ) -> None:  # fmt: skip
        """`manifest` of the baseline, None while there is none; `drifts` by operating state, as kept over a restart."""
        self.thresholds: Thresholds | None = None
        self.votes = VoteFilter(machine)
        self.event_rate: EventRate | None = None
        self._drifts: dict[str, Drift] = {}
        if manifest is not None:
            self.thresholds = manifest.thresholds(machine)
            per_hour = max(state.transients_per_hour for state in manifest.states)
            self.event_rate = EventRate(machine, per_hour, manifest.report.seconds)
            self._spreads = {state.name: state.fusion.spread for state in manifest.states}
            known = drifts or {}
            self._drifts = {n: Drift(s, machine.hop_s, known.get(n)) for n, s in self._spreads.items()}
        self.alarm = Alarm(machine, self.thresholds, state)

    def update(self, result: WindowResult, time_synced: bool) -> Events:
        """The next window's result -> the transitions of the alarm that it causes."""
        if self.thresholds is None or self.event_rate is None:
            return self.alarm.update(result, time_synced)
        self.event_rate.update(result)
        self._follow_drift(result)
        events: Events = ()
        for vote in self.votes.admit(result):
            events += self.alarm.update(self.event_rate.vote(vote, self.thresholds.alert_p), time_synced)
        return events

    @property
    def transients(self) -> int:
        """Counted in the last hour."""
        return self.event_rate.count if self.event_rate is not None else 0

    @property
    def drifts(self) -> dict[str, DriftState]:
        """By operating state, to keep over a restart."""
        return {name: drift.state for name, drift in self._drifts.items()}

    @property
    def drifting(self) -> dict[str, float]:
        """Operating states whose normal sound has drifted -> by how many standard deviations since calibration."""
        return {name: drift.level for name, drift in self._drifts.items() if drift.drifting}

    def _follow_drift(self, result: WindowResult) -> None:
        drift = self._drifts.get(result.operating)
        if drift is not None and result.state is State.NORMAL and result.p_value is not None:
            drift.update(z_of(min(result.p_value, 1 - 1e-9)) * self._spreads[result.operating].total)
