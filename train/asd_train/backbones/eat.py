"""EAT (Chen et al. 2024), base and large: a post-norm ViT over 16 x 16 patches with a class token.

Module names follow the safetensors port without its prefix `model.`. The decoder and the teacher of the
pre-training are not part of the encoder. A padding mask, which the authors' code lacks, makes every clip of a
batch come out as it would alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asd_agent.errors import UsageError
from asd_train.backbones.interface import Backbone, Depth, Size, Tokens
from asd_train.frontend import BINS, EatFrontend

PATCH = 16
FREQUENCIES = BINS // PATCH


class EatConfig(msgspec.Struct, frozen=True):
    embed_dim: Size = 768
    depth: Depth = 12
    num_heads: Size = 12
    mlp_ratio: float = 4.0
    positions: Size = 6144  # patches that the table of positions covers: 768 in time x 8 in frequency
    norm_eps: float = 1e-6
    num_classes: int = 0  # of the label head; 0 = none
    fc_norm_eps: float = 1e-6  # 1e-5 in the safetensors port


class Eat(Backbone):
    """Tokens [B, frames / 16, 8, dim] and the class token; layer 0 is what enters the first block."""

    name: ClassVar[str] = "eat"
    rate_hz: ClassVar[int] = 16_000
    adapter_targets: ClassVar[tuple[str, ...]] = ("qkv", "proj")
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "base": {},
        "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
        "tiny": {"embed_dim": 32, "depth": 2, "num_heads": 2, "positions": 1024},
    }

    def __init__(self, config: EatConfig) -> None:
        super().__init__()
        self._config = config
        dim = config.embed_dim
        self.min_samples = 400
        self.frontend = EatFrontend()
        self.local_encoder = nn.ModuleDict({"proj": nn.Conv2d(1, dim, PATCH, stride=PATCH)})
        self.fixed_positional_encoder = Positions(config.positions, dim)
        self.extra_tokens = nn.Parameter(torch.zeros(1, 1, dim))
        self.pre_norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.fc_norm = nn.LayerNorm(dim, eps=config.fc_norm_eps) if config.num_classes else None
        self.head = nn.Linear(dim, config.num_classes) if config.num_classes else None
        nn.init.normal_(self.extra_tokens, std=0.02)

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Eat:
        return cls(msgspec.convert(dict(values), EatConfig, strict=False))

    @property
    def config(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self._config)

    @property
    def layers(self) -> int:
        return self._config.depth

    @property
    def dims(self) -> tuple[int, ...]:
        return (self._config.embed_dim,) * (self.layers + 1)

    def frequencies(self, layer: int) -> int:
        return FREQUENCIES

    def encode(
        self, mel: Tensor, frame_mask: Tensor | None = None, layers: Sequence[int] | None = None
    ) -> tuple[Tokens, ...]:
        wished = self.wished(layers)
        patches = self.embed_patches(mel)  # [B, time * frequencies, dim]
        x = self.pre_norm(torch.cat((self.extra_tokens.expand(len(patches), -1, -1), patches), 1))
        mask = None
        if frame_mask is not None:
            time_mask = frame_mask[:, : mel.shape[1] // PATCH * PATCH : PATCH]  # [B, time]
            mask = time_mask[..., None].expand(-1, -1, FREQUENCIES)
        attend = None if mask is None else F.pad(~mask.flatten(1), (1, 0), value=True)[:, None, None]
        found = {0: x} if 0 in wished else {}
        for number, block in enumerate(self.blocks[: max(wished)], start=1):
            x = block(x, attend)
            if number in wished:
                found[number] = x
        return tuple(self._tokens(found[layer], mask) for layer in wished)

    def embed_patches(self, mel: Tensor) -> Tensor:
        """[B, frames, 128] -> patches with positions [B, time * frequencies, dim], time-major."""
        patches: Tensor = self.local_encoder["proj"](mel[:, None]).flatten(2).transpose(1, 2)
        positions = self.fixed_positional_encoder.positions
        if patches.shape[1] > positions.shape[1]:
            longest = positions.shape[1] // FREQUENCIES * PATCH // 100
            raise UsageError(f"this EAT checkpoint knows positions for {longest} s of sound: use shorter windows")
        return patches + positions[:, : patches.shape[1]]

    def logits(self, last: Tokens) -> Tensor:
        if self.head is None or self.fc_norm is None or last.cls is None:
            raise UsageError("this EAT checkpoint has no label head: use a fine-tuned one")
        logits: Tensor = self.head(self.fc_norm(last.cls))
        return logits

    @staticmethod
    def _tokens(x: Tensor, mask: Tensor | None) -> Tokens:
        return Tokens(x[:, 1:].reshape(len(x), -1, FREQUENCIES, x.shape[2]), mask, x[:, 0])


class Positions(nn.Module):
    """The table [1, patches, dim]; fixed, but part of every checkpoint."""

    positions: Tensor

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("positions", sincos(count, dim))


class Block(nn.Module):
    """x = norm1(x + attn(x)); x = norm2(x + mlp(x))"""

    def __init__(self, config: EatConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.attn = Attention(dim, config.num_heads)
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)

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


def sincos(count: int, dim: int) -> Tensor:
    """Fixed 2-D positions [1, count, dim]: half of the dims for the frequency index, half for the time index.

    For random weights only: a checkpoint brings its own (float32 rounding differs by up to 6e-5).
    """
    rate = 10_000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    index = torch.arange(count)
    halves = [position[:, None] * rate for position in (index % FREQUENCIES, index // FREQUENCIES)]
    return torch.cat([part for angle in halves for part in (angle.sin(), angle.cos())], 1).float()[None]
