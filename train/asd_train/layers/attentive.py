"""Attentive statistics pooling (Okabe et al. 2018, in ECAPA's form)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentiveStatistics(nn.Module):
    """Tokens [batch, n, dim] -> [batch, dim]: weighted mean and deviation -> BN -> Linear -> BN.

    The attention sees each token beside the clip's mean and deviation and weighs every channel on its own.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or max(8, dim // 16)
        self.attention = nn.Sequential(
            nn.Linear(3 * dim, hidden), nn.ReLU(), nn.BatchNorm1d(hidden), nn.Tanh(), nn.Linear(hidden, dim)
        )
        self.out = nn.Sequential(nn.BatchNorm1d(2 * dim), nn.Linear(2 * dim, dim), nn.BatchNorm1d(dim))

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """padding [batch, n], True where a token is padding."""
        keep = tokens.new_ones(tokens.shape[:2]) if padding is None else (~padding).to(tokens.dtype)
        mean, deviation = _statistics(tokens, (keep / keep.sum(1, keepdim=True).clamp_min(1))[:, :, None])
        context = torch.cat([tokens, mean[:, None].expand_as(tokens), deviation[:, None].expand_as(tokens)], -1)
        scores = self._attend(context)
        if padding is not None:
            scores = scores.masked_fill(padding[:, :, None], -torch.inf)
        mean, deviation = _statistics(tokens, scores.softmax(1))
        result: Tensor = self.out(torch.cat([mean, deviation], -1))
        return result

    def _attend(self, context: Tensor) -> Tensor:
        batch, n, _ = context.shape
        flat: Tensor = self.attention(context.flatten(0, 1))
        return flat.reshape(batch, n, -1)


def _statistics(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weight * x).sum(1)
    variance = (weight * (x - mean[:, None]).square()).sum(1)
    return mean, variance.clamp_min(1e-6).sqrt()
