"""`asd-train fit`: train a system from a configuration file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EPILOG = """\
CONFIG is one of configs/train/*.yaml or your own. The result is RUN/system, which asd-train embed, asd-train
evaluate and asd-export bundle take; RUN/log.jsonl has the losses.

  asd-train fit configs/train/a_eat_lora.yaml --data dcase2025t2 --dry-run     what would happen
  asd-train fit configs/train/a_eat_lora.yaml --data dcase2025t2 -o runs/a_eat_lora
  asd-train fit configs/train/a_eat_lora.yaml -o runs/a_eat_lora --resume      after a stop or a crash
  asd-train fit my.yaml --set train.lr=1e-4 --set model.branches.0.lora.rank=16 -o runs/try
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
    parser.add_argument("--tiny", action="store_true", help="small random encoders, a few steps")
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
    from asd_train.progress import reading

    system = read(args.config, config.System, changes(args))
    if args.tiny:
        system = config.tiny(system)
    if args.dry_run:
        from asd_train.plan import print_plan

        print_plan(system)
        return 0
    folder = folder_of(args, system.name)
    with resumable(args, folder):
        print(fit(system, folder, resume=args.resume, tensorboard=args.tensorboard, progress=reading()))
    return 0
