"""From the tokens of a layer to one vector per clip; several layers are pooled one by one and joined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asd_agent.errors import UsageError
from asd_train.backbones.interface import Backbone, Tokens

POOLS = ("mean", "cls", "time")


def pool(tokens: Tokens, how: str) -> Tensor:
    """One layer's tokens -> [batch, width].

    mean: over all tokens that are sound -> dim. cls: the class token -> dim; UsageError where there is none.
    time: over time alone (GenRep) -> frequencies x dim, frequency by frequency.
    """
    if how == "cls":
        if tokens.cls is None:
            raise UsageError("pool cls: this encoder has no class token; use mean")
        return tokens.cls
    if how == "mean":
        features = tokens.features.flatten(1, 2)
        return masked_mean(features, None if tokens.mask is None else tokens.mask.flatten(1, 2))
    if how == "time":
        return masked_mean(tokens.features, tokens.mask).flatten(1)
    raise UsageError(f"unknown pooling {how!r}: use one of {', '.join(POOLS)}")


def pool_layers(layers: Sequence[Tokens], how: str) -> Tensor:
    """[batch, sum of the widths]"""
    return torch.cat([pool(tokens, how) for tokens in layers], -1)


def width(backbone: Backbone, layers: Sequence[int] | None, how: str) -> int:
    """Values of the joined vector, without running the encoder."""
    chosen = backbone.wished(layers)
    return sum(backbone.dims[n] * (backbone.frequencies(n) if how == "time" else 1) for n in chosen)


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over axis 1 of x [batch, n, ..., dim] where mask [batch, n, ...] is False; 0 where all is masked."""
    if mask is None:
        return x.mean(1)
    keep = (~mask).to(x.dtype).unsqueeze(-1)
    return (x * keep).sum(1) / keep.sum(1).clamp_min(1)
