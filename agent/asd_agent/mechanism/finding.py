"""What localisation says of a window."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Rank(enum.IntEnum):
    """The blame ladder: how far the evidence reaches."""

    COMPONENT = 0  # a part of the machine
    BAND = 1  # a band of frequencies, or a period
    DOMAIN = 2  # shaft, electrical, ...
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Finding:
    rank: Rank
    words: str  # one line for a maintenance engineer; its z stands apart
    component: str = ""  # set only for Rank.COMPONENT
    domain: str = ""  # bearing gear shaft electrical flow belt impacts friction ...
    indicator: str = ""  # the one that decided
    hz: float | None = None
    order: float | None = None  # multiples of the reference shaft
    band_hz: tuple[float, float] | None = None
    z: float | None = None  # against the baseline
    p_value: float | None = None  # corrected for all that was looked at
    harmonics: int = 0
    sidebands_hz: float | None = None  # their distance from the harmonics
    change_db: float | None = None
    at_s: float | None = None  # of a single event in the window
    runner_up: str = ""
    advice: str = ""  # what would let a component be named

    @property
    def line(self) -> str:
        """The words with all numbers, for an analyst."""
        z = f", z {self.z:+.1f}" if self.z is not None else ""
        return self.words + z + (f"; {self.advice}" if self.advice else "")
