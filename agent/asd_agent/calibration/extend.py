"""A further condition of the machine beside the known states, and other names for states."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from asd_agent import bank, config
from asd_agent.baseline import Baseline, StateCalibration, prefixed
from asd_agent.calibration.build import LONGEST_NAME, fit_state, range_dbfs, stored, window_places
from asd_agent.calibration.report import StateFit, seconds
from asd_agent.decide.blocks import sessions
from asd_agent.decide.fusion import Fusion, join
from asd_agent.decide.persistence import Steadiness
from asd_agent.errors import CalibrationError
from asd_agent.scoring.detectors import SUBTRACTED, EmbeddingDetector
from asd_agent.scoring.operating import OperatingState
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.types import Description
from asd_agent.windowing import signal_chain

FEWEST_OF_TARGET = 3
ENOUGH_OF_TARGET = 24  # windows of a new condition; so many show by themselves how it varies


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
        fit = fit_state(name, machine, pipeline, usable, session)
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
                levels=manifest.chain.levels | {name: range_dbfs(usable)},
                floors=manifest.chain.floors | signal_chain.floors([(name, usable)]),
            ),
            report=msgspec.structs.replace(manifest.report, facts=[*manifest.report.facts, fact]),
        ),
        arrays={**baseline.arrays, **fit.arrays, **window_places(fit)},
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


def _fit_extension(
    name: str, source: StateCalibration, state: OperatingState, windows: list[Description], widen: bank.Widen
) -> StateFit:
    """Embeddings only: the mechanism analysis has no measure of distance to borrow."""
    known = [d for d in state.detectors if isinstance(d, EmbeddingDetector) and not d.name.endswith(SUBTRACTED)]
    fitted = [d.extended(windows, source.windows, widen) for d in known]
    z = np.array([column for _, column in fitted]).T
    joined = [join(row) for row in z]
    spread = msgspec.structs.replace(source.fusion.spread, sessions=1)
    wide = (source.embedding_fusion or source.fusion).scale
    fusion = Fusion(median=float(np.median(joined)), scale=wide, spread=spread)
    calibration = StateCalibration(
        name=name,
        windows=len(windows),
        level_dbfs=float(np.median([d.quality.level_dbfs for d in windows])),
        detectors={d.name: stored(d) for d, _ in fitted},
        fused=[d.name for d, _ in fitted],
        fusion=fusion,
        steadiness=_borrowed(source.steadiness, [d.name for d, _ in fitted], spread.drift),
        transient=source.transient,
        transients_per_hour=source.transients_per_hour,
        extends=source.name,
    )
    arrays = {k: v for d, _ in fitted for k, v in prefixed(f"{name}/{d.name}", d.arrays()).items()}
    return StateFit(calibration, windows, [fusion.score(row) for row in z], arrays)


def _borrowed(source: Steadiness | None, names: list[str], drift: float) -> Steadiness | None:
    """How blocks vary comes from the known state; of how days differ nothing is known yet."""
    if source is None:
        return None
    rows = [source.detectors.index(name) for name in names]
    day = math.sqrt(drift)
    return Steadiness(
        detectors=names,
        centre=[0.0] * len(rows),
        high=[source.high[i] - source.centre[i] for i in rows],
        day=[max(source.day[i], day) for i in rows],
        block=[source.block[i] for i in rows],
        high_block=[source.high_block[i] for i in rows],
    )
