"""Sound around alarms: the last seconds of each machine in memory, written out when an alarm is raised."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from asd_agent import config
from asd_agent.evidence.clip import (
    FULL_SCALE,
    SPARE_BYTES,
    Bits,
    Clip,
    MadeWith,
    ScoredWindow,
    Segment,
    begun_path,
    bits_of,
    clip_path,
    expire_clips,
    finish_begun,
    remove_begun,
    remove_unfinished,
    write_clip,
)
from asd_agent.files import write_whole
from asd_agent.types import AlarmEvent, EventKind, Samples

log = structlog.get_logger(__name__)

TRIGGERS = (EventKind.RAISED, EventKind.ESCALATED)
QUEUE_CLIPS = 8  # complete ones that wait to be written
CLIPS_AT_ONCE = 2  # written; a picture may take a second
EXPIRE_S = 60.0
LONGEST_S = 180.0  # of sound in memory
ROWS = 256  # windows in memory
NO_SOUND = 1e15  # a float beyond this is not a sample

Draw = Callable[[Samples, Clip], bytes]  # the sound, what it is -> a PNG


class Chunk(NamedTuple):
    """Sound in memory, as small as it can be without a loss."""

    samples: npt.NDArray[Any]  # [frames] int16, or float32 where that would lose some
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
class _Recording:
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
class _Tape:
    """The newest sound of one machine, rounded up to whole chunks, and what was said of it."""

    rate_hz: int = 0
    end_utc_s: float = 0.0
    received: int = 0  # frames so far
    frames: int = 0
    chunks: deque[Chunk] = field(default_factory=deque)
    rows: deque[ScoredWindow] = field(default_factory=lambda: deque(maxlen=ROWS))
    recording: _Recording | None = None

    @property
    def waits_s(self) -> float:
        """Sound behind the newest scored window."""
        if not self.rows:
            return 0.0
        newest = self.rows[-1]
        return max(0.0, (self.received - newest.frame) / self.rate_hz - newest.result.duration_s)

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


class ClipRecorder:
    """`feed` and `attach` only touch memory; `save_begun` and `maintain` write. Thread-safe; never raises.

    A clip in progress is saved as far as it goes soon after its beginning. If the process is killed meanwhile, the next
    one finishes the clip with that: what an event names is there in the end.
    """

    def __init__(
        self,
        state_dir: Path,
        settings: config.Evidence,
        spare_bytes: int = SPARE_BYTES,
        draw: Draw | None = None,
    ) -> None:
        """`draw` makes the picture beside a clip."""
        self._state_dir = state_dir
        self._settings = settings
        self._spare_bytes = spare_bytes
        self._draw = draw
        self._tapes: dict[str, _Tape] = {}
        self._ready: deque[_Recording] = deque()
        self._lock = threading.Lock()
        self._next_expiry_s = 0.0
        self._withdrawn: deque[tuple[str, str]] = deque(maxlen=64)
        self.failed = 0  # clips lost since the start: no room on disk, or too many at once
        remove_unfinished(state_dir / "evidence")
        finish_begun(state_dir / "evidence")

    def feed(
        self, machine: str, samples: Samples, rate_hz: int, utc_s: float, gap: bool = False, *,
        received: int | None = None, begun: int = 0, last: bool = False, keep_s: float = 0.0,
    ) -> None:  # fmt: skip
        """The next sound of a machine: [frames] of its channel, native rate; `utc_s` of the first frame.

        `received`: frames before it; `begun`: those before its segment, which ends here if it is the `last`. At least
        `keep_s` stay in memory, counted from the end of the newest window that was judged.
        """
        if not self._settings.enabled:
            return
        pcm, bits = _packed(samples)
        with self._lock:
            tape = self._tapes.setdefault(machine, _Tape(rate_hz, received=received or 0))
            received = tape.received if received is None else received
            if tape.rate_hz != rate_hz or tape.received != received:
                self._finish(tape)
                tape = self._tapes[machine] = _Tape(rate_hz, received=received)
            chunk = Chunk(pcm, bits, gap, received, begun, last)
            tape.received = chunk.received + len(pcm)
            keep_s = min(max(self._settings.before_s, keep_s) + tape.waits_s, LONGEST_S)
            tape.push(chunk, round(keep_s * rate_hz))
            tape.end_utc_s = utc_s + len(pcm) / rate_hz
            if tape.recording is not None:
                tape.recording.push(chunk)
                if tape.recording.missing_frames <= 0:
                    self._finish(tape)

    def note(self, machine: str, row: ScoredWindow) -> None:
        """A scored window of that sound, for the sidecar of its clip."""
        with self._lock:
            tape = self._tapes.get(machine)
            recordings = [recording for recording in self._ready if recording.event.machine == machine]
            if tape is not None:
                tape.rows.append(row)
                recordings += [tape.recording] if tape.recording is not None else []
            for recording in recordings:
                recording.rows.setdefault(row.result.index, row)

    def attach(
        self, event: AlarmEvent, made_with: Callable[[], MadeWith | None] = lambda: None, lead_s: float = 0.0
    ) -> AlarmEvent:
        """Begin a clip when an alarm is raised or escalated; returns the event with the path of its clip.

        It reaches back as configured, and as far as the windows that voted were made from: `lead_s` before the first.
        `made_with`: what its scores depend on, asked for only where a clip begins.
        """
        if not self._settings.enabled or event.kind not in TRIGGERS:
            return event
        made = made_with()  # it may read files: not under the lock that the sound waits for
        with self._lock:
            tape = self._tapes.get(event.machine)
            if tape is None or tape.rate_hz == 0:
                return event
            if tape.recording is None:
                tape.recording = self._begin(tape, event, made, lead_s)
                return tape.recording.event
            return msgspec.structs.replace(event, evidence=tape.recording.event.evidence)

    @property
    def findings(self) -> list[str]:
        """For the agent's health."""
        return [f"{self.failed} clips of alarms lost: no room on disk, or too many at once"] if self.failed else []

    def finish(self, machine: str) -> None:
        """The sound of this machine has ended: a clip in progress ends with it."""
        with self._lock:
            tape = self._tapes.pop(machine, None)
            if tape is not None:
                self._finish(tape)

    def maintain(self, now_utc_s: float | None = None) -> None:
        """Write a few of the complete clips and expire old ones: the caller feeds the watchdog."""
        self._write_some(CLIPS_AT_ONCE)
        if time.monotonic() >= self._next_expiry_s:
            self._next_expiry_s = time.monotonic() + EXPIRE_S
            self._expire(time.time() if now_utc_s is None else now_utc_s)

    def save_begun(self) -> None:
        """Often: save the beginning of each new clip, under a name of its own."""
        with self._lock:
            begun = [tape.recording for tape in self._tapes.values() if tape.recording is not None]
            new = [replace(recording, chunks=list(recording.chunks), rows=dict(recording.rows))
                   for recording in begun if not recording.saved]  # fmt: skip
            for recording in begun:
                recording.saved = True
        for recording in new:
            path = begun_path(self._state_dir / recording.event.evidence)
            try:
                write_clip(path, *_assembled(recording), self._spare_bytes)
            except (OSError, RuntimeError) as exc:
                log.warning("beginning of a clip not saved", path=str(path), error=str(exc))

    def close(self) -> None:
        """End and write the clips in progress."""
        with self._lock:
            machines = list(self._tapes)
        for machine in machines:
            self.finish(machine)
        self._write_some(QUEUE_CLIPS)
        self.maintain()

    def _begin(self, tape: _Tape, event: AlarmEvent, made_with: MadeWith | None, lead_s: float) -> _Recording:
        voters = [row.frame - min(row.skipped, round(lead_s * tape.rate_hz)) for row in tape.rows
                  if row.result.index in event.windows]  # fmt: skip
        wanted = max(round(self._settings.before_s * tape.rate_hz), tape.received - min(voters, default=tape.received))
        chunks = tape.last(min(wanted, tape.frames))
        frames = sum(len(chunk.samples) for chunk in chunks)
        suffix = ".wav" if any(chunk.bits == 32 for chunk in chunks) else ".flac"
        return _Recording(
            event=msgspec.structs.replace(event, evidence=clip_path(event, suffix)),
            rate_hz=tape.rate_hz,
            start_utc_s=tape.end_utc_s - frames / tape.rate_hz,
            before_frames=frames,
            missing_frames=round(self._settings.after_s * tape.rate_hz),
            chunks=chunks,
            made_with=made_with,
            rows={row.result.index: row for row in tape.rows},
        )

    def _finish(self, tape: _Tape) -> None:
        recording, tape.recording = tape.recording, None
        if recording is None:
            return
        if len(self._ready) >= QUEUE_CLIPS:
            self._lost(recording)
            log.warning("evidence clip dropped: too many at once", alarm=recording.event.alarm_id)
            return
        self._ready.append(recording)

    def _lost(self, recording: _Recording) -> None:
        """What was saved of its beginning is the clip; without that the event names a clip that is not there."""
        self.failed += 1
        finish_begun(self._state_dir / "evidence", recording.event.evidence)
        if not (self._state_dir / recording.event.evidence).exists():
            self._withdrawn.append((recording.event.machine, recording.event.evidence))

    def withdrawn(self) -> list[tuple[str, str]]:
        """Machine and path of clips that were named and will not be there; each is told once."""
        found = []
        while self._withdrawn:
            found.append(self._withdrawn.popleft())
        return found

    def _write_some(self, most: int) -> None:
        for _ in range(most):
            if (recording := self._next()) is None:
                return
            self._write(recording)

    def _next(self) -> _Recording | None:
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def _write(self, recording: _Recording) -> None:
        samples, clip = _assembled(recording)
        path = self._state_dir / recording.event.evidence
        try:
            write_clip(path, samples, clip, self._spare_bytes)
        except (OSError, RuntimeError) as exc:  # soundfile's errors are RuntimeErrors
            self._lost(recording)
            log.warning("evidence clip not written", path=str(path), error=str(exc))
            return
        remove_begun(path)
        if self._draw is not None:
            try:
                write_whole(path.with_suffix(".png"), self._draw(samples, clip))
            except Exception as exc:  # noqa: BLE001 - the daemon goes on without a picture
                log.warning("picture of an alarm not drawn", path=str(path), error=repr(exc))

    def _expire(self, now_utc_s: float) -> None:
        limits = self._settings
        try:
            expire_clips(self._state_dir / "evidence", now_utc_s, limits.max_age_days, limits.max_total_mb * 1e6)
        except OSError as exc:
            log.warning("old evidence clips not deleted", error=str(exc))


def _assembled(recording: _Recording) -> tuple[Samples, Clip]:
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


def _packed(samples: Samples) -> tuple[npt.NDArray[Any], Bits]:
    """As small as it can be without a loss, in new memory; what is no sound becomes 0. [n] -> [n]"""
    if len(samples) and samples.min() >= -1 and samples.max() < 1:
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
