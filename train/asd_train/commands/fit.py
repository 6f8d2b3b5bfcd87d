"""`asd-train fit`: train a system from a configuration file."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asd_agent.errors import UsageError

EPILOG = """\
CONFIG is one of configs/train/*.yaml or your own. The result is RUN/system, which asd-train embed, asd-train
evaluate and asd-export bundle take; RUN/log.jsonl has the losses.

  asd-train fit configs/train/a_eat_lora.yaml --data dcase2025t2 --dry-run     what would happen
  asd-train fit configs/train/a_eat_lora.yaml --data dcase2025t2 -o runs/a_eat_lora
  asd-train fit configs/train/a_eat_lora.yaml -o runs/a_eat_lora --resume      after a stop or a crash
  asd-train fit my.yaml --set train.lr=1e-4 --set model.branches.0.lora.rank=16 -o runs/try
  asd-train fit my.yaml --sweep train.lr=1e-5,5e-5,1e-4 -o runs/rates          runs/rates/train.lr=1e-5, ...
  accelerate launch --num_processes 4 -m asd_train fit my.yaml -o runs/big     four GPUs (or torchrun)

Ctrl-C saves the state at the end of the step. --tiny replaces the encoders by small random ones and trains a
few steps: it shows within seconds whether a configuration and its data fit together.
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "fit",
        help="train a system from a configuration file",
        description="Train a system on normal sound; resumes exactly where it stopped.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    parser.add_argument(
        "--sweep", metavar="KEY=V,V,...", action="append", default=[],
        help="one run for each value, and for each combination where repeated, in RUN/KEY=V",
    )  # fmt: skip
    parser.set_defaults(run=run, command="fit")


def add_config_arguments(parser: argparse.ArgumentParser, data: bool = True) -> None:
    """What fit, pretrain and distil share; `data`: one list of recordings, which may be given here."""
    parser.add_argument("config", metavar="CONFIG", help="configuration file (YAML)")
    parser.add_argument("-o", "--output", metavar="RUN", help="folder of the run (default: runs/<name>)")
    if data:
        parser.add_argument(
            "--data",
            metavar="FOLDER",
            action="append",
            help="recordings, instead of the configuration's; repeatable",
        )
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="change the configuration; repeatable"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in RUN, if there is one")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--tiny", action="store_true", help="small random encoders, a few steps; --set train.* holds")
    parser.add_argument("--tensorboard", action="store_true", help="write RUN/tensorboard too")


def changes(args: argparse.Namespace) -> list[str]:
    """The command line's changes as `config.load.read` takes them."""
    data = [{"path": path} for path in args.data or ()]
    return [*([f"data={json.dumps(data)}"] if data else []), *args.set]


def folder_of(args: argparse.Namespace, name: str) -> Path:
    return Path(args.output or Path("runs") / name)


@contextmanager
def resumable(args: argparse.Namespace, folder: Path) -> Iterator[None]:
    """A stopped run says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        command = " ".join(["asd-train", args.command, args.config, "-o", str(folder), "--resume"])
        print(f"asd-train: stopped; go on with: {command} (and the same --data, --set)", file=sys.stderr)
        raise


def run(args: argparse.Namespace) -> int:
    from asd_agent.config.load import read
    from asd_train import config
    from asd_train.fit import fit
    from asd_train.kinds import check_kind
    from asd_train.launch import use_all_processes
    from asd_train.progress import reading

    check_kind(args.config, "fit")
    use_all_processes()
    for point in points(args.sweep):
        given = [*changes(args), *point]
        system = read(args.config, config.System, given)
        if args.tiny:
            system = config.tiny(system, kept=train_keys(given))
        if args.dry_run:
            from asd_train.plan import print_plan

            print_plan(system)
            continue
        folder = folder_of(args, system.name)
        folder = folder / ",".join(point).replace("/", "_") if point else folder
        with resumable(args, folder):
            print(fit(system, folder, resume=args.resume, tensorboard=args.tensorboard, progress=reading()))
    return 0


def points(sweeps: Sequence[str]) -> list[list[str]]:
    """["a=1,2", "b=3"] -> [["a=1", "b=3"], ["a=2", "b=3"]]; commas inside brackets belong to a value.

    Raises UsageError.
    """
    axes = []
    for text in sweeps:
        key, equals, values = text.partition("=")
        if not equals or not key or not values:
            raise UsageError(f"--sweep {text}: not of the form KEY=VALUE,VALUE")
        axes.append([f"{key}={value}" for value in re.split(r",(?![^\[{]*[\]}])", values)])
    return [list(point) for point in itertools.product(*axes)]


def train_keys(given: Sequence[str]) -> set[str]:
    """Keys of `train:` that the command line sets: --tiny leaves them alone."""
    keys = (text.partition("=")[0] for text in given)
    return {key.removeprefix("train.") for key in keys if key.startswith("train.")}
