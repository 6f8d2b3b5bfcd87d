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
from asd_agent.calibration.workflow import ANEW, CalibrationClips, CalibrationOptions
from asd_agent.errors import CalibrationError
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.service.calibration_job import CalibrationJob
from asd_agent.service.mixer_watch import MixerWatch
from asd_agent.service.shadow import Shadow
from asd_agent.types import Description, Window

if TYPE_CHECKING:
    from asd_agent.mechanism.speed import Speed

Promote = Callable[[str], object]  # version
WindowsSince = Callable[
    [float | None], tuple[list[Description], str]
]  # UTC -> what is like no state, and its told name


class Calibrator:
    """Thread-safe: the worker brings the windows, people ask from the control threads."""

    def __init__(
        self, machine: config.Machine, baselines: BaselineStore, pipeline: Callable[[], Pipeline], promote: Promote,
        windows_since: WindowsSince, mixer: MixerWatch, shadow: Shadow | None,
    ) -> None:  # fmt: skip
        self._machine = machine
        self._baselines = baselines
        self._pipeline = pipeline
        self._promote = promote
        self._windows_since = windows_since
        self._mixer = mixer
        self._shadow = shadow
        self._lock = threading.Lock()  # of what is under way
        self._job: CalibrationJob | None = None
        self._clips: CalibrationClips | None = None  # of a live calibration
        self._for_shadow = False

    # -- from the worker

    @property
    def running(self) -> bool:
        return self._job is not None and self._job.running

    def hear(self, window: Window, description: Description, speed: Speed | None) -> None:
        """Every window, as the machine's own pipeline describes it."""
        job, clips = self._job, self._clips
        if job is None:
            return
        if job.listening and clips is not None:
            clips.hear(window, description)
        if self._for_shadow and self._shadow is not None:
            self._shadow.teach(job, window, description, speed)
        else:
            job.see(description)

    def tick(self) -> None:
        """Once a second: a calibration that waits in vain ends."""
        if self._job is not None:
            self._job.tick()

    # -- from people

    def calibrate(self, duration_s: float, promote: bool, options: CalibrationOptions = ANEW) -> str:
        """Gather live windows for a new baseline. Raises CalibrationError when a calibration is under way."""
        self._begin(promote, options, duration_s)
        return f"{self._machine.id}: calibrating for {duration_s:g} s"

    def calibrate_from(self, paths: list[str], promote: bool, options: CalibrationOptions = ANEW) -> str:
        """Read recordings for a new baseline. Raises CalibrationError when a calibration is under way."""
        job, pipeline = self._begin(promote, options), self._learner(options)
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
        pipeline, (windows, told) = self._pipeline(), self._windows_since(since_utc_s)
        if told and name not in ("", told):
            raise CalibrationError(f"{self._machine.id}: the state is told as {told!r}, it cannot be called {name!r}")
        baseline = learning.learn(
            pipeline, self._baselines, windows, CalibrationOptions(extend=True, name=name or told)
        )
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
        if self._clips is not None:
            self._clips.drop()
        return f"{self._machine.id}: calibration cancelled"

    def _begin(self, promote: bool, options: CalibrationOptions, duration_s: float | None = None) -> CalibrationJob:
        """`duration_s` of live sound; None = recordings."""
        with self._lock:
            self._not_running()
            learner = self._learner(options)
            options.check(self._machine, self._pipeline())
            live = duration_s is not None
            clips = CalibrationClips(self._baselines.folder) if live else None

            def finish(descriptions: Sequence[Description]) -> Baseline:
                mixer = self._mixer.settings if live else None
                pipeline = learner if options.shadow else self._pipeline()  # another one may be active by then
                baseline = learning.learn(pipeline, self._baselines, descriptions, options, clips, mixer)
                if promote:
                    self._promote(baseline.manifest.version)
                return baseline

            self._clips, self._for_shadow = clips, options.shadow
            job = self._job = CalibrationJob(finish, duration_s)
        return job

    def _learner(self, options: CalibrationOptions) -> Pipeline:
        """The pipeline that a calibration describes and learns with. Raises CalibrationError."""
        if not options.shadow:
            return self._pipeline()
        if self._shadow is None:
            raise CalibrationError(f"{self._machine.id}: there is no shadow, the configuration says null")
        return self._shadow.bare

    def _not_running(self) -> None:
        if self.running:
            raise CalibrationError(f"{self._machine.id}: a calibration is already running; wait for it, or cancel it")
