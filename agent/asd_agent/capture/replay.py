"""Recordings and the simulated machine as sources: blocks from an iterator, as fast as life or at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from asd_agent.capture.base import Source, SourceStatus
from asd_agent.errors import EndOfSource, SourceError
from asd_agent.types import Block


class ReplaySource(Source):
    """With pace "live" a block is delivered when its last frame would have come live; "fast" = when asked."""

    def __init__(self, blocks: Iterator[Block], pace: Literal["live", "fast"]) -> None:
        self._blocks = blocks
        self._live = pace == "live"
        self._next: Block | None = None
        self._failure: SourceError | None = None
        self._start_s: float | None = None  # when the first frame was due
        self._played_s = 0.0
        self._last_s: float | None = None

    def read(self, timeout_s: float) -> Block | None:
        block = self._peek()
        if not self._live:
            return self._deliver(replace(block, monotonic_s=time.monotonic()))
        if self._start_s is None:
            self._start_s = time.monotonic()
        played_s = self._played_s + len(block.samples) / block.rate_hz
        wait_s = self._start_s + played_s - time.monotonic()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
            if wait_s > timeout_s:
                return None
        self._played_s = played_s
        now = time.monotonic()
        return self._deliver(replace(block, monotonic_s=now, utc_s=time.time() - len(block.samples) / block.rate_hz))

    def status(self) -> SourceStatus:
        age_s = None if self._last_s is None else time.monotonic() - self._last_s
        detail = str(self._failure) if self._failure else "delivering"
        return SourceStatus(self._failure is None, detail, last_frame_age_s=age_s)

    def close(self) -> None:
        self._failure = self._failure or EndOfSource("closed")

    def _peek(self) -> Block:
        """The block to come; the iterator's failure is raised on every further call."""
        if self._failure is not None:
            raise self._failure
        if self._next is None:
            try:
                self._next = next(self._blocks)
            except StopIteration:
                self._failure = EndOfSource("the recording has been read to its end")
                raise self._failure from None
            except SourceError as exc:
                self._failure = exc
                raise
        return self._next

    def _deliver(self, block: Block) -> Block:
        self._next = None
        self.rate_hz = block.rate_hz
        self._last_s = block.monotonic_s
        return block
