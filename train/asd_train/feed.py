"""Batches without an end, from any point on: where a run is in its data follows from its step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from asd_agent.errors import UsageError
from asd_train.config import Train
from asd_train.data.dataset import Batch, Batches, ClipDataset, Key, loader

Feed = Callable[[int, int, int], Iterator[Batch]]  # (batches done, rank, processes) -> batches without an end
Places = npt.NDArray[np.intp]


class Endless(Sampler[list[Key]]):
    """Epoch after epoch of batches without an end, from batch `start` on, every `processes`-th."""

    def __init__(self, batches: Batches, start: int, rank: int, processes: int, places: Places) -> None:
        """`places` [entries]: the clip that each entry of `batches` stands for; a clip may have several."""
        self.batches, self.start, self.rank, self.processes = batches, start, rank, processes
        self.per_epoch = len(batches) // processes
        if self.per_epoch == 0:
            raise UsageError(f"{len(batches)} batches of data for {processes} processes: use a smaller batch_size")
        # The copies of a clip count as epochs of their own: each is cropped elsewhere.
        self.places, self.copy = places, np.arange(len(places)) - np.searchsorted(places, places)
        self.copies = int(self.copy.max()) + 1

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, skip = divmod(self.start, self.per_epoch)
        while True:
            self.batches.set_epoch(epoch, skip * self.processes + self.rank)
            for number, batch in enumerate(self.batches):
                if number % self.processes == 0 and skip + number // self.processes < self.per_epoch:
                    yield [self._key(entry, epoch) for entry, _ in batch]
            epoch, skip = epoch + 1, 0

    def _key(self, entry: int, epoch: int) -> Key:
        return int(self.places[entry]), epoch * self.copies + int(self.copy[entry])


def feed_of(dataset: ClipDataset, batches: Batches, places: Places, workers: int) -> Feed:
    def feed(done: int, rank: int, processes: int) -> Iterator[Batch]:
        return iter(loader(dataset, Endless(batches, done, rank, processes, places), workers))

    return feed


def steps_of(settings: Train, batches: int, processes: int) -> int:
    """Updates of the weights in the whole run."""
    if settings.steps is not None:
        return settings.steps
    return max(1, (settings.epochs or 1) * (batches // processes) // settings.accumulate)
