"""Evidence on disk: the sound around an alarm without any loss, what was judged in it, and a picture.

    evidence/<machine>/<utc>_<alarm id>.flac     the sound as it came, 16 or 24 bits; .wav (float) where those lose some
    evidence/<machine>/<utc>_<alarm id>.json     `Clip`
    evidence/<machine>/<utc>_<alarm id>.png      spectrogram

Each file is whole or not there. The JSON is there before the sound; they expire together, by age and total size.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import structlog

from asd_agent.errors import StoreError
from asd_agent.files import write_whole
from asd_agent.types import AlarmEvent, Samples, WindowResult

SPARE_BYTES = 32 << 20  # clips never take the last free space of the disk
DAY_S = 86_400.0
BEGUN = ".begun-"  # in front of the name of a clip that is not complete yet
log = structlog.get_logger(__name__)
SOUND_SUFFIXES = (".flac", ".wav")

Bits = Literal[16, 24, 32]
FULL_SCALE: dict[Bits, float] = {16: 2.0**15, 24: 2.0**23}
GLANCE = 64  # samples that decide it in most cases


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """Sound without a hole, as far as the clip holds it."""

    frame: int  # of the clip, its first
    skipped: int = 0  # frames of the segment before that
    ended: bool = False  # the clip holds its end


class ScoredWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A window and its result."""

    frame: int  # of the clip; in memory: since the source was opened
    skipped: int  # frames of its segment before it
    number: int  # in its segment
    result: WindowResult
    speed: dict[str, Any] | None = None  # of the shaft, as reported
    operating: str = ""  # the operating state, as reported
    baseline: str = ""  # version
    detector: str = ""  # that deviates most; empty where none does
    band: Band | None = None  # where in the spectrum


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the spectrum that deviates most, as a detector says."""

    low_hz: float
    high_hz: float
    detector: str = ""  # the deciding one, or the first of the others that can name a band


class MadeWith(msgspec.Struct, frozen=True, kw_only=True):
    """All that a score depends on beside the sound."""

    machine: dict[str, Any]  # its configuration without the source
    bundles: dict[str, str]  # name -> sha256 of its bundle.json
    variants: dict[str, str]  # name -> precision
    baseline: str  # version
    baseline_sha256: str  # of its SHA256SUMS
    threshold: float | None  # score from which a window counts
    software: dict[str, str]  # versions and the processor's kind


class Clip(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag="asd/evidence/1"):
    """The sidecar: what the sound is evidence of, and all that is needed to score it again."""

    event: AlarmEvent
    rate_hz: int
    start_utc_s: float
    before_s: float  # sound received before the alarm was decided
    after_s: float
    gaps_s: tuple[float, ...] = ()  # frames are missing at these times of the clip
    sound_sha256: str = ""
    segments: tuple[Segment, ...] = ()
    windows: tuple[ScoredWindow, ...] = ()
    made_with: MadeWith | None = None

    @property
    def deciding(self) -> tuple[ScoredWindow, ...]:
        """The windows that voted, as far as the clip holds them."""
        return tuple(w for w in self.windows if w.result.index in self.event.deciding_windows)

    @property
    def typical(self) -> ScoredWindow | None:
        """The window that stands for the alarm: the most usual one of a slow alarm, else the last that voted."""
        course = self.event.course
        found = [w for w in self.deciding if course is not None and w.result.index == course.typical]
        return found[-1] if found else self._last

    @property
    def alarm_s(self) -> float:
        """Time of the clip at which the last window that voted ends; judging it took until `before_s`."""
        last = self._last
        return self.before_s if last is None else last.frame / self.rate_hz + last.result.duration_s

    @property
    def _last(self) -> ScoredWindow | None:
        return max(self.deciding, key=lambda w: w.frame, default=None)


def clip_path(event: AlarmEvent, suffix: str = ".flac") -> str:
    """Relative to the state directory: evidence/<machine>/<utc>_<alarm id>.flac."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(event.utc_s))
    return f"evidence/{event.machine}/{stamp}_{event.alarm_id}{suffix}"


def bits_of(samples: Samples) -> Bits:
    """The narrowest format that holds the samples [n] as they are; 32 = float."""
    few = samples[:GLANCE]
    for bits in FULL_SCALE:
        if _fits(few, bits) and _fits(samples, bits):
            return bits
    return 32


def _fits(samples: Samples, bits: Bits) -> bool:
    full = FULL_SCALE[bits]
    scaled = samples * np.float32(full)
    return not len(scaled) or bool(
        scaled.max() < full and scaled.min() >= -full and np.array_equal(scaled, np.rint(scaled))
    )


def write_clip(path: Path, samples: Samples, clip: Clip, spare_bytes: int = SPARE_BYTES) -> None:
    """Write the sidecar, then the sound ([frames] or [frames, 2]); each is complete once it has its name.

    Raises OSError.
    """
    sound = encode_sound(samples, clip.rate_hz, path.suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < len(sound) + spare_bytes:
        raise OSError(28, "too little free space for evidence clips")  # ENOSPC
    clip = msgspec.structs.replace(clip, sound_sha256=hashlib.sha256(sound).hexdigest())
    write_whole(path.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(clip, enc_hook=float), indent=1))
    write_whole(path, sound)


