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
from asd_agent.cli.words import console
from asd_agent.errors import AsdError, BaselineError
from asd_agent.pipeline import open_pipeline
from asd_agent.recordings import recorded_windows
from asd_agent.types import WindowResult

COLUMNS = [
    "file", "start_s", "duration_s", "state", "quality", "score", "p_value", "level",
    "embedding_distance", "embedding_p", "mechanism_p", "reason", "operating", "foreign", "event_p", "event_at_s",
]  # fmt: skip


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    target = machine(settings, args.config, args.machine)
    store = BaselineStore(settings.state_dir, target.id)
    baseline = store.load(args.baseline) if args.baseline else store.active()
    if baseline is None:
        raise BaselineError(
            f"{target.id}: no active baseline; run `asd-agent calibrate -c {args.config} {target.id} --promote`"
        )
    pipeline = open_pipeline(target, baseline)
    files = recordings(args.paths)
    failed = 0
    with _output(args.output) as file:
        writer = csv.writer(file, lineterminator="\n")
        detectors = list(baseline.manifest.detectors)
        writer.writerow(COLUMNS + [f"{what}_{name}" for name in detectors for what in ("distance", "p")])
        for path in _progress(files, args.output):
            try:
                for window in recorded_windows(path, target, pipeline.rates):
                    writer.writerow(_row(path, pipeline.step(window), detectors))
            except AsdError as exc:
                failed += 1
                print(f"asd-agent: {exc}", file=sys.stderr)
    return 1 if failed else 0


def _row(path: Path, result: WindowResult, detectors: list[str]) -> list[Any]:
    scores = {d.name: d for d in result.detectors}
    return [
        path,
        f"{result.start_s:.3f}",
        f"{result.duration_s:.3f}",
        result.state.value,
        " ".join(result.quality.reasons) or "ok",
        _number(result.score),
        _number(result.p_value),
        result.level.value,
        _number(result.embedding_distance),
        _number(result.embedding_p),
        _number(result.mechanism_p),
        result.reason,
        result.operating,
        result.foreign,
        _number(result.event_p),
        _number(result.event_at_s),
        *(_number(getattr(scores.get(n), what, None)) for n in detectors for what in ("distance", "p_value")),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


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
