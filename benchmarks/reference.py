"""What a reference microphone is worth: everyday sound and faults in simulated rooms, with and without it.

    python benchmarks/reference.py [--data ../shared/data] [--quick] [-o benchmarks/results] [--name reference]

A machine stands in a hall (image sources of pyroomacoustics), one microphone half a metre from it, another one some
metres away, each with a noise of its own. The compressor idling, days 20260302 and 20260327 for calibration, 20260328
for the stream, and the simulated machine of `scenes`, each in every room. Everyday sound comes from elsewhere in the
room, faults from where the machine is. Levels are in the band of the added sound, at the microphone of the machine.
Calibration and judgement are those of the daemon. An episode begins after ten minutes of clean sound.

Rooms 1 and 2 were used to choose constants, 3 to 5 are held out; so are the beds outside BEDS_DEVELOPMENT.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from heard import moved
from scenes import BEDS_DEVELOPMENT, FAULTS, PIECE_S, Day, Loop
from scipy.signal import fftconvolve
from sounds import compressor_day, rng_of

from asd_agent import config
from asd_agent.calibration import build as calibrate
from asd_agent.capture.simulate import SimulatedMachine, fault_signal
from asd_agent.scoring.decision import Decision
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.types import AlarmState, Block, Description, EventKind, Samples
from asd_agent.windowing.windower import Windower

RATE = 16_000
CLEAN_S = 600.0  # before an episode, and the clean stream
BEDS_S, FAULT_S = (240.0, 600.0), 90.0
BED_DB = 5.0
LEVELS_DB = (-5.0, -10.0, -15.0)
NOISE_DB = -25.0  # of a microphone's own surroundings, below the machine
MACHINE = config.Machine(
    id="m", source=config.StdinSource(rate_hz=RATE, channels=2), reference=config.Reference(channel=1)
)
HOP_S = MACHINE.hop_s


@dataclass(frozen=True)
class Hall:
    name: str
    size_m: tuple[float, float, float]
    rt60_s: float
    machine: tuple[float, float, float]
    far: tuple[float, float, float]
    elsewhere: tuple[float, float, float]
    development: bool = False

    @property
    def near(self) -> tuple[float, float, float]:
        x, y, z = self.machine
        return x + 0.3, y + 0.35, z + 0.2

    def paths(self, place: tuple[float, float, float]) -> list[Samples]:
        """Impulse responses from there to both microphones."""
        import pyroomacoustics as room_acoustics

        absorption, order = room_acoustics.inverse_sabine(self.rt60_s, self.size_m)
        room = room_acoustics.ShoeBox(
            self.size_m, fs=RATE, materials=room_acoustics.Material(absorption), max_order=min(order, 25)
        )
        room.add_source(place)
        room.add_microphone_array(np.array([self.near, self.far]).T)
        room.compute_rir()
        return [np.asarray(path[0], np.float32) for path in room.rir]


HALLS = (
    Hall("1: workshop", (8.0, 6.0, 3.0), 0.4, (1.2, 1.2, 0.8), (5.5, 4.0, 1.5), (6.0, 4.8, 1.6), True),
    Hall("2: hall", (14.0, 9.0, 5.0), 0.7, (2.0, 3.0, 1.0), (7.0, 5.0, 2.0), (11.0, 6.0, 1.5), True),
    Hall("3: pump room", (6.0, 5.0, 3.0), 0.6, (1.5, 3.5, 0.6), (4.5, 1.2, 1.8), (5.0, 3.8, 1.4)),
    Hall("4: long hall", (18.0, 8.0, 4.0), 0.5, (3.0, 6.0, 1.2), (9.0, 3.0, 2.5), (14.0, 2.0, 1.7)),
    Hall("5: plant", (12.0, 12.0, 6.0), 0.9, (6.0, 2.0, 1.0), (6.5, 8.0, 2.2), (2.0, 10.0, 1.6)),
)


def through(hall: Hall, place: tuple[float, float, float], sound: Samples) -> Samples:
    """[n] -> as both microphones hear it, [n, 2], as if it went on for ever."""
    lead = RATE
    whole = np.concatenate([sound[-lead:], sound])
    return np.stack([fftconvolve(whole, path)[lead : lead + len(sound)] for path in hall.paths(place)], axis=1)


class Scene:
    """One machine in one hall; streams of [n, 2]."""

    def __init__(self, hall: Hall, name: str, days: Sequence[Samples], unseen: Samples) -> None:
        self.hall, self.name = hall, name
        rng = rng_of("noise", hall.name, name)
        self._level = float(np.sqrt(np.mean(np.square(through(hall, hall.machine, unseen)[:, 0]))))
        self.calibration = [self._placed(x, rng) for x in days]
        stream = Day.of(f"{name} unseen", RATE, [unseen])
        self.clean = self._placed(stream.span(0, round(CLEAN_S * RATE)), rng)
        near = self.clean[:, 0]
        self._day = Day("near", RATE, (tuple(np.split(near, len(near) // round(PIECE_S * RATE))),))

    def _placed(self, x: Samples, rng: np.random.Generator) -> Samples:
        """The machine at its place, and the noise at each microphone."""
        noise = rng.standard_normal((len(x), 2)) * self._level * 10 ** (NOISE_DB / 20)
        return np.asarray(through(self.hall, self.hall.machine, x) + noise, np.float32)

    def with_bed(self, path: Path, level_db: float, seconds: float) -> Samples:
        x, native = soundfile.read(path, dtype="float32", always_2d=True)
        clip = soxr.resample(x[: 60 * native, 0], native, RATE, "HQ").astype(np.float32)
        return self._added(self.hall.elsewhere, clip, level_db, seconds)

    def with_fault(self, kind: str, level_db: float, n: int) -> Samples:
        rng = rng_of("fault", kind, self.name, self.hall.name, n)
        x = fault_signal(FAULTS[kind], 20 * RATE, RATE, rng, shaft_hz=rng.uniform(20, 30)).astype(np.float32)
        return self._added(self.hall.machine, x, level_db, FAULT_S)

    def _added(self, place: tuple[float, float, float], sound: Samples, level_db: float, seconds: float) -> Samples:
        heard = through(self.hall, place, sound)
        loop = Loop.of(np.ascontiguousarray(heard[:, 0]), RATE)
        gain = 10 ** (level_db / 20) * np.sqrt(self._day.power(*loop.band_hz) / loop.power)
        n = round(seconds * RATE)
        background = np.take(self.clean, np.arange(n) + len(self.clean) // 3, axis=0, mode="wrap")
        return np.asarray(background + gain * np.take(heard, np.arange(n), axis=0, mode="wrap"), np.float32)


def scenes(data: Path, halls: Sequence[Hall]) -> Iterator[Scene]:
    days = [compressor_day(data, "rest", day) for day in ("20260302", "20260327", "20260328")]
    compressor = [soxr.resample(x, 48_000, RATE, "HQ").astype(np.float32) for x in days]
    simulated = []
    for seed in (11, 12, 13):
        source = config.SimulatedSource(rate_hz=RATE, seed=seed, speed_change=0.004, load_change=0.15, level_dbfs=-25.0)
        simulated.append(SimulatedMachine(source).take(200 * RATE).astype(np.float32))
    for hall in halls:
        yield Scene(hall, "compressor", compressor[:2], compressor[2])
        yield Scene(hall, "simulated", simulated[:2], simulated[2])


class Listener:
    """Calibrated on a scene, with or without the reference microphone."""

    def __init__(self, site: Site, reference: bool) -> None:
        self._reference, self.machine = reference, MACHINE
        normal = [d for sound in site.calibration for d in self._heard(sound)]
        self.baseline = calibrate.build(MACHINE, normal, site.bare, "benchmark")
        self._pipeline = Pipeline(MACHINE, site.bare.encoders, self.baseline)
        self._clean = site.clean

    def _heard(self, found: Sequence[Description]) -> list[Description]:
        """As this one hears it: without a reference microphone there is no room."""
        return [d if self._reference else replace(d, room=None) for d in found]

    def raises(self, found: Sequence[Description] = ()) -> tuple[bool, bool]:
        """Whether clean sound raises an alarm, and whether these windows after it do."""
        decision = Decision(self.machine, self.baseline.manifest, AlarmState())
        raised = [False, False]
        for after, descriptions in enumerate((self._clean, found)):
            for i, description in enumerate(self._heard(descriptions)):
                index = round(after * CLEAN_S / HOP_S) + i
                result = moved(self._pipeline.judge(description), index, HOP_S)
                raised[after] |= any(e.kind is EventKind.RAISED for e in decision.update(result, True))
        return raised[0], raised[1]


class Site:
    """A scene as the encoder describes it."""

    def __init__(self, scene: Scene) -> None:
        self.bare = open_pipeline(MACHINE, None)
        self.calibration = [self.describe(x, f"day{i}/x.flac") for i, x in enumerate(scene.calibration)]
        self.clean = self.describe(scene.clean)

    def describe(self, x: Samples, origin: str = "") -> list[Description]:
        windower = Windower(RATE, MACHINE.window_s, MACHINE.hop_s, self.bare.rates)
        block = Block(x, RATE, 0, 0.0, 0.0, origin=origin, last=True)
        return [self.bare.describe(w) for w in windower.push(block, *MACHINE.channels)]


def evaluate(data: Path, halls: Sequence[Hall], quick: bool) -> list[dict[str, Any]]:
    rows = []
    nuisance = [p for p in sorted((data / "nuisance").glob("*.*")) if p.suffix in (".ogg", ".flac")]
    for scene in scenes(data, halls):
        began = time.perf_counter()
        site = Site(scene)
        listeners = {"without": Listener(site, False), "with": Listener(site, True)}
        clean = {name: one.raises()[0] for name, one in listeners.items()}
        rooms = listeners["with"].baseline.manifest.states[0].room
        coherence = rooms.coherence if rooms is not None else None
        base = {"hall": scene.hall.name, "machine": scene.name, "development": scene.hall.development}
        rows.append({**base, "what": "clean", "coherence": coherence, **clean})
        for n, path in enumerate(nuisance[:: 4 if quick else 1]):
            for seconds in BEDS_S[: 1 if n % 4 else 2]:
                found = site.describe(scene.with_bed(path, BED_DB, seconds))
                held_out = path.stem not in BEDS_DEVELOPMENT
                raised = {name: one.raises(found)[1] for name, one in listeners.items()}
                row = {"what": "bed", "seconds": seconds, "kind": path.stem, "kind_held_out": held_out}
                rows.append({**base, **row, **raised})
        for kind in FAULTS:
            for level_db in LEVELS_DB:
                found = site.describe(scene.with_fault(kind, level_db, 0))
                raised = {name: one.raises(found)[1] for name, one in listeners.items()}
                rows.append({**base, "what": "fault", "kind": kind, "level_db": level_db, **raised})
        print(f"{scene.hall.name}, {scene.name}: {time.perf_counter() - began:.0f} s", flush=True)
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for split, development in (("development", True), ("held_out", False)):
        mine = [r for r in rows if r["development"] is development]
        beds = [r for r in mine if r["what"] == "bed" and (development or r["kind_held_out"])]
        out[split] = {
            "clean_streams_with_an_alarm": _counts([r for r in mine if r["what"] == "clean"]),
            f"beds_{BED_DB:+g}_db_that_raise": {
                f"{seconds:g} s": _counts([r for r in beds if r["seconds"] == seconds]) for seconds in BEDS_S
            },
            f"faults_{FAULT_S:g}_s_found": {
                f"{level_db:g} dB": _counts([r for r in mine if r.get("level_db") == level_db])
                for level_db in LEVELS_DB
            },
            "coherence": {
                f"{r['hall']}, {r['machine']}": r["coherence"] for r in mine if r["what"] == "clean"
            },
        }  # fmt: skip
    return out


def _counts(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {name: f"{sum(r[name] for r in rows)} of {len(rows)}" for name in ("without", "with")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument(
        "--quick", action="store_true", help="the halls of development, every fourth bed; writes nothing"
    )
    parser.add_argument("--name", default="reference", help="of the file written")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    rows = evaluate(args.data, HALLS[:2] if args.quick else HALLS, args.quick)
    found = summary(rows)
    print(json.dumps(found, indent=1))
    if not args.quick:
        args.output.mkdir(exist_ok=True)
        (args.output / f"{args.name}.json").write_text(json.dumps(found | {"episodes": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
