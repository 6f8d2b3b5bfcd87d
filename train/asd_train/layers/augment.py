"""Augmentations of a batch: mixup, feature exchange, SpecAug, noise at a signal-to-noise ratio.

Random draws come from torch's CPU generator whatever the device, so that a run resumes exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _chance(probability: float, n: int, like: Tensor) -> Tensor:
    return (torch.rand(n) < probability).to(like.device)


def partners(n: int, like: Tensor, flipped: bool = False) -> Tensor:
    """[n] indices: a random permutation of the batch, or the batch in reverse order (Wilkinghoff's code)."""
    return torch.arange(n - 1, -1, -1, device=like.device) if flipped else torch.randperm(n).to(like.device)


def mix(x: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """share * x + (1 - share) * x[partner]; share [batch] broadcasts over the rest."""
    share = share.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
    return share * x + (1 - share) * x[partner]


def mixup_shares(n: int, like: Tensor, *, probability: float = 1.0, beta: float | None = None) -> Tensor:
    """Own share of each sample, [n].

    beta None: lambda ~ U(0, 1) per sample, applied with `probability`, else 1 (ssl4asd, ASDKit).
    beta b: one lambda ~ Beta(b, b) for the whole batch (OS-SCL).
    """
    if beta is not None:
        gamma = torch._standard_gamma(torch.full((2,), beta))
        return (gamma[0] / gamma.sum().clamp_min(1e-30)).expand(n).to(like.device)
    return torch.where(torch.rand(n) < probability, torch.rand(n), torch.ones(n)).to(like.device)


def exchange_features(
    branches: list[Tensor], targets: Tensor, probability: float = 0.5, flipped: bool = False
) -> tuple[list[Tensor], Tensor]:
    """Feature exchange (Wilkinghoff 2023, in ASDKit's form for n branches of any size).

    branches n x [batch, dim], targets [batch, classes] -> branches, targets [batch, (n + 1) * classes].
    Untouched samples keep the label in the first block. Of exchanged ones the first branch stays, the others
    come from one partner each; block b + 1 holds 1/n of the label of the clip that branch b came from.
    """
    batch, n = len(targets), len(branches)
    touched = _chance(probability, batch, targets)[:, None]
    blank = torch.zeros_like(targets)
    blocks, result = [targets.where(~touched, blank)], []
    for number, branch in enumerate(branches):
        origin = partners(batch, targets, flipped) if number else torch.arange(batch, device=targets.device)
        result.append(torch.where(touched, branch[origin], branch))
        blocks.append((targets[origin] / n).where(touched, blank))
    return result, torch.cat(blocks, 1)


def mask_spectrogram(features: Tensor, *, width: int, probability: float = 0.5) -> Tensor:
    """SpecAug: one time and one frequency mask of 0..width rows, each with `probability` per sample.

    features [batch, time, mel], normalised: masked values become 0. Returns a new tensor.
    """
    for axis in (1, 2):
        size = features.shape[axis]
        extent = torch.rand(len(features)) * min(width, size)
        start = torch.rand(len(features)) * (size - extent)
        extent = extent * (torch.rand(len(features)) < probability)
        position = torch.arange(size)
        hit = (position >= start[:, None].floor()) & (position < (start + extent)[:, None].floor())
        hit = hit.to(features.device)
        features = features.masked_fill(hit[:, :, None] if axis == 1 else hit[:, None, :], 0.0)
    return features


def add_noise(clean: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """clean + noise, the noise scaled to the given ratio of powers: [batch, samples] twice, [batch] dB.

    Silent noise or a silent clip leaves the clip as it is.
    """
    power, noise_power = clean.square().mean(-1), noise.square().mean(-1)
    gain = (power / noise_power.clamp_min(1e-20) / 10 ** (snr_db / 10)).sqrt()
    return clean + noise * torch.where(noise_power > 1e-20, gain, torch.zeros_like(gain))[:, None]


def uniform(n: int, low: float, high: float, like: Tensor) -> Tensor:
    return (low + (high - low) * torch.rand(n)).to(like.device)
