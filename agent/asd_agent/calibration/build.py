"""Normal windows -> a baseline, with a verdict in plain words."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent import bank, config, mechanism
from asd_agent.windowing import signal_chain as chain
from asd_agent.baseline import (
    Arrays,
    Baseline,
    DetectorCalibration,
    Foreign,
    InputChain,
    Manifest,
    StateCalibration,
    prefixed,
)
from asd_agent.capture import open_source, recordings
from asd_agent.decide import states
from asd_agent.decide.blocks import FEWEST_WINDOWS, Labels, blocks, sessions
from asd_agent.decide.fusion import Fusion, join
from asd_agent.decide.logscore import LogScore, centre_and_scale
from asd_agent.decide.states import OFF
from asd_agent.scoring.detectors import MECHANISM, Detector, EmbeddingDetector, MechanismDetector, embeddings
from asd_agent.errors import CalibrationError, EndOfSource, SourceError
from asd_agent.evidence.nearest import WINDOWS, places
from asd_agent.scoring.pipeline import OperatingState, Pipeline, foreign_score
from asd_agent.windowing.recordings import recorded_windows
from asd_agent.types import Description, Window
from asd_agent.calibration.report import StateFit, report, seconds, select
from asd_agent.windowing.windower import Windower

Progress = Callable[[float, str], None]  # share done, words

PATIENCE_S = 30.0  # without a single frame from a live source
LONGEST_NAME = 60
FEWEST_OF_TARGET = 3
ENOUGH_OF_TARGET = 24  # windows of a new condition that can tell themselves how it varies
SMALLEST_FOREIGN = 0.3  # of ln probability


def describe_recordings(
    pipeline: Pipeline, machine: config.Machine, paths: Sequence[Path], progress: Progress = lambda *_: None
) -> list[Description]:
    """All windows of the recordings. Raises SourceError, naming the file: a calibration skips nothing silently."""
    files = recordings(paths)
    found: list[Description] = []
    sampler = chain.Sampler(chain.EVERY_WHILE_LEARNING_S)
    for i, path in enumerate(files):
        progress(i / len(files), f"{path.name}, {len(found)} windows")
        found += [
            sampler.add(window, pipeline.describe(window)) for window in recorded_windows(path, machine, pipeline.rates)
        ]
    progress(1.0, f"{len(found)} windows")
    return found


def describe_live(
    pipeline: Pipeline, machine: config.Machine, duration_s: float, progress: Progress = lambda *_: None,
    hear: Callable[[Window, Description], None] = lambda *_: None,
) -> list[Description]:  # fmt: skip
    """Windows of the machine's own source until `duration_s` of sound is heard, or a finite source ends; `hear` is told
    of each.

    Raises SourceError when the source delivers nothing.
    """
    found: list[Description] = []
    heard_s, last_frame = 0.0, time.monotonic()
    windower: Windower | None = None
    sampler = chain.Sampler(chain.EVERY_WHILE_LEARNING_S)
    with open_source(machine.source, [machine.source.channel]) as source:
        while heard_s < duration_s:
            try:
                block = source.read(0.5)
            except EndOfSource:
                break
            if block is None:
                if time.monotonic() - last_frame > PATIENCE_S:
                    raise SourceError(f"{machine.id}: no sound for {PATIENCE_S:g} s: {source.status().detail}")
                continue
            last_frame = time.monotonic()
            windower = windower or Windower(block.rate_hz, machine.window_s, machine.hop_s, pipeline.rates)
            for window in windower.push(block, machine.source.channel):
                found.append(sampler.add(window, pipeline.describe(window)))
                hear(window, found[-1])
            heard_s += len(block.samples) / block.rate_hz
            progress(min(heard_s / duration_s, 1.0), f"{len(found)} windows")
    return found


def build(
    machine: config.Machine, descriptions: Sequence[Description], pipeline: Pipeline, version: str,
    exclude: Collection[str] = (),
) -> Baseline:  # fmt: skip
    """Find the operating states; fit banks, calibrations and fusion of each on its usable windows.

    `exclude`: places of windows (`verdict.place`) to leave out. Raises CalibrationError with what is missing.
    """
    selection = select(machine, descriptions, exclude)
    usable = selection.usable
    if len(usable) < FEWEST_WINDOWS:
        why = "".join(f"; {n} left out: {reason}" for reason, n in selection.excluded.items())
        raise CalibrationError(
            f"{machine.id}: {len(usable)} usable windows of {len(descriptions)}, at least {FEWEST_WINDOWS} are needed, "
            f"{seconds(machine, FEWEST_WINDOWS):.0f} s of sound{why}"
        )
    session = sessions([d.utc_s for d in usable], [d.origin for d in usable])
    fits = [
        _fit_state(name, machine, pipeline, [usable[i] for i in rows], session[rows])
        for name, rows in _states(machine, pipeline, usable, session).items()
    ]
    running = [f for f in fits if f.calibration.name != OFF] or fits
    levels = [d.quality.level_dbfs for f in running for d in f.windows]
    low, middle, high = np.percentile(levels, [2, 50, 98])
    manifest = Manifest(
        version=version,
        machine=machine.id,
        created_utc_s=time.time(),
        window_s=machine.window_s,
        hop_s=machine.hop_s,
        bundles={name: encoder.bundle.sha256 for name, encoder in pipeline.encoders.items()},
        states=[f.calibration for f in fits],
        foreign=_foreign(pipeline, usable),
        told=any(d.operating for d in usable),
        chain=InputChain(
            source=machine.source.device_key(),
            level_dbfs=float(middle),
            level_low_dbfs=float(low),
            level_high_dbfs=float(high),
            levels={f.calibration.name: _range_dbfs(f.windows) for f in fits},
            floors=chain.learnt((f.calibration.name, f.windows) for f in fits),
            **chain.of_calibration(usable),
        ),
        report=report(machine, selection, fits),
    )
    arrays = {k: v for f in fits for k, v in {**f.arrays, **_places(f)}.items()}
    return Baseline(manifest=manifest, arrays=arrays)


def extend(
    machine: config.Machine, baseline: Baseline, descriptions: Sequence[Description], pipeline: Pipeline,
    version: str, name: str = "", widen: bank.Widen = "smote",
) -> Baseline:  # fmt: skip
    """A further condition of the machine as a state of its own beside the known ones, which stay as they are.

    Few windows (three or more) borrow the measure of distance from the known state that they are nearest to, and
    `widen` makes more of them (`bank.widened`); two dozen are enough for a fit of their own. `pipeline` holds
    `baseline`. Raises CalibrationError.
    """
    usable = [d for d in descriptions if d.quality.assessable]
    if len(usable) < FEWEST_OF_TARGET:
        raise CalibrationError(
            f"{machine.id}: {len(usable)} usable windows of {len(descriptions)}, at least {FEWEST_OF_TARGET} are "
            f"needed to extend a baseline, {seconds(machine, FEWEST_OF_TARGET):.0f} s of sound"
        )
    known = {state.name for state in baseline.manifest.states}
    name = name or next(f"condition {i}" for i in range(2, 100) if f"condition {i}" not in known)
    if name in known:
        raise CalibrationError(f"{machine.id}: there is a state {name!r} already; name the new one differently")
    session = sessions([d.utc_s for d in usable], [d.origin for d in usable])
    if len(usable) >= ENOUGH_OF_TARGET:
        fit = _fit_state(name, machine, pipeline, usable, session)
    else:
        nearest = max(pipeline.states, key=lambda s: float(np.median([s.judge(d).p_value for d in usable])))
        source = next(s for s in baseline.manifest.states if s.name == nearest.name)
        fit = _fit_extension(name, source, nearest, usable, widen)
    manifest = baseline.manifest
    fact = f"extended by the state {name}: {len(usable)} windows"
    fact += f", distances measured as in {fit.calibration.extends}" if fit.calibration.extends else ""
    return Baseline(
        manifest=msgspec.structs.replace(
            manifest,
            version=version,
            created_utc_s=time.time(),
            states=[*manifest.states, fit.calibration],
            chain=msgspec.structs.replace(
                manifest.chain,
                levels=manifest.chain.levels | {name: _range_dbfs(usable)},
                floors=manifest.chain.floors | chain.learnt([(name, usable)]),
            ),
            report=msgspec.structs.replace(manifest.report, facts=[*manifest.report.facts, fact]),
        ),
        arrays={**baseline.arrays, **fit.arrays, **_places(fit)},
    )


def rename_state(baseline: Baseline, old: str, new: str, version: str) -> Baseline:
    """The same baseline with another name for a state. Raises CalibrationError."""
    states = baseline.manifest.states
    who, known = baseline.manifest.machine, ", ".join(s.name for s in states)
    if old not in {s.name for s in states}:
        raise CalibrationError(f"{who}: there is no state {old!r}, the states are {known}")
    if new in {s.name for s in states} or "/" in new or new != new.strip() or not 0 < len(new) <= LONGEST_NAME:
        words = f"the states are {known}; a name has up to {LONGEST_NAME} characters, none of them /"
        raise CalibrationError(f"{who}: {new!r} cannot be the name of another state: {words}")

    def renamed(key: str) -> str:
        return f"{new}/{key[len(old) + 1 :]}" if key.startswith(old + "/") else key

    swap = {old: new}
    changed = [
        msgspec.structs.replace(s, name=swap.get(s.name, s.name), extends=swap.get(s.extends, s.extends))
        for s in states
    ]
    learnt = baseline.manifest.chain
    manifest = msgspec.structs.replace(
        baseline.manifest,
        states=changed,
        chain=msgspec.structs.replace(
            learnt,
            levels={swap.get(k, k): v for k, v in learnt.levels.items()},
            floors={swap.get(k, k): v for k, v in learnt.floors.items()},
        ),
        version=version,
        created_utc_s=time.time(),
    )
    return Baseline(manifest=manifest, arrays={renamed(k): v for k, v in baseline.arrays.items()})


def _states(
    machine: config.Machine, pipeline: Pipeline, usable: Sequence[Description], session: Labels
) -> dict[str, Labels]:
    """Name -> rows of its windows. As told from outside; else found where an embedding holds levels of bands."""
    told = sorted({d.operating for d in usable if d.operating})
    if told:
        rows = {name: np.flatnonzero([d.operating == name for d in usable]) for name in told}
        return {name: found for name, found in rows.items() if len(found) >= FEWEST_WINDOWS}
    levels = np.array([d.quality.level_dbfs for d in usable])
    bands = next((k for k, o in pipeline.outputs.items() if [a.quantity for a in o.axes] == ["level"]), None)
    if bands is None:
        label = np.zeros(len(usable), np.intp)
    else:
        overlap = math.ceil(machine.window_s / machine.hop_s)
        label = states.discover(embeddings(usable, bands), levels, session, machine.hop_s, overlap)
    count = int(label.max()) + 1
    label = np.where(_at_a_change(label, session), -1, label) if count > 1 else label
    known = states.names([float(np.median(levels[label == s])) for s in range(count)])
    found = {known[s]: np.flatnonzero(label == s) for s in range(count)}
    return {name: members for name, members in found.items() if len(members) >= FEWEST_WINDOWS}


def _at_a_change(label: Labels, session: Labels) -> npt.NDArray[np.bool_]:
    """The windows on both sides of a change of state may hold some of either."""
    change = (label[1:] != label[:-1]) & (session[1:] == session[:-1])
    return np.asarray(np.append(change, False) | np.append(False, change))


def _fit_state(
    name: str, machine: config.Machine, pipeline: Pipeline, windows: list[Description], session: Labels
) -> StateFit:
    guard = math.ceil(machine.window_s / machine.hop_s) - 1
    block = blocks(session)
    detectors: list[Detector] = []
    columns = []
    for output_name, output in pipeline.outputs.items():
        detector, z = EmbeddingDetector.fit(output_name, output, windows, block, session, guard)
        detectors.append(detector)
        columns.append(z)
    mode = machine.mechanism.mode if machine.mechanism is not None else "beside"
    if machine.mechanism is not None and len(windows) >= mechanism.FEWEST:
        judge, z = MechanismDetector.fit(windows, block)
        detectors.append(judge)
        columns.append(z)
    joined = [i for i, d in enumerate(detectors) if _decides(d.name, mode)] or list(range(len(pipeline.outputs)))
    z = np.array(columns).T
    fusion = Fusion.fit(z[:, joined], block, session, min(machine.hop_s / machine.window_s, 1.0))
    embedded = z[:, : len(pipeline.outputs)]
    excess = [d.transient.excess_db for d in windows if d.transient is not None]
    calibration = StateCalibration(
        name=name,
        windows=len(windows),
        level_dbfs=float(np.median([d.quality.level_dbfs for d in windows])),
        detectors={d.name: _stored(d) for d in detectors},
        fused=[detectors[i].name for i in joined],
        fusion=fusion,
        embedding_fusion=None if embedded.shape == z[:, joined].shape else Fusion.fit(embedded, block, session),
        transient=LogScore.fit(excess) if excess else None,
        events_per_hour=_events_per_hour(machine, excess),
    )
    arrays = {k: v for d in detectors for k, v in prefixed(f"{name}/{d.name}", d.arrays()).items()}
    return StateFit(calibration, windows, [fusion.score(row) for row in z[:, joined]], arrays)


def _fit_extension(
    name: str, source: StateCalibration, state: OperatingState, windows: list[Description], widen: bank.Widen
) -> StateFit:
    """Embeddings only: the mechanism analysis has no measure of distance to borrow."""
    fitted = [d.extended(windows, source.windows, widen) for d in state.detectors if isinstance(d, EmbeddingDetector)]
    z = np.array([column for _, column in fitted]).T
    joined = [join(row) for row in z]
    spread = msgspec.structs.replace(source.fusion.spread, sessions=1)
    wide = (source.embedding_fusion or source.fusion).scale
    fusion = Fusion(median=float(np.median(joined)), scale=wide, spread=spread)
    calibration = StateCalibration(
        name=name,
        windows=len(windows),
        level_dbfs=float(np.median([d.quality.level_dbfs for d in windows])),
        detectors={d.name: _stored(d) for d, _ in fitted},
        fused=[d.name for d, _ in fitted],
        fusion=fusion,
        transient=source.transient,
        events_per_hour=source.events_per_hour,
        extends=source.name,
    )
    arrays = {k: v for d, _ in fitted for k, v in prefixed(f"{name}/{d.name}", d.arrays()).items()}
    return StateFit(calibration, windows, [fusion.score(row) for row in z], arrays)


def _places(fit: StateFit) -> Arrays:
    """Where its windows came from; the bank of a borrowed state does not hold them in their order."""
    if fit.calibration.extends:
        return {}
    return prefixed(f"{fit.calibration.name}/{WINDOWS}", places(fit.windows))


def _range_dbfs(windows: Sequence[Description]) -> tuple[float, float]:
    low, high = np.percentile([d.quality.level_dbfs for d in windows], [2, 98])
    return float(low), float(high)


def _decides(name: str, mode: str) -> bool:
    return {"join": True, "replace": name == MECHANISM, "beside": name != MECHANISM}[mode]


def _stored(detector: Detector) -> DetectorCalibration:
    if isinstance(detector, EmbeddingDetector):
        return DetectorCalibration(kind=detector.bank.kind, log_score=detector.log_score)
    return DetectorCalibration(kind=detector.name)


def _foreign(pipeline: Pipeline, usable: Sequence[Description]) -> dict[str, Foreign]:
    found = {}
    for name in pipeline.foreign:
        median, scale = centre_and_scale([foreign_score(d, name) for d in usable], SMALLEST_FOREIGN)
        found[name] = Foreign(median=median, scale=scale)
    return found


def _events_per_hour(machine: config.Machine, excess: Sequence[float]) -> float:
    """How often normal sound has a sudden moment beyond the limit of the event lane."""
    if not excess:
        return 0.0
    normal = LogScore.fit(excess)
    beyond = sum(normal.p_value(e) <= machine.alarm.event_p for e in excess)
    return beyond * 3600 / max(seconds(machine, len(excess)), 1.0)
