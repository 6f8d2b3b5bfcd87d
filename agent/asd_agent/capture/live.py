"""Live sound: a child process, the one reader and the one watchdog for all of them.

The age of the last frame decides: a child that delivers nothing, is stopped, hangs in a driver or has ended
is killed and replaced, for ever. No threads: everything happens in `read`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from asd_agent.capture.base import Source, SourceStatus
from asd_agent.capture.pcm import Chunk, Decoder
from asd_agent.capture.process import Child
from asd_agent.errors import SourceError
from asd_agent.types import Block

log = structlog.get_logger()

CLOSE_GRACE_S = 1.0
EXIT_GRACE_S = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait before a child is given up, and before the next one."""

    start_s: float = 20.0  # for the first frame: a slow board starting Python, an RTSP handshake
    stall_s: float = 5.0  # without frames after that
    healthy_s: float = 10.0  # delivering this long resets the back-off
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0


class LiveSource(Source):
    """`argv` writes PCM that `decoder()` understands; a fresh decoder for every child."""

    def __init__(self, argv: Sequence[str], decoder: Callable[[], Decoder], patience: Patience | None = None) -> None:
        self._argv, self._new_decoder = list(argv), decoder
        self._patience = patience or Patience()
        self._child: Child | None = None
        self._decoder = decoder()
        self._ready: deque[Block] = deque()
        self._ghosts: list[Child] = []  # killed, not yet gone
        self._detail = "starting"
        self._restarts = self._gaps = 0
        self._frame = 0  # of this child
        self._born_s = 0.0
        self._last_s: float | None = None  # arrival of the last frame, of any child
        self._delivering_since_s: float | None = None
        self._backoff_s = self._patience.backoff_s
        self._next_start_s = 0.0
        self._missing = False  # the next block comes after a hole

    def read(self, timeout_s: float) -> Block | None:
        deadline = time.monotonic() + timeout_s
        while not self._ready:
            now = time.monotonic()
            if self._child is not None:
                self._pump(self._child, min(deadline, self._limit_s()) - now)
            elif now >= self._next_start_s:
                self._start()
            else:
                time.sleep(max(0.0, min(deadline, self._next_start_s) - now))
            if not self._ready and time.monotonic() >= deadline:
                return None
        block = self._ready.popleft()
        self.rate_hz = block.rate_hz
        self._gaps += block.gap
        return block

    def status(self) -> SourceStatus:
        last_s, delivering = self._last_s, self._delivering_since_s is not None
        age_s = None if last_s is None else time.monotonic() - last_s
        stalled = delivering and age_s is not None and age_s > self._patience.stall_s
        detail = f"no frames for {age_s:.0f} s" if stalled else self._detail
        return SourceStatus(delivering and not stalled, detail, self._restarts, self._gaps, age_s)

    @property
    def child_pid(self) -> int | None:
        """Of the process that delivers just now."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.end(CLOSE_GRACE_S)
            self._child = None
        self._delivering_since_s = None
        self._detail = "closed"

    def _limit_s(self) -> float:
        """When the child that runs now is given up."""
        if self._delivering_since_s is None or self._last_s is None:
            return self._born_s + self._patience.start_s
        return self._last_s + self._patience.stall_s

    def _start(self) -> None:
        self._ghosts = [ghost for ghost in self._ghosts if not ghost.reap()]
        self._decoder = self._new_decoder()
        self._frame = 0
        self._born_s = time.monotonic()
        try:
            self._child = Child(self._argv)
        except OSError as exc:  # out of processes or memory: try again like any other failure
            self._unavailable(f"cannot start a process: {exc.strerror}")

    def _pump(self, child: Child, wait_s: float) -> None:
        """Move what the child has written into blocks, or give it up."""
        data = child.read(wait_s)
        try:
            if data:
                self._accept(self._decoder.feed(data))
            elif data == b"":
                self._accept(self._decoder.rest())
                self._replace(EXIT_GRACE_S)
            elif (now := time.monotonic()) >= self._limit_s():
                since_s = self._born_s if self._delivering_since_s is None else self._last_s
                self._replace(0.0, f"no frames for {now - (since_s or now):.0f} s; ")
        except SourceError as exc:
            self._replace(0.0, f"{exc}; ")

    def _accept(self, chunks: Iterable[Chunk]) -> None:
        self._ready.extend(map(self._block, chunks))

    def _block(self, chunk: Chunk) -> Block:
        now = time.monotonic()
        at_s = now if chunk.monotonic_s is None else min(chunk.monotonic_s, now)
        frames = len(chunk.samples)
        block = Block(
            samples=chunk.samples,
            rate_hz=chunk.rate_hz,
            start_frame=self._frame,
            utc_s=time.time() - (now - at_s) - frames / chunk.rate_hz,
            monotonic_s=at_s,
            gap=self._missing or chunk.lost,
        )
        self._missing = False
        self._frame += frames
        self._last_s = now
        self._delivers(now)
        return block

    def _delivers(self, now: float) -> None:
        if self._delivering_since_s is None:
            self._delivering_since_s = now
            self._detail = "delivering"
            if self._restarts:
                log.info("sound resumed", restarts=self._restarts)
        elif now - self._delivering_since_s >= self._patience.healthy_s:
            self._backoff_s = self._patience.backoff_s

    def _replace(self, grace_s: float, why: str = "") -> None:
        assert self._child is not None
        ghost, self._child = self._child, None
        how = ghost.end(grace_s)
        if not ghost.reap():
            self._ghosts.append(ghost)
        if ghost.ended_well and self._delivering_since_s is not None:
            self._backoff_s = self._patience.backoff_s  # it has done its work and is wanted again: no failure
        self._unavailable(f"{why}{how}")

    def _unavailable(self, detail: str) -> None:
        if detail != self._detail:
            log.warning("no sound", reason=detail, restarts=self._restarts)
        self._detail = detail
        self._delivering_since_s = None
        self._missing = self._last_s is not None
        self._restarts += 1
        self._next_start_s = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, self._patience.backoff_max_s)
