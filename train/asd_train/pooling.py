"""Tokens of a layer -> one vector per clip. Padding never counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asd_agent.errors import UsageError
from asd_train.backbones.interface import Backbone, Tokens

POOLINGS = ("mean", "cls", "time")


def pool(tokens: Tokens, how: str) -> Tensor:
    """mean: over time and frequency [B, dim]; cls: the class token [B, dim]; time: over time alone
    [B, frequencies * dim], frequency-major (GenRep). UsageError for cls without a class token."""
    if how == "mean":
        return masked_mean(tokens)
    if how == "time":
        return _mean(tokens, (1,)).flatten(1)
    if how != "cls":
        raise UsageError(f"unknown pooling {how!r}: use one of {', '.join(POOLINGS)}")
    if tokens.cls is None:
        raise UsageError("this encoder has no class token: use pooling mean or time")
    return tokens.cls


def masked_mean(tokens: Tokens) -> Tensor:
    """Mean over time and frequency: [B, dim]"""
    return _mean(tokens, (1, 2))


def pooled_dim(backbone: Backbone, layers: Sequence[int], how: str) -> int:
    """Length of the joined pooled vectors of some layers."""
    sizes = (backbone.dims[k] * (backbone.frequencies(k) if how == "time" else 1) for k in layers)
    return sum(sizes)


def parse_layers(text: str, backbone: Backbone) -> tuple[int, ...]:
    """ "all" (1 to the last; 0 only enters the blocks), "last", or numbers like "4,8,-1"."""
    if text == "all":
        return tuple(range(1, backbone.layers + 1))
    if text == "last":
        return (backbone.layers,)
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--layers {text!r}: use all, last, or numbers like 4,8,12") from None
    return backbone.wished(numbers)


def _mean(tokens: Tokens, over: tuple[int, ...]) -> Tensor:
    if tokens.mask is None:
        return tokens.features.mean(over)
    sound = (~tokens.mask)[..., None]
    return torch.where(sound, tokens.features, 0).sum(over) / sound.sum(over).clamp(min=1)
