"""Stored windows of a machine -> a baseline in the agent's own format."""

from __future__ import annotations

import math
from collections.abc import Sequence

from asd_agent import config
from asd_agent.archive.results import Part, Results
from asd_agent.archive.table import Row, descriptions, is_window, rows
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.calibration import workflow
from asd_agent.errors import CalibrationError
from asd_agent.scoring.pipeline import open_pipeline
from asd_agent.types import Description

MOST_WINDOWS = 5000  # of a calibration: more of them make it slower, hardly better
RUN = 60  # windows that are taken or left out together: neighbours say how normal sound varies


def calibrate(
    results: Results, machine: config.Machine, store: BaselineStore, most: int = MOST_WINDOWS,
    until_utc_s: float = math.inf,
) -> Baseline:  # fmt: skip
    """A new candidate in `store`. Raises CalibrationError, StoreError, BundleError."""
    store.prepare()
    windows = stored_windows(results, machine.id, most, until_utc_s)
    return workflow.calibrate(open_pipeline(machine, None), store, windows, workflow.ANEW)


def stored_windows(
    results: Results, machine_id: str, most: int = MOST_WINDOWS, until_utc_s: float = math.inf
) -> list[Description]:
    """Windows in order of time: all of them, or runs that lie evenly over the time. Raises CalibrationError."""
    parts = _in_order(results, machine_id)
    counts = [sum(o.windows for o in part.outcomes if o.recording.utc_s < until_utc_s) for _, part in parts]
    stride = max(1, math.ceil(sum(counts) / most))
    found: list[Description] = []
    before = 0
    for (name, _), count in zip(parts, counts, strict=True):
        if count:
            table = results.table(name)
            windows = [row for row in rows(table) if is_window(row) and row["recorded_utc_s"] < until_utc_s]
            found += descriptions(table, _thinned(windows, before, stride))
        before += count
    if not found:
        raise CalibrationError(f"{machine_id}: no windows to calibrate from in {results.url}")
    return found


def _thinned(windows: Sequence[Row], before: int, stride: int) -> list[Row]:
    """Every `stride`-th run; `before`: windows that came earlier."""
    return [window for i, window in enumerate(windows, before) if (i // RUN) % stride == 0]


def _in_order(results: Results, machine_id: str) -> list[tuple[str, Part]]:
    named = [(name, results.part(name)) for name in results.part_names(machine_id)]
    parts = [(name, part) for name, part in named if part is not None]
    return sorted(parts, key=lambda item: min(recording.utc_s for recording in item[1].recordings))
