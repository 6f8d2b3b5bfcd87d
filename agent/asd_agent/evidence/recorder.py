"""Sound around alarms: the last seconds of each machine in memory, written out when an alarm is raised."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

from asd_agent import config
from asd_agent.evidence.clip import SPARE_BYTES, MadeWith, ScoredWindow, clip_path
from asd_agent.evidence.tape import Chunk, Recording, Tape, packed
from asd_agent.evidence.writer import ClipWriter, Draw
from asd_agent.types import AlarmEvent, EventKind, Samples

log = structlog.get_logger(__name__)

TRIGGERS = (EventKind.RAISED, EventKind.ESCALATED)
QUEUE_CLIPS = 8  # complete ones that wait to be written
CLIPS_AT_ONCE = 2  # written; a picture may take a second
EXPIRE_S = 60.0
LONGEST_S = 180.0  # of sound in memory


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
        self._settings = settings
        self._writer = ClipWriter(state_dir, spare_bytes, draw)
        self._tapes: dict[str, Tape] = {}
        self._ready: deque[Recording] = deque()
        self._lock = threading.Lock()
        self._next_expiry_s = 0.0

    def feed(
        self, machine: str, samples: Samples, rate_hz: int, utc_s: float, gap: bool = False, *,
        received: int | None = None, begun: int = 0, last: bool = False, keep_s: float = 0.0,
    ) -> None:  # fmt: skip
        """The next sound of a machine, native rate: [frames], or [frames, 2] with that of its reference microphone;
        `utc_s` of the first frame.

        `received`: frames before it; `begun`: those before its segment, which ends here if it is the `last`. At least
        `keep_s` stay in memory, counted from the end of the newest window that was judged.
        """
        if not self._settings.enabled:
            return
        pcm, bits = packed(samples)
        with self._lock:
            tape = self._tapes.setdefault(machine, Tape(rate_hz, received=received or 0))
            received = tape.received if received is None else received
            if tape.rate_hz != rate_hz or tape.received != received or tape.differs(pcm):
                self._finish(tape)
                tape = self._tapes[machine] = Tape(rate_hz, received=received)
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
    def failed(self) -> int:
        """Clips lost since the start."""
        return self._writer.failed

    def withdrawn(self) -> list[tuple[str, str]]:
        """See ClipWriter."""
        return self._writer.withdrawn()

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
            self._writer.expire(self._settings, time.time() if now_utc_s is None else now_utc_s)

    def save_begun(self) -> None:
        """Often: save the beginning of each new clip, under a name of its own."""
        with self._lock:
            begun = [tape.recording for tape in self._tapes.values() if tape.recording is not None]
            new = [replace(recording, chunks=list(recording.chunks), rows=dict(recording.rows))
                   for recording in begun if not recording.saved]  # fmt: skip
            for recording in begun:
                recording.saved = True
        self._writer.begin(new)

    def close(self) -> None:
        """End and write the clips in progress."""
        with self._lock:
            machines = list(self._tapes)
        for machine in machines:
            self.finish(machine)
        self._write_some(QUEUE_CLIPS)
        self.maintain()

    def _begin(self, tape: Tape, event: AlarmEvent, made_with: MadeWith | None, lead_s: float) -> Recording:
        voters = [row.frame - min(row.skipped, round(lead_s * tape.rate_hz)) for row in tape.rows
                  if row.result.index in event.deciding_windows]  # fmt: skip
        wanted = max(round(self._settings.before_s * tape.rate_hz), tape.received - min(voters, default=tape.received))
        chunks = tape.last(min(wanted, tape.frames))
        frames = sum(len(chunk.samples) for chunk in chunks)
        suffix = ".wav" if any(chunk.bits == 32 for chunk in chunks) else ".flac"
        return Recording(
            event=msgspec.structs.replace(event, evidence=clip_path(event, suffix)),
            rate_hz=tape.rate_hz,
            start_utc_s=tape.end_utc_s - frames / tape.rate_hz,
            before_frames=frames,
            missing_frames=round(self._settings.after_s * tape.rate_hz),
            chunks=chunks,
            made_with=made_with,
            rows={row.result.index: row for row in tape.rows},
        )

    def _finish(self, tape: Tape) -> None:
        recording, tape.recording = tape.recording, None
        if recording is None:
            return
        if len(self._ready) >= QUEUE_CLIPS:
            self._writer.lost(recording)
            log.warning("evidence clip dropped: too many at once", alarm=recording.event.alarm_id)
            return
        self._ready.append(recording)

    def _write_some(self, most: int) -> None:
        for _ in range(most):
            if (recording := self._next()) is None:
                return
            self._writer.write(recording)

    def _next(self) -> Recording | None:
        with self._lock:
            return self._ready.popleft() if self._ready else None
