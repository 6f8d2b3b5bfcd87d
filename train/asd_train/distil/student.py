"""The student: separable convolutions on the log-mel seconds that the bundle `spectral` computes in any case.

A window is cut into seconds, each of 64 mel bands and 59 frames in dB. The network sees them twice: less their mean,
and less the mean of each band, which takes the machine's own steady spectrum away. What it says of the seconds is
averaged over the window.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asd_agent.errors import UsageError
from asd_train.distil.faults import FRAME, HOP, KINDS, RATE_HZ
from asd_train.distil.recipe import FAMILIES
from asd_train.folders import written_whole
from asd_train.layers.mel import mel_filters

BANDS, LOW_HZ = 64, 60.0
FRAMES = (RATE_HZ - FRAME) // HOP + 1  # that lie wholly in a second
POWER_FLOOR = 1e-8
WEIGHTS, CARD = "student.safetensors", "student.json"
# before, expanded, after, stride along frequency and time
STEM = 24
_BLOCKS = (
    (24, 48, 24, (1, 1)),
    (24, 64, 32, (1, 2)),
    (32, 96, 32, (1, 1)),
    (32, 128, 64, (2, 1)),
    (64, 192, 64, (1, 1)),
    (64, 256, 128, (2, 2)),
    (128, 384, 128, (1, 1)),
    (128, 384, 128, (1, 1)),
)
STAGES = (2, 4, 7)  # blocks whose output is an embedding: means over time, 16, 8 and 4 frequencies kept apart
SUMMARY = 128


class Heard(NamedTuple):
    """What the student says of seconds [n]."""

    stages: tuple[Tensor, ...]  # [n, channels * frequencies] each
    summary: Tensor  # [n, 128]
    families: Tensor  # [n, families] logits, not calibrated
    faults: Tensor  # [n, kinds] logits


class Student(nn.Module):
    """dB [n, bands, frames] -> `Heard`."""

    evidence: Tensor  # [SUMMARY]: log odds of everyday sound from the mean summary of a window
    offset: Tensor  # []
    limit: Tensor  # []: of the log odds over the usual ones, from which everyday sound counts

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Sequential(*_conv(2, _channels(STEM, width), 5, stride=(4, 2)), nn.ReLU())
        self.blocks = nn.ModuleList(
            _Block(_channels(before, width), _channels(expanded, width), _channels(after, width), stride)
            for before, expanded, after, stride in _BLOCKS
        )
        last = _channels(_BLOCKS[-1][2], width) * 4
        self.summary = nn.Linear(2 * last, SUMMARY)
        self.families = nn.Linear(SUMMARY, len(FAMILIES))
        self.faults = nn.Linear(SUMMARY, len(KINDS))
        # Set by calibration.
        self.register_buffer("evidence", torch.zeros(SUMMARY))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("limit", torch.ones(()))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types it for tensors only

    def forward(self, db: Tensor) -> Heard:
        x = torch.stack(((db - db.mean((1, 2), keepdim=True)) / 12, (db - db.mean(2, keepdim=True)) / 6), 1)
        x = self.stem(x.contiguous(memory_format=torch.channels_last))  # two thirds of the time on a CPU
        stages = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in STAGES:
                stages.append(x.mean(3).flatten(1))
        summary = self.summary(torch.cat((x.mean(3).flatten(1), x.amax(3).flatten(1)), 1))
        known = torch.relu(summary)
        return Heard(tuple(stages), summary, self.families(known), self.faults(known))

    def dims(self) -> list[int]:
        """Sizes of the stages' embeddings."""
        frequencies = (BANDS // 4, BANDS // 8, BANDS // 16)
        return [_channels(_BLOCKS[s][2], self.width) * f for s, f in zip(STAGES, frequencies, strict=True)]

    def probabilities(self, heard: Heard) -> Tensor:
        """Of the families [families] in the window that these seconds are; their sum, that of any of them, is
        calibrated. The odds of a family are their mean over the seconds, which a loud one rules."""
        anything = torch.sigmoid(torch.relu(heard.summary).mean(0) @ self.evidence + self.offset)
        return anything * torch.softmax(torch.logsumexp(heard.families, 0), 0)


class MelSeconds(nn.Module):
    """The front end of `spectral` in torch: power spectra, mel bands, dB. For training; the bundle has its own."""

    window: Tensor
    filters: Tensor  # [513, bands]

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(FRAME, periodic=True, dtype=torch.float64)
        filters, _ = mel_filters(BANDS, FRAME // 2 + 1, RATE_HZ / FRAME, LOW_HZ, RATE_HZ / 2)
        self.register_buffer("window", (window / window.square().sum().sqrt()).float(), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    def spectrum(self, seconds: Tensor) -> Tensor:
        """[n, 16000] -> complex [n, 513, frames]."""
        return torch.stft(seconds, FRAME, HOP, window=self.window, center=False, return_complex=True)

    def bands(self, power: Tensor) -> Tensor:
        """[..., 513, frames] -> mean power [..., bands, frames]."""
        return self.filters.T @ power

    def forward(self, waveform: Tensor) -> Tensor:
        """A window [n] -> dB of its seconds [seconds, bands, frames]; what is left at the end is not used."""
        centred = waveform - waveform.mean()
        unit = centred / centred.square().mean().sqrt().clamp_min(1e-12)
        seconds = unit[: len(unit) // RATE_HZ * RATE_HZ].reshape(-1, RATE_HZ)
        return decibel(self.bands(self.spectrum(seconds).abs().square()))


def decibel(power: Tensor) -> Tensor:
    db: Tensor = 10 / np.log(10) * torch.log(power + POWER_FLOOR)
    return db


class StudentCard(msgspec.Struct, frozen=True, kw_only=True):
    """`student.json`: what the weights are, and what they were trained with."""

    width: float
    parameters: int
    training: dict[str, Any]


def save_student(folder: Path, student: Student, training: dict[str, Any]) -> None:
    """Weights and card, whole or not at all. Raises UsageError."""
    card = StudentCard(width=student.width, parameters=sum(p.numel() for p in student.parameters()), training=training)
    with written_whole(folder) as part:
        save_file({k: v.detach().cpu().contiguous() for k, v in student.state_dict().items()}, part / WEIGHTS)
        (part / CARD).write_text(json.dumps(msgspec.to_builtins(card), indent=1) + "\n", encoding="utf-8")


def load_student(folder: Path) -> tuple[Student, StudentCard]:
    """Raises UsageError naming the folder."""
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes(), type=StudentCard)
        student = Student(card.width)
        student.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, ValueError) as exc:
        raise UsageError(
            f"{folder}: holds no student of asd-train distil ({' '.join(str(exc).split())[:200]})"
        ) from exc
    return student.eval(), card


class _Block(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; residual where the shape allows it."""

    def __init__(self, before: int, expanded: int, after: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.residual = stride == (1, 1) and before == after
        self.parts = nn.Sequential(
            *_conv(before, expanded, 1), nn.ReLU(),
            *_conv(expanded, expanded, 3, stride=stride, groups=expanded), nn.ReLU(),
            *_conv(expanded, after, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.parts(x)
        return x + y if self.residual else y


def _conv(
    before: int, after: int, kernel: int, stride: tuple[int, int] = (1, 1), groups: int = 1
) -> tuple[nn.Module, ...]:
    """Convolution without bias and batch norm."""
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(after, momentum=0.02)


def _channels(count: int, width: float) -> int:
    return max(8, round(count * width / 8) * 8)
