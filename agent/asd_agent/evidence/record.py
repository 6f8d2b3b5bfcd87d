"""What the daemon notes of each scored window, so that its score can be computed again."""

from __future__ import annotations

import platform
from typing import Any

import msgspec

from asd_agent.baseline import BaselineStore
from asd_agent.evidence.clip import Band, MadeWith, ScoredWindow
from asd_agent.scoring.pipeline import Pipeline, Step
from asd_agent.types import State

DEVIATES_Z = 2.0  # what stays may be no more


def scored_window(step: Step, pipeline: Pipeline) -> ScoredWindow:
    """What it takes to score the window again, and its result."""
    position, speed = step.window.position, step.reported.speed
    return ScoredWindow(
        frame=position.received,
        skipped=position.segment,
        number=position.number,
        result=step.result,
        speed=None if speed is None else msgspec.to_builtins(speed),
        operating=step.reported.operating,
        baseline=pipeline.baseline.manifest.version if pipeline.baseline is not None else "",
        **_deciding(step, pipeline),
    )


def _deciding(step: Step, pipeline: Pipeline) -> dict[str, Any]:
    """The detector and the band in which a window deviates. Not every detector can name a band (modulation, learnt
    embeddings): then the next one that deviates is asked."""
    result = step.result
    z = {score.name: score.z for score in result.detectors}
    deviates = result.state is State.ANOMALOUS or max(z.values(), default=0.0) >= DEVIATES_Z
    found = pipeline.deciding(result) if deviates else None
    if found is None:
        return {}
    state, names = found
    for name in names:
        if z[name] >= DEVIATES_Z and (band := state.detector(name).band(step.description)) is not None:
            return {"detector": names[0], "band": Band(low_hz=band[0], high_hz=band[1], detector=name)}
    return {"detector": names[0]}


def made_with(pipeline: Pipeline, store: BaselineStore) -> MadeWith | None:
    """All that the pipeline's scores depend on beside the sound; None while it has no baseline."""
    if pipeline.baseline is None:
        return None
    machine = msgspec.to_builtins(pipeline.machine)
    del machine["source"]  # it may hold a password, and the clip is the sound
    version = pipeline.baseline.manifest.version
    return MadeWith(
        machine=machine,
        bundles={name: encoder.bundle.sha256 for name, encoder in pipeline.encoders.items()},
        variants={name: encoder.variant for name, encoder in pipeline.encoders.items()},
        baseline=version,
        baseline_sha256=store.checksum(version),
        threshold=pipeline.threshold_score,
        software=software(),
    )


def software() -> dict[str, str]:
    """What may change the last digits of a number."""
    packages = ("asd-agent", "numpy", "onnxruntime", "scipy", "soxr")
    versions = {name: _version(name) for name in packages}
    return {**versions, "python": platform.python_version(), "processor": platform.machine()}


def _version(package: str) -> str:
    import importlib.metadata  # a daemon that raises no alarm starts without it

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
