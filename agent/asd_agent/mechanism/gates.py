"""What forbids a judgement by mechanism: such a window is never "normal" and never "anomalous"."""

from __future__ import annotations

import numpy as np

from asd_agent.types import Samples

SHORTEST_S = 0.5
CLIPPED_SHARE = 1e-3
RAIL_RUN = 3  # samples in a row at the extreme value: a sine's crest has fewer
TRANSIENT_DB = 12.0


def gates(samples: Samples, rate_hz: int) -> tuple[str, ...]:
    """Of: short, nan, flat, clipping, transient. Empty = the window can be analysed."""
    if len(samples) < SHORTEST_S * rate_hz:
        return ("short",)
    low, high = float(samples.min()), float(samples.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return ("nan",)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-18):
        return ("flat",)
    found = []
    middle = float(samples.mean(dtype=np.float64))
    reach = max(high - middle, middle - low)
    rails = [rail for rail in (low, high) if abs(rail - middle) > 0.5 * reach]  # digital silence is no rail
    if sum(_rail_share(samples, rail) for rail in rails) > CLIPPED_SHARE:
        found.append("clipping")
    if _start_or_stop(samples * np.float32(1 / reach)):
        found.append("transient")
    return tuple(found)


def _rail_share(samples: Samples, rail: float) -> float:
    """Share of samples in runs of RAIL_RUN equal extreme values."""
    at = np.flatnonzero(np.abs(samples - np.float32(rail)) <= 1e-6 * abs(rail))
    if len(at) < RAIL_RUN:
        return 0.0
    steps = np.diff(at) == 1
    in_run = steps[:-1] & steps[1:]
    return float(np.count_nonzero(in_run) + 2) / len(samples) if in_run.any() else 0.0


def _start_or_stop(samples: Samples) -> bool:
    """The level of the last fifth differs from the first fifth by TRANSIENT_DB and got there steadily: a run-up or a
    run-down. A knock in the middle passes."""
    count = 10
    frames = samples[: len(samples) // count * count].reshape(count, -1)
    level = 10 * np.log10(frames.var(axis=1) + 1e-12)
    step = abs(level[-2:].mean() - level[:2].mean())
    if step < TRANSIENT_DB:
        return False
    ranks = np.argsort(np.argsort(level))
    return bool(abs(np.corrcoef(ranks, np.arange(count))[0, 1]) > 0.7)
