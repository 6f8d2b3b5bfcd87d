"""Every way to a new baseline that the running daemon offers, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asd_agent import config
from asd_agent.baseline import Baseline
from asd_agent.calibration import workflow
from asd_agent.calibration.gather import describe_recordings
from asd_agent.calibration.workflow import ANEW, CalibrationClips, CalibrationOptions
from asd_agent.errors import CalibrationError
from asd_agent.scoring.pipeline import Pipeline, Step
from asd_agent.service.active import ActiveBaseline
from asd_agent.service.calibration_job import CalibrationJob
from asd_agent.service.mixer_watch import MixerWatch
from asd_agent.service.shadow import Shadow
from asd_agent.service.status import CalibrationProgress
from asd_agent.types import Description

if TYPE_CHECKING:
    pass


class Calibrator:
    """Thread-safe: the worker brings the windows, people ask from the control threads."""

    def __init__(
        self, active: ActiveBaseline, mixer: MixerWatch, shadow: Shadow | None, machine: config.Machine
    ) -> None:
        self._active, self._baselines = active, active.store
        self._machine, self._mixer, self._shadow = machine, mixer, shadow
        self._lock = threading.Lock()  # of what is under way
        self._job: CalibrationJob | None = None
        self._clips: CalibrationClips | None = None  # of a live calibration
        self._for_shadow = False

    # -- from the worker

    @property
    def running(self) -> bool:
        return self._job is not None and self._job.running

    def see(self, step: Step) -> None:
        """Every window, as the machine's own pipeline describes it."""
        job, clips = self._job, self._clips
        if job is None:
            return
        if job.listening and clips is not None:
            clips.keep(step.window, step.description)
        if self._for_shadow and self._shadow is not None:
            self._shadow.calibrate(job, step)
        else:
            job.see(step.description)

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
        job, pipeline = self._begin(promote, options), self._source_pipeline(options)
        job.read(lambda report: describe_recordings(pipeline, pipeline.machine, [Path(p) for p in paths], report))
        return f"{self._machine.id}: calibrating from {len(paths)} path(s)"

    def calibrate_without(self, outliers: list[int], promote: bool) -> Baseline:
        """The last calibration without these outliers, counted from 1 (none: without any). Raises AsdError."""
        self._not_running()
        baseline = workflow.without(self._active.pipeline, self._baselines, outliers)
        if promote:
            self._active.promote(baseline.manifest.version)
        return baseline

    def extend(self, name: str, since_utc_s: float | None, promote: bool) -> str:
        """The unknown state of now, or of the time since then, becomes a known one. Raises AsdError."""
        self._not_running()
        pipeline, (windows, reported) = self._active.pipeline, self._active.windows_since(since_utc_s)
        if reported and name not in ("", reported):
            raise CalibrationError(
                f"{self._machine.id}: the state is reported as {reported!r}, it cannot be called {name!r}"
            )
        baseline = workflow.calibrate(
            pipeline, self._baselines, windows, CalibrationOptions(extend=True, name=name or reported)
        )
        version, state = baseline.manifest.version, baseline.manifest.states[-1].name
        if promote:
            self._active.promote(version)
        words = f"{self._machine.id}: {len(windows)} windows confirmed as the state {state!r}; baseline {version} is "
        return words + ("active now" if promote else "a candidate: promote it")

    def rename_state(self, old: str, new: str) -> str:
        """Another name for a state of the active baseline. Raises AsdError."""
        self._not_running()
        version = workflow.rename(self._machine, self._baselines, old, new).manifest.version
        self._active.promote(version)
        return f"{self._machine.id}: the state {old!r} is called {new!r} now, in baseline {version}"

    def progress(self) -> CalibrationProgress:
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
            source = self._source_pipeline(options)
            options.check(self._machine, self._active.pipeline)
            live = duration_s is not None
            clips = CalibrationClips(self._baselines.folder) if live else None

            def finish(descriptions: Sequence[Description]) -> Baseline:
                mixer = self._mixer.settings if live else None
                pipeline = source if options.shadow else self._active.pipeline  # another one may be active by then
                baseline = workflow.calibrate(pipeline, self._baselines, descriptions, options, clips, mixer)
                if promote:
                    self._active.promote(baseline.manifest.version)
                return baseline

            self._clips, self._for_shadow = clips, options.shadow
            job = self._job = CalibrationJob(finish, duration_s)
        return job

    def _source_pipeline(self, options: CalibrationOptions) -> Pipeline:
        """The pipeline that a calibration describes and learns with. Raises CalibrationError."""
        if not options.shadow:
            return self._active.pipeline
        if self._shadow is None:
            raise CalibrationError(f"{self._machine.id}: there is no shadow, the configuration says null")
        return self._shadow.bare

    def _not_running(self) -> None:
        if self.running:
            raise CalibrationError(f"{self._machine.id}: a calibration is already running; wait for it, or cancel it")
