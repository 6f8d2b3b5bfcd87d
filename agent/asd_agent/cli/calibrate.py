"""asd-agent calibrate: asks the running daemon, which holds the sound card; without one it opens the source itself."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from asd_agent import config
from asd_agent.baseline import BaselineStore, Report
from asd_agent.calibrate import build, describe_live, describe_recordings
from asd_agent.cli.baseline import machine, print_report
from asd_agent.cli.words import console
from asd_agent.errors import AsdError
from asd_agent.pipeline import open_pipeline
from asd_agent.service.control import DaemonAbsent, ask

if TYPE_CHECKING:
    from rich.progress import Progress

DURATION_S = 600.0


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    target = machine(settings, args.config, args.machine)
    duration_s = args.duration or DURATION_S
    try:
        version, report = _by_daemon(settings, target, args, duration_s)
    except DaemonAbsent:
        version, report = _here(settings, target, args, duration_s)
    if args.json:
        sys.stdout.write(msgspec.json.encode({"version": version, "report": report}).decode() + "\n")
        return 0
    print(f"{target.id}: baseline {version} written" + (" and promoted: it is active now" if args.promote else ""))
    print_report(report)
    if not args.promote:
        print(f"make it active with: asd-agent baseline promote -c {args.config} {target.id}")
    return 0


def _bar(what: str) -> tuple[Progress, Any]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn(),
        console=console(stderr=True), disable=not sys.stderr.isatty(),
    )  # fmt: skip
    return bar, bar.add_task(what, total=1.0, words="")


def _by_daemon(
    settings: config.Config, target: config.Machine, args: argparse.Namespace, duration_s: float
) -> tuple[str, Report]:
    request: dict[str, Any] = {"machine": target.id, "promote": args.promote}
    if args.paths:
        request["paths"] = [str(Path(p).resolve()) for p in args.paths]
    else:
        request["duration_s"] = duration_s
    bar, task = _bar("listening")
    try:
        ask(settings, "calibrate", **request)
        with bar:
            while True:
                state = ask(settings, "calibration", machine=target.id)
                words = f"{state['windows']} windows, {state['excluded']} not usable"
                bar.update(task, completed=state["done"], description=state["phase"], words=words)
                if state["phase"] not in ("listening", "fitting"):
                    break
                time.sleep(0.5)
    except KeyboardInterrupt:
        ask(settings, "cancel_calibration", machine=target.id)
        raise AsdError(f"{target.id}: calibration cancelled, nothing was changed") from None
    if state["phase"] != "done":
        raise AsdError(f"{target.id}: calibration {state['phase']}: {state['error'] or 'by request'}")
    return state["version"], msgspec.convert(state["report"], Report)


def _here(
    settings: config.Config, target: config.Machine, args: argparse.Namespace, duration_s: float
) -> tuple[str, Report]:
    pipeline = open_pipeline(target, None)
    store = BaselineStore(settings.state_dir, target.id)
    store.prepare()
    bar, task = _bar("listening" if not args.paths else "reading")

    def progress(share: float, words: str) -> None:
        bar.update(task, completed=share, words=words)

    with bar:
        if args.paths:
            descriptions = describe_recordings(pipeline, target, [Path(p) for p in args.paths], progress)
        else:
            descriptions = describe_live(pipeline, target, duration_s, progress)
    baseline = build(target, descriptions, pipeline, store.new_version())
    store.write(baseline)
    if args.promote:
        store.promote(baseline.manifest.version)
    return baseline.manifest.version, baseline.manifest.report
