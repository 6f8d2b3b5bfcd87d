"""BEATs (Chen et al. 2022): a post-norm transformer with deep norm and a gated relative position bias.

Module names follow the official checkpoints, except that the shared table of relative positions stands once,
at `encoder.relative_attention_bias`. Dropout and layer drop of the authors' pre-training are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asd_agent.errors import UsageError
from asd_train.backbones.interface import Backbone, Depth, Size, Tokens
from asd_train.frontend import BINS, BeatsFrontend, shrink_mask


class BeatsConfig(msgspec.Struct, frozen=True):
    """The keys of an official `cfg` that shape the encoder, with the authors' defaults."""

    input_patch_size: int = -1
    embed_dim: Size = 512  # of the patches, before the projection to encoder_embed_dim
    encoder_layers: Depth = 12
    encoder_embed_dim: Size = 768
    encoder_ffn_embed_dim: Size = 3072
    encoder_attention_heads: Size = 12
    conv_pos: Size = 128
    conv_pos_groups: Size = 16
    num_buckets: Size = 320
    max_distance: Size = 1280
    predictor_class: Size = 527
    finetuned_model: bool = False
    conv_bias: bool = False
    relative_position_embedding: bool = False
    gru_rel_pos: bool = False
    deep_norm: bool = False
    layer_norm_first: bool = False
    activation_fn: str = "gelu"

    def __post_init__(self) -> None:
        wanted = {
            "relative_position_embedding": True,
            "gru_rel_pos": True,
            "deep_norm": True,
            "layer_norm_first": False,
            "activation_fn": "gelu",
        }
        for key, value in wanted.items():
            if getattr(self, key) != value:
                raise ValueError(f"{key} must be {value}, as in all published BEATs checkpoints")
        if self.input_patch_size < 1 or BINS % self.input_patch_size:
            raise ValueError(f"input_patch_size {self.input_patch_size} does not divide {BINS} mel bands")


_COMMON = {
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "deep_norm": True,
    "num_buckets": 320,
    "max_distance": 800,
    "input_patch_size": 16,
}


class Beats(Backbone):
    """Tokens [B, frames // 16, 8, dim]; layer 0 is the encoder's input after its first LayerNorm."""

    name: ClassVar[str] = "beats"
    rate_hz = 16_000
    adapter_targets: ClassVar[tuple[str, ...]] = ("q_proj", "v_proj", "out_proj")
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "base": _COMMON,
        "tiny": {
            **_COMMON,
            "embed_dim": 16,
            "encoder_layers": 2,
            "encoder_embed_dim": 32,
            "encoder_ffn_embed_dim": 64,
            "encoder_attention_heads": 2,
            "conv_pos_groups": 2,  # 16 channels each: oneDNN gets bfloat16 convolutions of 8 wrong
        },
    }

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self._config = config
        patch, dim = config.input_patch_size, config.encoder_embed_dim
        self.min_samples = 400 + 160 * (patch - 1)
        self.frontend = BeatsFrontend()
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, stride=patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = nn.Linear(config.embed_dim, dim) if config.embed_dim != dim else None
        self.encoder = Encoder(config)
        self.predictor = nn.Linear(dim, config.predictor_class) if config.finetuned_model else None

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Beats:
        """ValueError (msgspec.ValidationError) where the values make no BEATs encoder."""
        return cls(msgspec.convert(dict(values), BeatsConfig, strict=False))

    @property
    def config(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self._config)

    @property
    def layers(self) -> int:
        return self._config.encoder_layers

    @property
    def dims(self) -> tuple[int, ...]:
        return (self._config.encoder_embed_dim,) * (self.layers + 1)

    def frequencies(self, layer: int) -> int:
        return BINS // self._config.input_patch_size

    def encode(
        self, mel: Tensor, frame_mask: Tensor | None = None, layers: Sequence[int] | None = None
    ) -> tuple[Tokens, ...]:
        wished = self.wished(layers)
        patches = self.patch_embedding(mel[:, None])  # [B, embed, time, frequency]
        rows, columns = patches.shape[2:]
        x = self.layer_norm(patches.flatten(2).transpose(1, 2))  # token index = time * frequencies + frequency
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        mask = None if frame_mask is None else shrink_mask(frame_mask, x.shape[1])
        found = self.encoder(x, mask, wished)
        token_mask = None if mask is None else mask.reshape(-1, rows, columns)
        return tuple(Tokens(found[layer].reshape(-1, rows, columns, self.dim), token_mask) for layer in wished)

    def logits(self, last: Tokens) -> Tensor:
        """Mean over the tokens that are sound, of the logits of each."""
        if self.predictor is None:
            raise UsageError("this BEATs checkpoint has no label head: use a fine-tuned one")
        logits: Tensor = self.predictor(last.features.flatten(1, 2))
        if last.mask is None:
            return logits.mean(1)
        sound = ~last.mask.flatten(1)
        return torch.where(sound[..., None], logits, 0).sum(1) / sound.sum(1, keepdim=True)


