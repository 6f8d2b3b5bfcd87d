"""Normal sound to compare an alarm with by ear: which calibration windows are nearest, and where their sound is.

A baseline knows of each of its windows where it came from. Recordings are read again; of live sound some windows are
kept beside the baseline, evenly over the calibration and within a limit of size:

    <state_dir>/machines/<machine>/normals/<version>/<utc ms>.flac
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from asd_agent.baseline import Arrays, Baseline
from asd_agent.capture import read_file
from asd_agent.errors import SourceError
from asd_agent.scoring.detectors import EmbeddingDetector
from asd_agent.scoring.operating import OperatingState
from asd_agent.types import Description, Samples

log = structlog.get_logger()

WINDOWS = "windows"  # in the arrays of a baseline, beside the detectors of each state
SAME_DB = 0.05  # the level of a recorded window, then and now


@dataclass(frozen=True)
class Normal:
    """A calibration window, and how near it is."""

    origin: str  # the recording; empty for live sound
    start_s: float  # in the recording
    duration_s: float
    utc_s: float
    level_dbfs: float
    distance: float


def places(windows: Sequence[Description]) -> Arrays:
    """Where the windows of a state came from, [n] each, in the order in which the banks hold them."""
    origins = sorted({d.origin for d in windows})
    return {
        "origins": np.array([os.path.abspath(o) if o else "" for o in origins]),
        "origin": np.array([origins.index(d.origin) for d in windows], np.int32),
        "start_s": np.array([d.start_s for d in windows]),
        "duration_s": np.array([d.duration_s for d in windows]),
        "utc_s": np.array([d.utc_s for d in windows]),
        "level_dbfs": np.array([d.quality.level_dbfs for d in windows]),
    }


def nearest(
    baseline: Baseline, state: OperatingState, detector: str, description: Description, most: int
) -> list[Normal]:
    """The calibration windows of a state that the detector finds nearest, the nearest first; where it holds no windows
    one by one (mechanism analysis), as another detector finds them."""
    stored = baseline.part(f"{state.name}/{WINDOWS}")
    able = [d for d in state.detectors if isinstance(d, EmbeddingDetector)]
    able.sort(key=lambda d: d.name != detector)
    if not stored or not able:
        return []
    distances, rows = able[0].nearest(description, most)
    return [
        Normal(
            origin=str(stored["origins"][stored["origin"][row]]),
            start_s=float(stored["start_s"][row]),
            duration_s=float(stored["duration_s"][row]),
            utc_s=float(stored["utc_s"][row]),
            level_dbfs=float(stored["level_dbfs"][row]),
            distance=float(distance),
        )
        for distance, row in zip(distances, rows, strict=True)
        if row < len(stored["origin"])
    ]


def sound_of(normal: Normal, machine_folder: Path, channel: int) -> tuple[Samples, int] | None:
    """The samples [n] and their rate in Hz; None when they are gone, or have changed."""
    try:
        if not normal.origin:  # a baseline may have taken over windows of an earlier one
            kept = next(machine_folder.glob(f"normals/[!.]*/{kept_name(normal.utc_s)}"), None)
            return None if kept is None else _read(kept, 0, 0.0, None)
        found = _read(Path(normal.origin), channel, normal.start_s, normal.duration_s)
    except SourceError:
        return None
    return found if abs(_level_dbfs(found[0]) - normal.level_dbfs) <= SAME_DB else None


def audible(
    candidates: Sequence[Normal], machine_folder: Path, channel: int, most: int
) -> list[tuple[Normal, Samples, int]]:
    """The first `most` of the candidates of which there is sound, with it and its rate in Hz."""
    found: list[tuple[Normal, Samples, int]] = []
    for normal in candidates:
        if len(found) == most:
            break
        if (sound := sound_of(normal, machine_folder, channel)) is not None:
            found.append((normal, *sound))
    return found


def kept_name(utc_s: float) -> str:
    return f"{round(utc_s * 1000)}.flac"


def _read(path: Path, channel: int, start_s: float, duration_s: float | None) -> tuple[Samples, int]:
    """Raises SourceError."""
    parts: list[Samples] = []
    rate_hz = 0
    for block in read_file(path):
        rate_hz = block.rate_hz
        end_s = None if duration_s is None else start_s + duration_s
        if end_s is not None and block.start_frame / rate_hz >= end_s:
            break
        if channel >= block.samples.shape[1]:
            raise SourceError(f"{path}: there is no channel {channel}")
        parts.append(block.samples[:, channel])
    samples = np.concatenate(parts)
    first = round(start_s * rate_hz)
    return samples[first : None if duration_s is None else first + round(duration_s * rate_hz)], rate_hz


def _level_dbfs(samples: Samples) -> float:
    power = float(np.var(samples, dtype=np.float64)) if len(samples) else 0.0
    return float(10 * np.log10(max(power, 1e-20)))
