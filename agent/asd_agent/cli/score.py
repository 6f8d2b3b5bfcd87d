"""asd-agent score: recordings through the very path that live sound takes; one CSV row a window."""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
from pathlib import Path
from typing import Any, TextIO

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.capture import recordings
from asd_agent.cli.baseline import machine
from asd_agent.cli.options import add_config, add_machine
from asd_agent.cli.rows import header, row
from asd_agent.cli.words import console
from asd_agent.errors import AsdError, BaselineError
from asd_agent.scoring.pipeline import open_pipeline
from asd_agent.windowing.recordings import recorded_windows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_machine(parser)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders (WAV, FLAC, OGG, MP3)")
    parser.add_argument("-o", "--output", metavar="scores.csv", help="write CSV here (default: standard output)")
    parser.add_argument("--baseline", metavar="VERSION", help="another baseline than the active one")


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    target = machine(settings, args.config, args.machine)
    store = BaselineStore(settings.state_dir, target.id)
    baseline = store.load(args.baseline) if args.baseline else store.active()
    if baseline is None:
        raise BaselineError(
            f"{target.id}: no active baseline; run `asd-agent calibrate{args.option} {target.id} --promote`"
        )
    pipeline = open_pipeline(target, baseline)
    files = recordings(args.paths)
    failed = 0
    with _output(args.output) as file:
        writer = csv.writer(file, lineterminator="\n")
        detectors = list(baseline.manifest.detectors)
        writer.writerow(header(detectors))
        for path in _progress(files, args.output):
            try:
                for window in recorded_windows(path, target, pipeline.rates):
                    writer.writerow(row(path, pipeline.step(window), detectors))
            except AsdError as exc:
                failed += 1
                print(f"asd-agent: {exc}", file=sys.stderr)
    return 1 if failed else 0


def _output(path: str | None) -> contextlib.AbstractContextManager[TextIO]:
    if path is None:
        return contextlib.nullcontext(sys.stdout)
    try:
        return open(path, "w", encoding="utf-8", newline="")
    except OSError as exc:
        raise AsdError(f"{path}: cannot be written ({exc.strerror})") from exc


def _progress(files: list[Path], output: str | None) -> Any:
    """A bar on the terminal when the rows go to a file."""
    if output is None or len(files) < 2 or not sys.stderr.isatty():
        return files
    from rich.progress import track

    return track(files, description="scoring", console=console(stderr=True))
