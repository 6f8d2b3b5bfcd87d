"""python -m faults.run [--minutes 30] [--seed N] [-o benchmarks/results/faults.json]: all faults, side by side.

Each lane has a world of its own and goes through its kinds of fault in an order drawn from the seed, again and again
until the time is over. Exit code 1 when an event was lost, an id had two contents, a retained state stayed wrong, or
something did not recover.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from faults.damage import DamageLane
from faults.disk import DiskLane, NoSmallDisk
from faults.machine import DaemonLane
from faults.outcomes import Outcome, Outcomes, as_text
from faults.power import PowerLane
from faults.publishing import NetworkLane, ProcessLane
from faults.world import Resources

QUICK = ("damage", "power")  # lanes whose faults take next to no time: they must not outnumber the others
PAUSE_S = 3.0
WARM_UP_S = 30.0  # before memory, threads and files are looked at


class Lane(Protocol):
    """A world of its own, disturbed by one fault after the other."""

    @property
    def kinds(self) -> Sequence[str]: ...
    def inject(self, kind: str) -> Outcome: ...
    def resources(self) -> Resources | None: ...
    def close(self) -> list[str]: ...


Make = Callable[[Path, str, random.Random], Lane]
LANES: dict[str, Make] = {
    **{f"network-{i}": NetworkLane for i in range(4)},
    "process-0": ProcessLane,
    "power-0": PowerLane,
    "damage-0": DamageLane,
    "disk-0": DiskLane,
    "daemon-0": DaemonLane,
}


class Run:
    """One run; `result` is what is recorded."""

    def __init__(self, folder: Path, seed: int, lanes: dict[str, Make] | None = None) -> None:
        self.outcomes = Outcomes()
        self._folder, self._seed = folder, seed
        self._lanes = lanes or LANES
        self.flat: dict[str, dict[str, Any]] = {}  # lane -> what its process used at the beginning and at the end
        self.broken: list[str] = []  # lanes that ended with an error of the suite, or a traceback of the agent
        self.left_out: list[str] = []

    def go(self, seconds: float, most: int | None = None) -> None:
        """Until the time is over, or each lane has had `most` faults."""
        threads = [threading.Thread(target=self._lane, args=(name, seconds, most)) for name in self._lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def result(self, seconds: float) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "seconds": round(seconds),
            "host": {"processors": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()},
            "total": self.outcomes.total(),
            "areas": self.outcomes.areas(),
            "kinds": self.outcomes.table(),
            "resources": self.flat,
            "left_out": self.left_out,
            "broken": [f"{entry.split(':')[0]}: {entry.strip().splitlines()[-1]}" for entry in self.broken],
        }

    def _lane(self, name: str, seconds: float, most: int | None) -> None:
        rng = random.Random(f"{self._seed} {name}")
        deadline = time.monotonic() + seconds
        try:
            lane = self._lanes[name](self._folder / name, name, rng)
        except NoSmallDisk as exc:
            self.left_out.append(f"{name}: {exc}")
            return
        except Exception:  # noqa: BLE001 - told in the result
            self.broken.append(f"{name}: {traceback.format_exc()}")
            return
        try:
            self._disturb(name, lane, rng, deadline, most)
        except Exception:  # noqa: BLE001 - told in the result
            self.broken.append(f"{name}: {traceback.format_exc()}")
        finally:
            self.broken += [f"{name}: {line}" for line in lane.close()]

    def _disturb(self, name: str, lane: Lane, rng: random.Random, deadline: float, most: int | None) -> None:
        warm_s = time.monotonic() + WARM_UP_S
        first: Resources | None = None
        for count, kind in enumerate(_shuffled(lane.kinds, rng)):
            if time.monotonic() >= deadline or (most is not None and count >= most):
                break
            self.outcomes.add(lane.inject(kind))
            if most is None and name.startswith(QUICK):
                time.sleep(PAUSE_S)
            if first is None and time.monotonic() >= warm_s:
                first = lane.resources()
        if first is not None and (last := lane.resources()) is not None:
            self.flat[name] = {"first": first._asdict(), "last": last._asdict()}


def _shuffled(kinds: Sequence[str], rng: random.Random) -> Iterator[str]:
    """All kinds in a new order, again and again."""
    while True:
        yield from rng.sample(kinds, len(kinds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("FAULTS_MINUTES", "30")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("ASD_TEST_SEED", "20261121")))
    parser.add_argument("--lanes", nargs="*", choices=LANES, default=list(LANES))
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        run = Run(Path(folder), args.seed, {name: LANES[name] for name in args.lanes})
        run.go(60 * args.minutes)
    result = run.result(time.monotonic() - began_s)
    if args.output is not None:
        args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(as_text(result["kinds"], *result["areas"], result["total"]))
    for line in (*run.broken, *run.left_out, *map(str, run.outcomes.bad)):
        print(line, file=sys.stderr)
    return 1 if run.broken or run.outcomes.bad else 0


if __name__ == "__main__":
    sys.exit(main())
