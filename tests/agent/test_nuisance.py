"""Recognised nuisance sounds: families, each against what is usual beside this machine."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asd_agent import config
from asd_agent.calibration import build as calibrate
from asd_agent.encode.meta import BundleMeta, Output, Provenance, Variant
from asd_agent.scoring.nuisance import is_risen
from asd_agent.scoring.pipeline import Pipeline
from asd_agent.types import Description, Quality

FAMILIES = {"living": ["Speech", "Dog"], "clock": ["Clock", "Tick"]}
MACHINE = config.Machine(id="m", source=config.SimulatedSource(), window_s=10.0, hop_s=5.0, bundle="fake")
META = BundleMeta(
    name="fake",
    rate_hz=16_000,
    window_samples=None,
    min_samples=16_000,
    outputs=[
        Output(name="embedding", dim=4, distance="euclidean"),
        *(Output(name=k, dim=2, distance="euclidean", role="nuisance", labels=v) for k, v in FAMILIES.items()),
    ],
    variants={"fp32": Variant(file="encoder.onnx")},
    front_end="none",
    provenance=Provenance(tool="test"),
    licence="none",
)
ENCODERS: Any = {"fake": SimpleNamespace(bundle=SimpleNamespace(meta=META, sha256="0" * 64))}


def window(i: int, rng: np.random.Generator, **probability: tuple[float, float]) -> Description:
    families = {name: np.array(probability.get(name, (1e-3, 1e-3))) for name in FAMILIES}
    noise = {name: p * np.exp(0.2 * rng.standard_normal(2)) for name, p in families.items()}
    return Description(
        index=i,
        start_s=5.0 * i,
        duration_s=10.0,
        utc_s=5.0 * i,
        origin="",
        quality=Quality(causes=(), level_dbfs=-20.0, peak=0.5, dc=0.0, clipped=0.0),
        embeddings={"embedding": rng.standard_normal(4).astype(np.float32)} | noise,
    )


def calibrated(**usual: tuple[float, float]) -> tuple[Pipeline, np.random.Generator]:
    rng = np.random.default_rng(0)
    normal = [window(i, rng, **usual) for i in range(40)]
    bare = Pipeline(MACHINE, ENCODERS, None)
    return Pipeline(MACHINE, ENCODERS, calibrate.build(MACHINE, normal, bare, "v")), rng


@pytest.mark.parametrize(
    ("family", "probability", "word"),
    [("clock", (1e-3, 0.3), "Tick"), ("living", (1e-3, 0.3), "Dog"), ("living", (0.3, 1e-3), "Speech")],
)
def test_the_family_that_stands_out_is_named(family: str, probability: tuple[float, float], word: str) -> None:
    pipeline, rng = calibrated()
    assert pipeline.judge(window(99, rng)).nuisance == ""
    assert pipeline.judge(window(99, rng, **{family: probability})).nuisance.startswith(f"{word} (z ")


def test_what_is_usual_beside_the_machine_explains_nothing_and_hides_no_other_family() -> None:
    pipeline, rng = calibrated(clock=(0.3, 0.3))
    assert pipeline.judge(window(99, rng, clock=(0.3, 0.3))).nuisance == ""
    assert pipeline.judge(window(99, rng, clock=(0.3, 0.3), living=(1e-3, 0.3))).nuisance.startswith("Dog")


@pytest.mark.parametrize("probability", [0.01, 0.02])
def test_what_stays_improbable_explains_nothing_however_rare_it_is_here(probability: float) -> None:
    pipeline, rng = calibrated()
    assert pipeline.judge(window(99, rng, clock=(1e-3, probability))).nuisance == ""


@pytest.mark.parametrize(("usual", "now", "explains"), [(1e-4, 0.1, True), (1e-2, 0.1, False), (0.5, 0.995, True)])
def test_a_family_with_a_limit_in_log_odds_counts_from_there(usual: float, now: float, explains: bool) -> None:
    """Of 5: from 0.0001 to 0.1 the log odds rise by 7.0, from 0.01 to 0.1 by 2.4, from 0.5 to 0.995 by 5.3."""
    then, before = (math.log(p / (1 - p)) for p in (now, usual))
    assert is_risen(then, before, z=3.0, limit=5.0) is explains
    assert not is_risen(then, before, z=1.0, limit=5.0)  # beside a machine that varies as much by itself


def test_a_sound_far_louder_than_the_machine_is_not_explained() -> None:
    pipeline, rng = calibrated()
    odd = window(99, rng, clock=(1e-3, 0.3))
    assert pipeline.judge(odd).nuisance.startswith("Tick")
    for rise_db, word in ((10, "Tick"), (20, "")):
        quality = replace(odd.quality, level_dbfs=odd.quality.level_dbfs + rise_db)
        assert pipeline.judge(replace(odd, quality=quality)).nuisance.partition(" ")[0] == word
