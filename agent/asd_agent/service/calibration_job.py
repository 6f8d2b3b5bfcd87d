"""Calibrating in the running daemon, beside the scoring: from its live windows, or from recordings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from asd_agent.baseline import Baseline
from asd_agent.errors import AsdError
from asd_agent.service.status import CalibrationProgress
from asd_agent.types import Description

log = structlog.get_logger()

Finish = Callable[[Sequence[Description]], Baseline]  # fits, writes, promotes
Report = Callable[[float, str], None]  # share done, words
Read = Callable[[Report], list[Description]]
PATIENCE = 3.0  # a source may deliver this many times slower than real time, plus a minute


class CalibrationJob:
    """listening -> fitting -> done | failed | cancelled. `progress()` is what `calibrate` in the shell shows."""

    def __init__(self, finish: Finish, duration_s: float | None = None) -> None:
        """`duration_s`: of live sound to gather with `see`; None = `read` brings recordings."""
        self._finish = finish
        self._duration_s = duration_s
        self._lock = threading.Lock()
        self._descriptions: list[Description] = []
        self._deadline = time.monotonic() + PATIENCE * (duration_s or 0.0) + 60.0
        self._sound_s = 0.0
        self._done = 0.0
        self._phase = "listening"
        self._error = ""
        self._baseline: Baseline | None = None

    @property
    def running(self) -> bool:
        return self._phase in ("listening", "fitting")

    @property
    def listening(self) -> bool:
        """To live sound."""
        return self._phase == "listening" and self._duration_s is not None

    def see(self, description: Description) -> None:
        """A window of the live stream."""
        with self._lock:
            if self._phase != "listening" or self._duration_s is None:
                return
            last = self._descriptions[-1] if self._descriptions else None
            self._descriptions.append(description)
            self._sound_s += _new_sound_s(last, description)
            self._done = min(self._sound_s / self._duration_s, 1.0)
            if self._sound_s >= self._duration_s - 1e-3:
                self._phase = "fitting"
                self._in_thread(self._fit)

    def read(self, read: Read) -> None:
        """Describe recordings in a thread of its own, then fit."""

        def work() -> None:
            descriptions = read(self._report)
            with self._lock:
                self._descriptions = descriptions
                if self._phase != "listening":
                    return
                self._phase = "fitting"
            self._fit()

        self._in_thread(work)

    def tick(self) -> None:
        """Give up on a source that does not deliver."""
        with self._lock:
            if self._phase == "listening" and self._duration_s is not None and time.monotonic() > self._deadline:
                self._phase, self._error = "failed", "the source did not deliver enough sound in time"

    def cancel(self) -> bool:
        """False when it is too late: the baseline is being made, or was."""
        with self._lock:
            if self._phase == "listening":
                self._phase = "cancelled"
            return self._phase == "cancelled"

    def progress(self) -> CalibrationProgress:
        with self._lock:
            baseline = self._baseline
            return CalibrationProgress(
                phase=self._phase,
                done=self._done,
                windows=len(self._descriptions),
                not_assessable=sum(not d.quality.assessable for d in self._descriptions),
                error=self._error,
                version=baseline.manifest.version if baseline else None,
                report=baseline.manifest.report if baseline else None,
            )

    def _report(self, share: float, words: str) -> None:
        self._done = share
        if self._phase == "cancelled":
            raise AsdError("cancelled")

    def _fit(self) -> None:
        baseline = self._finish(self._descriptions)
        with self._lock:
            self._baseline, self._phase = baseline, "done"

    def _in_thread(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except AsdError as exc:
                self._fail(str(exc))
            except Exception as exc:
                log.exception("calibration broke")
                self._fail(f"internal error: {exc!r}; see the log")

        threading.Thread(target=guarded, name="calibrate", daemon=True).start()

    def _fail(self, line: str) -> None:
        with self._lock:
            if self._phase != "cancelled":
                self._phase, self._error = "failed", line


def _new_sound_s(last: Description | None, description: Description) -> float:
    """What this window adds to the one before it, by samples: a wall clock may jump."""
    if last is not None and description.origin == last.origin and description.start_s > last.start_s:
        end_s = last.start_s + last.duration_s
        return min(max(description.start_s + description.duration_s - end_s, 0.0), description.duration_s)
    return description.duration_s
