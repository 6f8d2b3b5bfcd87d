"""asd-agent devices: sound cards by the names that survive a reboot."""

from __future__ import annotations

import argparse

from asd_agent.capture.devices import list_devices
from asd_agent.cli.options import add_json
from asd_agent.cli.words import Row, print_json, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    found = list_devices()
    if args.json:
        print_json(found)
        return 0
    if not found:
        print("no sound device with an input was found: plug one in, and check that you are in the group `audio`")
        return 1
    show(
        ("", "channels", "native rate", "in use by"),
        [
            Row(
                (device.label, str(device.channels), f"{device.rate_hz} Hz" if device.rate_hz else "",
                 device.busy_by or "free"),
                [f"device: {name}" for name in device.names],
            )
            for device in found
        ],
    )  # fmt: skip
    return 0
