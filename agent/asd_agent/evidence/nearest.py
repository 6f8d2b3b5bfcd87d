"""Normal sound to compare an alarm with by ear: which calibration windows are nearest, and where their sound is.

A baseline knows of each of its windows where it came from. Recordings are read again; of live sound some windows are
kept beside the baseline, evenly over the calibration and within a limit of size:

    <state_dir>/machines/<machine>/normals/<version>/<utc ms>.flac
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from asd_agent.baseline import Arrays, Baseline
from asd_agent.capture import read_file
from asd_agent.scoring.detectors import EmbeddingDetector
from asd_agent.errors import SourceError
from asd_agent.scoring.pipeline import OperatingState
from asd_agent.evidence.clip import bits_of, encode_sound
from asd_agent.types import Description, Samples, Window

log = structlog.get_logger()

WINDOWS = "windows"  # in the arrays of a baseline, beside the detectors of each state
KEPT = 24  # windows of a live calibration at most
KEPT_BYTES = 20_000_000
KEPT_CALIBRATIONS = 3  # the newest
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


class Keeper:
    """Keeps some windows of a live calibration. Never raises: without room there is nothing to compare with."""

    def __init__(self, machine_folder: Path) -> None:
        """`machine_folder`: <state_dir>/machines/<machine>."""
        self._folder = machine_folder / "normals" / ".new"
        self._stride = 1
        self._seen = 0
        self._kept: list[tuple[Path, int]] = []  # and size
        shutil.rmtree(self._folder, ignore_errors=True)

    def hear(self, window: Window) -> None:
        """Every window of the calibration, in turn."""
        number, self._seen = self._seen, self._seen + 1
        if number % self._stride or window.origin or window.gap or not np.isfinite(window.samples).all():
            return
        try:
            limited = np.clip(window.samples, -1.0, 1.0)
            if bits_of(limited) == 32:
                limited = (np.rint(limited * 32767) / 32768).astype(np.float32)  # to listen to, 16 bits will do
            data = encode_sound(limited, window.rate_hz, ".flac")
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / kept_name(window.utc_s)
            path.write_bytes(data)  # not synced: this is between two windows, and a power cut ends the calibration
            self._kept.append((path, len(data)))
            while len(self._kept) > 1 and (len(self._kept) > KEPT or sum(size for _, size in self._kept) > KEPT_BYTES):
                self._thin()
        except (OSError, RuntimeError) as exc:  # soundfile's errors are RuntimeErrors
            log.warning("normal sound not kept for comparison", error=str(exc))

    def keep(self, version: str) -> None:
        """The baseline has been written; the windows go with it."""
        try:
            if not self._kept:
                return
            self._folder.rename(self._folder.with_name(version))
            for old in sorted(self._folder.parent.glob("[!.]*"))[:-KEPT_CALIBRATIONS]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as exc:
            log.warning("normal sound not kept for comparison", error=str(exc))

    def drop(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _thin(self) -> None:
        """Every second one goes, and from now on only every second comes."""
        for path, _ in self._kept[1::2]:
            path.unlink(missing_ok=True)
        self._kept = self._kept[::2]
        self._stride *= 2


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
