"""The wavelet transform of the mechanism analysis against PyWavelets."""

from __future__ import annotations

import numpy as np
import pytest
import pywt

from asd_agent.mechanism.wavelet import split


@pytest.mark.parametrize("n", [8, 64, 4096])
def test_one_level_is_pywavelets_periodic_transform(n):
    x = np.random.default_rng(n).normal(size=(3, n)).astype(np.float32)
    for mine, theirs in zip(split(x), pywt.dwt(x, "db4", mode="periodization", axis=-1), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_nothing_is_lost():
    x = np.random.default_rng(0).normal(size=(1, 1000)).astype(np.float32)
    low, high = split(x)
    assert float((low**2).sum() + (high**2).sum()) == pytest.approx(float((x**2).sum()), rel=1e-5)
