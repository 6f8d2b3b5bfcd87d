"""The machine's kinematics, for the mechanism analysis. Frequencies in Hz, lengths in mm, angles in degrees."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Positive = Annotated[float, Meta(gt=0)]


class Bearing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    balls: Annotated[int, Meta(ge=3, le=200)]
    ball_d: Positive
    pitch_d: Positive
    angle_deg: Annotated[float, Meta(ge=0, lt=90)] = 0.0


class Mechanism(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    shaft_hz: Positive | None = None
    mains_hz: Positive | None = None
    bearings: list[Bearing] = []
