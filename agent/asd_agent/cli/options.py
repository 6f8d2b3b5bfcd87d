"""Options that several commands share, and the values they take."""

from __future__ import annotations

import argparse
import math


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--config", metavar="agent.yaml",
        help="configuration file (default: $ASD_AGENT_CONFIG, ./agent.yaml, /etc/asd-agent/agent.yaml)",
    )  # fmt: skip


def add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("machine", metavar="MACHINE", help="id of a machine in the configuration")


def add_json(parser: argparse.ArgumentParser, words: str = "print JSON") -> None:
    parser.add_argument("--json", action="store_true", help=words)


def add_verbose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="print the numbers behind it too")


def duration(text: str) -> float:
    """ "90", "90s", "10m", "1.5h", "2d" -> seconds."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    number, factor = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 3.2e7:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 10m, 1.5h or 2d")
    return seconds


def numbers(text: str) -> list[int]:
    """ "1,3" -> [1, 3]."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,3")
    return found


def positive(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number
