"""What every source is: blocks on demand, a status that never lies, and a close."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from asd_agent.errors import EndOfSource
from asd_agent.types import Block


@dataclass(frozen=True, slots=True)
class SourceStatus:
    available: bool  # frames arrive now (a finite source: has not failed)
    detail: str  # in words; why not, when unavailable
    restarts: int = 0  # children that had to be replaced
    gaps: int = 0  # places where frames are missing
    last_frame_age_s: float | None = None  # None = no frame yet
    sound_per_s: float | None = None  # delivered in a second of the clock, lately; None = not known, or not live


class Source(abc.ABC):
    """A stream of blocks. `read` and `close` belong to one thread; `status` may be asked from any.

    The thread that reads must live as long as the source: the kernel ends a live source's child with it.
    """

    rate_hz: int = 0  # of the last block; 0 = not known yet

    @abc.abstractmethod
    def read(self, timeout_s: float) -> Block | None:
        """The next block, or None when none has come within `timeout_s`.

        Raises EndOfSource at the end of a finite source and SourceError for a permanent mistake. A live
        source that fails raises nothing: it is tried again for ever, and `status` says why.
        """

    @abc.abstractmethod
    def status(self) -> SourceStatus: ...

    @abc.abstractmethod
    def close(self) -> None: ...

    def __iter__(self) -> Iterator[Block]:
        """Blocks up to the end of the source."""
        while True:
            try:
                block = self.read(1.0)
            except EndOfSource:
                return
            if block is not None:
                yield block

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
