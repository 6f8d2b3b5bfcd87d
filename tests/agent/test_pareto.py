"""The tail of held-out scores where there are enough of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.decide.fusion import Fusion
from asd_agent.decide.pareto import Pareto


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.3, 0.35), st.floats(0.2, 5.0), st.integers(0, 50))
def test_the_pareto_tail_is_found_again(shape: float, scale: float, seed: int) -> None:
    def quantile(p: npt.ArrayLike) -> np.ndarray:
        return scale * (np.power(p, -shape) - 1) / shape if abs(shape) > 1e-3 else -scale * np.log(p)

    y = quantile(np.random.default_rng(seed).random(20_000))
    found = Pareto.fit(y)
    assert found is not None
    assert found.shape == pytest.approx(shape, abs=0.15)
    assert 4e-4 < found.p_value(float(quantile(1e-3))) < 2.5e-3  # 20 % of standard error


@settings(max_examples=20, deadline=None)
@given(st.integers(300, 2000), st.integers(0, 50))
def test_p_values_fall_and_never_below_the_plain_estimate_by_much(n: int, seed: int) -> None:
    found = Pareto.fit(np.random.default_rng(seed).standard_normal(n))
    assert found is not None
    p = [found.p_value(s) for s in np.linspace(found.start, found.start + 8, 60)]
    assert all(a >= b for a, b in pairwise(p))
    assert p[0] == pytest.approx(0.1, abs=0.01)


def test_few_or_equal_scores_have_no_tail_of_their_own() -> None:
    assert Pareto.fit(np.random.default_rng(0).standard_normal(299)) is None
    assert Pareto.fit(np.ones(1000)) is None
    assert Pareto.fit(np.random.default_rng(0).standard_normal(400), separate=0.5) is None


def test_a_heavy_tail_raises_the_p_values_of_the_fusion() -> None:
    rng = np.random.default_rng(0)
    heavy = rng.standard_t(3, 3000)
    block = np.arange(3000) * 5 // 3000
    fusion = Fusion.fit(heavy[:, None], block, np.arange(3000) // 300)
    plain = Fusion(median=fusion.median, scale=fusion.scale, spread=fusion.spread)
    assert fusion.p_value([9.0]) > 10 * plain.p_value([9.0])
    assert fusion.p_value([0.0]) == plain.p_value([0.0])
