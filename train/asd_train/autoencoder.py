"""The challenge's baseline (DCASE 2023 Task 2 and later): an autoencoder of five joined log-mel frames, one a machine.

128 bands x 5 frames = 640 values -> four layers of 128 -> 8 -> four layers of 128 -> 640, batch norm and ReLU between.
As in the organisers' code (github.com/nttcslab/dcase2023_task2_baseline_ae), a tenth of the joined frames is held back
from training. With the reconstruction error e = x - y of a clip's frames the score is

    mse           the mean of e^2
    mahalanobis   m^T C^-1 m: m [128] is the mean of e over all frames and the five places in them, C the covariance of
                  the training errors [5 n, 128] of the source or of the target; the smaller of both counts

That code sums x^T C^-1 y over all pairs x, y of a clip's frames, which is the squared distance of their mean; it
centres errors batch by batch and divides by the number of joined frames, not by five times as many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from asd_agent.errors import UsageError
from asd_train.data import DataSource
from asd_train.data.audio import read_audio
from asd_train.data.clip import Clip
from asd_train.evaluate import Section, is_normal, sections_of
from asd_train.logmel import BANDS, log_mel

RATE_HZ = 16_000
FRAMES = 5
DIM = BANDS * FRAMES
VALIDATION = 0.1  # share of the joined frames that is not trained on

Progress = Callable[[str, int, int], None]  # (machine, epochs done, epochs in all)


class Autoencoder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    score: Literal["mse", "mahalanobis"] = "mse"
    epochs: Annotated[int, Meta(ge=1)] = 100
    batch_size: Annotated[int, Meta(ge=2)] = 256  # of joined frames
    lr: Annotated[float, Meta(gt=0)] = 1e-3
    seed: int = 0


class Baseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration file of this baseline; `asd-train evaluate` trains and scores it in one go."""

    name: Annotated[str, Meta(min_length=1)]
    data: list[DataSource]
    autoencoder: Autoencoder


def network() -> nn.Sequential:
    """[frames, 640] -> [frames, 640]"""
    widths = [DIM, 128, 128, 128, 128, 8, 128, 128, 128, 128]
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [nn.Linear(inner, outer), nn.BatchNorm1d(outer, eps=1e-3, momentum=0.01), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], DIM))


def joined_frames(path: str) -> Tensor:
    """A clip's log-mel, five frames side by side: [frames - 4, 640]; raises SourceError, UsageError."""
    mel = log_mel(read_audio(path, RATE_HZ), RATE_HZ)
    if len(mel) < FRAMES:
        raise UsageError(f"{path}: shorter than the {FRAMES} frames that the autoencoder joins")
    windows = np.lib.stride_tricks.sliding_window_view(mel, FRAMES, axis=0)  # [n, band, frame]
    return torch.from_numpy(windows.transpose(0, 2, 1).reshape(-1, DIM).astype(np.float32))


def evaluate_autoencoder(
    clips: Sequence[Clip], options: Autoencoder, device: torch.device, progress: Progress | None = None
) -> list[Section]:
    """Train one network a machine and section on its normal clips, and score its test clips.

    The threshold's scores are those of the training clips, as in the baseline. Raises UsageError.
    """
    found = []
    for (year, machine, section), rows in sections_of(clips).items():
        normal = [clips[r] for r in rows if is_normal(clips[r])]
        test = sorted((clips[r] for r in rows if clips[r].split == "test"), key=lambda clip: clip.file)
        frames = [joined_frames(clip.path).to(device) for clip in normal]

        def tell(done: int, name: str = machine) -> None:
            if progress is not None:
                progress(name, done, options.epochs)

        joined = torch.cat(frames)
        trained = training_rows(len(joined), options.seed).to(device)
        model = train(joined[trained], options, tell)
        target = torch.tensor([clip.domain == "target" for clip in normal], device=device)
        of_target = target.repeat_interleave(torch.tensor([len(x) for x in frames], device=device))
        scorer = scorer_of(model, joined[trained], of_target[trained], options)
        scores = np.array([scorer(joined_frames(clip.path).to(device)) for clip in test])
        usual = np.array([scorer(x) for x in frames])
        found.append(Section(year, machine, section, tuple(test), scores, tuple(normal), usual))
    return found


def train(frames: Tensor, options: Autoencoder, tell: Callable[[int], None]) -> nn.Module:
    """Fit [n, 640] by Adam on the mean squared error; in eval mode afterwards."""
    torch.manual_seed(options.seed)
    model = network().to(frames.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=options.lr)
    generator = torch.Generator().manual_seed(options.seed)
    for epoch in range(options.epochs):
        order = torch.randperm(len(frames), generator=generator).to(frames.device)
        for batch in torch.split(order, options.batch_size):
            if len(batch) < 2:  # batch norm has no variance of one
                continue
            optimiser.zero_grad()
            nn.functional.mse_loss(model(frames[batch]), frames[batch]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        tell(epoch + 1)
    return model.eval()


def training_rows(count: int, seed: int) -> Tensor:
    """Rows of `count` joined frames that are trained on, in random order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[round(VALIDATION * count) :]


def scorer_of(model: nn.Module, frames: Tensor, target: Tensor, options: Autoencoder) -> Callable[[Tensor], float]:
    """The score of a clip's joined frames [n, 640], by the training frames [m, 640], of which `target` [m] says the
    domain."""

    @torch.inference_mode()
    def error(x: Tensor) -> Tensor:
        out: Tensor = x - model(x)
        return out

    if options.score == "mse":
        return lambda x: float(error(x).square().mean())
    inverses = inverse_covariances(error(frames), target, options.batch_size)
    return lambda x: min(mahalanobis(error(x), inverse) for inverse in inverses)


def inverse_covariances(errors: Tensor, target: Tensor, batch_size: int) -> list[Tensor]:
    """Errors [n, 640] and their domain [n] -> inverse covariances [128, 128] of source and target.

    float64 on the CPU: a GPU without float64 would lose them. The pseudo-inverse, as the target may have few frames.
    """
    found = []
    for chosen in (~target, target):
        total, count = torch.zeros(BANDS, BANDS, dtype=torch.float64), 0
        for batch, rows in zip(torch.split(errors, batch_size), torch.split(chosen, batch_size), strict=True):
            x = batch[rows].double().cpu().reshape(-1, BANDS)
            if len(x):
                centred = x - x.mean(0)
                total += centred.T @ centred
                count += int(rows.sum())
        if count > 1:
            found.append(torch.linalg.pinv(total / (count - 1), hermitian=True))
    return found


def mahalanobis(errors: Tensor, inverse: Tensor) -> float:
    """Errors of one clip [n, 640] -> squared distance of their mean from 0."""
    mean = errors.double().cpu().reshape(-1, BANDS).mean(0)
    return float(mean @ inverse @ mean)
