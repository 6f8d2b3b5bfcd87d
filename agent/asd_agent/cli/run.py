"""asd-agent run: the daemon."""

from __future__ import annotations

import argparse

from asd_agent import config, log
from asd_agent.cli.options import add_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    log.configure(settings.agent.log_level)
    from asd_agent.service.daemon import Daemon

    return Daemon(settings, str(args.config)).run()
