"""`asd-train`: one module per subcommand, each with `add_parser(subparsers)` and `run(args) -> int`.

`add_parser` imports nothing heavy, so that --help answers at once; `run` imports torch when it needs it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from asd_agent import __version__
from asd_agent.errors import AsdError

# Modules asd_train.commands.<name>
COMMANDS = ("fit", "pretrain", "distil", "embed", "synth", "evaluate", "ensemble", "reproduce", "data")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except AsdError as error:
        print(f"asd-train: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asd-train",
        description="Fine-tune, pre-train and evaluate audio encoders for anomalous sound detection.",
    )
    parser.add_argument("--version", action="version", version=f"asd-train {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"asd_train.commands.{name}").add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
