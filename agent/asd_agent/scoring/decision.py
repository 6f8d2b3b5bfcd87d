"""Both lanes and the drift of one machine on its active baseline: what stands between a window and the alarm."""

from __future__ import annotations

from collections.abc import Mapping

from asd_agent.baseline import Baseline
from asd_agent.decide.drift import Drift, DriftState
from asd_agent.decide.event_rate import EventRate
from asd_agent.decide.tail import z_of
from asd_agent.decide.votes import VoteFilter
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.types import State, WindowResult


class Lanes:
    """Not thread-safe. Starts anew with each baseline."""

    def __init__(self, pipeline: Pipeline, baseline: Baseline, drifts: Mapping[str, DriftState] | None = None) -> None:
        """`drifts`: as kept over a restart, by operating state."""
        states = baseline.manifest.states
        machine = pipeline.machine
        self._alert_p = pipeline.thresholds.alert_p if pipeline.thresholds is not None else 0.0
        self._spreads = {state.name: state.fusion.spread for state in states}
        self._changed = VoteFilter(machine)
        transients_per_hour = max(state.transients_per_hour for state in states)
        self._events = EventRate(machine, transients_per_hour, baseline.manifest.report.seconds)
        self._drifts = {
            name: Drift(spread, machine.hop_s, (drifts or {}).get(name)) for name, spread in self._spreads.items()
        }

    def admit(self, result: WindowResult) -> tuple[WindowResult, ...]:
        """A result -> what votes in the alarm now: deviations that may be the machine's, and moments that come back."""
        self._events.update(result)
        if result.state is State.NORMAL and result.p_value is not None and result.operating in self._drifts:
            score = z_of(min(result.p_value, 1 - 1e-9)) * self._spreads[result.operating].total
            self._drifts[result.operating].update(score)
        return tuple(self._events.vote(r, self._alert_p) for r in self._changed.admit(result))

    @property
    def events(self) -> int:
        """Transients in the last hour."""
        return self._events.count

    @property
    def drifts(self) -> dict[str, DriftState]:
        """To keep over a restart."""
        return {name: drift.state for name, drift in self._drifts.items()}

    @property
    def drifting(self) -> str:
        """What drifts, or empty."""
        found = {name: drift for name, drift in self._drifts.items() if drift.drifting}
        return ", ".join(
            f"normal sound ({name}) has drifted by {drift.level:+.1f} standard deviations since calibration"
            for name, drift in found.items()
        )
