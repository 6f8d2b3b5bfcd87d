"""A band-split encoder: bands of the same width in Hz go through one small transformer, their tokens are joined.

The idea is that of FISHER (arXiv 2507.16696) and ECHO (arXiv 2508.14689): a higher sampling rate means more bands, not
another encoder. The front end measures the same frequencies in Hz at every rate, and a patch knows its place by its
centre frequency in Hz, so a band's tokens do not depend on what lies above it. Where the bands do not fill the
spectrum, the highest begins lower and shares patches' worth of bins with the one before.

The code, the patches and the place code are ours; no weights of FISHER or ECHO fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from asd_agent.errors import UsageError
from asd_train.backbones.interface import Depth, Size, Tokens
from asd_train.backbones.vit import Block, Vit, code
from asd_train.frontend import LINEAR_HZ, LinearFrontend

HOPS = 100  # frames per second: a sampling rate must be a multiple
Rate = Annotated[int, Meta(ge=1000, le=200_000, multiple_of=HOPS)]
Hertz = Annotated[int, Meta(ge=LINEAR_HZ, le=100_000, multiple_of=LINEAR_HZ)]


class BandsplitConfig(msgspec.Struct, frozen=True):
    rate_hz: Rate = 16_000  # the weights do not depend on it
    band_hz: Hertz = 4000
    patch_hz: Hertz = 800
    patch_frames: Annotated[int, Meta(ge=1, le=1024)] = 16  # of 10 ms
    embed_dim: Annotated[int, Meta(ge=4, le=1 << 20, multiple_of=4)] = 192
    depth: Depth = 12
    num_heads: Size = 3
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.band_hz % self.patch_hz:
            raise ValueError(f"band_hz {self.band_hz} is not a multiple of patch_hz {self.patch_hz}")
        if self.rate_hz < 2 * self.band_hz:
            raise ValueError(f"rate_hz {self.rate_hz} holds no band of {self.band_hz} Hz: at least {2 * self.band_hz}")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")


class Bandsplit(Vit):
    """Tokens [B, frames / 16, bands * 5, dim], frequencies rising, and a class token for each band."""

    name: ClassVar[str] = "bandsplit"
    adapter_targets: ClassVar[tuple[str, ...]] = ("qkv", "proj")
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "base": {},  # 5.4 million parameters
        "large": {"embed_dim": 384, "num_heads": 6},  # 21.4 million
        "tiny": {"embed_dim": 32, "depth": 2, "num_heads": 2},
    }
    place_of_patch: Tensor  # [bands * rows, dim / 2]
    place_of_band: Tensor  # [bands, dim / 2]

    def __init__(self, config: BandsplitConfig) -> None:
        super().__init__()
        self._config = config
        dim, size = config.embed_dim, config.patch_hz // LINEAR_HZ
        self.rate_hz = config.rate_hz
        self.rows, self.patch_frames = config.band_hz // config.patch_hz, config.patch_frames
        with torch.device("cpu"):  # constants are computed even where the weights around them are not ("meta")
            starts = torch.tensor(band_starts(config))  # Hz
            hertz = (starts[:, None] + torch.arange(0, config.band_hz, LINEAR_HZ)).flatten()
            centres = (starts[:, None] + torch.arange(self.rows) * config.patch_hz).flatten() + config.patch_hz / 2
            middles = starts + config.band_hz / 2
        self.bands = len(starts)
        self.frontend = LinearFrontend(config.rate_hz, hertz, config.patch_frames)
        self.min_samples = self.frontend.frame + (config.patch_frames - 1) * self.frontend.hop
        self.patch = nn.Conv2d(1, dim, (config.patch_frames, size), stride=(config.patch_frames, size))
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pre_norm = nn.LayerNorm(dim, eps=config.norm_eps)
        self.blocks = nn.ModuleList(
            Block(dim, config.num_heads, config.mlp_ratio, config.norm_eps) for _ in range(config.depth)
        )
        for name, places in (("place_of_patch", centres), ("place_of_band", middles)):
            self.register_buffer(name, code((places / config.patch_hz).double(), dim // 2).float(), persistent=False)
        nn.init.normal_(self.class_token, std=0.02)

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Bandsplit:
        """ValueError (msgspec.ValidationError) where the values make no encoder."""
        return cls(msgspec.convert(dict(values), BandsplitConfig, strict=False))

    @property
    def config(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self._config)

    @property
    def dims(self) -> tuple[int, ...]:
        return (self._config.embed_dim,) * (self.layers + 1)

    def patch_size(self, layer: int) -> tuple[int, int]:
        return self.patch_frames, self._config.patch_hz // LINEAR_HZ

    def embed_patches(self, mel: Tensor) -> Tensor:
        clips, frames, _ = mel.shape
        of_bands = mel.reshape(clips, frames, self.bands, -1).transpose(1, 2).flatten(0, 1)
        x = self.patch(of_bands[:, None]).permute(0, 2, 3, 1)  # [B * bands, time, rows, dim]
        dim = x.shape[3]
        time = code(torch.arange(x.shape[1], device=x.device).float(), dim // 2).to(x.dtype)[:, None]
        place = self.place_of_patch.to(x.dtype).reshape(self.bands, 1, self.rows, dim // 2)
        x = x.reshape(clips, self.bands, -1, self.rows, dim)
        x = torch.cat((x[..., : dim // 2] + place, x[..., dim // 2 :] + time), -1)
        return x.flatten(0, 1).flatten(1, 2)

    def class_tokens(self, clips: int) -> Tensor:
        place = torch.nn.functional.pad(self.place_of_band, (0, self.dim // 2))[:, None]
        return (self.class_token + place.to(self.class_token.dtype)).repeat(clips, 1, 1)

    def logits(self, last: Tokens) -> Tensor:
        raise UsageError("a band-split encoder has no label head")


def band_starts(config: BandsplitConfig) -> list[int]:
    """Lowest frequency of each band in Hz; the highest band ends where the spectrum does."""
    top = config.rate_hz // 2 // LINEAR_HZ * LINEAR_HZ
    starts = list(range(0, top - config.band_hz + 1, config.band_hz))
    return starts if starts[-1] + config.band_hz == top else [*starts, top - config.band_hz]
