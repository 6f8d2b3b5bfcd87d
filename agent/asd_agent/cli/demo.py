"""asd-agent demo."""

from __future__ import annotations

import argparse

from asd_agent.demo.session import run as run_demo


def run(args: argparse.Namespace) -> int:
    return run_demo(args.source, fast=args.fast, minutes=args.minutes)
