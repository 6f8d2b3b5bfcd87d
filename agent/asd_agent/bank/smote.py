"""SMOTE: more target rows on the lines between neighbouring ones (Chawla et al., 2002)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asd_agent.bank.base import in_order, rows
from asd_agent.bank.memory import Memory, Metric, unit
from asd_agent.errors import CalibrationError
from asd_agent.types import Floats


def smote(
    target: npt.ArrayLike,
    *,
    n_source: int,
    ratio: float = 0.2,
    neighbours: int = 3,
    metric: Metric = "cosine",
    seed: int = 0,
) -> Floats:
    """target [t, dim] -> [max(t, int(ratio * n_source)), dim]: the target itself, then synthetic rows.

    Each is x_i + u (x_j - x_i): random row i, random j of its nearest `neighbours`, u uniform in 0 to 1; for
    cosine on rows of length 1, and scaled to it again. The order of the target does not matter.
    Raises CalibrationError unless t > neighbours.
    """
    x = rows(target, 1, "target embeddings")
    if len(x) <= neighbours:
        raise CalibrationError(f"SMOTE with {neighbours} neighbours needs {neighbours + 1} target clips, not {len(x)}")
    x = in_order(unit(x) if metric == "cosine" else x)
    count = max(0, int(ratio * n_source) - len(x))
    rng = np.random.default_rng(seed)
    near = Memory.of(x).nearest(x, neighbours, exclude=np.eye(len(x), dtype=bool))[1]
    i = rng.integers(len(x), size=count)
    j = near[i, rng.integers(neighbours, size=count)]
    made = x[i] + rng.random((count, 1)) * (x[j] - x[i])
    return np.vstack([x, unit(made) if metric == "cosine" else made])
