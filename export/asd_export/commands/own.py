"""`asd-export own`: the student of asd-train distil becomes a bundle."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """\
  asd-export own runs/own_default/student -o bundles/own               the student alone, beside other bundles
  asd-export own runs/own_default/student --joined -o bundles/joined   spectral and the student in one graph
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "own",
        help="turn a student of asd-train distil into a bundle",
        description="Write the bundle of a student, alone or joined with spectral.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("student", metavar="STUDENT", help="the folder that asd-train distil wrote")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the bundle folder to write")
    parser.add_argument("--joined", action="store_true", help="with spectral, in one graph with one front end")
    parser.add_argument(
        "--include", metavar="FILE", action="append", default=[], help="copy a file beside it, a model card; repeatable"
    )
    parser.add_argument("--replace", action="store_true", help="replace an existing bundle folder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from asd_export.own import export_own

    options = {"joined": args.joined, "include": [Path(file) for file in args.include], "replace": args.replace}
    meta = export_own(Path(args.student), Path(args.output), **options)
    print(f"{args.output}: " + ", ".join(f"{o.name} {o.dim}" for o in meta.outputs))
    return 0
