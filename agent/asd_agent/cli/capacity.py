"""What a window costs on other computers: package data made by benchmarks/capacity.py, also the table of the docs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

PATH = Path(__file__).with_name("capacity.json")
WINDOW_S, HOP_S = 10.0, 5.0  # of the listed figures
LOAD = 0.7  # share of a core that scoring may take; the rest is capture, MQTT and the system


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    computer: str
    cores: int
    bundle: str
    variant: str
    window_ms: float  # of WINDOW_S, on one core

    @property
    def machines_per_core(self) -> int:
        return machines(self.window_ms, HOP_S, 1)


def machines(window_ms: float, hop_s: float, cores: int) -> int:
    """That a computer serves, one thread a window."""
    return int(cores * LOAD * 1000 * hop_s / window_ms)


def listed() -> list[Listed]:
    return msgspec.json.decode(PATH.read_bytes(), type=list[Listed])


def comparison(bundle: str, variant: str, window_ms: float, window_s: float, rows: Sequence[Listed]) -> list[str]:
    """A sentence for each listed computer that was measured with the same bundle; the cost of a window goes with its
    length."""
    own = window_ms * WINDOW_S / window_s
    return [
        f"{row.computer}: {row.window_ms:.1f} ms, {row.machines_per_core} machines a core; a window takes "
        f"{own / row.window_ms:.1f} x as long here"
        for row in rows
        if (row.bundle, row.variant) == (bundle, variant)
    ]


def markdown(rows: Sequence[Listed]) -> str:
    lines = ["| computer | bundle | precision | ms per window | machines per core |", "|---|---|---|---|---|"]
    lines += [f"| {r.computer} | {r.bundle} | {r.variant} | {r.window_ms:.1f} | {r.machines_per_core} |" for r in rows]
    return "\n".join(lines)
