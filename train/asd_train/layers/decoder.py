"""The convolutional decoder on a grid of tokens: EAT's pre-training and the source-separation task use it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ConvDecoder(nn.Module):
    """Tokens [batch, time, frequency, dim] -> [batch, time, frequency, out].

    Each block: grouped 2-D convolution, layer norm over channels without parameters, GELU, residual.
    Key names as in EAT's checkpoints (`blocks.N.0`, `proj`).
    """

    def __init__(self, dim: int, out: int, *, blocks: int = 6, kernel: int = 3, groups: int = 16) -> None:
        super().__init__()
        groups = next(g for g in range(min(groups, dim), 0, -1) if dim % g == 0)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=groups)) for _ in range(blocks)
        )
        self.proj = nn.Linear(dim, out)

    def forward(self, tokens: Tensor) -> Tensor:
        x = tokens.permute(0, 3, 1, 2)
        for block in self.blocks:
            normed = F.layer_norm(block(x).permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2)
            x = x + F.gelu(normed)
        result: Tensor = self.proj(x.permute(0, 2, 3, 1))
        return result
