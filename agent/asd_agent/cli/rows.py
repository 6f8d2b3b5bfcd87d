"""A window as a row of CSV: the one way in which scores become text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asd_agent.types import WindowResult

COLUMNS = [
    "file", "start_s", "duration_s", "state", "quality", "score", "p_value", "level",
    "embedding_distance", "embedding_p", "mechanism_p", "reason", "operating", "nuisance", "transient_p",
    "transient_at_s",
]  # fmt: skip


def header(detectors: Sequence[str]) -> list[str]:
    return COLUMNS + [f"{what}_{name}" for name in detectors for what in ("distance", "p")]


def row(path: Path, result: WindowResult, detectors: Sequence[str]) -> list[str]:
    """The fields of a window, as text."""
    scores = {d.name: d for d in result.detectors}
    return [
        str(path),
        f"{result.start_s:.3f}",
        f"{result.duration_s:.3f}",
        result.state.value,
        " ".join(result.quality.causes) or "ok",
        _number(result.score),
        _number(result.p_value),
        result.level.value,
        _number(result.embedding_distance),
        _number(result.embedding_p),
        _number(result.mechanism_p),
        result.reason,
        result.operating,
        result.nuisance,
        _number(result.transient_p),
        _number(result.transient_at_s),
        *(_number(getattr(scores.get(n), what, None)) for n in detectors for what in ("distance", "p_value")),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
