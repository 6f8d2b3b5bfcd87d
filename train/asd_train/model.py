"""A system: encoder and spectrum branches, side by side -> one embedding per clip.

system = build_system(config)             # encoders from their checkpoints, new layers random
embedding = system(waveform, padding)     # [batch, samples] -> [batch, dim], what is scored
save_system(system, card, folder); system, card = load_system(folder)
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from asd_agent.errors import UsageError
from asd_train import config as cfg
from asd_train.backbones import Backbone, Tokens, at_rate, build, load_backbone
from asd_train.folders import written_whole
from asd_train.layers import augment, lora
from asd_train.layers.attentive import AttentiveStatistics
from asd_train.layers.spectrum import SpectrumNet
from asd_train.pooling import band_sizes, pool, pooled_dim
from asd_train.scoring import Scoring

CARD, WEIGHTS = "system.json", "model.safetensors"


class EncoderBranch(nn.Module):
    """Encoder -> layers -> pooling -> dense layer, where there is one."""

    def __init__(self, config: cfg.EncoderBranch, backbone: Backbone) -> None:
        super().__init__()
        self.config, self.backbone = config, backbone
        self.layers = _numbers(config.layers, backbone)
        how = "mean" if config.pool == "attentive" else config.pool
        self.width = pooled_dim(backbone, self.layers, how)
        self.attention = AttentiveStatistics(self.width) if config.pool == "attentive" else None
        self.dense = nn.Linear(self.width, config.dim) if config.dim else None
        self.width = config.dim or self.width

    @property
    def blocks(self) -> list[int]:
        if self.dense is not None or self.attention is not None:
            return [self.width]
        return band_sizes(self.backbone, self.layers, self.config.pool)

    def tokens(self, waveform: Tensor, padding: Tensor | None, layers: list[int] | None = None) -> list[Tokens]:
        """Tokens of the branch's (or the given) layers; SpecAug in training."""
        mel, mask = self.backbone.frontend(waveform, padding)
        if self.training and (mask_of := self.config.spec_augment) is not None:
            mel = augment.mask_spectrogram(mel, width=mask_of.width, probability=mask_of.probability)
        return list(self.backbone.encode(mel, mask, self.layers if layers is None else layers))

    def pooled(self, layers: list[Tokens]) -> Tensor:
        """The branch's embedding from the tokens of its layers, [batch, width]."""
        if self.attention is None:
            x = _joined(layers, self.config.pool)
        else:
            features = torch.cat([tokens.features.flatten(1, 2) for tokens in layers], -1)
            mask = layers[0].mask
            x = self.attention(features, None if mask is None else mask.flatten(1, 2))
        return x if self.dense is None else self.dense(x)

    def forward(self, waveform: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.pooled(self.tokens(waveform, padding))

    def adapt(self) -> None:
        """Freeze, or put LoRA in, as configured."""
        if self.config.tuning == "frozen":
            self.backbone.requires_grad_(False)
        elif self.config.tuning == "lora":
            options = self.config.lora
            targets = options.targets or self.backbone.adapter_targets
            lora.adapt(
                self.backbone,
                targets=targets,
                rank=options.rank,
                alpha=options.alpha,
                dropout=options.dropout,
            )

    def train(self, mode: bool = True) -> EncoderBranch:
        super().train(mode)
        if self.config.tuning == "frozen":
            self.backbone.eval()
        elif self.config.batch_norm == "frozen":
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class SpectrumBranch(nn.Module):
    def __init__(self, config: cfg.SpectrumBranch, samples: int) -> None:
        super().__init__()
        try:
            self.net = SpectrumNet(samples, config.dim, config.width, config.normalise)
        except ValueError as exc:
            raise UsageError(f"fft branch: {exc}") from exc
        self.width = config.dim
        self.blocks = [config.dim]

    def forward(self, waveform: Tensor, padding: Tensor | None = None) -> Tensor:
        out: Tensor = self.net(waveform)
        return out


Branch = EncoderBranch | SpectrumBranch


class System(nn.Module):
    """Branches side by side. forward: waveform [B, N] at `rate_hz`, padding [B, N] | None -> [B, dim]."""

    def __init__(self, config: cfg.Model, branches: list[Branch], rate_hz: int) -> None:
        super().__init__()
        self.config, self.rate_hz = config, rate_hz
        self.branches = nn.ModuleList(branches)

    def __iter__(self) -> Any:
        return iter(self.branches)

    @property
    def encoders(self) -> list[EncoderBranch]:
        return [branch for branch in self if isinstance(branch, EncoderBranch)]

    @property
    def widths(self) -> list[int]:
        """Of the branches' embeddings, which training joins."""
        return [branch.width for branch in self]

    @property
    def dim(self) -> int:
        """Of the embedding that is scored."""
        output = self.config.output
        if output.layers is None:
            return sum(self.widths)
        layers = output.layers
        return sum(pooled_dim(b.backbone, _numbers(layers, b.backbone), output.pool) for b in self.encoders)

    @property
    def blocks(self) -> list[int]:
        """Values in each band of the embedding that is scored; a branch with layers behind its pooling is one band."""
        output = self.config.output
        if output.layers is None:
            return [size for branch in self for size in branch.blocks]
        layers = output.layers
        return [s for b in self.encoders for s in band_sizes(b.backbone, _numbers(layers, b.backbone), output.pool)]

    def embed_branches(self, waveform: Tensor, padding: Tensor | None = None) -> list[Tensor]:
        return [branch(waveform, padding) for branch in self]

    def forward(self, waveform: Tensor, padding: Tensor | None = None) -> Tensor:
        output = self.config.output
        if output.layers is None:
            return torch.cat(self.embed_branches(waveform, padding), -1)
        layers = [
            tokens
            for branch in self.encoders
            for tokens in branch.tokens(waveform, padding, _numbers(output.layers, branch.backbone))
        ]
        return _joined(layers, output.pool)

    def adapt(self) -> None:
        """Freeze and insert LoRA as configured; once, before training."""
        for branch in self.encoders:
            branch.adapt()

    def merged(self) -> System:
        """A copy on the CPU with adapters folded in, in eval mode: what is saved, scored and exported."""
        plain = copy.deepcopy(self).cpu()
        for branch in plain.encoders:
            lora.merge(branch.backbone)
        return plain.eval().requires_grad_(False)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """`system.json`: what the weights beside it are."""

    kind: Literal["asd-train system"] = "asd-train system"
    format: int = 1
    name: str
    model: cfg.Model
    encoders: list[dict[str, Any]]  # {"name", "config"} of each encoder branch, in order
    rate_hz: int
    clip_s: float | None
    fill: Literal["tile", "pad"]
    channel: int = 0  # near microphone
    far: int | None = None  # microphone whose coherent part is taken out
    dim: int
    scoring: Scoring
    classes: list[str] = []
    training: dict[str, Any] = {}  # steps, git revision, fingerprint of the data, the whole configuration
    sha256: str = ""  # of the weights; set on saving


def build_system(config: cfg.System) -> System:
    """Encoders from their checkpoints (random without one); raises UsageError where parts do not fit."""
    torch.manual_seed(config.train.seed if config.train else 0)
    backbones = [_encoder(b) for b in config.model.branches if isinstance(b, cfg.EncoderBranch)]
    return _assemble(config.model, backbones, config.clip_s)


def save_system(system: System, card: Card, folder: Path) -> None:
    """Write a merged system: model.safetensors and system.json; the folder appears whole."""
    weights = save({name: value.contiguous() for name, value in system.state_dict().items()})
    card = msgspec.structs.replace(card, sha256=hashlib.sha256(weights).hexdigest())
    with written_whole(folder) as part:
        (part / WEIGHTS).write_bytes(weights)
        (part / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1) + b"\n")


