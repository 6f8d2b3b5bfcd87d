"""Recordings -> batches, each of which becomes one part."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator

import msgspec

from asd_agent.archive.recordings import Recording
from asd_agent.archive.results import Results

MOST_RECORDINGS, MOST_BYTES = 64, 64 << 20  # of a batch: what a kill costs, and what a worker holds
MOST_OPEN = 64  # batches that wait for more of their machine and day


class Batch(msgspec.Struct, frozen=True):
    """Recordings of one machine and day."""

    machine: str
    day: str
    part: str  # the name of what it becomes
    recordings: list[Recording]

    @property
    def size(self) -> int:
        return sum(recording.size for recording in self.recordings)


def batches(recordings: Iterable[Recording], results: Results) -> Iterator[Batch]:
    """Holds as many recordings as may be open at once, however many there are."""
    waiting: dict[tuple[str, str], list[Recording]] = {}

    def batch(key: tuple[str, str]) -> Batch:
        chosen = waiting.pop(key)
        return Batch(*key, results.part_name(*key, chosen), chosen)

    for recording in recordings:
        key = recording.machine, day(recording.utc_s)
        waiting.setdefault(key, []).append(recording)
        if len(waiting[key]) >= MOST_RECORDINGS or sum(r.size for r in waiting[key]) >= MOST_BYTES:
            yield batch(key)
        elif len(waiting) > MOST_OPEN:
            yield batch(next(iter(waiting)))
    while waiting:
        yield batch(next(iter(waiting)))


def day(utc_s: float) -> str:
    """The UTC day on which a recording began: "2026-03-01"."""
    return dt.datetime.fromtimestamp(utc_s, dt.UTC).date().isoformat()
