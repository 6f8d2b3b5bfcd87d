"""asd-agent archive compare: what other bundles, windows and alarm settings would have done on the same recordings."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import zoneinfo
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from asd_agent import config
from asd_agent.cli.options import positive
from asd_agent.cli.words import Row, print_json, say, show
from asd_agent.errors import UsageError

if TYPE_CHECKING:
    from asd_agent.archive.compare import Setting
    from asd_agent.archive.run import Watch

PAGE = "report.html"


def add_arguments(act: argparse.ArgumentParser) -> None:
    act.add_argument(
        "--normal-until", required=True, metavar="2026-03-01", help="what was recorded before is normal, and teaches; "
        "alarms are counted from then on",
    )  # fmt: skip
    act.add_argument("--bundle", nargs="+", metavar="B", help="bundles to compare (default: the configured one)")
    act.add_argument(
        "--window-s", nargs="+", type=positive, metavar="S", help="window lengths (default: as configured)"
    )
    act.add_argument("--votes", nargs="+", metavar="4/6", help="values of alarm.window_votes")
    act.add_argument("--budget", nargs="+", type=positive, metavar="N", help="values of alarm.false_alarms_per_month")
    act.add_argument(
        "--clips", type=int, default=40, metavar="N", help="alarms whose sound is in the page (default 40)"
    )


def run(settings: config.Config, args: argparse.Namespace) -> int:
    from asd_agent.archive import compare, report
    from asd_agent.cli import archive
    from asd_agent.files import write_whole

    until = _moment(args.normal_until, args.timezone)
    naming = archive.naming(settings, args)
    machines = archive.machines_of(settings, args)
    chosen = _settings(machines, args)
    folder = Path(args.output)
    running = contextlib.ExitStack()

    def watches(what: str) -> Watch:
        running.close()
        return running.enter_context(archive.watching(what))

    with running:
        comparison = compare.Comparison(
            folder, args.paths, naming, machines, until, archive.engine(args), archive.job(args, machines)
        )
        outcomes = comparison.run(chosen, watches)
    found = compare.occasions(outcomes)
    page = report.page(outcomes, found, machines, args.clips, until)
    data = [{k: v for k, v in asdict(o).items() if k != "series"} for o in outcomes]
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / PAGE, page.encode())
    if args.json:
        print_json(data)
        return 0
    heads = ("machine", "setting", "alarms", "windows", "deviate", "limit")
    show(heads, [
        Row((o.machine, o.setting, str(len(o.alarms)), str(o.windows), str(o.anomalous),
             "" if o.limit is None else f"{o.limit:.2f}")) for o in outcomes
    ])  # fmt: skip
    say(f"plots, and the alarms to listen to: {folder / PAGE}")
    return 0


def _settings(machines: dict[str, config.Machine], args: argparse.Namespace) -> list[Setting]:
    """Raises UsageError."""
    from asd_agent.archive import compare

    for votes in args.votes or ():
        try:
            config.votes(votes, "--votes")
        except ValueError as exc:
            raise UsageError(str(exc)) from exc
    bundles = args.bundle or sorted({bundle for machine in machines.values() for bundle in machine.bundles})
    lengths = args.window_s or sorted({machine.window_s for machine in machines.values()})
    if max(lengths) > 60 or min(lengths) < 1:
        raise UsageError("--window-s: windows are 1 s to 60 s long")
    return compare.settings(bundles, lengths, args.votes or [None], args.budget or [None])


def _moment(text: str, timezone: str) -> float:
    try:
        found = dt.datetime.fromisoformat(text)
        zone = zoneinfo.ZoneInfo(timezone)
    except (ValueError, zoneinfo.ZoneInfoNotFoundError) as exc:
        raise UsageError(f"--normal-until {text!r} is not a date such as 2026-03-01 or 2026-03-01T12:00") from exc
    return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()
