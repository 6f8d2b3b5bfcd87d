"""asd-agent whatif: the stored scores under other alarm settings; the alarms then and now."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import msgspec

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.cli.baseline import machine
from asd_agent.cli.options import add_config, add_json, add_machine, duration
from asd_agent.cli.words import Row, lasted, local, print_json, progress, say, show, zone
from asd_agent.errors import UsageError
from asd_agent.store import Store
from asd_agent.types import rfc3339
from asd_agent.whatif import Answer, Episode, span_of, what_if

OPTIONS = {  # of the command line -> key of the configuration, its name in words
    "votes": ("window_votes", "votes"),
    "clear_votes": ("clear_votes", "votes to clear"),
    "budget": ("false_alarms_per_month", "budget"),
    "deadband": ("deadband", "deadband"),
    "danger_factor": ("danger_factor", "danger factor"),
    "transient_repeats": ("transient_repeats", "repeats of transients"),
}
MONTH_DAYS = 365.25 / 12
LONG_ENOUGH_DAYS = 3.0  # below it a rate per month means nothing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_machine(parser)
    parser.add_argument("--votes", metavar="4/6", help="k of n windows that raise it (alarm.window_votes)")
    parser.add_argument("--clear-votes", metavar="4/5", help="k of n windows that end it (alarm.clear_votes)")
    parser.add_argument("--budget", type=float, metavar="0.5", help="alarm.false_alarms_per_month")
    parser.add_argument("--deadband", type=float, metavar="0.15", help="alarm.deadband")
    parser.add_argument("--danger-factor", type=float, metavar="1000", help="alarm.danger_factor")
    parser.add_argument("--transient-repeats", type=int, metavar="4", help="alarm.transient_repeats")
    parser.add_argument("--since", type=duration, default=30 * 86400.0, metavar="30d", help="default 30d")
    parser.add_argument("-n", "--limit", type=int, default=50, help="alarms to list (default 50)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    before = machine(settings, args.config, args.machine)
    target = msgspec.structs.replace(before, alarm=_alarm(before.alarm, args))
    with Store.reader(settings.state_dir) as store:
        baselines = BaselineStore(settings.state_dir, target.id)
        with progress("replaying") as update:
            answer = what_if(store, baselines, target, time.time() - args.since, update=update)
    if args.json:
        print_json(_data(target, answer), indent=0)
        return 0
    say(*_summary(before, target, answer))
    if answer.then or answer.now:
        pairs = _pairs(answer)
        print()
        show(
            ("then", "lasted", "level", "now", "lasted", "level"),
            [
                Row((*_cells(then), *(("the same", "", "") if _same(then, now) else _cells(now))))
                for then, now in pairs[-max(args.limit, 1) :]
            ],
        )
        if len(pairs) > args.limit:
            say(f"the last {args.limit} of {len(pairs)}; more with -n")
    return 0


def _alarm(alarm: config.Alarm, args: argparse.Namespace) -> config.Alarm:
    """The settings in question, checked as those of a configuration are. Raises UsageError that names the option."""
    given = {key: getattr(args, option) for option, (key, _) in OPTIONS.items() if getattr(args, option) is not None}
    for option, (key, _) in OPTIONS.items():
        if key in given:
            try:
                msgspec.convert({key: given[key]}, config.Alarm, strict=True)
            except msgspec.ValidationError as exc:
                words = str(exc).partition(" - at ")[0]
                raise UsageError(f"--{option.replace('_', '-')} {given[key]}: {words}") from exc
    return msgspec.structs.replace(alarm, **given)


def _cells(episode: Episode | None) -> tuple[str, str, str]:
    if episode is None:
        return "-", "", ""
    end = episode.cleared_utc_s
    length = "present" if end is None else lasted(end - episode.raised_utc_s)
    return local(episode.raised_utc_s), length, episode.level + ("" if episode.announced else " *")


def _pairs(answer: Answer) -> list[tuple[Episode | None, Episode | None]]:
    """Alarms that overlap stand in one row, each of them once; in order of time."""
    rest = list(answer.now)
    pairs: list[tuple[Episode | None, Episode | None]] = []
    for then in answer.then:
        now = next((e for e in rest if e.overlaps(then)), None)
        if now is not None:
            rest.remove(now)
        pairs.append((then, now))
    pairs += [(None, now) for now in rest]
    return sorted(pairs, key=lambda pair: min(e.raised_utc_s for e in pair if e is not None))


def _same(then: Episode | None, now: Episode | None) -> bool:
    if then is None or now is None or then.level != now.level or then.announced != now.announced:
        return False
    ends = (then.cleared_utc_s, now.cleared_utc_s)
    return abs(then.raised_utc_s - now.raised_utc_s) < 0.01 and (
        ends == (None, None) or (None not in ends and abs(ends[0] - ends[1]) < 0.01)  # type: ignore[operator]
    )


def _summary(before: config.Machine, target: config.Machine, answer: Answer) -> list[str]:
    lines = [
        f"{target.id}: {local(answer.first_utc_s)} to {local(answer.last_utc_s)} {zone()}, {answer.windows} windows, "
        f"{answer.judged} of them judged",
        f"then: {_count(answer.then, answer)}",
        f"now:  {_count(answer.now, answer)}",
        _settings(before, target, answer),
    ]
    if any(not e.announced for e in (*answer.then, *answer.now)):
        lines.append("* shelved or out of service: recorded, not announced; taken over from then")
    if target.alarm.latch:
        lines.append("latched alarms end as then, when somebody acknowledged them")
    for version, windows in answer.lost.items():
        lines.append(f"note: baseline {version} is gone or damaged: {windows} windows left out")
    return lines


def _count(found: list[Episode], answer: Answer) -> str:
    if not found:
        return "no alarm"
    end_s = answer.last_utc_s
    days = len({math.floor(e.raised_utc_s / 86_400) for e in found})
    present_s = sum(max((e.cleared_utc_s or end_s) - e.raised_utc_s, 0.0) for e in found)
    words = f"{len(found)} alarm{'s' * (len(found) > 1)} on {days} day{'s' * (days > 1)}"
    if answer.days >= LONG_ENOUGH_DAYS:
        words += f" ({days / answer.days * MONTH_DAYS:.2g} days a month)"
    return f"{words}, present for {lasted(present_s)}"


def _settings(before: config.Machine, target: config.Machine, answer: Answer) -> str:
    changed = [
        f"{words} {_value(target, key)} instead of {_value(before, key)}"
        for key, words in OPTIONS.values()
        if _value(target, key) != _value(before, key)
    ]
    words = "with " + ", ".join(changed) if changed else "with the settings of the configuration"
    if answer.score is not None:
        words += f"; a window deviates from a score of {answer.score:.2f}"
    return words


def _value(machine: config.Machine, key: str) -> str:
    """A setting as it works: the votes may follow from window and hop."""
    if key == "window_votes":
        return "{}/{}".format(*machine.votes)
    value = getattr(machine.alarm, key)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _data(target: config.Machine, answer: Answer) -> dict[str, Any]:
    return {
        "machine": target.id,
        "alarm": target.alarm,
        "since": rfc3339(answer.first_utc_s),
        "until": rfc3339(answer.last_utc_s),
        "windows": answer.windows,
        "judged": answer.judged,
        "left_out": answer.lost,
        "score_limit": answer.score,
        "then": [span_of(e) for e in answer.then],
        "now": [span_of(e) for e in answer.now],
    }
