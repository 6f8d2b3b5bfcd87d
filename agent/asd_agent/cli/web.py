"""asd-agent web: the local page, and the passwords of those who may see it."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

import msgspec

from asd_agent import config
from asd_agent.cli.options import add_json
from asd_agent.cli.words import print_json
from asd_agent.errors import ConfigError, UsageError

EXTRA = "the local page needs the extra `web`: pip install 'asd-agent[web]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--config", dest="configuration", metavar="agent.yaml",
        help="configuration file (default as for other commands); one that does not exist yet is set up in the page",
    )  # fmt: skip
    parser.add_argument("--listen", metavar="ADDRESS:PORT", help="where to listen while there is no configuration yet")
    parser.add_argument("--set-password", metavar="NAME", help="let a person log in; asks for the password")
    parser.add_argument("--role", choices=("viewer", "operator"), default="operator", help="of that person")
    add_json(parser, "print what was done as JSON (with --set-password, --remove-user)")
    parser.add_argument("--remove-user", metavar="NAME", help="do not let a person log in any longer")


def run(args: argparse.Namespace) -> int:
    path, settings = _settings(args)
    try:
        from asd_agent.web.security.users import Role, Users, users_path
        from asd_agent.web.server import serve
    except ModuleNotFoundError as exc:
        raise UsageError(f"{EXTRA} ({exc.name} is missing)") from exc
    users = Users(users_path(settings if path.exists() else None))
    if args.set_password:
        users.set(args.set_password, _password(args.set_password), Role(args.role))
        _tell(args, f"{args.set_password} may log in as {args.role}", user=args.set_password, role=args.role)
        return 0
    if args.remove_user:
        users.remove(args.remove_user)
        _tell(args, f"{args.remove_user} may no longer log in", user=args.remove_user, role=None)
        return 0
    return serve(settings, str(path), first=not path.exists())


def _tell(args: argparse.Namespace, words: str, **data: str | None) -> None:
    if args.json:
        print_json(data)
    else:
        print(words)


def _settings(args: argparse.Namespace) -> tuple[Path, config.Config]:
    """The configuration and its path; before there is one, what the set-up page needs. Raises ConfigError."""
    try:
        path = config.locate(args.configuration)
    except ConfigError:
        path = Path("agent.yaml").absolute()
    if path.exists():
        return path, config.load(path)
    from asd_agent.setup.answers import host_id

    try:
        web = msgspec.convert({"listen": args.listen} if args.listen else {}, config.Web)
    except msgspec.ValidationError as exc:
        raise UsageError(f"--listen {args.listen}: not of the form ADDRESS:PORT") from exc
    machine = config.Machine(id="machine-1", source=config.SimulatedSource())
    return path, config.Config(agent=config.Agent(id=host_id()), machines=[machine], web=web)


def _password(name: str) -> str:
    """Asked for twice on a terminal, else one line of the standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass(f"password of {name}: ")
    if getpass.getpass("again: ") != password:
        raise UsageError("the two are not the same")
    return password
