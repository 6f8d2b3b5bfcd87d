"""Supplemental noise clips as a pool to draw from, kept where the batches are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asd_train.data.audio import AudioCache
from asd_train.data.clip import Clip
from asd_train.layers import augment


class NoisePool:
    """Noise by machine; `machine_of` [clips] says which machine a training clip belongs to."""

    def __init__(self, clips: Sequence[Clip], noise: Sequence[Clip], rate_hz: int) -> None:
        """Decodes all of `noise` (100 clips of 10 s: 32 MB as int16)."""
        groups = sorted({clip.group for clip in clips})
        self.machine_of = torch.tensor([groups.index(clip.group) for clip in clips])
        self._clips: list[list[Tensor]] = [[] for _ in groups]
        chosen = [clip for clip in noise if clip.group in groups]
        audio = AudioCache([clip.path for clip in chosen], rate_hz)
        for index, clip in enumerate(chosen):
            samples = (audio.read(index) * 32767).round().clip(-32768, 32767).astype(np.int16)
            self._clips[groups.index(clip.group)].append(torch.from_numpy(samples))

    def has(self, index: Tensor) -> Tensor:
        """[batch] places of clips in the training set -> [batch] bool: their machine has noise."""
        present = torch.tensor([bool(clips) for clips in self._clips])
        return present[self.machine_of[index.cpu()]]

    def draw(self, index: Tensor, samples: int) -> Tensor:
        """Noise for the clips [batch] from random places of random clips: [batch, samples]; 0 without any."""
        out = torch.zeros(len(index), samples)
        for row, machine in enumerate(self.machine_of[index.cpu()].tolist()):
            clips = self._clips[machine]
            if clips:
                clip = clips[int(torch.randint(len(clips), ()))]
                start = int(torch.randint(len(clip), ()))
                out[row] = clip.roll(-start).repeat(-(-samples // len(clip)))[:samples].float() / 32767
        return out

    def add_to(self, waveform: Tensor, index: Tensor, probability: float, snr_db: tuple[float, float]) -> Tensor:
        """The clips with noise of their machine at a random ratio, each with `probability`."""
        noise = self.draw(index, waveform.shape[1]).to(waveform.device)
        noisy = augment.add_noise(waveform, noise, augment.uniform(len(waveform), *snr_db, like=waveform))
        chosen = (torch.rand(len(waveform)) < probability).to(waveform.device)
        return torch.where(chosen[:, None], noisy, waveform)
