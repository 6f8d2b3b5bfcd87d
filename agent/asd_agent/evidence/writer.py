"""Clips from memory to disk: the beginning soon, the whole later; what cannot be written is withdrawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from asd_agent import config
from asd_agent.evidence.clip import (
    Clip,
    begun_path,
    expire_clips,
    finish_begun,
    near,
    remove_begun,
    remove_unfinished,
    write_clip,
)
from asd_agent.evidence.tape import Recording, assembled
from asd_agent.files import write_whole
from asd_agent.types import Samples

Draw = Callable[[Samples, Clip], bytes]  # the sound, what it is -> a PNG
log = structlog.get_logger(__name__)


class ClipWriter:
    """Below the state directory. Never raises; `lost` may be called from any thread, the rest from one."""

    def __init__(self, state_dir: Path, spare_bytes: int, draw: Draw | None) -> None:
        """Finishes what a killed process had begun. `draw` makes the picture beside a clip."""
        self._state_dir, self._spare_bytes, self._draw = state_dir, spare_bytes, draw
        self._withdrawn: deque[tuple[str, str]] = deque(maxlen=64)
        self.failed = 0  # clips lost since the start: no room on disk, or too many at once
        remove_unfinished(state_dir / "evidence")
        finish_begun(state_dir / "evidence")

    def begin(self, recordings: Iterable[Recording]) -> None:
        """Save what there is of them, under names of their own."""
        for recording in recordings:
            path = begun_path(self._state_dir / recording.event.evidence)
            try:
                write_clip(path, *assembled(recording), self._spare_bytes)
            except (OSError, RuntimeError) as exc:  # soundfile's errors are RuntimeErrors
                log.warning("beginning of a clip not saved", path=str(path), error=str(exc))

    def write(self, recording: Recording) -> None:
        """The whole clip and its picture."""
        samples, clip = assembled(recording)
        path = self._state_dir / recording.event.evidence
        try:
            write_clip(path, samples, clip, self._spare_bytes)
        except (OSError, RuntimeError) as exc:  # soundfile's errors are RuntimeErrors
            self.lost(recording)
            log.warning("evidence clip not written", path=str(path), error=str(exc))
            return
        remove_begun(path)
        if self._draw is not None:
            try:
                write_whole(path.with_suffix(".png"), self._draw(near(samples), clip))
            except Exception as exc:  # noqa: BLE001 - the daemon goes on without a picture
                log.warning("picture of an alarm not drawn", path=str(path), error=repr(exc))

    def lost(self, recording: Recording) -> None:
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

    def expire(self, limits: config.Evidence, now_utc_s: float) -> None:
        """Delete the oldest clips beyond the limits."""
        try:
            expire_clips(self._state_dir / "evidence", now_utc_s, limits.max_age_days, limits.max_total_mb * 1e6)
        except OSError as exc:
            log.warning("old evidence clips not deleted", error=str(exc))
