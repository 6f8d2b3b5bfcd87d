"""asd-agent demo."""

from __future__ import annotations

import argparse

from asd_agent.cli.options import add_json, positive
from asd_agent.demo.session import run as run_demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fast", action="store_true", help="the short version (about half the time)")
    add_json(parser, "print every payload as it is received, one JSON object a line")
    parser.add_argument("--minutes", type=positive, metavar="N", help="listen this long after the calibration")
    parser.add_argument(
        "--source", default="simulated", metavar="SOURCE", help="simulated (default), microphone[:DEVICE], or a PATH"
    )


def run(args: argparse.Namespace) -> int:
    return run_demo(args.source, fast=args.fast, minutes=args.minutes, as_json=args.json)
