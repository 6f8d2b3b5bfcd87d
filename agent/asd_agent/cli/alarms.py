"""asd-agent alarms: list from the database (also without the daemon), the rest from the running daemon."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from asd_agent import config
from asd_agent.cli.options import add_config, add_json, add_machine, duration
from asd_agent.cli.words import Row, local, print_json, show
from asd_agent.errors import UsageError
from asd_agent.service.control import ask
from asd_agent.store import Store
from asd_agent.types import AlarmEvent, rfc3339

ID = 8  # characters are enough for `asd-agent replay`


ACTIONS = {
    "list": "list alarm events, newest last",
    "ack": "acknowledge the alarm of a machine",
    "shelve": "suppress notifications until a time (windows are still scored and recorded)",
    "unshelve": "end the shelving now",
    "out-of-service": "suppress notifications until the machine is back in service (--off)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, words in ACTIONS.items():
        act = actions.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        add_config(act)
        if name == "list":
            act.add_argument("machine", metavar="MACHINE", nargs="?", help="id of a machine (default: all)")
            act.add_argument("-n", "--limit", type=int, default=50, help="how many (default 50)")
            add_json(act, "print one JSON object a line")
            continue
        add_machine(act)
        add_json(act)
        act.add_argument("--by", default=os.environ.get("USER", ""), help="who (default: $USER)")
        act.add_argument("--reason", default="", help="a comment that is stored with it")
        if name == "shelve":
            act.add_argument("--for", dest="duration", type=duration, default=3600.0, metavar="1h", help="default 1h")
        if name == "out-of-service":
            act.add_argument("--off", action="store_true", help="back in service")


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    if args.machine is not None and settings.machine(args.machine) is None:
        known = ", ".join(m.id for m in settings.machines)
        raise UsageError(f"{args.config}: there is no machine {args.machine!r} (there are: {known})")
    if args.action == "list":
        return _list(settings, args)
    request: dict[str, Any] = {"machine": args.machine, "by": args.by, "reason": args.reason}
    if args.action == "shelve":
        request["until"] = rfc3339(time.time() + args.duration)
    if args.action == "out-of-service":
        request["on"] = not args.off
    answer = ask(settings, args.action.replace("-", "_"), **request)
    if args.json:
        print_json({"machine": args.machine, "action": args.action, "answer": answer})
    else:
        print(answer)
    return 0


def _list(settings: config.Config, args: argparse.Namespace) -> int:
    with Store.reader(settings.state_dir) as store:
        events = store.events(machine=args.machine, limit=args.limit)
        if store.left_out:
            print(f"{store.left_out} damaged events are left out: see `asd-agent doctor`", file=sys.stderr)
    if args.json:
        from asd_agent.publish.messages import Messages
        from asd_agent.publish.payloads import encode

        messages = Messages.of_agent(settings)
        for event in events:  # as over MQTT: one vocabulary
            print(encode(messages.event(event)).decode())
        return 0
    if not events:
        print("no alarm events yet")
        return 0
    show(
        ("time", "machine", "event", "level", "score", "replay"), [_row(event, settings.state_dir) for event in events]
    )
    return 0


def _row(event: AlarmEvent, state_dir: Path) -> Row:
    score = "" if event.score is None else f"{event.score:.1f}"
    clip = event.id[:ID] if event.evidence and (state_dir / event.evidence).exists() else ""
    by = f"by {event.by}" if event.by else ""
    return Row(
        (local(event.utc_s), event.machine, event.kind.value, event.level.value, score, clip),
        [words for words in (event.reason, event.comment, by) if words],
    )
