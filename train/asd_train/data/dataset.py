"""Clips -> batches of waveforms for torch.

What a clip's random crop is depends on (seed, epoch, clip) alone: not on the number of workers, nor on what
was drawn before, so that a resumed run sees what an unbroken one would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from asd_agent.errors import UsageError
from asd_agent.types import Samples
from asd_train.data.audio import AudioCache
from asd_train.data.clip import Clip

Key = tuple[int, int]  # (clip, epoch)
Fill = Literal["tile", "pad"]


class Item(NamedTuple):
    waveform: Samples  # [n]
    valid: int  # samples that are sound; the rest is padding
    label: int
    row: int  # place of the clip in the dataset


class Batch(NamedTuple):
    """A named tuple, so that pinning and moving to a device work as they are in torch and accelerate."""

    waveform: torch.Tensor  # [batch, samples] float32
    padding: torch.Tensor  # [batch, samples] bool, True = padding
    label: torch.Tensor  # [batch] int64, -1 = no class
    row: torch.Tensor  # [batch] int64, place of the clip in the dataset

    def to(self, device: torch.device) -> Self:
        """`row` stays: it is looked up in tables on the CPU, and from a GPU that would wait for all work under way."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("waveform", "padding", "label")}
        return self._replace(**moved)


class ClipDataset(Dataset[Item]):
    """Waveforms of clips, cropped or filled to `seconds` (None: every clip at its full length).

    `crop`: where longer clips are cut; "start" in evaluation. `fill` for shorter clips: "tile" repeats the clip,
    "pad" appends zeros, which count as sound. `labels` [clips] come from `ClassMap.labels`; None = all -1.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        audio: AudioCache,
        labels: npt.NDArray[np.int64] | None = None,
        seconds: float | None = None,
        crop: Literal["random", "start"] = "random",
        fill: Fill = "tile",
        seed: int = 0,
    ) -> None:
        if not clips:
            raise UsageError("no clips to build a dataset from")
        if [clip.path for clip in clips] != audio.paths:
            raise ValueError("the cache must hold exactly these clips, in this order")
        self.clips, self.audio = list(clips), audio
        self.labels = np.full(len(self.clips), -1, np.int64) if labels is None else labels
        self.samples = None if seconds is None else round(seconds * audio.rate_hz)
        self.crop, self.fill, self.seed = crop, fill, seed

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Samples [clips] of every item before padding: what batches are bucketed by."""
        return self.audio.lengths if self.samples is None else np.full(len(self), self.samples, np.int64)

    def __getitem__(self, key: int | Key) -> Item:
        index, epoch = key if isinstance(key, tuple) else (key, 0)
        waveform, valid = self._cut(index, epoch)
        return Item(waveform, valid, int(self.labels[index]), index)

    def _cut(self, index: int, epoch: int) -> tuple[Samples, int]:
        length = int(self.audio.lengths[index])
        if self.samples is None or length == self.samples:
            return self.audio.read(index), length
        if length > self.samples:
            start = 0
            if self.crop == "random":
                rng = np.random.default_rng((self.seed, epoch, index))
                start = int(rng.integers(length - self.samples + 1))
            return self.audio.read(index, start, start + self.samples), self.samples
        clip = self.audio.read(index)
        if self.fill == "tile":
            return np.tile(clip, math.ceil(self.samples / length))[: self.samples], self.samples
        return np.pad(clip, (0, self.samples - length)), self.samples


def collate(items: Sequence[Item]) -> Batch:
    """Pad to the longest of the batch with zeros, and say where."""
    longest = max(len(item.waveform) for item in items)
    waveform = torch.zeros(len(items), longest)
    padding = torch.ones(len(items), longest, dtype=torch.bool)
    for row, item in enumerate(items):
        waveform[row, : len(item.waveform)] = torch.from_numpy(item.waveform)
        padding[row, : item.valid] = False
    label = torch.tensor([item.label for item in items], dtype=torch.int64)
    return Batch(waveform, padding, label, torch.tensor([item.row for item in items], dtype=torch.int64))


class Batches(Sampler[list[Key]]):
    """Batches of clips of similar length, in an order that depends on (seed, epoch) alone.

    `set_epoch` before each epoch; `skip` whole batches at the start of the epoch to resume inside it. Clips
    are shuffled, sorted by length within runs of `bucket` batches, and the batches shuffled again, so that
    padding is small and no batch holds one length only for ever. `drop_last` leaves out an incomplete batch,
    unless it is the only one.
    """

    def __init__(
        self,
        lengths: npt.NDArray[np.int64],
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        bucket: int = 50,
    ) -> None:
        self.lengths, self.batch_size, self.shuffle, self.seed = lengths, batch_size, shuffle, seed
        self.drop_last, self.bucket = drop_last, bucket
        self.epoch = self.skip = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        self.epoch, self.skip = epoch, skip

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        count = len(self.lengths)
        whole = count // self.batch_size
        return max(whole, 1) if self.drop_last else math.ceil(count / self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self._batches()[self.skip :]:
            yield [(int(index), self.epoch) for index in batch]

    def _batches(self) -> list[npt.NDArray[np.int64]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        count = len(self.lengths)
        order = rng.permutation(count) if self.shuffle else np.arange(count)
        if self.shuffle and len(np.unique(self.lengths)) > 1:
            run = self.bucket * self.batch_size
            runs = [order[i : i + run] for i in range(0, count, run)]
            order = np.concatenate([r[np.argsort(self.lengths[r], kind="stable")] for r in runs])
        elif not self.shuffle:
            order = np.argsort(self.lengths, kind="stable")
        batches = [order[i : i + self.batch_size] for i in range(0, count, self.batch_size)]
        if self.drop_last and len(batches) > 1 and len(batches[-1]) < self.batch_size:
            batches.pop()
        if self.shuffle:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return batches


def loader(dataset: ClipDataset, batches: Iterable[list[Key]], workers: int = 0) -> DataLoader[Batch]:
    """A DataLoader with workers that stay alive between epochs, and pinned memory where there is a GPU.

    Its seeds come from a generator of its own: the global one is the model's, and must not depend on loaders.
    """
    return DataLoader(
        dataset,  # type: ignore[arg-type] # torch types a loader by its items, ours yields batches
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator().manual_seed(0),
    )
