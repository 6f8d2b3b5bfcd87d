"""asd-agent web: the local page, and the passwords of those who may see it."""

from __future__ import annotations

import argparse
import getpass
import sys

from asd_agent import config
from asd_agent.cli.options import add_config
from asd_agent.errors import UsageError

EXTRA = "the local page needs the extra `web`: pip install 'asd-agent[web]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--set-password", metavar="NAME", help="let a person log in; asks for the password")
    parser.add_argument("--role", choices=("viewer", "operator"), default="operator", help="of that person")
    parser.add_argument("--remove-user", metavar="NAME", help="do not let a person log in any longer")


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    try:
        from asd_agent.web.security.users import Role, Users, users_path
        from asd_agent.web.server import serve
    except ModuleNotFoundError as exc:
        raise UsageError(f"{EXTRA} ({exc.name} is missing)") from exc
    users = Users(users_path(settings))
    if args.set_password:
        users.set(args.set_password, _password(args.set_password), Role(args.role))
        print(f"{args.set_password} may log in as {args.role}")
        return 0
    if args.remove_user:
        users.remove(args.remove_user)
        print(f"{args.remove_user} may no longer log in")
        return 0
    return serve(settings, str(args.config))


def _password(name: str) -> str:
    """Asked for twice on a terminal, else one line of the standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass(f"password of {name}: ")
    if getpass.getpass("again: ") != password:
        raise UsageError("the two are not the same")
    return password
