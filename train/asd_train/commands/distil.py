"""`asd-train distil`: train the small encoder of our own."""

from __future__ import annotations

import argparse
from typing import Any

from asd_train.commands.fit import add_config_arguments, changes, folder_of, resumable

EPILOG = """\
The sounds of CONFIG are mixed, and what was mixed is learnt: everyday sound by families, faults, the machine, and a
teacher's view of the parts. The result is RUN/student, of which asd-export own makes a bundle.

  asd-train distil configs/train/own_default.yaml -o runs/own
  asd-train distil configs/train/own_default.yaml -o runs/own --resume
  asd-train distil configs/train/own_default.yaml --tiny -o /tmp/try      seconds, on the same sounds
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "distil",
        help="train a small encoder on mixtures of machines, faults and everyday sound",
        description="Train a student on mixtures that are known because they are made; resumes exactly.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser, data=False)
    parser.set_defaults(run=run, command="distil", data=None)


def run(args: argparse.Namespace) -> int:
    from asd_agent.config.load import read
    from asd_train.distil.recipe import Distil, tiny
    from asd_train.kinds import check_kind

    check_kind(args.config, "distil")
    recipe = read(args.config, Distil, changes(args))
    if args.tiny:
        recipe = tiny(recipe)
    if args.dry_run:
        from asd_train.plan import print_distil_plan

        print_distil_plan(recipe)
        return 0
    from asd_train.distil.run import distil
    from asd_train.progress import reading

    folder = folder_of(args, recipe.name)
    with resumable(args, folder):
        options = {"resume": args.resume, "tensorboard": args.tensorboard, "progress": reading()}
        print(distil(recipe, folder, **options))
    return 0
