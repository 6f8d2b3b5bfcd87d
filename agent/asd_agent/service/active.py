"""The active baseline of a machine at work: pipeline, decision and alarm, with one owner and one lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import structlog

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore, Pointers
from asd_agent.baseline.bundles import bundle_of
from asd_agent.decide.alarm import Alarm, Events
from asd_agent.errors import BaselineError
from asd_agent.scoring.course import Course
from asd_agent.scoring.decision import Decision
from asd_agent.scoring.parts import AlarmParts
from asd_agent.scoring.pipeline import Pipeline, Reported, Step
from asd_agent.service import memory_file
from asd_agent.service.unknown_state import UnknownState
from asd_agent.types import AlarmState, Description, Window

if TYPE_CHECKING:
    from asd_agent.service.machine import Machine
    from asd_agent.service.sink import Sink

KEEP_S = 120.0
log = structlog.get_logger()

MakePipeline = Callable[[Baseline | None], Pipeline]


class ActiveBaseline:
    """Thread-safe: worker, main thread and people's commands change it under its lock, which also covers the sink, so
    that what is stored and sent last is what happened last."""

    def __init__(
        self, machine: Machine, make_pipeline: MakePipeline, alarm_state: AlarmState, sink: Sink,
        synced: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.store: BaselineStore = machine.baselines
        self.fault = ""  # why the active baseline cannot be used
        self._machine, self._settings = machine, machine.settings
        self._make_pipeline, self._sink, self._synced = make_pipeline, sink, synced
        self._lock = threading.RLock()
        self._keep_at_s = time.monotonic() + KEEP_S  # when the memory is written again
        self._adopt(alarm_state)

    # -- windows

    def score(self, window: Window, reported: Reported, describe: Callable[[Description], Description]) -> Step:
        """One window through pipeline and decision to the sink. `describe` completes the description."""
        pipeline = self._pipeline
        description = describe(pipeline.describe(window, reported))  # outside the lock: it takes long
        with self._lock:
            step = self._pipeline.step(window, reported, description)
            self._unknown_state.see(step.description, step.result)
            known = self.alarm_state.part
            part = self._parts.see(self._pipeline, step, self.alarm_state)
            self._course.add(step)
            events = self._decision.update(step.result, self._synced(), partial(self._course.explain, step), part)
            self._sink.scored(self._machine, step, events, self.alarm_state)
            if not events and self.alarm_state.part != known:
                self.introduce()
        return step

    def tick(self, jump_s: float = 0.0) -> None:
        """Once a second: a shelving that ends, a memory to keep, a baseline that somebody else has promoted.

        `jump_s`: by how much the wall clock has just been set; a shelving keeps the time that it has left.
        """
        if jump_s:
            with self._lock:
                if self._decision.alarm.move_shelving(jump_s, time.time()):
                    self.introduce()
        self.command(lambda alarm: alarm.tick(time.time(), self._synced()))
        if time.monotonic() >= self._keep_at_s:
            self.keep()

    def keep(self) -> None:
        """Write what the decision remembers; also when the daemon ends."""
        self._keep_at_s = time.monotonic() + KEEP_S
        with self._lock:
            version, memory = self.version, memory_file.encoded(self.version, self._decision.memory)
        if version:
            memory_file.save(self.store.folder, memory)

    def command(self, act: Callable[[Alarm], Events]) -> None:
        """Let `act` change the alarm; its events are on disk when this returns. Raises UsageError."""
        with self._lock:
            events = act(self._decision.alarm)
            if events:
                self._sink.transitions(self._machine, events, self._decision.alarm.state)

    def introduce(self) -> None:
        """Store and broker hold the alarm state as it is now: when the machine begins, and when more is known of the
        part that an alarm is about."""
        with self._lock:
            self._sink.introduce(self._machine, self.alarm_state)

    def knows_alarm(self, alarm_id: str) -> bool:
        """Whether this machine has ever raised it."""
        return self._sink.knows_alarm(self._machine, alarm_id)

    # -- what there is

    @property
    def alarm_state(self) -> AlarmState:
        with self._lock:
            return self._decision.alarm.state

    @property
    def pipeline(self) -> Pipeline:
        return self._pipeline

    @property
    def drifting(self) -> dict[str, float]:
        """See Decision."""
        with self._lock:
            return self._decision.drifting

    @property
    def transients(self) -> int:
        """Counted in the last hour."""
        with self._lock:
            return self._decision.transients

    @property
    def version(self) -> str:
        """Of the baseline; empty without one."""
        baseline = self._pipeline.baseline
        return baseline.manifest.version if baseline else ""

    @property
    def unknown_state(self) -> str:
        """ "new operating state since 10:42, 37 windows", or empty."""
        with self._lock:
            return self._unknown_state.words

    def windows_since(self, since_utc_s: float | None) -> tuple[list[Description], str]:
        """See UnknownState."""
        with self._lock:
            return self._unknown_state.windows_since(since_utc_s)

    # -- another baseline

    def promote(self, version: str | None) -> str:
        return self._switch(version or self.store.pointers().candidate, lambda: self.store.promote(version))

    def rollback(self) -> str:
        return self._switch(self.store.pointers().previous, self.store.rollback)

    def _switch(self, version: str | None, point: Callable[[], Pointers]) -> str:
        """Point to another baseline, unless it cannot be used: then the active one stays. Raises BaselineError."""
        with self._lock:
            if version is not None:
                rates = self._make_pipeline(self.store.load(version)).rates
                if rates != self._pipeline.rates:
                    raise BaselineError(
                        f"{self._settings.id}: the bundle of baseline {version} wants sound at {_hz(rates)}, now it is "
                        f"cut at {_hz(self._pipeline.rates)}: name that bundle in the configuration and restart"
                    )
            pointers = point()
            self._adopt(self.alarm_state)
        if self.fault:
            raise BaselineError(self.fault)
        return f"{self._settings.id}: active baseline is now {pointers.active}"

    def _adopt(self, alarm_state: AlarmState) -> None:
        """Build pipeline and decision on the active baseline; one that cannot be used leaves a fault, not a result."""
        self.fault = ""
        try:
            self._pipeline = self._make_pipeline(self.store.active())
        except BaselineError as exc:
            self.fault = str(exc)
            log.error("baseline refused", machine=self._settings.id, error=self.fault)
            self._pipeline = self._make_pipeline(None)
        manifest = self._pipeline.baseline.manifest if self._pipeline.baseline is not None else None
        memory = memory_file.load(self.store.folder, manifest.version) if manifest is not None else None
        self._decision = Decision(self._settings, manifest, alarm_state, memory)
        self._parts = AlarmParts(self._settings, alarm_state)
        self._course = Course(self._pipeline)
        reported = [state.name for state in manifest.states] if manifest and manifest.states_reported else None
        self._unknown_state = UnknownState(self._settings, reported)


def _hz(rates: Mapping[int, int]) -> str:
    return ", ".join(f"{rate} Hz" for rate in sorted(rates))


def pipeline_maker(machine: config.Machine) -> MakePipeline:
    """Makes the machine's pipelines; the encoders of the configuration are opened once and shared, and others where a
    baseline came with its bundle. Raises BundleError."""
    from asd_agent.encode.bundle import Bundle
    from asd_agent.encode.encoder import shared_encoder

    encoders = {name: shared_encoder(Bundle.load(name)) for name in machine.bundles}

    def make(baseline: Baseline | None) -> Pipeline:
        held = encoders  # `shared_encoder` keeps only what somebody holds
        return Pipeline(machine, {name: shared_encoder(bundle_of(name, baseline)) for name in held}, baseline)

    return make
