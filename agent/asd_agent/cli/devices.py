"""asd-agent devices: sound cards by the names that survive a reboot."""

from __future__ import annotations

import argparse
import sys

import msgspec

from asd_agent.capture.devices import list_devices
from asd_agent.cli.options import add_json
from asd_agent.cli.words import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    found = list_devices()
    if args.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found), indent=1).decode() + "\n")
        return 0
    if not found:
        print("no sound device with an input was found: plug one in, and check that you are in the group `audio`")
        return 1
    from rich.table import Table

    table = Table("device: (any of)", "name", "channels", "native rate", "in use by", box=None, header_style="bold")
    for device in found:
        table.add_row(
            "\n".join(device.names),
            device.label,
            str(device.channels),
            f"{device.rate_hz} Hz" if device.rate_hz else "",
            device.busy_by or "free",
        )
    console().print(table)
    return 0
