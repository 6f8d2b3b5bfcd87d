"""What is drawn before any sound is made: machines, the conditions they run in, the faults they can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from asd_agent.errors import UsageError

Shift = Literal["speed", "load", "noise", "microphone"]
SHIFTS: tuple[Shift, ...] = ("speed", "load", "noise", "microphone")


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of machine: how it is built, and what can break in it."""

    name: str
    shaft_hz: tuple[float, float]
    teeth: tuple[int, int]  # of a gear, or blades; (0, 0) = none
    stroke_hz: tuple[float, float]  # of a to-and-fro that lets the sound swell; (0, 0) = none
    clacks: bool  # a valve or a latch hits once a stroke
    faults: tuple[str, ...]


FAMILIES = (
    Family("Blower", (18, 45), (5, 9), (0, 0), False, ("imbalance", "bearing", "rub", "leak")),
    Family("GearPump", (12, 28), (11, 23), (0, 0), False, ("gear", "bearing", "leak", "knocks")),
    Family("Shuttle", (8, 20), (0, 0), (0.6, 1.6), False, ("squeal", "rub", "bearing", "knocks")),
    Family("Injector", (10, 25), (0, 0), (1.5, 4.0), True, ("leak", "knocks", "rub")),
    Family("Spindle", (30, 60), (0, 0), (0, 0), False, ("bearing", "imbalance", "squeal")),
    Family("Conveyor", (6, 14), (15, 31), (0.3, 0.9), False, ("squeal", "gear", "knocks", "bearing")),
    Family("Mixer", (5, 12), (19, 41), (0.5, 1.2), False, ("gear", "rub", "imbalance", "squeal")),
)


@dataclass(frozen=True, slots=True)
class Condition:
    """How a machine runs and is heard; equal conditions are one domain's attribute values."""

    speed: int  # level; each is 12 % faster than the one before
    load: int
    site: str  # whose noise is around: A, B, ...
    microphone: int


@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    seed: int
    family: Family
    shaft_hz: float  # at speed 0
    teeth: int
    stroke_hz: float
    snr_db: float  # of the machine over its surroundings
    seconds: float
    hidden: bool  # attributes are not published
    supplemental: Literal["noise", "clean"]
    channels: int  # 1, or 2: near and far
    source: tuple[Condition, ...]
    target: tuple[Condition, ...]

    def attributes(self, condition: Condition) -> tuple[tuple[str, str], ...]:
        """As published: those that vary for this machine."""
        if self.hidden:
            return ()
        columns = zip(*(_values(c) for c in self.source + self.target), strict=True)
        several = [len(set(column)) > 1 for column in columns]
        named = zip(_KEYS, _values(condition), several, strict=True)
        return tuple((key, value) for key, value, varies in named if varies)


_KEYS = ("spd", "ld", "bkg", "mic")


def _values(condition: Condition) -> tuple[str, str, str, str]:
    return str(condition.speed), str(condition.load), condition.site, str(condition.microphone)


@dataclass(frozen=True, slots=True)
class Counts:
    """Clips of one machine; the challenge's numbers are the defaults."""

    source: int = 990
    target: int = 10
    test: int = 200  # a quarter each of source and target, normal and anomalous
    supplemental: int = 100

    def __post_init__(self) -> None:
        if self.source < 1 or self.target < 0 or self.supplemental < 0 or self.test < 4 or self.test % 4:
            raise UsageError("counts: at least 1 source clip, and test clips in a multiple of 4")


def draw_machines(count: int, seed: int, seconds: float | None = None, channels: int = 1) -> list[Machine]:
    """Machines of the families in turn; every third hides its attributes, supplemental kinds alternate.

    `seconds` None: clips of 6, 8, 10 or 12 s, one length a machine. `channels` 2: a near and a far microphone, the same
    machines otherwise. Raises UsageError for a count below 1.
    """
    if count < 1:
        raise UsageError("at least one machine")
    return [_draw(number, np.random.default_rng((seed, number)), seconds, channels) for number in range(count)]


def _draw(number: int, rng: np.random.Generator, seconds: float | None, channels: int) -> Machine:
    family = FAMILIES[number % len(FAMILIES)]
    again = number // len(FAMILIES)
    shifts = {
        SHIFTS[number % 4],
        SHIFTS[int(rng.integers(4))],
    }  # every kind of shift occurs, some machines have two
    source, target = _conditions(shifts, rng)
    return Machine(
        name=family.name + (str(again + 1) if again else ""),
        seed=int(rng.integers(2**31)),
        family=family,
        shaft_hz=float(rng.uniform(*family.shaft_hz)),
        teeth=int(rng.integers(family.teeth[0], family.teeth[1] + 1)),
        stroke_hz=float(rng.uniform(*family.stroke_hz)),
        snr_db=float(rng.uniform(2, 10)),
        seconds=float(rng.choice([6, 8, 10, 12])) if seconds is None else seconds,
        hidden=number % 3 == 2,
        supplemental="clean" if number % 2 else "noise",
        channels=channels,
        source=source,
        target=target,
    )


def _conditions(shifts: set[Shift], rng: np.random.Generator) -> tuple[tuple[Condition, ...], tuple[Condition, ...]]:
    """Two or three conditions of the source, and those of the target, which differ in what shifts."""
    speeds, loads = range(int(rng.integers(2, 4))), range(int(rng.integers(1, 3)))
    source = tuple(Condition(speed, load, "A", 1) for speed in speeds for load in loads)
    target = tuple(
        Condition(
            speed=c.speed + len(speeds) if "speed" in shifts else c.speed,
            load=c.load + len(loads) if "load" in shifts else c.load,
            site="B" if "noise" in shifts else "A",
            microphone=2 if "microphone" in shifts else 1,
        )
        for c in source[:2]
    )
    return source, target