class Encoder(nn.Module):
    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.heads = config.encoder_attention_heads
        self.buckets, self.max_distance = config.num_buckets, config.max_distance
        self.pos_conv = nn.Sequential(PositionalConv(config))
        self.layer_norm = nn.LayerNorm(config.encoder_embed_dim)
        self.relative_attention_bias = nn.Embedding(config.num_buckets, self.heads)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.encoder_layers))

    def forward(self, x: Tensor, mask: Tensor | None, wished: Sequence[int]) -> dict[int, Tensor]:
        """[B, tokens, dim], padding mask [B, tokens] | None -> layer number -> [B, tokens, dim]"""
        if mask is not None:
            x = x.masked_fill(mask[..., None], 0)
        x = self.layer_norm(x + self.pos_conv(x))
        bias = self.position_bias(x.shape[1], x.device)
        found = {0: x} if 0 in wished else {}
        for number, layer in enumerate(self.layers[: max(wished)], start=1):
            x = layer(x, bias, mask)
            if number in wished:
                found[number] = x
        return found

    def position_bias(self, count: int, device: torch.device) -> Tensor:
        """[heads, count, count]: the table's value for the bucket of (key - query)."""
        offsets = torch.arange(1 - count, count, device=device)
        values: Tensor = self.relative_attention_bias(relative_bucket(offsets, self.buckets, self.max_distance))
        position = torch.arange(count, device=device)
        return values.t()[:, position[None, :] - position[:, None] + count - 1]


class PositionalConv(nn.Module):
    """Grouped convolution over the flattened tokens with weight norm over all but the tap, then GELU."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        dim, self.taps, self.groups = config.encoder_embed_dim, config.conv_pos, config.conv_pos_groups
        self.weight_g = nn.Parameter(torch.ones(1, 1, self.taps))
        self.weight_v = nn.Parameter(torch.empty(dim, dim // self.groups, self.taps))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.normal_(self.weight_v, std=math.sqrt(4 / (self.taps * dim)))
        self.weight_g.data = self.weight_v.detach().norm(dim=(0, 1), keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, tokens, dim] -> [B, tokens, dim]"""
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        y = F.conv1d(x.transpose(1, 2), weight, self.bias, padding=self.taps // 2, groups=self.groups)
        if self.taps % 2 == 0:
            y = y[:, :, :-1]
        return F.gelu(y).transpose(1, 2)


class Layer(nn.Module):
    """x = LN(alpha x + attention(x)); x = LN(alpha x + ffn(x)), alpha = (2 layers)^(1/4) (deep norm)."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        dim, hidden = config.encoder_embed_dim, config.encoder_ffn_embed_dim
        self.alpha = (2 * config.encoder_layers) ** 0.25
        self.self_attn = GatedAttention(dim, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        beta = (8 * config.encoder_layers) ** -0.25  # deep norm's gain of the initial weights
        attention = self.self_attn
        for linear in (self.fc1, self.fc2, attention.v_proj, attention.out_proj):
            nn.init.xavier_normal_(linear.weight, gain=beta)

    def forward(self, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        x = self.self_attn_layer_norm(self.alpha * x + self.self_attn(x, bias, mask))
        y: Tensor = self.final_layer_norm(self.alpha * x + self.fc2(F.gelu(self.fc1(x))))
        return y


class GatedAttention(nn.Module):
    """Self-attention whose relative position bias is scaled, per query, by a gate read from the query."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.grep_linear = nn.Linear(dim // heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, dim], bias [heads, T, T], padding mask [B, T] | None -> [B, T, dim]"""
        query, key, value = (
            projection(x).reshape(*x.shape[:2], self.heads, -1)  # [B, T, heads, head dim]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        gated = self._gate(query).transpose(1, 2) * bias
        if mask is not None:
            gated = gated.masked_fill(mask[:, None, None, :], -math.inf)
        y = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=gated.to(query.dtype),
        )
        out: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return out

    def _gate(self, query: Tensor) -> Tensor:
        """[B, T, heads, head dim] -> [B, T, heads, 1]; the eight outputs count only as two sums of four."""
        weight = self.grep_linear.weight.reshape(2, 4, -1).sum(1)
        offset = self.grep_linear.bias.reshape(2, 4).sum(1)
        first, second = torch.sigmoid(F.linear(query, weight, offset)).chunk(2, -1)
        return first * (second * self.grep_a.transpose(1, 2) - 1) + 2


def relative_bucket(offset: Tensor, buckets: int, max_distance: int) -> Tensor:
    """T5's buckets of key - query: half for each sign, the nearer half exact, the others logarithmic."""
    half = buckets // 2
    exact = half // 2
    distance = offset.abs()
    spread = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (spread * (half - exact)).long()).clamp(max=half - 1)
    return (offset > 0).long() * half + torch.where(distance < exact, distance, far)
