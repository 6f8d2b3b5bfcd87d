"""What forbids a judgement by mechanism: such a window is never "normal" and never "anomalous"."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
    clipped = 0.0
    if high - middle > 0.5 * reach:  # digital silence is no rail
        clipped += _rail_share(samples >= np.float32(high - 1e-6 * abs(high)))
    if middle - low > 0.5 * reach:
        clipped += _rail_share(samples <= np.float32(low + 1e-6 * abs(low)))
    if clipped > CLIPPED_SHARE:
        found.append("clipping")
    if _start_or_stop(samples, reach):
        found.append("transient")
    return tuple(found)


def _rail_share(at_rail: npt.NDArray[np.bool_]) -> float:
    """Share of samples in runs of at least RAIL_RUN at the rail."""
    at = np.flatnonzero(at_rail)
    if len(at) < RAIL_RUN:
        return 0.0
    steps = np.diff(at) == 1
    in_run = steps[:-1] & steps[1:]
    return float(np.count_nonzero(in_run) + 2) / len(at_rail) if in_run.any() else 0.0


def _start_or_stop(samples: Samples, reach: float) -> bool:
    """The level of the last fifth differs from the first fifth by TRANSIENT_DB and got there steadily: a run-up or a
    run-down. A knock in the middle passes."""
    count = 10
    frames = samples[: len(samples) // count * count].reshape(count, -1)
    variance = [float(np.var(frame / np.float32(reach))) for frame in frames]
    level = 10 * np.log10(np.array(variance) + 1e-12)
    step = abs(level[-2:].mean() - level[:2].mean())
    if step < TRANSIENT_DB:
        return False
    ranks = np.argsort(np.argsort(level))
    return bool(abs(np.corrcoef(ranks, np.arange(count))[0, 1]) > 0.7)
