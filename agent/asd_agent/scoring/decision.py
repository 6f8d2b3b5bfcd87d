"""What follows in time from the results of one machine: votes, persistence, event rate, overload, drift, and the alarm.

Live, in shadow, in what-if and in the archive the same object decides. It has no clock and no I/O: the same results and
commands from the same state and memory give the same events, ids included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from asd_agent import config
from asd_agent.baseline import Manifest
from asd_agent.decide.alarm import Alarm, Events, Standing
from asd_agent.decide.budget import PERSISTENCE_SHARE, Thresholds
from asd_agent.decide.drift import Drift, DriftState
from asd_agent.decide.event_rate import EventRate
from asd_agent.decide.overload import Overload, OverloadState
from asd_agent.decide.persistence import Finding, Persistence, Track
from asd_agent.decide.tail import z_of
from asd_agent.decide.votes import Patience, VoteFilter
from asd_agent.reasons import Deviation, Grounds, PartVerdict, Trigger
from asd_agent.store.rounding import kept_z
from asd_agent.types import AlarmState, Cause, State, WindowResult

JUDGED = (State.NORMAL, State.ANOMALOUS)
Explain = Callable[[Finding], Deviation | None]  # what stays -> what it consists of, where that is known


class Watched(NamedTuple):
    """Evidence apart from the votes."""

    standing: Standing | None = None  # the strongest
    found: Finding | None = None  # of persistence
    explained: bool = False  # the window, by a recognised nuisance


NOTHING = Watched()


def _unexplained(_: Finding) -> None:
    return None


class Memory(msgspec.Struct, kw_only=True):
    """What a decision remembers beside the alarm's state; to keep over a restart."""

    drifts: dict[str, DriftState] = {}  # by operating state
    tracks: dict[str, Track] = {}  # by operating state
    transients_s: list[float] = []
    overload: OverloadState = OverloadState()


class Decision:
    """Of one machine on one baseline; another baseline is another decision from the alarm's state. Not thread-safe."""

    def __init__(
        self, machine: config.Machine, manifest: Manifest | None, state: AlarmState, memory: Memory | None = None
    ) -> None:
        """`manifest` of the baseline, None while there is none; `memory` of the same baseline."""
        self.thresholds: Thresholds | None = None
        self.votes = VoteFilter(machine)
        self.event_rate: EventRate | None = None
        self.persistence: Persistence | None = None
        self._patience = Patience()
        self._overload = Overload(machine.votes, 0.0)
        self._drifts: dict[str, Drift] = {}
        self._beyond = False  # persistence, at the last judged window
        if manifest is not None:
            self._begin(machine, manifest, memory or Memory())
        self.alarm = Alarm(machine, self.thresholds, state)

    def _begin(self, machine: config.Machine, manifest: Manifest, memory: Memory) -> None:
        report = manifest.report
        self.thresholds = manifest.thresholds(machine)
        per_hour = max(state.transients_per_hour for state in manifest.states)
        self.event_rate = EventRate(machine, per_hour, report.seconds, memory.transients_s)
        spreads = {state.name: state.fusion.spread for state in manifest.states}
        self._drifts = {n: Drift(s, machine.hop_s, memory.drifts.get(n)) for n, s in spreads.items()}
        self._totals = {n: s.total for n, s in spreads.items()}
        offered = report.windows + sum(report.excluded.values())
        clipped = report.excluded.get(Cause.CLIPPING, 0) / max(offered, 1)
        self._overload = Overload(machine.votes, clipped, memory.overload)
        steadiness = {state.name: state.steadiness for state in manifest.states if state.steadiness is not None}
        budget = PERSISTENCE_SHARE * machine.alarm.false_alarms_per_month
        self.persistence = Persistence(steadiness, budget, machine.window_s, machine.hop_s, memory.tracks)

    def update(
        self,
        result: WindowResult,
        time_synced: bool,
        explain: Explain = _unexplained,
        part: PartVerdict | None = None,
    ) -> Events:
        """The next window's result -> the transitions of the alarm that it causes. `explain` is asked for the reason
        of an alarm; `part` is what the windows added up say (see AlarmParts), where there is sound."""
        self.alarm.know(part)
        events = self.decide(result, self.watch(result), time_synced, explain)
        return events + self.alarm.name(result, time_synced)

    def watch(self, result: WindowResult) -> Watched:
        """The evidence apart from the votes at the end of the next window; the alarm is not touched."""
        if self.event_rate is None or self.persistence is None:
            return NOTHING
        self.event_rate.update(result)
        self._overload.update(result)
        self._follow_drift(result)
        explained = self._patience.explains(result)
        if result.state in JUDGED and result.detectors and not explained:  # else it is missing
            z = {score.name: kept_z(score.z) for score in result.detectors}
            found = self.persistence.update(result.utc_s, result.operating, z, result.index)
        else:
            found = self.persistence.strongest(result.operating)
        standing, overload = self.event_rate.standing, self._overload.standing
        if overload is not None and overload.share > standing.share:
            standing = overload
        if found is not None and found.share > standing.share:
            standing = Standing(Trigger.PERSISTENCE, found.share, _grounds(found, result))
        if result.state in JUDGED:
            beyond = found is not None and found.share >= 1
            if found is not None and beyond and not self._beyond and standing.trigger is Trigger.PERSISTENCE:
                course, windows = self.persistence.course(result.operating, found)
                standing = standing._replace(course=course, windows=windows)
            self._beyond = beyond
        return Watched(standing, found, explained)

    def decide(
        self, result: WindowResult, watched: Watched, time_synced: bool, explain: Explain = _unexplained
    ) -> Events:
        """What this window and the evidence at its end do to the alarm."""
        events: Events = ()
        for vote in self.votes.admit(result, watched.explained):
            events += self.alarm.update(vote, time_synced)
        standing = watched.standing
        if standing is None or (result.state not in JUDGED and result.cause is not Cause.CLIPPING):
            return events
        if standing.trigger is Trigger.PERSISTENCE and standing.share >= 1 and not self.alarm.state.active:
            assert watched.found is not None
            standing = standing._replace(deviation=explain(watched.found) or result.deviation)
        return events + self.alarm.stand(standing, result, time_synced)

    @property
    def transients(self) -> int:
        """Counted in the last hour."""
        return self.event_rate.count if self.event_rate is not None else 0

    @property
    def memory(self) -> Memory:
        """To keep over a restart; it changes with the next window."""
        return Memory(
            drifts={name: drift.state for name, drift in self._drifts.items()},
            tracks=self.persistence.tracks if self.persistence is not None else {},
            transients_s=self.event_rate.times_s if self.event_rate is not None else [],
            overload=self._overload.state,
        )

    @property
    def drifting(self) -> dict[str, float]:
        """Operating states whose normal sound has drifted -> by how many standard deviations since calibration."""
        return {name: drift.level for name, drift in self._drifts.items() if drift.drifting}

    def _follow_drift(self, result: WindowResult) -> None:
        drift = self._drifts.get(result.operating)
        if drift is not None and result.state is State.NORMAL and result.p_value is not None:
            drift.update(z_of(min(result.p_value, 1 - 1e-9)) * self._totals[result.operating])


def _grounds(found: Finding, result: WindowResult) -> Grounds:
    return Grounds(
        lasts_s=result.utc_s + result.duration_s - found.since_utc_s,
        windows=found.windows,
        p_value=found.p_value,
        returning=found.returning,
    )
