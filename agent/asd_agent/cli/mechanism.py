"""asd-agent mechanism: recordings examined as a vibration analyst would."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.capture import recordings
from asd_agent.cli.baseline import machine
from asd_agent.cli.options import add_config, add_json, add_machine
from asd_agent.cli.words import Row, print_json, progress, say, show
from asd_agent.config.kinematics import Mechanism
from asd_agent.errors import UsageError
from asd_agent.mechanism import Analyser, MechanismBaseline, Speed
from asd_agent.mechanism.accumulate import Accumulation
from asd_agent.mechanism.plot import plot
from asd_agent.mechanism.report import (
    FAMILY_TITLES,
    STANDS_OUT,
    Report,
    WindowReport,
    as_data,
    examine,
    finding_data,
    finding_lines,
    standing_out,
)
from asd_agent.mechanism.statistics import family
from asd_agent.mechanism.units import shown
from asd_agent.scoring.detectors import MechanismDetector
from asd_agent.scoring.pipeline import open_pipeline
from asd_agent.types import Samples
from asd_agent.windowing.recordings import native_recording


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_machine(parser)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders")
    add_json(parser, "print JSON, one object a recording")
    parser.add_argument("--all", action="store_true", help="show every indicator, not only those that stand out")
    parser.add_argument("--plot", metavar="out.png", help="draw waveform, spectrum, envelope spectrum and wavelet map")
    parser.add_argument("--rpm", type=float, metavar="RPM", help="speed of the reference shaft during the recording")


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    target = machine(settings, args.config, args.machine)
    kinematics = target.mechanism or Mechanism()
    files = recordings(args.paths)
    if args.plot and len(files) > 1:
        raise UsageError("--plot draws one recording: name one file")
    speed = Speed(hz=args.rpm / 60, source="given") if args.rpm else None
    baseline = _baseline(settings, target)
    together: dict[int, Accumulation] = {}
    for path in files:
        samples, rate_hz = native_recording(path, target.source.channel)
        if rate_hz not in together:
            together[rate_hz] = Accumulation(Analyser(kinematics, rate_hz), speed)
        sums = together[rate_hz]
        with progress(f"examining {Path(path).name}") as update:
            report = examine(
                samples,
                rate_hz,
                kinematics,
                baseline,
                speed,
                target.window_s,
                str(path),
                lambda done: update(done, ""),
                sums,
            )
        if args.json:
            print_json(as_data(report), indent=0)
        else:
            _print(report, everything=args.all)
        if args.plot:
            _plot(args.plot, samples, report, kinematics, baseline, speed)
    for sums in together.values():
        if not args.json or len(files) > 1:
            _all_windows(sums, as_json=args.json)
    return 0


def _all_windows(sums: Accumulation, *, as_json: bool) -> None:
    """What the windows of all recordings show together: lines too faint for one add up. As JSON one more object."""
    finding = sums.finding() if sums.windows > 1 else None
    if as_json:
        data = finding_data(finding) if finding is not None else None
        print_json({"windows": sums.windows, "finding": data}, indent=0)
    elif finding is not None:
        print()
        say(f"{finding.rank.name.lower()}: {finding.line}")


def _baseline(settings: config.Config, target: config.Machine) -> MechanismBaseline | None:
    """Of the operating state with the most windows; None, with a line that says so, when there is none."""
    active = BaselineStore(settings.state_dir, target.id).active()
    if active is not None:
        states = open_pipeline(target, active).states
        windows = {state.name: state.windows for state in active.manifest.states}
        for state in sorted(states, key=lambda s: -windows[s.name]):
            for detector in state.detectors:
                if isinstance(detector, MechanismDetector):
                    return detector.baseline
    print(
        f"{target.id}: no baseline with a mechanism analysis: values only, and periodic impacts "
        "(give the machine a `mechanism:` section and calibrate)",
        file=sys.stderr,
    )
    return None


def _print(report: Report, *, everything: bool) -> None:
    """Findings first, then the indicators of the most unusual window, then all windows."""
    if report.origin:
        say(report.origin)
    say(*finding_lines(report), indent="  ")
    print()
    worst = report.windows[report.worst]
    verdict = worst.verdict
    if verdict is None or verdict.p_value is None:
        rows = [Row((title(name), label(name), shown(name, value))) for name, value in worst.indicators.values.items()]
        heads: tuple[str, ...] = ("family", "indicator", "value")
    else:
        found = [d for _, members in standing_out(verdict, everything) for d in members]
        rows = [
            Row(
                (title(d.name), label(d.name), shown(d.name, d.value), shown(d.name, d.normal), f"{d.z:+.1f}"),
                styles=dict.fromkeys(range(5), "bold") if abs(d.z) >= STANDS_OUT else {},
            )
            for d in found
        ]
        heads = ("family", "indicator", "value", "normal", "z")
    say(f"The most unusual window, from {worst.start_s:.1f} s:")
    show(heads, rows)
    if len(report.windows) > 1:
        print()
        show(("start", "speed", "p", "most unusual", "note"), [_window(window) for window in report.windows])


def title(name: str) -> str:
    return FAMILY_TITLES.get(family(name), family(name))


def label(name: str) -> str:
    """The indicator without its family: "2205-2824Hz.level" -> "2205-2824 Hz level"."""
    return name.partition(".")[2].replace("Hz.", " Hz ").replace("ms.", " ms ").replace("_", " ")


def _window(window: WindowReport) -> Row:
    speed, verdict = window.indicators.speed, window.verdict
    most = min(verdict.families.items(), key=lambda f: f[1], default=None) if verdict is not None else None
    notes = window.indicators.gates or (verdict.notes if verdict is not None else ())
    return Row((
        f"{window.start_s:.1f} s",
        f"{speed.hz:.2f} Hz ({speed.source})" if speed is not None else "unknown",
        f"{verdict.p_value:.2g}" if verdict is not None and verdict.p_value is not None else "-",
        FAMILY_TITLES[most[0]] if most is not None else "",
        ", ".join(notes),
    ))  # fmt: skip


def _plot(
    path: str,
    samples: Samples,
    report: Report,
    kinematics: Mechanism,
    baseline: MechanismBaseline | None,
    speed: Speed | None,
) -> None:
    """The most unusual window."""
    part = samples[report.worst_slice]
    findings = [repeated.finding for repeated in report.findings]
    title = f"{Path(report.origin).name}, from {report.windows[report.worst].start_s:.1f} s"
    plot(path, part, report.rate_hz, kinematics, findings, baseline, speed, title)
