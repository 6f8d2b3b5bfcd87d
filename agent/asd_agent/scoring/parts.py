"""Which part of the machine an alarm is about: its deviating windows, added up.

The sums begin with the first window that deviates and end with the alarm, or when the windows before it turn out to be
none of one. They are held in memory only: after a restart they begin anew, while the verdict so far and the number of
looks that it has paid for stay in the alarm's state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asd_agent import config
from asd_agent.reasons import PartVerdict
from asd_agent.scoring.pipeline import Pipeline, Step
from asd_agent.types import AlarmState, State, WindowResult

if TYPE_CHECKING:
    from asd_agent.mechanism.accumulate import Accumulation

JUDGED = (State.NORMAL, State.ANOMALOUS)


class AlarmParts:
    """Of one machine; one sum for each operating state. Not thread-safe."""

    def __init__(self, machine: config.Machine, state: AlarmState) -> None:
        """`state` of the alarm as it was kept."""
        self._patience = machine.votes[1]  # windows that may pass until an alarm is raised
        self._looks = state.part.looks if state.part is not None else 0
        self._sums: dict[str, Accumulation] = {}  # by operating state
        self._quiet = 0  # judged windows since the last one that deviates
        self._alarm = state.alarm_id if state.active else ""
        self._verdict = state.part if state.active else None

    def see(self, pipeline: Pipeline, step: Step, state: AlarmState) -> PartVerdict | None:
        """The next window, before it votes; `state` of the alarm until then -> what all say so far."""
        if pipeline.machine.mechanism is None:
            return None
        self._follow(state)
        if not _belongs(step.result, state):
            self._pass(step.result, state)
            return self._verdict
        self._quiet = 0
        sums = self._add(pipeline, step)
        if sums is not None and sums.due:
            self._verdict = sums.look()
            self._looks = self._verdict.looks
        return self._verdict

    def _follow(self, state: AlarmState) -> None:
        """An alarm that has ended takes its sums along."""
        now = state.alarm_id if state.active else ""
        if self._alarm and now != self._alarm:
            self._forget()
        self._alarm = now

    def _pass(self, result: WindowResult, state: AlarmState) -> None:
        """A window that does not deviate, while no alarm stands."""
        self._quiet += result.state in JUDGED
        if not state.active and self._quiet >= self._patience:
            self._forget()

    def _forget(self) -> None:
        self._sums, self._verdict, self._looks = {}, None, 0

    def _add(self, pipeline: Pipeline, step: Step) -> Accumulation | None:
        """None for a window that the mechanism analysis cannot judge."""
        from asd_agent.mechanism.accumulate import Accumulation
        from asd_agent.mechanism.gates import gates

        window, speed = step.window, step.reported.speed
        analyser = pipeline.analyser(window.rate_hz)
        if analyser is None or gates(window.samples, window.rate_hz) or (speed is not None and not speed.running):
            return None
        sums = self._sums.get(step.result.operating)
        if sums is None or sums.analyser.rate_hz != window.rate_hz:
            sums = self._sums[step.result.operating] = Accumulation(analyser, speed, self._looks)
        normal = pipeline.mechanism_baseline(step.result.operating)
        verdict = normal.judge(step.description.indicators) if normal is not None else None
        sums.add(analyser.analyse(window.samples, speed), verdict)
        return sums


def _belongs(result: WindowResult, state: AlarmState) -> bool:
    """Windows that deviate, and all of an alarm that weaker evidence than votes holds, but none that a recognised
    nuisance explains."""
    return not result.nuisance and (
        result.state is State.ANOMALOUS or (state.active and state.held and result.state is State.NORMAL)
    )
