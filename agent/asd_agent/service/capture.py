"""One thread per device: reads blocks and offers each to the machines that listen to its channels."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from asd_agent import config
from asd_agent.capture import Source, SourceStatus, open_source
from asd_agent.errors import AsdError, EndOfSource
from asd_agent.service.systemd import Progress
from asd_agent.types import Block

REOPEN_S = 30.0
RATE_OVER_S, RATE_LEAST_S = 60.0, 20.0  # sound is measured against the clock over this time
BUSY_S = 0.02
log = structlog.get_logger()


class Listener(Protocol):
    @property
    def channels(self) -> tuple[int, ...]: ...
    @property
    def busy(self) -> bool: ...
    def offer(self, block: Block) -> None: ...
    def source_ended(self) -> None: ...
    def source_failed(self, line: str) -> None: ...


class DeliveryRate:
    """Sound against the clock over the last minute without a hole. The capture thread adds, any thread asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: deque[tuple[float, float]] = deque()  # monotonic, seconds of sound until then
        self._sound_s = 0.0

    def add(self, block: Block) -> None:
        with self._lock:
            if block.gap:
                self._marks.clear()
            self._sound_s += len(block.samples) / block.rate_hz
            self._marks.append((block.monotonic_s, self._sound_s))
            while self._marks[-1][0] - self._marks[0][0] > RATE_OVER_S:
                self._marks.popleft()

    @property
    def sound_per_s(self) -> float | None:
        """None = it has not lasted long enough to say."""
        with self._lock:
            if not self._marks:
                return None
            (first_s, first), (last_s, last) = self._marks[0], self._marks[-1]
            return (last - first) / (last_s - first_s) if last_s - first_s >= RATE_LEAST_S else None


class CaptureThread:
    """Never ends by itself for a live source: what cannot be opened is tried again for ever."""

    def __init__(
        self,
        name: str,
        source: config.Source,
        listeners: Sequence[Listener],
        progress: Progress,
        wake: Callable[[], None],
    ) -> None:
        self.name = f"capture:{name}"
        self.listeners = tuple(listeners)
        self._config = source
        self._wake = wake  # wakes the worker: windows may be waiting
        self._progress = progress
        self._stop = threading.Event()
        self._source: Source | None = None
        self._status = SourceStatus(available=False, detail="not opened yet")
        self._rate = DeliveryRate()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def status(self) -> SourceStatus:
        source = self._source
        if source is None:
            return self._status
        return replace(source.status(), sound_per_s=self._rate.sound_per_s)

    def stop(self) -> None:
        """Ask it to end; `close` waits until it has."""
        self._stop.set()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
        self._progress.forget(self.name)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._progress.touch(self.name)
            try:
                self._listen()
            except EndOfSource:
                self._end("the source has been read to its end")
                self._progress.forget(self.name)
                for listener in self.listeners:
                    listener.source_ended()
                self._wake()
                return
            except AsdError as exc:
                self._failed(str(exc))
            except Exception as exc:  # a thread that dies unnoticed would be a deaf agent
                log.exception("source failed", source=self.name)
                self._failed(f"internal error: {exc!r}; see the log")

    def _failed(self, line: str) -> None:
        self._end(line)
        for listener in self.listeners:
            listener.source_failed(line)
        self._wait(REOPEN_S)

    def _listen(self) -> None:
        source = open_source(self._config, [channel for listener in self.listeners for channel in listener.channels])
        self._source = source
        self._rate = DeliveryRate()
        hurried = getattr(self._config, "pace", "live") == "fast"
        try:
            while not self._stop.is_set():
                self._progress.touch(self.name)
                if hurried and any(listener.busy for listener in self.listeners):
                    self._stop.wait(BUSY_S)  # recordings can wait; live sound cannot
                    continue
                block = source.read(0.5)
                if block is not None:
                    if not hurried:
                        self._rate.add(block)
                    for listener in self.listeners:
                        listener.offer(block)
                    self._wake()
        finally:
            source.close()

    def _end(self, detail: str) -> None:
        self._source = None
        self._status = SourceStatus(available=False, detail=detail)

    def _wait(self, seconds: float) -> None:
        """Pause, but keep the watchdog fed: an absent source is no hang."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stop.wait(0.5):
            self._progress.touch(self.name)
