"""Where the configured kinematics puts lines: in the spectrum (shaft, mains, gears, belts, blades) and in the envelope
(bearings). Every line is affine in the shaft speed: f = order * shaft_hz + fixed_hz."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from asd_agent.config.kinematics import Bearing, Gear, Mechanism

SHAFT_ORDERS = 10
HALF_ORDERS = (0.5, 1.5, 2.5, 3.5)
MAINS_MULTIPLES = (1, 2, 4, 6)
MESH_HARMONICS = 3
SIDEBANDS = (  # of a mesh: eccentricity makes the nearest pair, a broken tooth many
    ("sidebands", (1,), "eccentricity or a damaged tooth"),
    ("sidebands_far", (2, 3), "a damaged tooth"),
)
MESH_PRESENT, POLE_PASS_PRESENT = 0.5, 0.15
SLIP = (-0.01, 0.02)  # of the cage, one for all lines of a bearing (Randall & Antoni 2011; CWRU -0.7..-0.1 %)
PARTS = {"bpfo": "outer race", "bpfi": "inner race", "bsf2": "rolling element", "ftf": "rolling element or cage"}
SPIN_SLIP = (-0.012, 0.012)  # of the rolling elements


@dataclass(frozen=True, slots=True)
class Line:
    order: float
    fixed_hz: float = 0.0

    def hz(self, shaft_hz: float) -> float:
        return self.order * shaft_hz + self.fixed_hz


@dataclass(frozen=True, slots=True)
class SpeedLine:
    """A line of the vibration that tells the shaft's speed, there with a probability in a healthy machine."""

    line: Line
    presence: float


@dataclass(frozen=True, slots=True)
class LineGroup:
    """Spectral lines that speak for one fault: their mean prominence is the indicator `orders.<name>`."""

    name: str
    component: str  # what a maintenance engineer would go to
    meaning: str  # what growth of it says
    lines: tuple[Line, ...]
    spacing: Line | None = None  # sidebands closer than the resolution cannot be told from their carrier
    carrier: Line | None = None  # of sidebands; the lowest one


@dataclass(frozen=True, slots=True)
class Train:
    """A train of impacts: harmonics of `order` in the envelope spectrum, with sidebands at `spacing`."""

    name: str  # "DE.bpfo"
    bearing: str
    kind: str  # bpfo bpfi bsf2 ftf
    order: float  # of the reference shaft
    spacing: float | None  # order of the sidebands
    slip: tuple[float, float]  # relative range of the line under SLIP
    shaft: float  # order of the bearing's own shaft
    cage: float  # order of its cage

    @property
    def label(self) -> str:
        return f"{ {'bpfo': 'BPFO', 'bpfi': 'BPFI', 'bsf2': '2xBSF', 'ftf': 'FTF'}[self.kind] } of {self.bearing}"

    @property
    def part(self) -> str:
        """Lines of the cage come from a damaged cage and from a rolling element that passes the load zone with it."""
        return f"bearing {self.bearing} {PARTS[self.kind]}"


def trains(config: Mechanism) -> list[Train]:
    return [train for bearing in config.bearings for train in _bearing_trains(bearing, config.ratio(bearing.shaft))]


def _bearing_trains(bearing: Bearing, ratio: float) -> Iterator[Train]:
    """A slipping cage (FTF down by s) lowers BPFO by s and raises BPFI by s FTF / (1 - FTF)."""
    orders = bearing.fault_orders()
    low, high = SLIP
    lag = orders.ftf / (1 - orders.ftf)
    outer, inner = (-high, -low), (low * lag, high * lag)
    if bearing.rotating == "outer":
        outer, inner = inner, outer
    cage = orders.ftf * ratio
    inner_turns = bearing.rotating == "inner"
    for kind, order, slip, turns in (
        ("bpfo", orders.bpfo, outer, not inner_turns),
        ("bpfi", orders.bpfi, inner, inner_turns),
    ):
        spacing = ratio if turns else None
        yield Train(f"{bearing.name}.{kind}", bearing.name, kind, order * ratio, spacing, slip, ratio, cage)
    if orders.bsf2 is not None:
        spin = orders.bsf2 * ratio
        yield Train(f"{bearing.name}.bsf2", bearing.name, "bsf2", spin, cage, SPIN_SLIP, ratio, cage)
    yield Train(f"{bearing.name}.ftf", bearing.name, "ftf", cage, None, (-high, -low), ratio, cage)


def speed_lines(config: Mechanism) -> tuple[SpeedLine, ...]:
    """What tells the speed beside the shaft's own harmonics: gear meshes and blades, whose high orders are sharp
    witnesses, and the pole-pass sidebands of an induction motor, which move with its slip (2 s f)."""
    teeth = [gear.teeth * config.ratio(gear.shaft) for gear in config.gears]
    blades = [part.count * config.ratio(part.shaft) for part in config.blades]
    found = [SpeedLine(Line(h * base), MESH_PRESENT) for base in (*teeth, *blades) for h in (1, 2)]
    motor = [line for group in _motor(config) if group.spacing is not None for line in group.lines if line.fixed_hz]
    return (*found, *(SpeedLine(line, POLE_PASS_PRESENT) for line in motor))


def synchronous_hz(config: Mechanism) -> float | None:
    """What an induction motor's shaft stays below, by its slip; None where mains or poles are not known."""
    return None if config.mains_hz is None or config.poles is None else 2 * config.mains_hz / config.poles


