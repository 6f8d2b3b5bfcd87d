"""`asd-train synth`: a synthetic challenge to train and test on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from asd_agent.errors import UsageError

EPILOG = """\
Machines with a shaft, gears, strokes, a body and surroundings; source and target domains that differ in speed,
load, noise or microphone; anomalies are physical faults (bearing, imbalance, gear tooth, rub, squeal, leak,
knocks). What is written depends on --seed alone, not on --workers: the same clips are made again when only counts
change. The defaults are the challenge's numbers: about 15 minutes of one core and 280 MB a machine.

  asd-train synth /data/synth --machines 7 --seed 1
  asd-train synth /data/pair --channels 2                   near and far microphone, as in 2026
  asd-train synth /tmp/small --machines 2 --source 40 --target 4 --test 16 --supplemental 8 --seconds 2
  asd-train evaluate configs/train/baseline_mse.yaml --data /tmp/small -o /tmp/small-results
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "synth",
        help="write a synthetic challenge in the layout of DCASE 2025 Task 2",
        description="Write machines with domain shifts and faults to OUT/dev_data/raw/<machine>/{train,test,...}.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", help="new folder")
    parser.add_argument("--machines", type=int, default=7, metavar="N", help="default: 7")
    parser.add_argument(
        "--evaluation", type=int, default=0, metavar="N",
        help="so many of them as an evaluation set: no labels, the truth in OUT/eval_data_list.csv (default: 0)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--source", type=int, default=990, metavar="N", help="training clips of the source (990)")
    parser.add_argument("--target", type=int, default=10, metavar="N", help="training clips of the target (10)")
    parser.add_argument("--test", type=int, default=200, metavar="N", help="test clips, a multiple of 4 (200)")
    parser.add_argument("--supplemental", type=int, default=100, metavar="N", help="noise or clean clips (100)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of clips (default: 6 to 12, by machine)")
    parser.add_argument("--channels", type=int, choices=(1, 2), default=1, help="2: near and far microphone (1)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a core)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from asd_train.synth import Counts, draw_machines, write_challenge

    if not 0 <= args.evaluation <= args.machines:
        raise UsageError("--evaluation cannot exceed --machines")
    if args.seconds is not None and not 0.5 <= args.seconds <= 60:
        raise UsageError("--seconds must lie between 0.5 and 60")
    if args.seed < 0 or args.workers < 0:
        raise UsageError("--seed and --workers cannot be negative")
    counts = Counts(args.source, args.target, args.test, args.supplemental)
    machines = draw_machines(args.machines, args.seed, args.seconds, args.channels)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("clips")
        written = write_challenge(
            Path(args.out), machines, counts, args.evaluation, args.workers,
            lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip
    for machine in machines:
        hidden = ", attributes hidden" if machine.hidden else ""
        print(f"{machine.name}: {machine.seconds:g} s clips, supplemental {machine.supplemental}{hidden}")
    print(f"{args.out}: {written} clips of {len(machines)} machines")
    return 0
