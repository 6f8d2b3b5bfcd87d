"""Sound around alarms in memory: the newest of each machine, and what a clip has gathered so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent.evidence.clip import FULL_SCALE, Bits, Clip, MadeWith, ScoredWindow, Segment, bits_of
from asd_agent.types import AlarmEvent, Samples

ROWS = 256  # windows in memory
NO_SOUND = 1e15  # a float beyond this is not a sample


class Chunk(NamedTuple):
    """Sound in memory, as small as it can be without a loss."""

    samples: npt.NDArray[Any]  # [frames] or [frames, 2], int16, or float32 where that would lose some
    bits: Bits
    gap: bool  # frames are missing before it
    received: int  # frames before it, since the source was opened
    begun: int  # of them, those before its segment
    last: bool  # its segment ends with it

    @property
    def floats(self) -> Samples:
        if self.samples.dtype == np.int16:
            return np.asarray(self.samples / np.float32(FULL_SCALE[16]), np.float32)
        return self.samples

    def part(self, first: int, end: int | None = None) -> Chunk:
        samples = self.samples[first:end]
        whole = first + len(samples) == len(self.samples)
        return self._replace(
            samples=samples, gap=self.gap and not first, received=self.received + first, last=self.last and whole
        )


@dataclass
class Recording:
    """A clip, complete once no frames are missing."""

    event: AlarmEvent
    rate_hz: int
    start_utc_s: float
    before_frames: int
    missing_frames: int
    chunks: list[Chunk]
    made_with: MadeWith | None
    saved: bool = False  # what there was at the beginning is on disk
    rows: dict[int, ScoredWindow] = field(default_factory=dict)  # index -> window

    def push(self, chunk: Chunk) -> None:
        if chunk.bits == 32 and self.event.evidence.endswith(".flac"):  # another kind of sound than it began with
            self.missing_frames = 0
            return
        chunk = chunk.part(0, self.missing_frames)
        self.chunks.append(chunk)
        self.missing_frames -= len(chunk.samples)


@dataclass
class Tape:
    """The newest sound of one machine, rounded up to whole chunks, and what was said of it."""

    rate_hz: int = 0
    end_utc_s: float = 0.0
    received: int = 0  # frames so far
    frames: int = 0
    chunks: deque[Chunk] = field(default_factory=deque)
    rows: deque[ScoredWindow] = field(default_factory=lambda: deque(maxlen=ROWS))
    recording: Recording | None = None

    @property
    def waits_s(self) -> float:
        """Sound behind the newest scored window."""
        if not self.rows:
            return 0.0
        newest = self.rows[-1]
        return max(0.0, (self.received - newest.frame) / self.rate_hz - newest.result.duration_s)

    def differs(self, samples: npt.NDArray[Any]) -> bool:
        """In the number of channels from what there is."""
        return bool(self.chunks) and self.chunks[-1].samples.shape[1:] != samples.shape[1:]

    def push(self, chunk: Chunk, keep_frames: int) -> None:
        self.chunks.append(chunk)
        self.frames += len(chunk.samples)
        while self.frames - len(self.chunks[0].samples) >= keep_frames:
            self.frames -= len(self.chunks.popleft().samples)
            if not self.chunks:
                break

    def last(self, frames: int) -> list[Chunk]:
        """The newest `frames`, or all that there are; no copies."""
        found: list[Chunk] = []
        for chunk in reversed(self.chunks):
            if frames <= 0:
                break
            found.append(chunk.part(max(0, len(chunk.samples) - frames)))
            frames -= len(chunk.samples)
        return found[::-1]


def assembled(recording: Recording) -> tuple[Samples, Clip]:
    """The sound so far, and its description."""
    samples = np.concatenate([chunk.floats for chunk in recording.chunks] or [np.empty(0, np.float32)])
    first = recording.chunks[0].received if recording.chunks else 0
    clip = Clip(
        event=recording.event,
        rate_hz=recording.rate_hz,
        start_utc_s=recording.start_utc_s,
        before_s=recording.before_frames / recording.rate_hz,
        after_s=(len(samples) - recording.before_frames) / recording.rate_hz,
        gaps_s=tuple(_gaps(recording.chunks, recording.rate_hz)),
        segments=tuple(_segments(recording.chunks)),
        windows=tuple(
            msgspec.structs.replace(row, frame=row.frame - first)
            for _, row in sorted(recording.rows.items())
            if first <= row.frame < first + len(samples)
        ),
        made_with=recording.made_with,
    )
    return samples, clip


def packed(samples: Samples) -> tuple[npt.NDArray[Any], Bits]:
    """As small as it can be without a loss, in new memory; what is no sound becomes 0. Keeps its shape."""
    if samples.size and samples.min() >= -1 and samples.max() < 1:
        scaled = samples * np.float32(FULL_SCALE[16])
        pcm = scaled.astype(np.int16)
        if (pcm == scaled).all():
            return pcm, 16
    finite = np.where(np.abs(samples) < NO_SOUND, samples, np.float32(0))
    return finite, bits_of(finite)


def _gaps(chunks: Iterable[Chunk], rate_hz: int) -> Iterable[float]:
    frames = 0
    for chunk in chunks:
        if chunk.gap and frames:
            yield frames / rate_hz
        frames += len(chunk.samples)


def _segments(chunks: list[Chunk]) -> Iterable[Segment]:
    first = chunks[0].received if chunks else 0
    for i, chunk in enumerate(chunks):
        if i == 0 or chunks[i - 1].begun != chunk.begun:
            mine = [c for c in chunks[i:] if c.begun == chunk.begun]
            ended = mine[-1].last or mine[-1] is not chunks[-1]
            yield Segment(frame=chunk.received - first, skipped=chunk.received - chunk.begun, ended=ended)
