"""Sounds that no machine makes: which were heard in a window, and whether one explains a deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping

from asd_agent.baseline.manifest import Nuisance
from asd_agent.encode.meta import Output
from asd_agent.types import Description, HeardSound

Z = 4.0  # standard deviations of its log odds above calibration, and
RISE = 0.03  # more probable than usual, a recognised nuisance sound explains a deviation;
LIMITED_Z = 2.0  # so many where the bundle has a limit of its own
LOUDEST_DB = 15.0  # over the operating state: our encoder was taught no louder nuisance


def recognised(
    description: Description, outputs: Mapping[str, Output], normal: Mapping[str, Nuisance], usual_dbfs: float
) -> str:
    """The nuisance sound that is much more probable than in calibration, in words; empty without one.

    In units of its spread and in itself: beside a machine where nothing ever ticks, what is still improbable is far out
    already, as a clock is when a fault knocks (benchmarks/detection.py: 0.08 of AUC on knocks). A window far louder
    than the operating state, whose level is `usual_dbfs`, is not explained: most such sound is the machine's own.
    """
    if description.quality.level_dbfs > usual_dbfs + LOUDEST_DB:
        return ""
    found = []
    for name, output in outputs.items():
        if name in normal:
            odds, usual = odds_of(description, name), normal[name].median
            z = (odds - usual) / normal[name].scale
            if is_risen(odds, usual, z, output.log_odds):
                found.append((z, name))
    if not found:
        return ""
    z, name = max(found)
    return f"{outputs[name].labels[int(description.embeddings[name].argmax())]} (z {z:.1f})"


def heard(description: Description, outputs: Mapping[str, Output], most: int) -> tuple[HeardSound, ...]:
    """The most probable ones, whether or not they are usual beside the machine."""
    sounds = [
        HeardSound(label=label, probability=round(float(p), 3))
        for name, output in outputs.items()
        if name in description.embeddings
        for label, p in zip(output.labels, description.embeddings[name], strict=True)
    ]
    return tuple(sorted(sounds, key=lambda sound: -sound.probability)[:most])


def odds_of(description: Description, name: str) -> float:
    """Log odds of the summed probability of an output's sounds."""
    probability = min(max(float(description.embeddings[name].sum()), 1e-12), 1 - 1e-7)
    return math.log(probability / (1 - probability))


def is_risen(odds: float, usual: float, z: float, limit: float | None) -> bool:
    """Whether log odds are far enough above the usual ones, by a bundle's own limit or without one."""
    if limit is not None:
        return z >= LIMITED_Z and odds - usual >= limit
    return z >= Z and _probability(odds) - _probability(usual) >= RISE


def _probability(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))
