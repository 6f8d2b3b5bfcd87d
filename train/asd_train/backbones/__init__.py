"""Audio encoders as plain torch modules with one small interface.

    backbone = load_backbone("BEATs_iter3_plus_AS2M.pt")        # any known checkpoint
    backbone = build("eat", "tiny")                             # random weights
    (tokens,) = backbone(waveform)                              # [B, N] -> features [B, time, freq, dim]
    per_layer = backbone(waveform, padding_mask, layers=range(1, backbone.layers + 1))

`build` takes the name of a size (`SIZES`) or the config dict of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asd_agent.errors import UsageError
from asd_train.backbones.interface import Backbone, Tokens

__all__ = ["NAMES", "Backbone", "Tokens", "at_rate", "build", "load_backbone", "sizes"]

NAMES = ("beats", "eat", "efficientat", "bandsplit")


def build(name: str, config: str | Mapping[str, Any] = "base") -> Backbone:
    """A backbone with random weights; `config` is a size ("base", "tiny", ...) or its config values."""
    kind = _architecture(name)
    if isinstance(config, str):
        known = sizes(name)
        if config not in known:
            raise UsageError(f"{name} has no size {config!r}: use one of {', '.join(known)}")
        config = known[config]
    backbone: Backbone = kind.from_config(config)
    return backbone


def sizes(name: str) -> Mapping[str, Mapping[str, Any]]:
    """Config values of the known sizes of an architecture; "tiny" is for tests."""
    known: Mapping[str, Mapping[str, Any]] = _architecture(name).SIZES
    return known


def load_backbone(path: str | Path) -> Backbone:
    """The encoder of a checkpoint in eval mode (layouts: `asd_train.checkpoints`)."""
    from asd_train.checkpoints import read_checkpoint

    return read_checkpoint(path).model()


def at_rate(backbone: Backbone, rate_hz: int | None) -> Backbone:
    """The same weights at another sampling rate, for encoders that know several (bandsplit). Raises UsageError."""
    if rate_hz is None or rate_hz == backbone.rate_hz:
        return backbone
    if "rate_hz" not in backbone.config:
        raise UsageError(f"{backbone.name} hears at {backbone.rate_hz} Hz: leave rate_hz out")
    try:
        other = build(backbone.name, {**backbone.config, "rate_hz": rate_hz})
    except ValueError as error:
        raise UsageError(f"rate_hz {rate_hz}: {error}") from error
    other.load_state_dict(backbone.state_dict())
    return other.train(backbone.training)


def _architecture(name: str) -> Any:
    if name == "beats":
        from asd_train.backbones.beats import Beats

        return Beats
    if name == "eat":
        from asd_train.backbones.eat import Eat

        return Eat
    if name == "efficientat":
        from asd_train.backbones.efficientat import EfficientAt

        return EfficientAt
    if name == "bandsplit":
        from asd_train.backbones.bandsplit import Bandsplit

        return Bandsplit
    raise UsageError(f"unknown encoder {name!r}: use one of {', '.join(NAMES)}")
