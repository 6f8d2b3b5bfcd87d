"""asd-agent baseline extend|rename: the operating states that a baseline knows."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import time
from typing import Any

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.calibration import workflow as learning
from asd_agent.cli.words import print_json, progress, say
from asd_agent.errors import AsdError, UsageError
from asd_agent.service.control import DaemonAbsent, ask
from asd_agent.types import rfc3339


def run(settings: config.Config, target: config.Machine, args: argparse.Namespace) -> int:
    return extend(settings, target, args) if args.action == "extend" else rename(settings, target, args)


def extend(settings: config.Config, target: config.Machine, args: argparse.Namespace) -> int:
    if args.since and args.last:
        raise UsageError("give one of --since and --last, or neither: then since the unknown state began")
    request: dict[str, Any] = {"machine": target.id, "name": args.name, "promote": not args.candidate}
    if args.despite_alarm:
        request["despite_alarm"] = True
    if args.since:
        request["since"] = rfc3339(moment(args.since))
    if args.last:
        request["last_s"] = args.last
    try:
        with progress("extending"):
            answer = ask(settings, "extend", 600.0, **request)
    except DaemonAbsent as exc:
        raise AsdError(
            f"{exc}; only the daemon has the windows of the unknown state. With recordings of it: asd-agent calibrate "
            "--extend --from PATH"
        ) from exc
    if args.json:
        print_json({"machine": target.id, "answer": answer})
        return 0
    say(answer)
    if args.candidate:
        say("Make it active with:")
        print(f"  asd-agent baseline promote{args.option} {target.id}")
    return 0


def rename(settings: config.Config, target: config.Machine, args: argparse.Namespace) -> int:
    try:
        answer = ask(settings, "rename_state", machine=target.id, old=args.old, new=args.new)
    except DaemonAbsent:
        store = BaselineStore(settings.state_dir, target.id)
        was_active = store.pointers().active is not None
        baseline = learning.rename(target, store, args.old, args.new)
        if was_active:
            store.promote(baseline.manifest.version)
        answer = f"{target.id}: the state {args.old!r} is called {args.new!r} now, in baseline "
        answer += baseline.manifest.version + ("" if was_active else " (a candidate)")
    if args.json:
        print_json({"machine": target.id, "answer": answer})
    else:
        say(answer)
    return 0


def moment(text: str, now_s: float | None = None) -> float:
    """ "10:42" (the last time that it was so late), "2026-03-02 10:42", RFC 3339 -> seconds since 1970.

    Local time, unless it says Z, UTC or an offset. Raises UsageError.
    """
    now_s = time.time() if now_s is None else now_s
    text = text.strip().removesuffix(" UTC") + "Z" * text.strip().endswith(" UTC")
    zone = dt.UTC if text.endswith("Z") else None
    now = dt.datetime.fromtimestamp(now_s, zone).astimezone(zone)
    with contextlib.suppress(ValueError):
        at = dt.datetime.combine(now.date(), dt.time.fromisoformat(text.removesuffix("Z")), now.tzinfo)
        at_s = at.timestamp()
        return at_s if at_s <= now_s else at_s - 86_400
    with contextlib.suppress(ValueError):
        return dt.datetime.fromisoformat(text).timestamp()  # without a zone: local time
    raise UsageError(f"--since: {text!r} is not a time such as 10:42, 2026-03-02 10:42 or 2026-03-02T10:42:00Z")
