"""A teacher's view of every stem: one row of pooled features each, standardised, computed once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import soxr
import torch

from asd_train.backbones import load_backbone
from asd_train.distil.faults import RATE_HZ
from asd_train.distil.recipe import Teacher
from asd_train.pooling import pool

BATCH = 32

Progress = Callable[[int, int], None]


def tokens(
    waves: npt.NDArray[np.float16], teacher: Teacher | None, progress: Progress | None = None
) -> npt.NDArray[np.float32]:
    """[stems, dim], mean 0 and deviation 1 over the stems; [stems, 0] without a teacher. Raises UsageError."""
    if teacher is None:
        return np.zeros((len(waves), 0), np.float32)
    encoder = load_backbone(teacher.checkpoint).eval()
    layers = encoder.wished(teacher.layers)
    rows = []
    for start in range(0, len(waves), BATCH):
        batch = 0.1 * waves[start : start + BATCH].astype(np.float32)
        if encoder.rate_hz != RATE_HZ:
            batch = soxr.resample(batch.T, RATE_HZ, encoder.rate_hz).T
        with torch.inference_mode():
            found = encoder(torch.from_numpy(np.ascontiguousarray(batch)), layers=layers)
            rows.append(torch.cat([pool(layer, "mean") for layer in found], 1).numpy())
        if progress is not None:
            progress(min(start + BATCH, len(waves)), len(waves))
    x = np.concatenate(rows)
    return np.asarray((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6), np.float32)
