"""The machine's kinematics, for the mechanism analysis. Frequencies in Hz, lengths in mm, angles in degrees.

Everything is optional: with nothing configured, bands and periods are named instead of components. Shaft speeds are
ratios to the reference shaft, the one that `shaft_hz`, `shaft_range_hz` and `speed_topic` speak of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from asd_agent.config.bearings import BEARINGS, Orders, geometry_orders

Positive = Annotated[float, Meta(gt=0)]
Name = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[^./\s][^./]*$")]
REFERENCE_SHAFT = "shaft"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Shaft(_Part, frozen=True, kw_only=True):
    """Another shaft: turns `ratio` times for each turn of the reference shaft."""

    name: Name
    ratio: Positive


class BearingOrders(_Part, frozen=True, kw_only=True):
    """Fault frequencies from a data sheet, as multiples of the speed of the bearing's shaft.

    `bsf` is the ball spin frequency; a ball defect strikes both races, so the line looked for is twice that.
    """

    bpfo: Positive
    bpfi: Positive
    bsf: Positive | None = None
    ftf: Positive | None = None

    def __post_init__(self) -> None:
        balls = self.bpfo + self.bpfi
        if abs(balls - round(balls)) > 0.05:
            raise ValueError(f"bpfo + bpfi is the number of rolling elements, but {balls:.2f} is not a whole number")
        if self.bpfi <= self.bpfo:
            raise ValueError("bpfi is larger than bpfo when the inner ring turns: are they swapped?")


class Bearing(_Part, frozen=True, kw_only=True):
    """By geometry (balls, ball_d, pitch_d, angle_deg), by `orders`, or by a `type` of the built-in table."""

    name: Name
    shaft: Name = REFERENCE_SHAFT
    balls: Annotated[int, Meta(ge=3, le=200)] | None = None
    ball_d: Positive | None = None
    pitch_d: Positive | None = None
    angle_deg: Annotated[float, Meta(ge=0, lt=90)] = 0.0
    rotating: Literal["inner", "outer"] = "inner"
    orders: BearingOrders | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        geometry = (self.balls, self.ball_d, self.pitch_d)
        given = [any(g is not None for g in geometry), self.orders is not None, self.type is not None]
        if sum(given) != 1:
            raise ValueError(f"bearing {self.name!r}: give one of balls+ball_d+pitch_d, orders, or type")
        if given[0]:
            self._check_geometry()
        if self.type is not None and self.type.upper() not in BEARINGS:
            known = ", ".join(sorted(BEARINGS))
            raise ValueError(
                f"bearing {self.name!r}: type {self.type!r} is not in the table ({known}); give its geometry"
            )

    def _check_geometry(self) -> None:
        if self.balls is None or self.ball_d is None or self.pitch_d is None:
            raise ValueError(f"bearing {self.name!r}: balls, ball_d and pitch_d are needed together")
        if self.balls * self.ball_d > math.pi * self.pitch_d:
            raise ValueError(
                f"bearing {self.name!r}: {self.balls} balls of {self.ball_d:g} mm do not fit on a circle of "
                f"{self.pitch_d:g} mm"
            )

    def fault_orders(self) -> Orders:
        """Multiples of the speed of the bearing's shaft."""
        if self.orders is not None:
            o = self.orders
            ftf = o.ftf if o.ftf is not None else o.bpfo / round(o.bpfo + o.bpfi)
            return Orders(bpfo=o.bpfo, bpfi=o.bpfi, bsf2=2 * o.bsf if o.bsf is not None else None, ftf=ftf)
        if self.type is not None:
            return geometry_orders(*BEARINGS[self.type.upper()], rotating=self.rotating)
        assert self.balls is not None  # checked on construction
        assert self.ball_d is not None
        assert self.pitch_d is not None
        return geometry_orders(self.balls, self.ball_d, self.pitch_d, self.angle_deg, rotating=self.rotating)


class Gear(_Part, frozen=True, kw_only=True):
    """A mesh: the pinion with `teeth` sits on `shaft`; the wheel's speed follows from `wheel_teeth`."""

    name: Name
    shaft: Name = REFERENCE_SHAFT
    teeth: Annotated[int, Meta(ge=3, le=2000)]
    wheel_teeth: Annotated[int, Meta(ge=3, le=5000)] | None = None


class Belt(_Part, frozen=True, kw_only=True):
    name: Name
    shaft: Name = REFERENCE_SHAFT
    pulley_d: Positive
    length: Positive

    def __post_init__(self) -> None:
        if math.pi * self.pulley_d >= self.length:
            raise ValueError(
                f"belt {self.name!r}: length {self.length:g} mm is shorter than the pulley's circumference"
            )


class Blades(_Part, frozen=True, kw_only=True):
    """A fan, pump or propeller."""

    name: Name
    shaft: Name = REFERENCE_SHAFT
    count: Annotated[int, Meta(ge=2, le=500)]


class Mechanism(_Part, frozen=True, kw_only=True):
    """`mode`: the mechanism score joins the encoder's, replaces it, or stays beside it (reasons only)."""

    mode: Literal["join", "replace", "beside"] = "join"
    shaft_hz: Annotated[float, Meta(gt=0, le=2000)] | None = None  # nominal; refined from the sound near by
    shaft_range_hz: tuple[Positive, Positive] | None = None  # where to look for it when it is not known
    speed_topic: Annotated[str, Meta(pattern=r"^[^#+\s]+$")] | None = None  # MQTT: rpm, or JSON with rpm and running
    speed_tolerance: Annotated[float, Meta(ge=0, le=0.2)] = 0.08  # of shaft_hz: slip under load, a name plate's error
    mains_hz: Annotated[float, Meta(ge=10, le=1000)] | None = None
    poles: Annotated[int, Meta(ge=2, le=100)] | None = None
    rotor_bars: Annotated[int, Meta(ge=3, le=500)] | None = None
    shafts: list[Shaft] = []
    bearings: list[Bearing] = []
    gears: list[Gear] = []
    belts: list[Belt] = []
    blades: list[Blades] = []

    def __post_init__(self) -> None:
        self._check_names()
        if self.shaft_range_hz is not None:
            low, high = self.shaft_range_hz
            if low >= high:
                raise ValueError(f"shaft_range_hz: {low:g} is not below {high:g}")
            if self.shaft_hz is not None and not low <= self.shaft_hz <= high:
                raise ValueError(f"shaft_hz {self.shaft_hz:g} lies outside shaft_range_hz {low:g}-{high:g}")
        if self.poles is not None and (self.mains_hz is None or self.poles % 2):
            raise ValueError("poles: an even number, and mains_hz is needed with it")

    def _check_names(self) -> None:
        shafts = [REFERENCE_SHAFT, *(s.name for s in self.shafts)]
        _unique("shafts", shafts)
        parts: list[Bearing | Gear | Belt | Blades] = [*self.bearings, *self.gears, *self.belts, *self.blades]
        _unique("bearings, gears, belts, blades", [p.name for p in parts])
        for part in parts:
            if part.shaft not in shafts:
                raise ValueError(f"{part.name!r}: there is no shaft {part.shaft!r}; known: {', '.join(shafts)}")

    def ratio(self, shaft: str) -> float:
        """Speed of the named shaft relative to the reference shaft."""
        return next((s.ratio for s in self.shafts if s.name == shaft), 1.0)


def _unique(key: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{key}: the name {name!r} is used twice")
        seen.add(name)
