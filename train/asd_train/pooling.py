"""Tokens of a layer -> one vector per clip. Padding never counts.

mean              over time and frequency [dim]
cls               the class token [dim]; of a band-split encoder those of all bands [bands * dim]
time              over time alone [frequencies * dim], frequency-major (GenRep)
max               the largest value over time [frequencies * dim]
rdp8              relative-deviation pooling (arXiv 2608.00447), gamma 8: a weighted mean over time
                  [frequencies * dim]; a token weighs (1 + d / max d)^gamma, d its distance from the mean of its
                  frequency, so that what is rare in a clip is not averaged away
rdp16gem3         the same with a power mean, p 3 (arXiv 2603.04605): signed, the p-th root of the weighted mean of
                  the p-th powers
time+max          several, one behind the other
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from asd_agent.errors import UsageError
from asd_train.backbones.interface import Backbone, Tokens

PATTERN = r"^(mean|cls|time|max|rdp\d+(gem\d+)?)(\+(mean|cls|time|max|rdp\d+(gem\d+)?))*$"
_RDP = re.compile(r"rdp(\d+)(?:gem(\d+))?")


def pool(tokens: Tokens, how: str) -> Tensor:
    """[B, size] by one of the poolings above; UsageError for another, and for cls without a class token."""
    return torch.cat([_pool(tokens, part) for part in parts_of(how)], 1)


def masked_mean(tokens: Tokens) -> Tensor:
    """Mean over time and frequency: [B, dim]"""
    return _mean(tokens, (1, 2))


def pooled_dim(backbone: Backbone, layers: Sequence[int], how: str) -> int:
    """Length of the joined pooled vectors of some layers."""
    return sum(band_sizes(backbone, layers, how))


def band_sizes(backbone: Backbone, layers: Sequence[int], how: str) -> list[int]:
    """Values in each band of the joined pooled vectors of some layers: what `asd_agent.bank.beam` keeps apart."""
    sizes: list[int] = []
    for layer in layers:
        for part in parts_of(how):
            count = {"mean": 1, "cls": backbone.class_count}.get(part, backbone.frequencies(layer))
            sizes += [backbone.dims[layer]] * count
    return sizes


def parts_of(how: str) -> list[str]:
    """Raises UsageError."""
    if not re.match(PATTERN, how):
        raise UsageError(f"unknown pooling {how!r}: use mean, cls, time, max, rdp8, rdp16gem3, or several with +")
    return how.split("+")


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


def _pool(tokens: Tokens, how: str) -> Tensor:
    if how == "mean":
        return masked_mean(tokens)
    if how == "time":
        return _mean(tokens, (1,)).flatten(1)
    if how == "max":
        return _sound(tokens, -torch.inf).amax(1).flatten(1)
    if how == "cls":
        if tokens.cls is None:
            raise UsageError("this encoder has no class token: use pooling mean or time")
        return tokens.cls
    found = _RDP.fullmatch(how)
    assert found is not None
    return _relative_deviation(tokens, int(found[1]), int(found[2] or 1)).flatten(1)


def _relative_deviation(tokens: Tokens, gamma: int, power: int) -> Tensor:
    """[B, frequency, dim]"""
    deviation = (tokens.features - _mean(tokens, (1,))[:, None]).square().sum(-1).sqrt()  # [B, time, frequency]
    if tokens.mask is not None:
        deviation = deviation.masked_fill(tokens.mask, 0.0)
    weight = (1 + deviation / deviation.amax(1, keepdim=True).clamp_min(1e-12)) ** gamma
    if tokens.mask is not None:
        weight = weight.masked_fill(tokens.mask, 0.0)
    weight = (weight / weight.sum(1, keepdim=True).clamp_min(1e-12))[..., None]
    x = _sound(tokens, 0.0)
    if power == 1:
        return (weight * x).sum(1)
    mean = (weight * x.sign() * x.abs() ** power).sum(1)
    return mean.sign() * mean.abs() ** (1 / power)


def _mean(tokens: Tokens, over: tuple[int, ...]) -> Tensor:
    if tokens.mask is None:
        return tokens.features.mean(over)
    sound = (~tokens.mask)[..., None]
    return _sound(tokens, 0.0).sum(over) / sound.sum(over).clamp(min=1)


def _sound(tokens: Tokens, instead: float) -> Tensor:
    """The features, padding replaced."""
    if tokens.mask is None:
        return tokens.features
    return tokens.features.masked_fill(tokens.mask[..., None], instead)
