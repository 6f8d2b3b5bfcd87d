"""A tiny synthetic challenge that the training tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_challenge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two machines of 2025, one with supplemental noise, one with clean clips; 2 s each."""
    import torch

    from asd_train.synth import Counts, draw_machines, write_challenge

    torch.set_num_threads(1)  # more only fight each other over such small models
    root = tmp_path_factory.mktemp("synth") / "2025"
    counts = Counts(source=16, target=4, test=8, supplemental=4)
    write_challenge(root, draw_machines(2, seed=3, seconds=2.0), counts, workers=1)
    return root
