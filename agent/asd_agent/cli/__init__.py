"""The command `asd-agent`. Each command is a module of this package with `add_arguments(parser)` and `run(args)`.

Only the module of the command at hand is imported, so that every command starts quickly.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from asd_agent import __version__
from asd_agent.errors import AsdError

COMMANDS = {  # name, which is also the module's -> what it does
    "init": "ask a few questions, write a working configuration; as root install and start the service",
    "run": "run the daemon: listen, score, raise alarms (SIGHUP reloads the configuration, SIGTERM stops)",
    "calibrate": "learn what normal sounds like and write a candidate baseline",
    "score": "score recordings against the active baseline, computed as for live sound",
    "archive": "calibrate on, score and compare recordings by the thousand, on all cores or a cluster",
    "fleet": "ask many agents at once over MQTT; roll out signed baselines and bundles in stages",
    "demo": "show everything on one machine: an embedded broker and a simulated machine that develops a fault",
    "status": "show the live state of every machine, from the running daemon",
    "devices": "list sound cards by names that survive a reboot, with their native rates",
    "web": "serve the local page: see the machines, hear them, calibrate them",
    "doctor": "check configuration, bundles, baselines, sound sources, broker, clock and disk",
    "bench": "measure time and memory per window, and how many machines this computer can serve",
    "baseline": "list, show, compare, promote, roll back or extend baselines",
    "alarms": "list, acknowledge or shelve alarms",
    "replay": "compute the score of an alarm again from its clip, and compare",
    "embed": "compute the embeddings of recordings with a bundle",
    "mechanism": "examine recordings as a vibration analyst would: findings, indicators, a picture",
    "trend": "show whether the score grows, how fast, and since when",
    "schema": "print the JSON Schema of configuration or payloads, or the AsyncAPI document",
    "whatif": "show which alarms other settings would have raised on the stored scores",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Exit codes: 0, 2 for usage and configuration errors, 1 otherwise."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parser(next((word for word in argv if word in COMMANDS), "")).parse_args(argv)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: for one window, threads cost more than they give
    try:
        from asd_agent import log

        log.configure("warning")  # to stderr: the standard output is for results
        if "config" in args:
            from asd_agent.config import locate

            args.option = f" -c {args.config}" if args.config else ""  # for commands that name the next command
            args.config = locate(args.config)
        return int(args.run(args))
    except AsdError as exc:
        print(f"asd-agent: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `asd-agent score ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:  # no room, no permission: nobody needs a traceback for that
        print(f"asd-agent: {f'{exc.filename}: ' if exc.filename else ''}{exc.strerror or exc}", file=sys.stderr)
        return 1


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The command line's parser; only the arguments of `command` are in it, or with None those of every command."""
    top = argparse.ArgumentParser(
        prog="asd-agent",
        description="Listens to a machine, learns on site what normal sounds like, and says over MQTT when that "
        "changes and why.",
        epilog="First steps: init, calibrate, status. What is wrong here: doctor.",
    )
    top.add_argument("--version", action="version", version=f"asd-agent {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, words in COMMANDS.items():
        one = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        if command in (None, name):
            module = importlib.import_module(f"asd_agent.cli.{name}")
            module.add_arguments(one)
            one.set_defaults(run=module.run)
    return top


if __name__ == "__main__":
    sys.exit(main())
