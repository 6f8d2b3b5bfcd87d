"""`asd-train pretrain`: self-supervised pre-training."""

from __future__ import annotations

import argparse
from typing import Any

from asd_train.commands.fit import add_config_arguments, changes, folder_of, resumable, train_keys

EPILOG = """\
No labels are needed: any hours of normal sound do. The result is RUN/encoder, a checkpoint that configurations for
asd-train fit, asd-train embed and asd-export bundle take.

  asd-train pretrain configs/train/own_pretrain.yaml --data /srv/recordings -o runs/ours
  asd-train pretrain configs/train/own_bandsplit_pretrain.yaml --data /srv/recordings --set rate_hz=48000 -o runs/wide
  asd-train pretrain configs/train/b_eat_large_pretrain.yaml --dry-run
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "pretrain",
        help="pre-train an EAT or band-split encoder without labels",
        description="Self-supervised pre-training, from random weights or from a checkpoint; resumes exactly.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    parser.set_defaults(run=run, command="pretrain")


def run(args: argparse.Namespace) -> int:
    from asd_agent.config.load import read
    from asd_train import pretrain
    from asd_train.kinds import check_kind
    from asd_train.launch import use_all_processes
    from asd_train.progress import reading

    check_kind(args.config, "pretrain")
    use_all_processes()
    config = read(args.config, pretrain.Pretrain, changes(args))
    if args.tiny:
        config = pretrain.tiny(config, kept=train_keys(changes(args)))
    if args.dry_run:
        from asd_train.plan import print_pretrain_plan

        print_pretrain_plan(config)
        return 0
    folder = folder_of(args, config.name)
    with resumable(args, folder):
        options = {"resume": args.resume, "tensorboard": args.tensorboard, "progress": reading()}
        print(pretrain.pretrain(config, folder, **options))
    return 0
