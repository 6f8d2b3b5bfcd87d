"""Evidence clips on disk: FLAC with a JSON beside it, whole or not at all, limited by age and total size."""

from __future__ import annotations

import io
import os
import shutil
import time
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent.types import AlarmEvent

SPARE_BYTES = 32 << 20  # clips never take the last free space of the disk
DAY_S = 86_400.0


class Clip(msgspec.Struct, kw_only=True):
    """The sidecar: what the sound is evidence of."""

    event: AlarmEvent
    rate_hz: int
    start_utc_s: float
    before_s: float  # sound before the alarm was decided
    after_s: float
    gaps_s: tuple[float, ...] = ()  # frames are missing at these times of the clip


def clip_path(event: AlarmEvent) -> str:
    """Relative to the state directory: evidence/<machine>/<utc>_<alarm id>.flac."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(event.utc_s))
    return f"evidence/{event.machine}/{stamp}_{event.alarm_id}.flac"


def write_clip(path: Path, samples: npt.NDArray[np.int16], clip: Clip, spare_bytes: int = SPARE_BYTES) -> None:
    """Write the sidecar, then the sound [frames]; each is complete once it has its name. Raises OSError."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    sound = io.BytesIO()
    soundfile.write(sound, samples, clip.rate_hz, format="FLAC", subtype="PCM_16")
    if shutil.disk_usage(path.parent).free < sound.tell() + spare_bytes:
        raise OSError(28, "too little free space for evidence clips")  # ENOSPC
    _replace(path.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(clip), indent=1))
    _replace(path, sound.getbuffer())


def expire_clips(folder: Path, now_utc_s: float, max_age_days: float, max_bytes: float) -> int:
    """Delete clips beyond the age, then the oldest ones beyond the total size; returns how many."""
    clips = sorted((_stat(path), path) for path in folder.glob("*/*.flac"))
    total = sum(size for (_, size), _ in clips)
    deleted = 0
    for (modified_s, size), path in clips:
        if now_utc_s - modified_s <= max_age_days * DAY_S and total <= max_bytes:
            break
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        total -= size
        deleted += 1
    return deleted


def remove_unfinished(folder: Path) -> None:
    """What a power cut left behind."""
    for path in folder.glob("*/.*.part"):
        path.unlink(missing_ok=True)


def _stat(path: Path) -> tuple[float, int]:
    try:
        status = path.stat()
    except OSError:
        return 0.0, 0
    return status.st_mtime, status.st_size


def _replace(path: Path, data: bytes | memoryview) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
