"""The operating states of a stored baseline, ready to judge windows."""

from __future__ import annotations

from collections.abc import Mapping

from asd_agent import config, mechanism
from asd_agent.baseline import Baseline, StateCalibration
from asd_agent.encode.encoder import Encoder
from asd_agent.encode.meta import Output
from asd_agent.errors import BaselineError
from asd_agent.scoring.detectors import Detector, EmbeddingDetector, MechanismDetector
from asd_agent.scoring.operating import OperatingState


def check(machine: config.Machine, encoders: Mapping[str, Encoder], baseline: Baseline) -> None:
    """Raises BaselineError for a baseline that was made with other bundles or windows."""
    made_with, manifest = {k: e.bundle.sha256 for k, e in encoders.items()}, baseline.manifest
    if manifest.bundles != made_with:
        raise BaselineError(
            f"{machine.id}: baseline {manifest.version} was made with the bundle(s) {_names(manifest.bundles)}"
            f", the configuration says {_names(made_with)}; calibrate again"
        )
    if manifest.window_s != machine.window_s:
        raise BaselineError(
            f"{machine.id}: baseline {manifest.version} was made with windows of {manifest.window_s:g} s, "
            f"the configuration says window_s: {machine.window_s:g}; calibrate again"
        )


def states(baseline: Baseline, outputs: Mapping[str, Output]) -> tuple[OperatingState, ...]:
    """`outputs` of the bundles by the names of their detectors. Raises BaselineError."""
    return tuple(_state(baseline, outputs, stored) for stored in baseline.manifest.states)


def _state(baseline: Baseline, outputs: Mapping[str, Output], stored: StateCalibration) -> OperatingState:
    return OperatingState(
        name=stored.name,
        detectors=tuple(_detector(baseline, outputs, stored, name) for name in stored.detectors),
        fused=frozenset(stored.fused),
        fusion=stored.fusion,
        embedding_fusion=stored.embedding_fusion or stored.fusion,
        transient=stored.transient,
        room=stored.room,
    )


def _detector(baseline: Baseline, outputs: Mapping[str, Output], state: StateCalibration, name: str) -> Detector:
    calibration, arrays = state.detectors[name], baseline.part(f"{state.name}/{name}")
    if calibration.log_score is None:
        return MechanismDetector(mechanism.MechanismBaseline.from_arrays(arrays))
    if name not in outputs:
        raise BaselineError(
            f"{baseline.manifest.machine}: the baseline has a detector {name!r} that no bundle has; calibrate again"
        )
    return EmbeddingDetector.restore(name, outputs[name], calibration.kind, calibration.log_score, arrays)


def _names(bundles: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({sha256[:8]})" for name, sha256 in bundles.items())
