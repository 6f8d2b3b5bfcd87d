"""What a window costs on this computer with each shipped bundle; and the table that `asd-agent bench` compares with.

    python benchmarks/capacity.py [--name "Raspberry Pi 5"] [-o benchmarks/results]      measure this computer, collect
    python benchmarks/capacity.py --collect                                              only collect

Windows of 10 s of noise at 48 kHz, one every 5 s, by the command's own measurement of processor time; the best of three
turns, since others may be at work. Results go to capacity.json under the computer's name. Collecting joins them
with the larger encoders of backbones.json, as the package data agent/asd_agent/cli/capacity.json.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import msgspec

from asd_agent import config
from asd_agent.cli import capacity
from asd_agent.cli.bench import host, measure
from asd_agent.encode.bundle import shipped
from asd_agent.memory import lean_malloc

TURNS = 3
BACKBONES = {"eat": "EAT base", "beats": "BEATs base"}
REPOSITORY = Path(__file__).resolve().parents[1]


def this_computer() -> dict[str, object]:
    any_machine = config.Machine(id="m", source=config.SimulatedSource())
    settings = config.Config(agent=config.Agent(id="bench"), machines=[any_machine])
    found = host()
    costs = []
    for name in ("default", *(n for n in shipped() if n != "default")):
        machine = msgspec.structs.replace(any_machine, id=name, bundle=name)
        best = min((c for _ in range(TURNS) for c in measure(machine, settings) if c.chosen), key=lambda c: c.window_ms)
        costs.append({"bundle": name, "variant": best.variant, "window_ms": round(best.window_ms, 2)})
    return {
        "cores": found.cores,
        "architecture": found.architecture,
        "load_average": os.getloadavg()[0],
        "costs": costs,
    }


def collected(results: Path) -> list[capacity.Listed]:
    """All that is listed, from the files of results."""
    measured = json.loads((results / "capacity.json").read_text())
    rows = [
        capacity.Listed(computer=name, cores=one["cores"], **cost)
        for name, one in measured.items()
        for cost in one["costs"]
    ]
    backbones = json.loads((results / "backbones.json").read_text())
    rows += [
        capacity.Listed(computer=backbones["cpu"], cores=2, bundle=shown, variant=variant, window_ms=cost["window_ms"])
        for key, shown in BACKBONES.items()
        for variant, cost in backbones[key]["agent"].items()
    ]
    return sorted(rows, key=lambda row: (row.computer, row.window_ms))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default=host().cpu, help="of this computer (default: its processor)")
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=REPOSITORY / "benchmarks" / "results")
    args = parser.parse_args()
    path = args.output / "capacity.json"
    if not args.collect:
        lean_malloc()
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | {args.name: this_computer()}, indent=1) + "\n")
    rows = collected(args.output)
    capacity.PATH.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")
    print(capacity.markdown(rows))


if __name__ == "__main__":
    main()
