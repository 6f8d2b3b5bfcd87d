"""Ways to a new baseline, the same for the daemon and for a command without one.

    calibrate   from windows: all states anew, or one further state beside those of the active baseline
    without     the last calibration without some of its windows, without listening again
    rename      another name for a state

Each writes a candidate; nothing becomes active by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from asd_agent import config
from asd_agent.bank import Widen
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.calibration import windows
from asd_agent.calibration.build import LONGEST_NAME, build
from asd_agent.calibration.clips import NormalClips, OutlierClips
from asd_agent.calibration.extend import extend, rename_state
from asd_agent.calibration.windows import CalibrationWindows
from asd_agent.errors import CalibrationError
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.types import Description, Window, WindowRef


@dataclass(frozen=True)
class CalibrationOptions:
    extend: bool = False
    name: str = ""  # of the further state; empty = "condition 2", ...
    widen: Widen = "smote"  # how a few windows of it are made more
    shadow: bool = False  # by the bundle of the shadow: its windows are of no use to `without`

    def check(self, machine: config.Machine, pipeline: Pipeline) -> None:
        """Before minutes of listening. Raises CalibrationError."""
        if self.name and not self.extend:
            raise CalibrationError(f"{machine.id}: a name is for a further state (--extend)")
        if not self.extend:
            return
        if pipeline.baseline is None:
            raise CalibrationError(f"{machine.id}: there is no active baseline to extend: calibrate and promote first")
        check_name(machine.id, self.name, pipeline.baseline)


ANEW = CalibrationOptions()  # all states, from new windows


class CalibrationClips:
    """What is kept of a live calibration's sound: some normal windows, and those most unlike the others."""

    def __init__(self, machine_folder: Path) -> None:
        self._normal, self._outliers = NormalClips(machine_folder), OutlierClips(machine_folder)

    def keep(self, window: Window, description: Description) -> None:
        self._normal.keep(window)
        self._outliers.keep(window, description)

    def name_clips(self, baseline: Baseline) -> Baseline:
        return self._outliers.clips(baseline)

    def finish(self, baseline: Baseline) -> None:
        self._normal.finish(baseline.manifest.version)
        self._outliers.finish(baseline)

    def drop(self) -> None:
        self._normal.drop()
        self._outliers.drop()


def calibrate(
    pipeline: Pipeline, store: BaselineStore, descriptions: Sequence[Description], options: CalibrationOptions,
    clips: CalibrationClips | None = None, mixer: Mapping[str, str] | None = None,
) -> Baseline:  # fmt: skip
    """A new candidate. `pipeline` holds the active baseline where that is extended; `mixer`: its settings meanwhile.

    Raises CalibrationError, StoreError.
    """
    machine, version = pipeline.machine, store.new_version()
    if options.extend:
        options.check(machine, pipeline)
        assert pipeline.baseline is not None
        baseline = extend(machine, pipeline.baseline, descriptions, pipeline, version, options.name, options.widen)
    else:
        baseline = build(machine, descriptions, pipeline, version)
        baseline = _with_mixer(baseline, mixer or {})
    if clips is not None:
        baseline = clips.name_clips(baseline)
    store.write(baseline)
    if not options.extend and not options.shadow:
        windows.keep(store.folder, CalibrationWindows(version, tuple(descriptions)))
    if clips is not None:
        clips.finish(baseline)
    return baseline


def without(pipeline: Pipeline, store: BaselineStore, numbers: Sequence[int]) -> Baseline:
    """The last calibration without the outliers of these numbers, counted from 1; none = without any of its outliers.
    Raises BaselineError, CalibrationError, StoreError."""
    kept = windows.load(store.folder)
    machine = pipeline.machine
    newest = store.versions()[-1] if store.versions() else ""
    if newest != kept.version:
        raise CalibrationError(
            f"{machine.id}: baseline {newest or 'none'} did not come from the last calibration ({kept.version}), the "
            "numbers of its outliers mean nothing: calibrate again"
        )
    before = store.load(kept.version).manifest
    outliers = before.report.outliers
    if not outliers:
        raise CalibrationError(f"{machine.id}: baseline {kept.version} has no outliers to leave out")
    wrong = [n for n in numbers if not 1 <= n <= len(outliers)]
    if wrong:
        raise CalibrationError(
            f"{machine.id}: there is no outlier {wrong[0]} in baseline {kept.version}, they are 1 to {len(outliers)}"
        )
    chosen = {o.window for n, o in enumerate(outliers, 1) if not numbers or n in numbers}
    excluded = kept.excluded | chosen
    version = store.new_version()
    baseline = build(machine, kept.windows, pipeline, version, excluded)
    clips = {o.window: o.clip for o in outliers}
    baseline = _with_mixer(_with_clips(baseline, clips), before.chain.mixer)
    store.write(baseline)
    windows.keep(store.folder, CalibrationWindows(version, kept.windows, excluded))
    return baseline


def rename(machine: config.Machine, store: BaselineStore, old: str, new: str) -> Baseline:
    """The active baseline (else the candidate) with another name for a state.

    Raises BaselineError, CalibrationError.
    """
    pointers = store.pointers()
    version = pointers.active or pointers.candidate
    if version is None:
        raise CalibrationError(f"{machine.id}: there is no baseline yet; run `asd-agent calibrate`")
    baseline = rename_state(store.load(version), old, new, store.new_version())
    store.write(baseline)
    return baseline


def check_name(machine_id: str, name: str, baseline: Baseline) -> None:
    """Of a further state. Raises CalibrationError."""
    if "/" in name or len(name) > LONGEST_NAME or name != name.strip():
        words = f"{name!r} is no name for a state: up to {LONGEST_NAME} characters, none of them /"
        raise CalibrationError(f"{machine_id}: {words}")
    if name in {s.name for s in baseline.manifest.states}:
        raise CalibrationError(f"{machine_id}: there is a state {name!r} already; name the new one differently")


def _with_mixer(baseline: Baseline, mixer: Mapping[str, str]) -> Baseline:
    replace, manifest = msgspec.structs.replace, baseline.manifest
    return replace(baseline, manifest=replace(manifest, chain=replace(manifest.chain, mixer=dict(mixer))))


def _with_clips(baseline: Baseline, clips: Mapping[WindowRef, str]) -> Baseline:
    replace, manifest = msgspec.structs.replace, baseline.manifest
    outliers = [replace(o, clip=clips.get(o.window, "")) for o in manifest.report.outliers]
    return replace(baseline, manifest=replace(manifest, report=replace(manifest.report, outliers=outliers)))
