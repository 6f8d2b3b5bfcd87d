"""EAT (Chen et al. 2024), base and large: a post-norm ViT over 16 x 16 patches with a class token.

Module names follow the safetensors port without its prefix `model.`. The decoder and the teacher of the
pre-training are not part of the encoder. A padding mask, which the authors' code lacks, makes every clip of a
batch come out as it would alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor, nn

from asd_agent.errors import UsageError
from asd_train.backbones.interface import Depth, Size, Tokens
from asd_train.backbones.vit import Block, Vit, code
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


class Eat(Vit):
    """Tokens [B, frames / 16, 8, dim] and the class token."""

    name: ClassVar[str] = "eat"
    rate_hz = 16_000
    bands, rows, patch_frames = 1, FREQUENCIES, PATCH
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
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.mlp_ratio, config.norm_eps) for _ in range(config.depth)
        )
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
    def dims(self) -> tuple[int, ...]:
        return (self._config.embed_dim,) * (self.layers + 1)

    def embed_patches(self, mel: Tensor) -> Tensor:
        patches: Tensor = self.local_encoder["proj"](mel[:, None]).flatten(2).transpose(1, 2)
        positions = self.fixed_positional_encoder.positions
        if patches.shape[1] > positions.shape[1]:
            longest = positions.shape[1] // FREQUENCIES * PATCH // 100
            raise UsageError(f"this EAT checkpoint knows positions for {longest} s of sound: use shorter windows")
        return patches + positions[:, : patches.shape[1]]

    def class_tokens(self, clips: int) -> Tensor:
        return self.extra_tokens.expand(clips, -1, -1)

    def logits(self, last: Tokens) -> Tensor:
        if self.head is None or self.fc_norm is None or last.cls is None:
            raise UsageError("this EAT checkpoint has no label head: use a fine-tuned one")
        logits: Tensor = self.head(self.fc_norm(last.cls))
        return logits


class Positions(nn.Module):
    """The table [1, patches, dim]; fixed, but part of every checkpoint."""

    positions: Tensor

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("positions", sincos(count, dim))


def sincos(count: int, dim: int) -> Tensor:
    """Fixed 2-D positions [1, count, dim]: half of the dims for the frequency index, half for the time index.

    For random weights only: a checkpoint brings its own (float32 rounding differs by up to 6e-5).
    """
    index = torch.arange(count)
    places = [place.double() for place in (index % FREQUENCIES, index // FREQUENCIES)]
    return torch.cat([code(place, dim // 2) for place in places], 1).float()[None]
