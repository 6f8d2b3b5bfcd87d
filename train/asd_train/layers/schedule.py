"""Learning-rate schedules as factors of the peak rate; both rise linearly during the warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable


def warmup_cosine(steps: int, warmup: int, final: float = 0.0) -> Callable[[int], float]:
    """Cosine from 1 after `warmup` down to `final` at `steps`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return factor


def inverse_sqrt(warmup: int) -> Callable[[int], float]:
    """sqrt(warmup / step) after the warm-up (Vaswani et al. 2017)."""

    def factor(step: int) -> float:
        return min((step + 1) / max(1, warmup), math.sqrt(max(1, warmup) / (step + 1)))

    return factor


def constant(warmup: int = 0) -> Callable[[int], float]:
    return lambda step: min(1.0, (step + 1) / max(1, warmup))