def read_clip(path: Path) -> Clip:
    """The sidecar. Raises StoreError, one line."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Clip)
    except (OSError, msgspec.DecodeError) as exc:
        raise StoreError(f"{path}: not a description of a clip that can be read ({exc})") from exc


def near(samples: Samples) -> Samples:
    """Of [frames] or [frames, 2] the sound at the machine: [frames]."""
    return samples if samples.ndim == 1 else np.ascontiguousarray(samples[:, 0])


def read_sound(path: Path, clip: Clip) -> Samples:
    """The samples as they came: [frames], or [frames, 2] with those of the reference microphone.

    Raises StoreError for sound that is damaged, or not the clip's.
    """
    import soundfile

    try:
        data = path.read_bytes()
        if clip.sound_sha256 and hashlib.sha256(data).hexdigest() != clip.sound_sha256:
            raise StoreError(f"{path}: damaged, or not the sound that the alarm came from (its sha256 has changed)")
        if path.suffix == ".wav":
            samples, _ = soundfile.read(path, dtype="float32")
            return np.asarray(samples, np.float32)
        whole, _ = soundfile.read(path, dtype="int32")  # as it is; floats would be scaled by the library
    except (OSError, RuntimeError) as exc:  # soundfile's errors are RuntimeErrors
        raise StoreError(f"{path}: the sound cannot be read ({exc})") from exc
    return np.asarray(whole * 2.0**-31, np.float32)


def encode_sound(samples: Samples, rate_hz: int, suffix: str) -> bytes:
    """[frames] or [frames, channels] as the bytes of a FLAC file, if 24 bits hold them, or a WAV file of floats."""
    import soundfile

    # A file in memory: writing to a Python object needs callbacks, which MemoryDenyWriteExecute of the unit forbids.
    with os.fdopen(os.memfd_create("sound"), "r+b") as file:
        if suffix == ".wav":
            soundfile.write(file.fileno(), samples, rate_hz, format="WAV", subtype="FLOAT", closefd=False)
        else:
            subtype = "PCM_16" if bits_of(samples) == 16 else "PCM_24"
            pcm = np.clip(np.rint(samples.astype(np.float64) * FULL_SCALE[24]), -FULL_SCALE[24], FULL_SCALE[24] - 1)
            whole = pcm.astype(np.int32) << 8
            soundfile.write(file.fileno(), whole, rate_hz, format="FLAC", subtype=subtype, closefd=False)
        file.seek(0)
        return file.read()


def sidecars(folder: Path) -> list[Path]:
    """Of all clips under `evidence`, oldest first."""
    return sorted(folder.glob("*/[!.]*.json"), key=lambda path: path.name)


def expire_clips(folder: Path, now_utc_s: float, max_age_days: float, max_bytes: float) -> int:
    """Delete clips beyond the age, then the oldest ones beyond the total size; returns how many."""
    clips = sorted((*_stat(files), files) for files in _clips(folder))
    total = sum(size for _, size, _ in clips)
    deleted = 0
    for modified_s, size, files in clips:
        if now_utc_s - modified_s <= max_age_days * DAY_S and total <= max_bytes:
            break
        for file in files:
            file.unlink(missing_ok=True)
        total -= size
        deleted += 1
    return deleted


def begun_path(path: Path) -> Path:
    """Where the beginning of a clip is kept until the whole is there."""
    return path.with_name(f"{BEGUN}{path.name}")


def remove_begun(path: Path) -> None:
    """The whole clip of this name is there."""
    begun = begun_path(path)
    for file in (begun, begun.with_suffix(".json")):
        file.unlink(missing_ok=True)


def finish_begun(folder: Path, relative: str = "") -> int:
    """Clips that a killed process had only begun are complete with what was kept of them; returns how many.

    `relative`: only this one, as the event names it.
    """
    finished = 0
    for sound in sorted(path for suffix in SOUND_SUFFIXES for path in folder.glob(f"*/{BEGUN}*{suffix}")):
        if relative and sound != begun_path(folder.parent / relative):
            continue
        whole = sound.with_name(sound.name.removeprefix(BEGUN))
        try:
            if not (whole.exists() and whole.with_suffix(".json").exists()):
                sound.with_suffix(".json").rename(whole.with_suffix(".json"))
                sound.rename(whole)
                finished += 1
            remove_begun(whole)
        except OSError as exc:
            log.warning("clip not finished", path=str(whole), error=str(exc))
    if not relative:
        for alone in folder.glob(f"*/{BEGUN}*.json"):  # killed before the sound was there
            alone.unlink(missing_ok=True)
    return finished


def remove_unfinished(folder: Path) -> None:
    """What a power cut left behind."""
    for path in folder.glob("*/.*.part"):
        path.unlink(missing_ok=True)


def _clips(folder: Path) -> Iterator[list[Path]]:
    """The files of each clip: what has the same name but for the suffix."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(folder.glob("*/[!.]*")):
        if not path.is_symlink() and not path.parent.is_symlink():  # a link leads out of here: its target is not ours
            found.setdefault(path.with_suffix(""), []).append(path)
    yield from found.values()


def _stat(files: list[Path]) -> tuple[float, int]:
    """When the last of them was written, and their size together."""
    try:
        found = [path.stat() for path in files]
    except OSError:
        return 0.0, 0
    return max(s.st_mtime for s in found), sum(s.st_size for s in found)