def load_system(folder: str | Path) -> tuple[System, Card]:
    """A system that `save_system` wrote, in eval mode; raises UsageError naming what is wrong."""
    folder = Path(folder)
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes(), type=Card)
        weights = (folder / WEIGHTS).read_bytes()
    except (OSError, msgspec.DecodeError) as exc:
        raise UsageError(f"{folder}: not a system that asd-train fit wrote ({exc})") from exc
    if card.format != 1:
        raise UsageError(f"{folder}: written by a newer asd-train (format {card.format}); update asd-train")
    if hashlib.sha256(weights).hexdigest() != card.sha256:
        raise UsageError(f"{folder / WEIGHTS}: damaged, its checksum is not the one in {CARD}")
    system = _assemble(card.model, [build(e["name"], e["config"]) for e in card.encoders], card.clip_s)
    system.load_state_dict(load(weights))
    return system.eval().requires_grad_(False), card


def describe(system: System, config: cfg.System, classes: list[str], training: dict[str, Any]) -> Card:
    return Card(
        name=config.name,
        model=config.model,
        encoders=[{"name": b.backbone.name, "config": b.backbone.config} for b in system.encoders],
        rate_hz=system.rate_hz,
        clip_s=config.clip_s,
        fill=config.fill,
        channel=config.channel,
        far=config.far,
        dim=system.dim,
        scoring=config.scoring,
        classes=classes,
        training=training,
    )


def _assemble(config: cfg.Model, backbones: list[Backbone], clip_s: float | None) -> System:
    rates = {b.rate_hz for b in backbones} or {16_000}
    if len(rates) > 1:
        raise UsageError(f"encoders of different sampling rates ({sorted(rates)} Hz) cannot share one system")
    rate_hz, left = rates.pop(), iter(backbones)
    branches: list[Branch] = [
        EncoderBranch(b, next(left))
        if isinstance(b, cfg.EncoderBranch)
        else SpectrumBranch(b, round((clip_s or 0) * rate_hz))
        for b in config.branches
    ]
    return System(config, branches, rate_hz)


def _encoder(branch: cfg.EncoderBranch) -> Backbone:
    backbone = load_backbone(branch.checkpoint) if branch.checkpoint else build(branch.encoder or "", branch.size)
    return at_rate(backbone, branch.rate_hz)


def _joined(layers: list[Tokens], how: str) -> Tensor:
    return torch.cat([pool(tokens, how) for tokens in layers], -1)


def _numbers(layers: cfg.Layers, backbone: Backbone) -> list[int]:
    if layers == "last":
        return [backbone.layers]
    return list(range(1, backbone.layers + 1)) if layers == "all" else list(backbone.wished(layers))
