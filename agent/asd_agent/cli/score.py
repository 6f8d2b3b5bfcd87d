"""asd-agent score: recordings through the very path that live sound takes; one CSV row a window."""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import msgspec

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.capture import recordings
from asd_agent.cli.baseline import machine
from asd_agent.cli.options import add_config, add_json, add_machine
from asd_agent.cli.rows import header, row
from asd_agent.cli.words import progress
from asd_agent.errors import AsdError, BaselineError
from asd_agent.scoring.pipeline import open_pipeline
from asd_agent.types import WindowResult
from asd_agent.windowing.recordings import recorded_windows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_machine(parser)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders (WAV, FLAC, OGG, MP3)")
    parser.add_argument("-o", "--output", metavar="scores.csv", help="write CSV here (default: standard output)")
    add_json(parser, "write JSON, one object a window, instead of CSV")
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
    failed = windows = alone = 0
    with _output(args.output) as file:
        write = _writer(file, list(baseline.manifest.detectors), as_json=args.json)
        with progress("scoring") if args.output else contextlib.nullcontext(_silent) as update:
            for number, path in enumerate(files):
                update(number / len(files), path.name)
                try:
                    for window in recorded_windows(path, target, pipeline.rates):
                        step = pipeline.step(window)
                        write(path, step.result)
                        windows += step.description.quality.assessable
                        alone += step.description.quality.assessable and step.description.room is None
                except AsdError as exc:
                    failed += 1
                    print(f"asd-agent: {exc}", file=sys.stderr)
    if target.reference is not None and alone:
        print(
            f"asd-agent: the reference microphone is silent or missing in {alone} of {windows} windows: "
            "they are judged without it",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _silent(share: float, words: str) -> None:
    """No bar among the rows on the terminal."""


def _writer(file: TextIO, detectors: list[str], *, as_json: bool) -> Callable[[Path, WindowResult], None]:
    """What writes a window: a row of CSV, or an object on a line."""
    if as_json:
        return lambda path, result: print(
            msgspec.json.encode({"file": str(path), "score": result.score, **dataclasses.asdict(result)}).decode(),
            file=file,
        )
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header(detectors))

    def write(path: Path, result: WindowResult) -> None:
        writer.writerow(row(path, result, detectors))

    return write


def _output(path: str | None) -> contextlib.AbstractContextManager[TextIO]:
    if path is None:
        return contextlib.nullcontext(sys.stdout)
    try:
        return open(path, "w", encoding="utf-8", newline="")
    except OSError as exc:
        raise AsdError(f"{path}: cannot be written ({exc.strerror})") from exc
