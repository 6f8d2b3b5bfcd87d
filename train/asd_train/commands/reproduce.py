"""`asd-train reproduce`: a report or one of its systems, from recordings to a table."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from asd_agent.errors import AsdError, UsageError

EPILOG = """\
Everything that is needed is run in its order: pre-training, systems, evaluations, ensembles, for each seed. What is
there already is kept, so the same command goes on after a stop. DIR holds releases as asd-train data fetch leaves
them (DIR/dcase2025t2, ...), or is one itself; years that are not there are left out.

  asd-train reproduce C --data data --dry-run            the commands
  asd-train reproduce C --data data --seeds 4            OUT/reproduce.md: mean and deviation over seeds
  asd-train reproduce b_lbeats --data data -o runs/lbeats
  asd-train reproduce D --data data --label Wang_MYPS --authors team.yaml     OUT/submission, ready but for the report
  asd-train reproduce B --data synthetic --tiny          small random encoders: does everything fit together?
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "reproduce",
        help="run all that a report or a system needs, to a table",
        description="Reproduce a report (A to E) or one system of configs/train.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="REPORT|SYSTEM", help="A, B, C, D, E, or the name of a configuration")
    parser.add_argument("--data", required=True, metavar="DIR", help="recordings")
    parser.add_argument("-o", "--output", metavar="OUT", help="default: reproduce/NAME")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="trainings of each system (1)")
    parser.add_argument("--configs", metavar="DIR", help="configurations (configs/train)")
    parser.add_argument("--checkpoints", default="checkpoints", metavar="DIR", help="public encoders (checkpoints)")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="rounds; 0 = no intervals (1000)")
    parser.add_argument("--device", default="auto", help="of evaluations: auto, cpu, cuda (auto)")
    parser.add_argument("--label", default="Own", help="of the submission folder, such as Wang_MYPS (Own)")
    parser.add_argument(
        "--authors", metavar="FILE", help="YAML with authors: and source_code: for the submission's meta"
    )
    parser.add_argument("--tiny", action="store_true", help="small random encoders, a few steps")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from asd_train.reproduce.plan import Options, Shelf, steps_of
    from asd_train.reproduce.submission import read_team, write_submission
    from asd_train.reproduce.table import collect, write_table

    if args.seeds < 1 or args.bootstrap < 0:
        raise UsageError("--seeds must be at least 1, --bootstrap at least 0")
    if not Path(args.data).is_dir():
        raise UsageError(f"{args.data}: no such folder")
    team = read_team(args.authors)
    shelf = Shelf.read(_configs(args.configs))
    names = shelf.wanted(args.name)
    out = Path(args.output or Path("reproduce") / args.name)
    options = Options(Path(args.data), out, Path(args.checkpoints), args.tiny, args.bootstrap, args.device)
    for seed in range(args.seeds):
        for step in steps_of(shelf, names, seed, options):
            command = shlex.join(("asd-train", *step.arguments))
            if args.dry_run:
                print(command)
            elif not step.product.exists():
                print(f"--- {command}", flush=True)
                _do(step.arguments)
    if args.dry_run:
        return 0
    found = collect(out, names, args.seeds)
    print(write_table(out, f"{args.name} on {args.data}", found))
    print(write_submission(out, args.label, list(found), shelf, team))
    return 0


def _do(arguments: tuple[str, ...]) -> None:
    """One command of asd-train in this process; raises AsdError where it fails."""
    from asd_train import cli

    code = cli.main(arguments)
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise AsdError(f"stopped: {shlex.join(('asd-train', *arguments))} failed; the same command goes on from here")


def _configs(given: str | None) -> Path:
    """--configs, ./configs/train, or that of the repository that this package lies in. Raises UsageError."""
    places = [Path(given)] if given else [Path("configs/train"), Path(__file__).resolve().parents[3] / "configs/train"]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise UsageError(f"{places[0]}: no such folder; give the configurations with --configs")
    return found
