"""Sound around alarms: the last seconds of each machine in memory, written out when an alarm is raised."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from asd_agent import config
from asd_agent.store.clips import SPARE_BYTES, Clip, clip_path, expire_clips, remove_unfinished, write_clip
from asd_agent.types import AlarmEvent, EventKind, Samples

log = structlog.get_logger(__name__)

Chunk = tuple[npt.NDArray[np.int16], bool]  # [frames], whether frames are missing before it

TRIGGERS = (EventKind.RAISED, EventKind.ESCALATED)
QUEUE_CLIPS = 8  # complete ones that wait to be written
EXPIRE_S = 60.0


@dataclass
class _Recording:
    """A clip, complete once no frames are missing."""

    event: AlarmEvent
    rate_hz: int
    start_utc_s: float
    before_frames: int
    missing_frames: int
    chunks: list[Chunk]

    def push(self, chunk: Chunk) -> None:
        samples = chunk[0][: self.missing_frames]
        self.chunks.append((samples, chunk[1]))
        self.missing_frames -= len(samples)


@dataclass
class _Tape:
    """The newest sound of one machine: `before_s`, rounded up to whole chunks."""

    rate_hz: int = 0
    end_utc_s: float = 0.0
    frames: int = 0
    chunks: deque[Chunk] = field(default_factory=deque)
    recording: _Recording | None = None

    def push(self, chunk: Chunk, keep_frames: int) -> None:
        self.chunks.append(chunk)
        self.frames += len(chunk[0])
        while self.frames - len(self.chunks[0][0]) >= keep_frames:
            self.frames -= len(self.chunks.popleft()[0])
            if not self.chunks:
                break

    def last(self, frames: int) -> list[Chunk]:
        """The newest `frames`, or all that there are; no copies."""
        chunks = list(self.chunks)
        if self.frames > frames and chunks:
            samples, _ = chunks[0]
            chunks[0] = (samples[self.frames - frames :], False)
        return chunks


class Evidence:
    """`feed` and `attach` only touch memory; `maintain` writes and expires. Thread-safe; never raises."""

    def __init__(self, state_dir: Path, settings: config.Evidence, spare_bytes: int = SPARE_BYTES) -> None:
        self._state_dir = state_dir
        self._settings = settings
        self._spare_bytes = spare_bytes
        self._tapes: dict[str, _Tape] = {}
        self._ready: deque[_Recording] = deque()
        self._lock = threading.Lock()
        self._next_expiry_s = 0.0
        self.failed = 0  # clips lost since the start: no room on disk, or too many at once
        remove_unfinished(state_dir / "evidence")

    def feed(self, machine: str, samples: Samples, rate_hz: int, utc_s: float, gap: bool = False) -> None:
        """The next sound of a machine: [frames] of its channel, native rate; `utc_s` of the first frame."""
        if not self._settings.enabled:
            return
        pcm = (np.nan_to_num(np.clip(samples, -1.0, 1.0)) * 32767.0).astype(np.int16)
        with self._lock:
            tape = self._tapes.setdefault(machine, _Tape(rate_hz))
            if tape.rate_hz != rate_hz:
                self._finish(tape)
                tape = self._tapes[machine] = _Tape(rate_hz)
            tape.push((pcm, gap), round(self._settings.before_s * rate_hz))
            tape.end_utc_s = utc_s + len(pcm) / rate_hz
            if tape.recording is not None:
                tape.recording.push((pcm, gap))
                if tape.recording.missing_frames <= 0:
                    self._finish(tape)

    def attach(self, event: AlarmEvent) -> AlarmEvent:
        """Begin a clip when an alarm is raised or escalated; returns the event with the path of its clip."""
        if not self._settings.enabled or event.kind not in TRIGGERS:
            return event
        with self._lock:
            tape = self._tapes.get(event.machine)
            if tape is None or tape.rate_hz == 0:
                return event
            if tape.recording is None:
                event = msgspec.structs.replace(event, evidence=clip_path(event))
                tape.recording = self._begin(tape, event)
                return event
            return msgspec.structs.replace(event, evidence=clip_path(tape.recording.event))

    def finish(self, machine: str) -> None:
        """The sound of this machine has ended: a clip in progress ends with it."""
        with self._lock:
            tape = self._tapes.pop(machine, None)
            if tape is not None:
                self._finish(tape)

    def maintain(self, now_utc_s: float | None = None) -> None:
        """Write the complete clips and expire old ones."""
        while self._ready:
            self._write(self._ready.popleft())
        if time.monotonic() >= self._next_expiry_s:
            self._next_expiry_s = time.monotonic() + EXPIRE_S
            self._expire(time.time() if now_utc_s is None else now_utc_s)

    def close(self) -> None:
        """End and write the clips in progress."""
        for machine in list(self._tapes):
            self.finish(machine)
        self.maintain()

    def _begin(self, tape: _Tape, event: AlarmEvent) -> _Recording:
        chunks = tape.last(round(self._settings.before_s * tape.rate_hz))
        frames = sum(len(samples) for samples, _ in chunks)
        return _Recording(
            event=event,
            rate_hz=tape.rate_hz,
            start_utc_s=tape.end_utc_s - frames / tape.rate_hz,
            before_frames=frames,
            missing_frames=round(self._settings.after_s * tape.rate_hz),
            chunks=chunks,
        )

    def _finish(self, tape: _Tape) -> None:
        recording, tape.recording = tape.recording, None
        if recording is None:
            return
        if len(self._ready) >= QUEUE_CLIPS:
            self.failed += 1
            log.warning("evidence clip dropped: too many at once", alarm=recording.event.alarm_id)
            return
        self._ready.append(recording)

    def _write(self, recording: _Recording) -> None:
        samples = np.concatenate([samples for samples, _ in recording.chunks] or [np.empty(0, np.int16)])
        clip = Clip(
            event=recording.event,
            rate_hz=recording.rate_hz,
            start_utc_s=recording.start_utc_s,
            before_s=recording.before_frames / recording.rate_hz,
            after_s=(len(samples) - recording.before_frames) / recording.rate_hz,
            gaps_s=tuple(_gaps(recording.chunks, recording.rate_hz)),
        )
        path = self._state_dir / recording.event.evidence
        try:
            write_clip(path, samples, clip, self._spare_bytes)
        except (OSError, RuntimeError) as exc:  # soundfile's errors are RuntimeErrors
            self.failed += 1
            log.warning("evidence clip not written", path=str(path), error=str(exc))

    def _expire(self, now_utc_s: float) -> None:
        limits = self._settings
        try:
            expire_clips(self._state_dir / "evidence", now_utc_s, limits.max_age_days, limits.max_total_mb * 1e6)
        except OSError as exc:
            log.warning("old evidence clips not deleted", error=str(exc))


def _gaps(chunks: Iterable[Chunk], rate_hz: int) -> Iterable[float]:
    frames = 0
    for samples, gap in chunks:
        if gap and frames:
            yield frames / rate_hz
        frames += len(samples)
