"""What a detector's standard score means."""

from __future__ import annotations

import numpy as np

from asd_agent.decide.blocks import blocks
from asd_agent.detectors import EmbeddingDetector
from asd_agent.encode.meta import Output
from asd_agent.types import Description, Quality

OUTPUT = Output(name="e", dim=6, distance="whitened")


def window(embedding: np.ndarray) -> Description:
    quality = Quality(reasons=(), level_dbfs=-20.0, peak=0.5, dc=0.0, clipped=0.0)
    embeddings = {"e": embedding.astype(np.float32)}
    return Description(
        index=0, start_s=0.0, duration_s=10.0, utc_s=0.0, origin="", quality=quality, embeddings=embeddings
    )


def test_a_unit_of_z_is_how_far_the_next_window_strays_and_days_apart_show_in_the_held_out_scores() -> None:
    rng = np.random.default_rng(0)
    days = 10 * rng.standard_normal((5, 6))
    session = np.repeat(np.arange(5), 12)
    windows = [window(days[s] + rng.standard_normal(6)) for s in session]
    detector, held_out = EmbeddingDetector.fit("e", OUTPUT, windows, blocks(session), session, 1)
    again = np.array([detector.score(window(days[s] + rng.standard_normal(6))).z for s in session])
    assert abs(np.median(again)) < 0.7
    assert 0.6 < again.std() < 1.5
    assert np.median(held_out) > 3  # a day that the bank does not know: for the fusion to learn from
    faulty = [detector.score(window(days[s] + rng.standard_normal(6) + 5)).z for s in session]
    assert np.median(faulty) > 3  # nearer than another day, and yet seen
