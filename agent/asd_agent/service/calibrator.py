"""Teaching a running machine: every way to a new baseline that the daemon offers, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.calibration import workflow as learning
from asd_agent.calibration.gather import describe_recordings
from asd_agent.calibration.workflow import Ears, Wish
from asd_agent.errors import CalibrationError
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.service.calibration_job import CalibrationJob
from asd_agent.service.mixer_watch import MixerWatch
from asd_agent.service.shadow import Shadow
from asd_agent.types import Description, Window

if TYPE_CHECKING:
    from asd_agent.mechanism.speed import Speed

Promote = Callable[[str], object]  # version
HeardSince = Callable[[float | None], tuple[list[Description], str]]  # UTC -> what is like no state, and its told name


class Teacher:
    """Thread-safe: the worker brings the windows, people ask from the control threads."""

    def __init__(
        self, machine: config.Machine, baselines: BaselineStore, pipeline: Callable[[], Pipeline], promote: Promote,
        heard_since: HeardSince, mixer: MixerWatch, shadow: Shadow | None,
    ) -> None:  # fmt: skip
        self._machine = machine
        self._baselines = baselines
        self._pipeline = pipeline
        self._promote = promote
        self._heard_since = heard_since
        self._mixer = mixer
        self._shadow = shadow
        self._lock = threading.Lock()  # of what is under way
        self._job: CalibrationJob | None = None
        self._ears: Ears | None = None  # of a live calibration
        self._teaches_shadow = False

    # -- from the worker

    @property
    def running(self) -> bool:
        return self._job is not None and self._job.running

    def hear(self, window: Window, description: Description, speed: Speed | None) -> None:
        """Every window, as the machine's own pipeline describes it."""
        job, ears = self._job, self._ears
        if job is None:
            return
        if job.listening and ears is not None:
            ears.hear(window, description)
        if self._teaches_shadow and self._shadow is not None:
            self._shadow.teach(job, window, description, speed)
        else:
            job.see(description)

    def tick(self) -> None:
        """Once a second: a calibration that waits in vain ends."""
        if self._job is not None:
            self._job.tick()

    # -- from people

    def calibrate(self, duration_s: float, promote: bool, wish: Wish = Wish()) -> str:  # noqa: B008 - immutable
        """Gather live windows for a new baseline. Raises CalibrationError when a calibration is under way."""
        self._begin(promote, wish, duration_s)
        return f"{self._machine.id}: calibrating for {duration_s:g} s"

    def calibrate_from(self, paths: list[str], promote: bool, wish: Wish = Wish()) -> str:  # noqa: B008
        """Read recordings for a new baseline. Raises CalibrationError when a calibration is under way."""
        job, pipeline = self._begin(promote, wish), self._learner(wish)
        job.read(lambda report: describe_recordings(pipeline, pipeline.machine, [Path(p) for p in paths], report))
        return f"{self._machine.id}: calibrating from {len(paths)} path(s)"

    def calibrate_without(self, outliers: list[int], promote: bool) -> Baseline:
        """The last calibration without these outliers, counted from 1 (none: without any). Raises AsdError."""
        self._not_running()
        baseline = learning.without(self._pipeline(), self._baselines, outliers)
        if promote:
            self._promote(baseline.manifest.version)
        return baseline

    def extend(self, name: str, since_utc_s: float | None, promote: bool) -> str:
        """What is heard now, or was since then, and is like no known state, becomes one. Raises AsdError."""
        self._not_running()
        pipeline, (windows, told) = self._pipeline(), self._heard_since(since_utc_s)
        if told and name not in ("", told):
            raise CalibrationError(f"{self._machine.id}: the state is told as {told!r}, it cannot be called {name!r}")
        baseline = learning.learn(pipeline, self._baselines, windows, Wish(extend=True, name=name or told))
        version, state = baseline.manifest.version, baseline.manifest.states[-1].name
        if promote:
            self._promote(version)
        words = f"{self._machine.id}: {len(windows)} windows confirmed as the state {state!r}; baseline {version} is "
        return words + ("active now" if promote else "a candidate: promote it")

    def rename_state(self, old: str, new: str) -> str:
        """Another name for a state of the active baseline. Raises AsdError."""
        self._not_running()
        version = learning.rename(self._machine, self._baselines, old, new).manifest.version
        self._promote(version)
        return f"{self._machine.id}: the state {old!r} is called {new!r} now, in baseline {version}"

    def progress(self) -> dict[str, Any]:
        """Of the last calibration. Raises CalibrationError."""
        if self._job is None:
            raise CalibrationError(f"{self._machine.id}: no calibration has been started")
        return self._job.progress()

    def cancel(self) -> str:
        """Raises CalibrationError."""
        if self._job is None or not self._job.running:
            raise CalibrationError(f"{self._machine.id}: no calibration is running")
        if not self._job.cancel():
            raise CalibrationError(f"{self._machine.id}: too late to cancel: the baseline is being written")
        if self._ears is not None:
            self._ears.drop()
        return f"{self._machine.id}: calibration cancelled"

    def _begin(self, promote: bool, wish: Wish, duration_s: float | None = None) -> CalibrationJob:
        """`duration_s` of live sound; None = recordings."""
        with self._lock:
            self._not_running()
            learner = self._learner(wish)
            wish.check(self._machine, self._pipeline())
            live = duration_s is not None
            ears = Ears(self._baselines.folder) if live else None

            def finish(descriptions: Sequence[Description]) -> Baseline:
                mixer = self._mixer.settings if live else None
                pipeline = learner if wish.shadow else self._pipeline()  # another one may be active by then
                baseline = learning.learn(pipeline, self._baselines, descriptions, wish, ears, mixer)
                if promote:
                    self._promote(baseline.manifest.version)
                return baseline

            self._ears, self._teaches_shadow = ears, wish.shadow
            job = self._job = CalibrationJob(finish, duration_s)
        return job

    def _learner(self, wish: Wish) -> Pipeline:
        """The pipeline that a calibration describes and learns with. Raises CalibrationError."""
        if not wish.shadow:
            return self._pipeline()
        if self._shadow is None:
            raise CalibrationError(f"{self._machine.id}: there is no shadow, the configuration says null")
        return self._shadow.bare

    def _not_running(self) -> None:
        if self.running:
            raise CalibrationError(f"{self._machine.id}: a calibration is already running; wait for it, or cancel it")
