"""`asd-export`: one module per subcommand, each with `add_parser(subparsers)` and `run(args) -> int`."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from asd_agent import __version__
from asd_agent.errors import AsdError

COMMANDS = ("bundle", "own", "verify")  # modules asd_export.commands.<name>


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except AsdError as error:
        print(f"asd-export: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asd-export", description="Turn a trained audio encoder into a bundle that asd-agent runs."
    )
    parser.add_argument("--version", action="version", version=f"asd-export {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"asd_export.commands.{name}").add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
