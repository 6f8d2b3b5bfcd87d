"""asd-agent calibrate: asks the running daemon, which holds the sound card; without one it opens the source itself."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore, Report
from asd_agent.calibration import workflow
from asd_agent.calibration.gather import describe_live, describe_recordings
from asd_agent.calibration.workflow import CalibrationClips, CalibrationOptions
from asd_agent.cli.baseline import machine, print_report
from asd_agent.cli.options import add_config, add_json, add_machine, add_verbose, duration, numbers
from asd_agent.cli.words import print_json, progress, say
from asd_agent.errors import AsdError, UsageError
from asd_agent.memory import lean_malloc
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.service import client
from asd_agent.service.control import DaemonAbsent, ask
from asd_agent.service.mixer_watch import MixerWatch

DURATION_S = 600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_machine(parser)
    parser.add_argument("--from", dest="paths", nargs="+", metavar="PATH", help="recordings instead of the live source")
    parser.add_argument("--duration", type=duration, metavar="10m", help="how long to listen (default 10m)")
    parser.add_argument("--promote", action="store_true", help="make the new baseline the active one")
    parser.add_argument(
        "--extend", action="store_true", help="add another operating state to those of the active baseline"
    )
    parser.add_argument("--name", default="", metavar="STATE", help="name of the added state (with --extend)")
    parser.add_argument(
        "--widen", choices=("smote", "memmixup", "density", "none"), default="smote",
        help="what makes up for an added state of fewer than 24 windows: synthetic windows (smote, memmixup), or "
        "distances scaled by local density (density); default smote",
    )  # fmt: skip
    parser.add_argument(
        "--exclude", type=numbers, metavar="N[,M]",
        help="repeat the last calibration without these outliers, numbered as in its report",
    )  # fmt: skip
    parser.add_argument(
        "--exclude-outliers", action="store_true", help="repeat the last calibration without any of its outliers"
    )
    parser.add_argument(
        "--shadow", action="store_true", help="write a candidate for the bundle in `shadow.bundle`, to run in shadow"
    )
    add_verbose(parser)
    add_json(parser, "print the report as JSON")


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    target = machine(settings, args.config, args.machine)
    duration_s = args.duration or DURATION_S
    outliers = _outliers(args)
    if args.name and not args.extend:
        raise UsageError("--name is the name of a further state: it needs --extend")
    if args.shadow:
        target = _in_shadow(target, args)
    try:
        if outliers is None:
            version, report = _by_daemon(settings, target, args, duration_s)
        else:
            request = {"machine": target.id, "outliers": outliers, "promote": args.promote}
            with progress("fitting"):
                answer = ask(settings, "calibrate_without", 600.0, **request)
            version, report = answer["version"], msgspec.convert(answer["report"], Report)
    except DaemonAbsent:
        version, report = _here(settings, target, args, duration_s, outliers)
    if args.json:
        print_json({"version": version, "report": report}, indent=0)
        return 0
    say(f"{target.id}: baseline {version} written" + (" and promoted: it is active now" if args.promote else ""))
    print_report(report, settings.state_dir, verbose=args.verbose)
    if not args.promote and target.shadow is not None:
        say("A running daemon judges with it in shadow; compare with:")
        print(f"  asd-agent baseline compare{args.option} {target.id}")
    if args.shadow:
        say(f"To make it active, name its bundle as the bundle of {target.id}, then:")
    elif not args.promote:
        say("Make it active with:")
    if not args.promote:
        print(f"  asd-agent baseline promote{args.option} {target.id}")
    return 0


def _in_shadow(target: config.Machine, args: argparse.Namespace) -> config.Machine:
    """The machine with the bundle of its shadow. Raises UsageError where that cannot be calibrated."""
    if target.shadowed is target:
        raise UsageError(
            f"{args.config}: {target.id} has no shadow.bundle; a candidate of its own bundle runs in shadow anyway"
        )
    if args.promote or args.extend or args.exclude or args.exclude_outliers:
        raise UsageError(
            "--shadow makes a candidate of another bundle: no --promote, --extend or --exclude. To make it active, "
            f"name its bundle as the bundle of {target.id} first"
        )
    return target.shadowed


def _outliers(args: argparse.Namespace) -> list[int] | None:
    """The numbers to leave out; none = all; None = listen or read. Raises UsageError."""
    if not args.exclude and not args.exclude_outliers:
        return None
    if args.paths or args.duration or args.extend:
        raise UsageError("--exclude works on the windows of the last calibration: no --from, --duration or --extend")
    if args.exclude and args.exclude_outliers:
        raise UsageError("give one of --exclude and --exclude-outliers")
    return args.exclude or []


def _by_daemon(
    settings: config.Config, target: config.Machine, args: argparse.Namespace, duration_s: float
) -> tuple[str, Report]:
    request: dict[str, Any] = {"machine": target.id, "promote": args.promote}
    if args.shadow:
        request["shadow"] = True
    if args.extend:
        request |= {"extend": True, "name": args.name, "widen": args.widen}
    if args.paths:
        request["paths"] = [str(Path(p).resolve()) for p in args.paths]
    else:
        request["duration_s"] = duration_s
    try:
        ask(settings, "calibrate", **request)
        with progress("calibrating") as update:
            while True:
                state = client.calibration(settings, target.id)
                update(state.done, f"{state.phase}: {state.windows} windows, {state.not_assessable} not usable")
                if state.phase not in ("listening", "fitting"):
                    break
                time.sleep(0.5)
    except KeyboardInterrupt:
        ask(settings, "cancel_calibration", machine=target.id)
        raise AsdError(f"{target.id}: calibration cancelled, nothing was changed") from None
    if state.version is None or state.report is None:
        raise AsdError(f"{target.id}: calibration {state.phase}: {state.error or 'by request'}")
    return state.version, state.report


def _here(
    settings: config.Config, target: config.Machine, args: argparse.Namespace, duration_s: float,
    outliers: list[int] | None,
) -> tuple[str, Report]:  # fmt: skip
    lean_malloc()
    store = BaselineStore(settings.state_dir, target.id)
    options = CalibrationOptions(extend=args.extend, name=args.name or "", widen=args.widen, shadow=args.shadow)
    pipeline = open_pipeline(target, store.active() if args.extend else None)
    options.check(target, pipeline)
    store.prepare()
    baseline = workflow.without(pipeline, store, outliers) if outliers is not None else None
    if baseline is None:
        baseline = _from_sound(target, args, duration_s, pipeline, store, options)
    if args.promote:
        store.promote(baseline.manifest.version)
    return baseline.manifest.version, baseline.manifest.report


def _from_sound(
    target: config.Machine, args: argparse.Namespace, duration_s: float, pipeline: Pipeline, store: BaselineStore,
    options: CalibrationOptions,
) -> Baseline:  # fmt: skip
    clips = CalibrationClips(store.folder)
    try:
        with progress("reading" if args.paths else "listening") as update:
            if args.paths:
                descriptions = describe_recordings(pipeline, target, [Path(p) for p in args.paths], update)
            else:
                descriptions = describe_live(pipeline, target, duration_s, update, clips.keep)
        watch = MixerWatch(target.source)
        if not args.paths:
            watch.look()
        return workflow.calibrate(pipeline, store, descriptions, options, clips, watch.settings)
    except BaseException:
        clips.drop()
        raise
