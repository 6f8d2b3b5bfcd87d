"""Normal windows -> a baseline, with a report."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from asd_agent import bank, config, mechanism
from asd_agent.baseline import Arrays, Baseline, DetectorCalibration, Manifest, Nuisance, StateCalibration, prefixed
from asd_agent.calibration.report import StateFit, report, seconds, select
from asd_agent.decide import states
from asd_agent.decide.blocks import FEWEST_WINDOWS, Labels, blocks, sessions
from asd_agent.decide.fusion import Fusion
from asd_agent.decide.logscore import LogScore, centre_and_scale
from asd_agent.decide.persistence import Steadiness
from asd_agent.decide.reason import WORDS as CAUSES
from asd_agent.decide.states import OFF
from asd_agent.errors import CalibrationError
from asd_agent.evidence.nearest import WINDOWS, places
from asd_agent.scoring.detectors import MECHANISM, Detector, EmbeddingDetector, MechanismDetector, embeddings
from asd_agent.scoring.nuisance import odds_of
from asd_agent.scoring.pipeline import Pipeline, detector_name
from asd_agent.types import Description, WindowRef
from asd_agent.windowing import signal_chain
from asd_agent.windowing.reference import RoomNormal
from asd_agent.windowing.signal_chain import SignalChain

LONGEST_NAME = 60
SMALLEST_NUISANCE = 0.3  # of log odds


def build(
    machine: config.Machine, descriptions: Sequence[Description], pipeline: Pipeline, version: str,
    exclude: Collection[WindowRef] = (),
) -> Baseline:  # fmt: skip
    """Find the operating states; fit banks, calibrations and fusion of each on its usable windows.

    `exclude`: windows to leave out. Raises CalibrationError with what is missing.
    """
    selection = select(machine, descriptions, exclude)
    usable = selection.usable
    if len(usable) < FEWEST_WINDOWS:
        why = "".join(f"; {n} left out: {CAUSES[cause]}" for cause, n in selection.excluded.items())
        raise CalibrationError(
            f"{machine.id}: {len(usable)} usable windows of {len(descriptions)}, at least {FEWEST_WINDOWS} are needed, "
            f"{seconds(machine, FEWEST_WINDOWS):.0f} s of sound{why}"
        )
    session = sessions([d.utc_s for d in usable], [d.origin for d in usable])
    fits = [
        fit_state(name, machine, pipeline, [usable[i] for i in rows], session[rows])
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
        nuisance=_nuisance(pipeline, usable),
        states_reported=any(d.operating for d in usable),
        chain=SignalChain(
            source=machine.source.device_key(),
            level_dbfs=float(middle),
            level_low_dbfs=float(low),
            level_high_dbfs=float(high),
            levels={f.calibration.name: range_dbfs(f.windows) for f in fits},
            floors=signal_chain.floors((f.calibration.name, f.windows) for f in fits),
            **signal_chain.of_calibration(usable),
        ),
        report=report(machine, selection, fits),
    )
    arrays = {k: v for f in fits for k, v in {**f.arrays, **window_places(f)}.items()}
    return Baseline(manifest=manifest, arrays=arrays)


def _states(
    machine: config.Machine, pipeline: Pipeline, usable: Sequence[Description], session: Labels
) -> dict[str, Labels]:
    """Name -> rows of its windows. As reported by the machine; else found where an embedding holds levels of bands."""
    reported = sorted({d.operating for d in usable if d.operating})
    if reported:
        rows = {name: np.flatnonzero([d.operating == name for d in usable]) for name in reported}
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


def fit_state(
    name: str, machine: config.Machine, pipeline: Pipeline, windows: list[Description], session: Labels
) -> StateFit:
    guard = math.ceil(machine.window_s / machine.hop_s) - 1
    block = blocks(session)
    detectors: list[Detector] = []
    columns = []
    for output_name, output in pipeline.outputs.items():
        given = _brought(pipeline, output_name)
        detector, z = EmbeddingDetector.fit(output_name, output, windows, block, session, guard, given)
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
    detectors += _without_room(pipeline, windows, block, session, guard)
    calibration = StateCalibration(
        name=name,
        windows=len(windows),
        level_dbfs=float(np.median([d.quality.level_dbfs for d in windows])),
        detectors={d.name: stored(d) for d in detectors},
        fused=[detectors[i].name for i in joined],
        fusion=fusion,
        embedding_fusion=None if embedded.shape == z[:, joined].shape else Fusion.fit(embedded, block, session),
        steadiness=Steadiness.fit(
            [detectors[i].name for i in joined],
            z[:, joined],
            session,
            fusion.spread.drift,
            machine.window_s,
            machine.hop_s,
        ),
        transient=LogScore.fit(excess) if excess else None,
        transients_per_hour=_transients_per_hour(machine, excess),
        room=room_normal(windows),
    )
    arrays = {k: v for d in detectors for k, v in prefixed(f"{name}/{d.name}", d.arrays()).items()}
    return StateFit(calibration, windows, [fusion.score(row) for row in z[:, joined]], arrays)


def _without_room(
    pipeline: Pipeline, windows: Sequence[Description], block: Labels, session: Labels, guard: int
) -> list[Detector]:
    """Banks of their own for the sound without what the reference microphone explains; none without enough of it."""
    heard = [i for i, d in enumerate(windows) if d.room is not None]
    if len(heard) < FEWEST_WINDOWS:
        return []
    known = [windows[i] for i in heard]
    return [
        EmbeddingDetector.fit(name, output, known, block[heard], session[heard], guard)[0]
        for name, output in pipeline.subtracted.items()
    ]


def room_normal(windows: Sequence[Description]) -> RoomNormal | None:
    """What the reference microphone heard, where it heard enough."""
    heard = [d.room for d in windows if d.room is not None]
    return RoomNormal.fit(heard) if len(heard) >= FEWEST_WINDOWS else None


def _brought(pipeline: Pipeline, name: str) -> bank.Bank | None:
    """The bank that came with the bundle; None where calibration makes it. Raises BundleError, BaselineError."""
    for key, encoder in pipeline.encoders.items():
        for output in encoder.bundle.meta.outputs:
            if output.bank is not None and detector_name(key, output.name, len(pipeline.encoders)) == name:
                return bank.from_arrays(output.bank.kind, encoder.bundle.bank_arrays(output.bank))
    return None


def window_places(fit: StateFit) -> Arrays:
    """Where its windows came from; the bank of a borrowed state does not hold them in their order."""
    if fit.calibration.extends:
        return {}
    return prefixed(f"{fit.calibration.name}/{WINDOWS}", places(fit.windows))


def range_dbfs(windows: Sequence[Description]) -> tuple[float, float]:
    low, high = np.percentile([d.quality.level_dbfs for d in windows], [2, 98])
    return float(low), float(high)


def _decides(name: str, mode: str) -> bool:
    return {"join": True, "replace": name == MECHANISM, "beside": name != MECHANISM}[mode]


def stored(detector: Detector) -> DetectorCalibration:
    if isinstance(detector, EmbeddingDetector):
        return DetectorCalibration(kind=detector.bank.kind, log_score=detector.log_score)
    return DetectorCalibration(kind=detector.name)


def _nuisance(pipeline: Pipeline, usable: Sequence[Description]) -> dict[str, Nuisance]:
    found = {}
    for name in pipeline.nuisance:
        median, scale = centre_and_scale([odds_of(d, name) for d in usable], SMALLEST_NUISANCE)
        found[name] = Nuisance(median=median, scale=scale)
    return found


def _transients_per_hour(machine: config.Machine, excess: Sequence[float]) -> float:
    """How often normal sound has a transient beyond the limit of the event rate."""
    if not excess:
        return 0.0
    normal = LogScore.fit(excess)
    beyond = sum(normal.p_value(e) <= machine.alarm.transient_p for e in excess)
    return beyond * 3600 / max(seconds(machine, len(excess)), 1.0)
