"""asd-agent run: the daemon."""

from __future__ import annotations

import argparse
import os

from asd_agent import config, log
from asd_agent.cli.options import add_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    os.umask(0o027)  # state, evidence and socket are for the agent's user and group only
    settings = config.load(args.config)
    log.configure(settings.agent.log_level)
    from asd_agent.service.daemon import Daemon

    return Daemon(settings, str(args.config)).run()
