"""The sound of the last minutes as its embeddings: what a weak deviation that stays consists of.

A window alone shows little of it. The median over the windows in which it was found shows the band and the dB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from asd_agent.decide.persistence import Finding
from asd_agent.reasons import Deviation
from asd_agent.scoring import explain
from asd_agent.scoring.pipeline import Pipeline, Step, deciding_z
from asd_agent.types import State

WINDOWS = 128  # about ten minutes of windows every 5 s; 0.2 MB for the bundle `spectral`
OFTEN = 0.9  # quantile for what keeps coming back


class Course:
    """Not thread-safe. It begins anew with the daemon."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Of its detectors, those whose values have labels are kept."""
        self._pipeline = pipeline
        self._dims = {name: output.dim for name, output in pipeline.outputs.items() if output.axes}
        self._rows: deque[tuple[float, str, npt.NDArray[np.float16]]] = deque(maxlen=WINDOWS)

    def add(self, step: Step) -> None:
        """The next window; one that is not judged is missing."""
        if self._dims and step.result.state in (State.NORMAL, State.ANOMALOUS):
            row = np.concatenate([step.description.embeddings[name] for name in self._dims]).astype(np.float16)
            self._rows.append((step.result.utc_s, step.result.operating, row))

    def explain(self, step: Step, found: Finding) -> Deviation | None:
        """What a deviation that stays until this window consists of, over the windows in which it was found."""
        state = next((s for s in self._pipeline.states if s.name == step.result.operating), None)
        embeddings, windows = self._since(found.since_utc_s, step.result.operating, found.returning)
        if state is None or not windows:
            return None
        z = {name: min(value, found.z) for name, value in deciding_z(state, step.result).items()}
        lasting = replace(step.description, embeddings=embeddings)
        told = explain.deviation(state, z | {found.detector: found.z}, lasting, windows)
        return self._pipeline.diagnosed(step.window, step.result, told, step.reported.speed)

    def _since(
        self, utc_s: float, operating: str, returning: bool
    ) -> tuple[Mapping[str, npt.NDArray[np.float32]], int]:
        """The median (of what keeps `returning`: a high quantile) of the windows in an operating state since then ->
        embeddings, and of how many windows."""
        rows = [row for at_s, state, row in self._rows if at_s >= utc_s and state == operating]
        if not rows:
            return {}, 0
        joint = np.quantile(np.array(rows, np.float32), OFTEN if returning else 0.5, axis=0).astype(np.float32)
        ends = np.cumsum(list(self._dims.values()))
        return dict(zip(self._dims, np.split(joint, ends[:-1]), strict=True)), len(rows)
