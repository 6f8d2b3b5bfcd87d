"""The embeddings of a data set's clips, in batches on the best device at hand.

A batch holds clips of one length only: padding would change the numbers of some encoders, and an agent never
pads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from asd_agent.types import Floats
from asd_train.data.audio import AudioCache
from asd_train.data.clip import Clip
from asd_train.data.dataset import ClipDataset, Fill, Key, loader

Progress = Callable[[int, int], None]


def embed_clips(
    model: nn.Module,
    clips: Sequence[Clip],
    rate_hz: int,
    *,
    clip_s: float | None = None,
    fill: Fill = "pad",
    device: torch.device,
    batch_size: int = 32,
    workers: int = 0,
    progress: Progress | None = None,
    channel: int = 0,
    far: int | None = None,
) -> Floats:
    """[clips, dim] by a model [batch, samples] -> [batch, dim], in float32. Raises SourceError naming a
    broken file.

    Clips longer than `clip_s` are cut to their start; shorter ones are repeated ("tile") or followed by zeros ("pad").
    """
    audio = AudioCache([clip.path for clip in clips], rate_hz, channel, far=far)
    dataset = ClipDataset(clips, audio, seconds=clip_s, crop="start", fill=fill)
    model.to(device).eval()
    rows, parts = [], []
    for batch in loader(dataset, equal_lengths(dataset.lengths, batch_size), workers):
        with torch.inference_mode():
            embedding = model(batch.waveform.to(device, non_blocking=True))
        parts.append(embedding.float().cpu().numpy())
        rows.append(batch.row.numpy())
        if progress is not None:
            progress(sum(map(len, rows)), len(clips))
    joined = np.concatenate(parts).astype(np.float64)
    return np.asarray(joined[np.argsort(np.concatenate(rows))])


def equal_lengths(lengths: npt.NDArray[np.int64], batch_size: int) -> list[list[Key]]:
    """Batches of clips of one length each, the longest first: memory that suffices for them suffices for all."""
    batches: list[list[Key]] = []
    for length in np.unique(lengths)[::-1]:
        rows = np.flatnonzero(lengths == length)
        batches += [[(int(r), 0) for r in rows[i : i + batch_size]] for i in range(0, len(rows), batch_size)]
    return batches
