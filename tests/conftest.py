"""Shared fixtures. Real recordings and weights live beside the repository in ../shared, never in it."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """../shared, with the real recordings, weights and reference outputs."""
    if not (SHARED / "DESIGN.md").is_file():
        pytest.skip(f"needs the real recordings and weights in {SHARED}, which are not on this machine")
    return SHARED
