"""A post-norm transformer over patches of a filterbank with a class token in front: EAT, and the band-split encoder.

Parts of the spectrum (`bands`; EAT has one) go through the same blocks, each as a sequence of its own. Pre-training
(`asd_train.pretrain`) knows these encoders by `embed_patches`, `class_tokens`, `pre_norm` and `blocks`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asd_train.backbones.interface import Backbone, Tokens


class Vit(Backbone):
    """Tokens [B, time, bands * rows, dim], a class token for each band; layer 0 is what enters the first block."""

    bands: int
    rows: int  # patches along the frequency of a band
    patch_frames: int
    pre_norm: nn.LayerNorm
    blocks: nn.ModuleList

    @abstractmethod
    def embed_patches(self, mel: Tensor) -> Tensor:
        """Filterbank [B, frames, bins] -> patches with positions [B * bands, time * rows, dim], time-major."""

    @abstractmethod
    def class_tokens(self, clips: int) -> Tensor:
        """[clips * bands, 1, dim]"""

    @property
    def layers(self) -> int:
        return len(self.blocks)

    @property
    def class_count(self) -> int:
        return self.bands

    def frequencies(self, layer: int) -> int:
        return self.bands * self.rows

    def encode(
        self, mel: Tensor, frame_mask: Tensor | None = None, layers: Sequence[int] | None = None
    ) -> tuple[Tokens, ...]:
        wished = self.wished(layers)
        x = self.pre_norm(torch.cat((self.class_tokens(len(mel)), self.embed_patches(mel)), 1))
        mask = attend = None
        if frame_mask is not None:
            size = self.patch_frames
            time_mask = frame_mask[:, : mel.shape[1] // size * size : size]  # [B, time]
            mask = time_mask[..., None].expand(-1, -1, self.bands * self.rows)
            of_band = time_mask[..., None].expand(-1, -1, self.rows).flatten(1).repeat_interleave(self.bands, 0)
            attend = F.pad(~of_band, (1, 0), value=True)[:, None, None]
        found = {0: x} if 0 in wished else {}
        for number, block in enumerate(self.blocks[: max(wished)], start=1):
            x = block(x, attend)
            if number in wished:
                found[number] = x
        return tuple(self._tokens(found[layer], len(mel), mask) for layer in wished)

    def _tokens(self, x: Tensor, clips: int, mask: Tensor | None) -> Tokens:
        """[clips * bands, 1 + time * rows, dim] -> the bands side by side."""
        features = x[:, 1:].reshape(clips, self.bands, -1, self.rows, x.shape[2])
        return Tokens(features.transpose(1, 2).flatten(2, 3), mask, x[:, 0].reshape(clips, -1))


class Block(nn.Module):
    """x = norm1(x + attn(x)); x = norm2(x + mlp(x))"""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, norm_eps: float) -> None:
        super().__init__()
        self.attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, x: Tensor, attend: Tensor | None = None) -> Tensor:
        """[B, T, dim], attend [B, 1, 1, T] bool (False = padding) | None -> [B, T, dim]"""
        x = self.norm1(x + self.attn(x, attend))
        y: Tensor = self.norm2(x + self.mlp(x))
        return y


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, attend: Tensor | None) -> Tensor:
        query, key, value = (
            part.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=attend)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


def code(places: Tensor, dim: int) -> Tensor:
    """Sine-cosine code of places [n], floats -> [n, dim], `dim` even."""
    rate = 10_000 ** -(torch.arange(dim // 2, dtype=places.dtype, device=places.device) / (dim // 2))
    angle = places[:, None] * rate
    return torch.cat((angle.sin(), angle.cos()), 1)
