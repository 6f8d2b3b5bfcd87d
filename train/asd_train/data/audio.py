"""Decoding, and a cache of decoded sound that all workers share.

The cache is one flat array of all clips at the training rate: in memory (forked workers share its pages) or
as a memory-mapped file (shared through the page cache, and kept for the next run). int16 where every file is
16 bit at the training rate already, so nothing is lost; float32 elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from asd_agent.errors import SourceError
from asd_agent.types import Samples
from asd_agent.windowing.reference import subtract

Progress = Callable[[int, int], None]  # (clips done, clips in all)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about itself without being decoded."""

    rate_hz: int
    frames: int
    channels: int
    sixteen_bit: bool

    def samples_at(self, rate_hz: int) -> int:
        return self.frames if self.rate_hz == rate_hz else round(self.frames * rate_hz / self.rate_hz)


def read_header(path: str) -> Header:
    """Raises SourceError naming a file that is missing, empty or no audio."""
    try:
        info = soundfile.info(path)
    except (soundfile.SoundFileError, OSError) as exc:
        raise SourceError(f"{path}: cannot be read as audio ({exc})") from exc
    if info.frames == 0:
        raise SourceError(f"{path}: holds no samples; remove it or record it again")
    return Header(info.samplerate, info.frames, info.channels, info.subtype == "PCM_16")


def read_headers(paths: Sequence[str]) -> list[Header]:
    """Headers in the order of `paths`, read in parallel: the early check that every file can be opened."""
    with ThreadPoolExecutor(min(16, (os.cpu_count() or 1) * 4)) as pool:
        return list(pool.map(read_header, paths))


def read_audio(path: str, rate_hz: int, channel: int = 0, far: int | None = None) -> Samples:
    """One channel of a file, float32 [n] at `rate_hz`, full scale = 1; raises SourceError naming the file.

    `far`: the channel of a second microphone; what is coherent with it is taken out, as the agent does.
    """
    try:
        samples, native_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as exc:
        raise SourceError(f"{path}: cannot be decoded ({exc})") from exc
    highest = max(channel, far or 0)
    if highest >= samples.shape[1]:
        raise SourceError(
            f"{path}: has {samples.shape[1]} channels, channel {highest} was asked for (they count from 0)"
        )
    mono: Samples = np.ascontiguousarray(samples[:, channel])
    if far is not None and len(samples):
        mono = subtract(mono, samples[:, far]).samples
    if len(mono) == 0 or not np.isfinite(mono).all():
        raise SourceError(f"{path}: holds {'no samples' if len(mono) == 0 else 'NaN or infinite samples'}")
    if native_hz == rate_hz:
        return mono
    resampled: Samples = soxr.resample(mono, native_hz, rate_hz)
    return _fit(resampled, round(len(mono) * rate_hz / native_hz))


class AudioCache:
    """Clips by index, decoded once or on each call.

    `folder` keeps a memory-mapped file there; else up to `limit_gb` of memory is used and the clips beyond it
    are decoded on every access. `limit_gb=0` without a folder caches nothing.
    """

    def __init__(
        self,
        paths: Sequence[str],
        rate_hz: int,
        channel: int = 0,
        folder: str | Path | None = None,
        limit_gb: float = 0.0,
        progress: Progress | None = None,
        far: int | None = None,
    ) -> None:
        """Checks every file first; raises SourceError naming the first that cannot be read."""
        self.paths, self.rate_hz, self.channel, self.far = list(paths), rate_hz, channel, far
        headers = read_headers(self.paths)
        self.lengths: npt.NDArray[np.int64] = np.array([h.samples_at(rate_hz) for h in headers], np.int64)
        exact = far is None and all(h.sixteen_bit and h.rate_hz == rate_hz for h in headers)
        self._kind = np.dtype(np.int16 if exact else np.float32)
        self._ends = np.cumsum(self.lengths)
        self._flat: npt.NDArray[np.int16] | npt.NDArray[np.float32] | None = None
        if folder is not None:
            self._cached = len(self.paths)
            self._open(Path(folder), progress)
        else:
            room = int(limit_gb * 1e9 / self._kind.itemsize)
            self._cached = int(np.searchsorted(self._ends, room, side="right"))
            if self._cached:
                self._flat = np.empty(int(self._ends[self._cached - 1]), self._kind)
                self._fill(self._flat, progress)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def cached(self) -> int:
        """How many clips are held decoded; the rest are read from their files."""
        return self._cached

    def read(self, index: int, start: int = 0, stop: int | None = None) -> Samples:
        """Samples [start:stop] of a clip, float32 [n], full scale = 1."""
        if self._flat is None or index >= self._cached:
            return self._decode(index)[start:stop]
        end = int(self._ends[index])
        first = end - int(self.lengths[index])
        part = self._flat[first:end][start:stop]
        return part.astype(np.float32) / np.float32(32768.0) if self._kind == np.int16 else np.array(part, np.float32)

    def _decode(self, index: int) -> Samples:
        samples = read_audio(self.paths[index], self.rate_hz, self.channel, self.far)
        return _fit(samples, int(self.lengths[index]))

    def _fill(self, flat: npt.NDArray[np.int16] | npt.NDArray[np.float32], progress: Progress | None) -> None:
        def decode(index: int) -> None:
            samples = self._decode(index)
            end = int(self._ends[index])
            scale = 32768.0 if self._kind == np.int16 else 1.0
            flat[end - len(samples) : end] = samples * np.float32(scale)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for done, _ in enumerate(pool.map(decode, range(self._cached)), 1):
                if progress is not None:
                    progress(done, self._cached)

    def _open(self, folder: Path, progress: Progress | None) -> None:
        """Map the file of this very set of clips, decoding it first when it is not there."""
        path = folder / f"{self._fingerprint()}.{self._kind.name}"
        shape = (int(self._ends[-1]),) if len(self._ends) else (0,)
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            flat = np.memmap(part, self._kind, "w+", shape=shape)
            try:
                self._fill(flat, progress)
                flat.flush()
                os.replace(part, path)  # only a complete file carries the name
            finally:
                part.unlink(missing_ok=True)
        self._flat = np.memmap(path, self._kind, "r", shape=shape)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"1 {self.rate_hz} {self.channel} {self.far}".encode())
        for path in self.paths:
            stat = os.stat(path)
            digest.update(f"\0{path}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
        return digest.hexdigest()[:24]


def _fit(samples: Samples, length: int) -> Samples:
    """A header may promise a frame more or less than the decoder or the resampler delivers."""
    if len(samples) >= length:
        return samples[:length]
    return np.pad(samples, (0, length - len(samples)))
