"""Poolings against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asd_agent.errors import UsageError
from asd_train.backbones import build
from asd_train.backbones.interface import Tokens
from asd_train.pooling import band_sizes, pool, pooled_dim

FEATURES = torch.randn(2, 7, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def relative_deviation(x: np.ndarray, gamma: int, power: int) -> np.ndarray:
    """x [time, dim] of one frequency -> [dim]"""
    deviation = np.linalg.norm(x - x.mean(0), axis=1)
    weight = (1 + deviation / deviation.max()) ** gamma
    mean = (weight[:, None] * np.sign(x) * np.abs(x) ** power).sum(0) / weight.sum()
    return np.sign(mean) * np.abs(mean) ** (1 / power)


@pytest.mark.parametrize(("how", "gamma", "power"), [("rdp8", 8, 1), ("rdp0", 0, 1), ("rdp16gem3", 16, 3)])
def test_relative_deviation_pooling(how: str, gamma: int, power: int) -> None:
    found = pool(Tokens(FEATURES), how).reshape(2, 3, 5)
    for clip in range(2):
        for band in range(3):
            expected = relative_deviation(FEATURES[clip, :, band].numpy(), gamma, power)
            np.testing.assert_allclose(found[clip, band].numpy(), expected, rtol=1e-6)


def test_gamma_0_is_the_mean_and_a_rare_token_counts_for_more_with_gamma() -> None:
    assert torch.allclose(pool(Tokens(FEATURES), "rdp0"), pool(Tokens(FEATURES), "time"))
    rare = torch.zeros(1, 50, 1, 4)
    rare[:, 20] = 1.0
    assert pool(Tokens(rare), "rdp8").mean() > 50 * pool(Tokens(rare), "time").mean() / 4


def test_several_poolings_lie_one_behind_the_other() -> None:
    joined = pool(Tokens(FEATURES), "time+max")
    assert torch.equal(joined, torch.cat([FEATURES.mean(1).flatten(1), FEATURES.amax(1).flatten(1)], 1))
    backbone = build("efficientat", "tiny")
    layers = (1, backbone.layers)
    sizes = band_sizes(backbone, layers, "time+mean")
    assert sum(sizes) == pooled_dim(backbone, layers, "time+mean")
    assert sizes[-1] == backbone.dim
    assert sizes.count(backbone.dims[1]) == backbone.frequencies(1) + 1


@pytest.mark.parametrize("how", ["median", "rdp", "time+", "rdp8gem", ""])
def test_an_unknown_pooling_is_named(how: str) -> None:
    with pytest.raises(UsageError, match="unknown pooling"):
        pool(Tokens(FEATURES), how)