def groups(config: Mechanism) -> list[LineGroup]:
    """Every group of spectral lines; those without a fixed frequency need the shaft's speed."""
    found = [*_gears(config), *_blades(config), *_belts(config), *_mains(config), *_motor(config)]
    found = _unshared(found)
    taken = {round(line.order, 6) for group in found for line in group.lines if line.fixed_hz == 0}
    return [*_shafts(config, taken), *found]


def _place(line: Line) -> tuple[float, float]:
    return round(line.order, 6), line.fixed_hz


def _unshared(found: list[LineGroup]) -> list[LineGroup]:
    """Lines that two components explain speak for neither: a sideband on a blade's harmonic, and that harmonic
    too. A component's first line stays its own."""
    owners: dict[tuple[float, float], set[str]] = {}
    for group in found:
        for line in group.lines:
            owners.setdefault(_place(line), set()).add(group.component)

    def kept(group: LineGroup, line: Line) -> bool:
        alone = len(owners[_place(line)]) == 1
        return alone or (group.spacing is None and group.name[-1] == "1")

    left = [replace(group, lines=tuple(line for line in group.lines if kept(group, line))) for group in found]
    return [group for group in left if group.lines]


_SHAFT_MEANING = {1: "imbalance or a bent shaft", 2: "misalignment or looseness", 3: "misalignment or looseness"}


def _shafts(config: Mechanism, taken: set[float]) -> Iterator[LineGroup]:
    for name, ratio in [("shaft", 1.0), *((s.name, s.ratio) for s in config.shafts)]:
        for k in range(1, SHAFT_ORDERS + 1):
            if round(k * ratio, 6) not in taken:
                meaning = _SHAFT_MEANING.get(k, "looseness or rub")
                yield LineGroup(f"{name}.{k}x", name, meaning, (Line(k * ratio),))
        halves = tuple(Line(h * ratio) for h in HALF_ORDERS)
        yield LineGroup(f"{name}.half", name, "looseness or rub (half orders)", halves)


def _gears(config: Mechanism) -> Iterator[LineGroup]:
    for gear in config.gears:
        ratio = config.ratio(gear.shaft)
        mesh = gear.teeth * ratio
        for h in range(1, MESH_HARMONICS + 1):
            yield LineGroup(f"{gear.name}.mesh{h}", f"gear {gear.name}", "tooth wear or load", (Line(h * mesh),))
        for shaft, speed in _gear_shafts(gear, ratio):
            for what, steps, meaning in SIDEBANDS:
                lines = tuple(Line(h * mesh + side * k * speed) for h in (1, 2) for k in steps for side in (-1, 1))
                name = f"{gear.name}.{what}_{shaft}"
                yield LineGroup(name, f"gear {gear.name}", f"{meaning} on {shaft}", lines, Line(speed), Line(mesh))


def _gear_shafts(gear: Gear, ratio: float) -> Iterator[tuple[str, float]]:
    yield gear.shaft, ratio
    if gear.wheel_teeth is not None and gear.wheel_teeth != gear.teeth:
        yield "wheel", ratio * gear.teeth / gear.wheel_teeth


def _blades(config: Mechanism) -> Iterator[LineGroup]:
    for part in config.blades:
        base = part.count * config.ratio(part.shaft)
        for h in (1, 2, 3):
            yield LineGroup(f"{part.name}.blade{h}", part.name, "blade damage, fouling or flow", (Line(h * base),))


def _belts(config: Mechanism) -> Iterator[LineGroup]:
    for belt in config.belts:
        base = 3.141592653589793 * belt.pulley_d / belt.length * config.ratio(belt.shaft)
        for h in (1, 2, 3):
            yield LineGroup(
                f"{belt.name}.belt{h}", f"belt {belt.name}", "belt damage or wrong tension", (Line(h * base),)
            )


def _mains(config: Mechanism) -> Iterator[LineGroup]:
    if config.mains_hz is None:
        return
    for k in MAINS_MULTIPLES:
        meaning = "electrical or magnetic" if k > 1 else "electrical pick-up"
        yield LineGroup(f"mains.{k}x", "electrical supply", meaning, (Line(0.0, k * config.mains_hz),))


def _motor(config: Mechanism) -> Iterator[LineGroup]:
    """Pole pass FP = poles * (synchronous speed - shaft speed) = 2 * mains - poles * shaft."""
    if config.mains_hz is None or config.poles is None:
        return
    mains, poles = config.mains_hz, config.poles
    pole_pass = Line(-float(poles), 2 * mains)
    bars = tuple(Line(1.0 - s * k * poles, s * k * 2 * mains) for k in (1, 2) for s in (-1, 1))
    yield LineGroup(
        "motor.bars", "motor rotor", "broken rotor bar (pole-pass sidebands of 1x)", bars, pole_pass, Line(1.0)
    )
    around = tuple(Line(-s * poles, 2 * mains + s * 2 * mains) for s in (-1, 1))
    eccentric = "dynamic eccentricity (pole pass around 2x mains)"
    yield LineGroup("motor.eccentric", "motor", eccentric, around, pole_pass, Line(0.0, 2 * mains))
    if config.rotor_bars is not None:
        slots = tuple(Line(float(config.rotor_bars), d * mains) for d in (-2.0, 0.0, 2.0))
        yield LineGroup("motor.slots", "motor rotor", "rotor bars (slot passing)", slots)
