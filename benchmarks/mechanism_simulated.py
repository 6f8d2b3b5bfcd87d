"""Faults of every component at the level where their line stands 10 dB above its floor: named, missed, wrong.

The machines are those of the simulated source, each with a baseline of its own. A fault is set by the level of its own
lines: additive ones by their power over the floor of the healthy machine around them, impacts and cavitation by the
line in the envelope spectrum of machine and fault together.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any

import msgspec
import numpy as np

from asd_agent import config
from asd_agent.capture.simulate import SimulatedMachine
from asd_agent.config.kinematics import Mechanism
from asd_agent.mechanism import Analyser, MechanismBaseline
from asd_agent.mechanism.accumulate import Accumulation
from asd_agent.mechanism.diagnose import diagnose
from asd_agent.mechanism.evidence import LineEvidence
from asd_agent.mechanism.lines import groups, trains
from asd_agent.mechanism.naming import lines_of
from asd_agent.mechanism.orders import line_floor
from asd_agent.mechanism.spectrum import transform
from asd_agent.types import Samples

RATE_HZ, SECONDS = 16_000, 10.0
ABOVE_DB = 10.0
NORMALS, FAULTY, TOGETHER = 40, 8, 8  # windows a machine, a machine and fault, and a sum
MACHINES = (
    {"shaft_hz": 24.87, "gear_teeth": 23, "wheel_teeth": 57, "blades": 7, "poles": 4, "seed": 1},
    {"shaft_hz": 16.31, "gear_teeth": 31, "wheel_teeth": 44, "blades": 5, "poles": 6, "seed": 2},
    {"shaft_hz": 48.6, "gear_teeth": 17, "wheel_teeth": 52, "blades": 9, "poles": 2, "seed": 3},
)
EXPECTED = {  # kind -> (what must be named, the lines that carry it); "" = no component
    "bearing": ("outer race", "bpfo"),
    "inner_race": ("inner race", "bpfi"),
    "rolling_element": ("rolling element", "bsf2"),
    "tooth": ("gear G1", "G1.sidebands_far_shaft"),
    "wheel_tooth": ("gear G1", "G1.sidebands_far_wheel"),
    "belt": ("belt V", "V.belt1"),
    "blade": ("fan", "fan.blade1"),
    "cavitation": ("fan", "vanes"),
    "rotor_bar": ("motor rotor", "motor.bars"),
    "eccentricity": ("motor", "motor.eccentric"),
}
NO_COMPONENT = {"electrical": "mains.2x", "looseness": "shaft.half", "imbalance": "shaft.1x"}
AT_LEVEL_DB = {"flow": -6.0, "surge": -6.0, "hiss": -10.0, "knocks": -10.0, "squeal": -10.0, "healthy": 0.0}
STEPS = 5  # of the bisection
SEARCHED = ("bearing", "inner_race", "rolling_element", "cavitation")  # by the envelope, which is not linear


def simulated() -> dict[str, Any]:
    """Counts over all machines, each in a process of its own: from one window, and from TOGETHER windows of an alarm
    added up."""
    one, many = Count(), Count()
    levels: dict[str, list[float]] = {}
    with ProcessPoolExecutor(len(MACHINES)) as pool:
        for its_one, its_many, its_levels in pool.map(judged, MACHINES):
            one.join(its_one)
            many.join(its_many)
            for kind, level_db in its_levels.items():
                levels.setdefault(kind, []).append(level_db)
    return {
        "one window": one.summary(),
        f"{TOGETHER} windows added up": many.summary(),
        "RMS of the fault over the machine's, dB, by machine": levels,
    }


def judged(keys: dict[str, Any]) -> tuple[Count, Count, dict[str, float]]:
    """One machine: counts of single windows and of sums, and the levels of the faults."""
    one, many, levels = Count(), Count(), {}
    machine = Case(keys)
    for kind in (*EXPECTED, *NO_COMPONENT, *AT_LEVEL_DB):
        level_db = AT_LEVEL_DB[kind] if kind in AT_LEVEL_DB else machine.level_of(kind)
        levels[kind] = round(level_db, 1)
        for first in range(1000, 1000 + FAULTY, TOGETHER):
            sounds = [machine.sound(first + i, kind, level_db) for i in range(TOGETHER)]
            many.add(kind, machine.named_together(sounds))
            for sound in sounds:
                one.add(kind, machine.named(sound))
        print(kind, keys["shaft_hz"], levels[kind], one.rows[kind], many.rows[kind], flush=True)
    return one, many, levels


class Count:
    """Right, wrong and all windows (or sums of windows) by kind of fault."""

    def __init__(self) -> None:
        self.rows: dict[str, list[int]] = {}

    def add(self, kind: str, component: str) -> None:
        expected = EXPECTED.get(kind, ("",))[0]
        right = expected in component if expected else not component
        wrong = bool(component) and (not expected or expected not in component)
        row = self.rows.setdefault(kind, [0, 0, 0])
        self.rows[kind] = [row[0] + right, row[1] + wrong, row[2] + 1]

    def join(self, other: Count) -> None:
        for kind, row in other.rows.items():
            self.rows[kind] = [a + b for a, b in zip(self.rows.get(kind, [0, 0, 0]), row, strict=True)]

    def summary(self) -> dict[str, Any]:
        faulty = [row for kind, row in self.rows.items() if kind in EXPECTED]
        return {
            "named": f"{sum(r[0] for r in faulty)} of {sum(r[2] for r in faulty)}",
            "wrong component": f"{sum(r[1] for r in self.rows.values())} of {sum(r[2] for r in self.rows.values())}",
            "right (named, or nothing named)": {k: f"{r[0]} of {r[2]}" for k, r in self.rows.items()},
        }


class Case:
    """A simulated machine, its motor data and its baseline."""

    def __init__(self, keys: dict[str, Any]) -> None:
        self.source = config.SimulatedSource(rate_hz=RATE_HZ, level_dbfs=-30, **keys)
        source = self.source
        self.config = msgspec.convert(
            {
                "shaft_hz": round(source.shaft_hz * 1.004, 2), "speed_tolerance": 0.02, "mains_hz": source.mains_hz,
                "poles": source.poles, "bearings": [{"name": "DE", "type": "6205"}],
                "gears": [{"name": "G1", "teeth": source.gear_teeth, "wheel_teeth": source.wheel_teeth}],
                "blades": [{"name": "fan", "count": source.blades}],
                "belts": [{"name": "V", "pulley_d": 100, "length": 100 * np.pi / source.belt_turns}],
            },
            Mechanism,
        )  # fmt: skip
        self.analyser = Analyser(self.config, RATE_HZ)
        normal = [self.analyser.indicators(self.sound(i)).values for i in range(NORMALS)]
        self.baseline = MechanismBaseline.fit(normal, np.arange(NORMALS) // 8)

    def sound(self, number: int, kind: str = "healthy", level_db: float = 0.0) -> Samples:
        faults = [config.Fault(kind=kind, level_db=level_db)] if kind != "healthy" else []
        source = msgspec.structs.replace(self.source, seed=self.source.seed * 100_000 + number, faults=faults)
        skipped = round(0.3 * RATE_HZ)  # a fault fades in
        return SimulatedMachine(source).take(skipped + round(SECONDS * RATE_HZ))[skipped:]

    def named(self, sound: Samples) -> str:
        found = diagnose(sound, RATE_HZ, self.config, self.baseline)
        return next((f.component for f in found if f.component), "")

    def named_together(self, sounds: list[Samples]) -> str:
        """As the alarm of a running agent does it, at its last look."""
        sums, verdict = Accumulation(self.analyser), None
        for sound in sounds:
            whole = self.analyser.analyse(sound)
            sums.add(whole, self.baseline.judge(self.analyser.describe(sound, whole).values))
            verdict = sums.look() if sums.due else verdict
        return verdict.component if verdict is not None else ""

    def level_of(self, kind: str) -> float:
        """The fault's level at which its line stands ABOVE_DB over the floor, in the median of three windows."""
        if kind not in SEARCHED:  # a line grows with its fault
            return ABOVE_DB - float(np.median([self._above_db(kind, 0.0, number) for number in (1, 2, 3)]))
        low, high = -40.0, 0.0
        for _ in range(STEPS):
            middle = (low + high) / 2
            found = float(np.median([self._above_db(kind, middle, number) for number in (1, 2, 3)]))
            low, high = (middle, high) if found < ABOVE_DB else (low, middle)
        return (low + high) / 2

    def _above_db(self, kind: str, level_db: float, number: int) -> float:
        lines = {**{k: v[1] for k, v in EXPECTED.items()}, **NO_COMPONENT}[kind]
        if lines in ("bpfo", "bpfi", "bsf2"):
            return self._envelope_db(self.sound(number, kind, level_db), lines)
        if lines == "vanes":
            return self._vanes_db(self.sound(number, kind, level_db))
        return self._line_db(kind, level_db, number, lines)

    def _envelope_db(self, sound: Samples, lines: str) -> float:
        """The impacts' first three harmonics in the envelope spectrum of the full band, their mean power."""
        whole = self.analyser.analyse(sound)
        found = lines_of(self.analyser, whole, self.analyser.speed_range(None))
        train = next(t for t in trains(self.config) if t.kind == lines)
        shaft_hz = whole.speed.hz if whole.speed is not None else self.source.shaft_hz
        places = np.arange(1 + train.slip[0], 1 + train.slip[1], 0.0005) * train.order * shaft_hz
        power = LineEvidence(found.full, found.df_hz, np.zeros(0)).power(places[:, None] * np.arange(1.0, 4.0))
        return float(10 * np.log10(power.mean(axis=1).max()))

    def _vanes_db(self, sound: Samples) -> float:
        """The line at the vane pass in the envelope spectra of the bands that the noise fills, their median."""
        whole = self.analyser.analyse(sound)
        env = whole.envelope
        shaft_hz = whole.speed.hz if whole.speed is not None else self.source.shaft_hz
        at = round(self.source.blades * shaft_hz / env.df_hz)
        inside = [tile[at - 1 : at + 2].max() for i, tile in enumerate(env.tiles) if 1500 <= env.tile_band(i)[0] < 7000]
        return float(10 * np.log10(np.median(inside)))

    def _line_db(self, kind: str, level_db: float, number: int, name: str) -> float:
        """The strongest line of the fault's own sound over what the machine has there: its floor, or its own line."""
        with_fault, without = self.sound(number, kind, level_db), self.sound(number)
        healthy = transform(without, RATE_HZ)
        own = transform((with_fault - without) / np.std(without), RATE_HZ)
        gain = float(np.std(with_fault - without) / np.std(without)) ** 2
        floor = line_floor(healthy)
        whole = self.analyser.analyse(without)
        shaft_hz = whole.speed.hz if whole.speed is not None else self.source.shaft_hz
        group = next(g for g in groups(self.config) if g.name == name)
        above = []
        for line in group.lines:
            at = round(line.hz(shaft_hz) / own.df_hz)
            near = slice(max(at - 2, 2), at + 3)
            there = max(float(healthy.power[near].max(initial=0.0)), float(np.exp(floor.at(np.array([at]))[0])))
            above.append(10 * np.log10(gain * own.power[near].max(initial=1e-12) / there))
        return float(max(above))
