"""asd-agent archive calibrate|score|rescore|compare: recordings by the thousand, on all cores or a Ray cluster."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asd_agent import config
from asd_agent.cli import archive_compare
from asd_agent.cli.options import add_config, add_json, add_verbose
from asd_agent.cli.words import Row, lasted, print_json, say, show
from asd_agent.cli.words import progress as bar
from asd_agent.errors import AsdError, UsageError

if TYPE_CHECKING:
    from asd_agent.archive.engine import Engine
    from asd_agent.archive.recordings import Naming
    from asd_agent.archive.run import Progress, Totals, Watch
    from asd_agent.archive.worker import Job
    from asd_agent.baseline import Report

ACTIONS = {
    "calibrate": "learn what normal sounds like from recordings, machine by machine; write candidate baselines",
    "score": "score recordings against the active baselines; write Parquet and the alarms that would have been",
    "rescore": "judge what `calibrate` or `score` stored again, by other baselines or settings, without encoding",
    "compare": "show which alarms other bundles, windows and alarm settings would have raised; write a page",
}
LINE_EVERY_S = 60.0  # where standard error is no terminal
PLENTY = 20  # alarms listed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, words in ACTIONS.items():
        act = actions.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        add_config(act)
        if name == "rescore":
            act.add_argument("source", metavar="RESULTS", help="folder that `calibrate` or `score` wrote")
        else:
            _add_recordings(act)
        act.add_argument("-o", "--output", required=True, metavar="RESULTS", help="folder or URL; a run goes on there")
        _add_engine(act)
        if name == "calibrate":
            act.add_argument("--promote", action="store_true", help="make the new baselines the active ones")
            act.add_argument("--windows", type=_count, default=5000, metavar="N", help="most of a machine (5000)")
            add_verbose(act)
        if name == "score":
            act.add_argument("--no-embeddings", action="store_true", help="less to store; no `rescore` afterwards")
        if name == "compare":
            archive_compare.add_arguments(act)
        add_json(act)


def _add_recordings(act: argparse.ArgumentParser) -> None:
    act.add_argument("paths", nargs="+", metavar="PATH", help="files, folders, patterns, or URLs such as s3://bucket/x")
    act.add_argument("--machine", metavar="MACHINE", help="all recordings are of this machine")
    act.add_argument(
        "--pattern", metavar="REGEX", help="finds (?P<machine>...) and (?P<time>...) in a path; default: the folder "
        "that is named like a machine, and the date and time in the file's name",
    )  # fmt: skip
    act.add_argument("--timezone", default="UTC", metavar="ZONE", help="of the times in names (default UTC)")
    act.add_argument("--retry-failed", action="store_true", help="try recordings again that could not be read")


def _add_engine(act: argparse.ArgumentParser) -> None:
    act.add_argument("--workers", type=_count, metavar="N", help="that encode side by side (default: one a core)")
    act.add_argument(
        "--threads", type=_count, default=1, metavar="N", help="of a worker (default 1, as in the agent: with more of "
        "them the last digits differ)",
    )  # fmt: skip
    act.add_argument(
        "--engine", choices=("auto", "ray", "processes"), default="auto", help="default: ray where it is installed"
    )
    act.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster, auto = that of this host (default: none)")
    act.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda where onnxruntime has it"
    )


def run(args: argparse.Namespace) -> int:
    _check_installed()
    settings = config.load(args.config)
    acts = {"calibrate": _calibrate, "score": _score, "rescore": _rescore, "compare": archive_compare.run}
    return acts[args.action](settings, args)


def _check_installed() -> None:
    try:
        import fsspec
        import pyarrow  # noqa: F401
    except ImportError as exc:
        raise UsageError(f"{exc.name} is not installed: pip install 'asd-agent[archive]'") from exc
    del fsspec


def _score(settings: config.Config, args: argparse.Namespace) -> int:
    from asd_agent.archive import run as runs

    machines, baselines = judged(settings, args)
    work = job(args, machines, embeddings=not args.no_embeddings)
    with watching("scoring") as watch:
        progress = runs.score(
            args.paths, naming(settings, args), work, baselines, engine(args), watch, args.retry_failed
        )
    return _finish(args, machines, progress)


def _rescore(settings: config.Config, args: argparse.Namespace) -> int:
    from asd_agent.archive import run as runs

    args.machine = None
    machines, baselines = judged(settings, args)
    work = job(args, machines, source=args.source, embeddings=False)
    with watching("judging") as watch:
        progress = runs.rescore(work, baselines, engine(args), watch)
    return _finish(args, machines, progress)


def _calibrate(settings: config.Config, args: argparse.Namespace) -> int:
    from asd_agent.archive import run as runs
    from asd_agent.archive.calibrate import calibrate
    from asd_agent.archive.results import Results
    from asd_agent.baseline import BaselineStore
    from asd_agent.cli.baseline import print_report

    machines = machines_of(settings, args)
    work = job(args, machines, calibrating=True)
    with watching("reading") as watch:
        progress = runs.score(args.paths, naming(settings, args), work, {}, engine(args), watch, args.retry_failed)
    results = Results(args.output)
    reports: dict[str, tuple[str, Report | str]] = {}
    for name, found in sorted(runs.totals(results).items()):
        store = BaselineStore(settings.state_dir, name)
        try:
            baseline = calibrate(results, machines[name], store, args.windows)
        except AsdError as exc:
            reports[name] = "", str(exc)
            continue
        if args.promote:
            store.promote(baseline.manifest.version)
        reports[name] = baseline.manifest.version, baseline.manifest.report
        if not args.json:
            promoted = " and promoted: it is active when the daemon starts" if args.promote else ""
            say(f"{name}: baseline {baseline.manifest.version} from {found.recordings} recordings written{promoted}")
            print_report(baseline.manifest.report, settings.state_dir, verbose=args.verbose)
    failed = [str(words) for version, words in reports.values() if not version]
    if args.json:
        print_json({"run": _data(progress), "machines": reports})
    for line in [*failed, *notes(progress)]:
        print(f"asd-agent: {line}", file=sys.stderr)
    return 1 if failed or not reports else 0


def judged(settings: config.Config, args: argparse.Namespace) -> tuple[dict[str, config.Machine], dict[str, bytes]]:
    """The machines that have an active baseline, and these, packed. Raises UsageError where there is none."""
    from asd_agent.baseline import BaselineStore
    from asd_agent.baseline.packed import pack

    machines, baselines = {}, {}
    for name, machine in machines_of(settings, args).items():
        store = BaselineStore(settings.state_dir, name)
        version = store.pointers().active
        if version is not None:
            machines[name], baselines[name] = machine, pack(store, version)
    if not machines:
        raise UsageError(
            f"{args.config}: no machine has an active baseline; run `asd-agent archive calibrate{args.option} ...`"
        )
    return machines, baselines


def machines_of(settings: config.Config, args: argparse.Namespace) -> dict[str, config.Machine]:
    from asd_agent.cli.baseline import machine

    chosen = [machine(settings, args.config, args.machine)] if args.machine else settings.machines
    return {found.id: found for found in chosen}


def job(
    args: argparse.Namespace, machines: dict[str, config.Machine], *, source: str = "", calibrating: bool = False,
    embeddings: bool = True,
) -> Job:  # fmt: skip
    from asd_agent.archive.worker import Job
    from asd_agent.encode.encoder import has_cuda

    cuda = has_cuda()
    if args.device == "cuda" and not cuda:
        raise UsageError("--device cuda: this onnxruntime has no CUDA provider (pip install onnxruntime-gpu)")
    return Job(
        results=_absolute(args.output),
        machines=machines,
        source=_absolute(source) if source else "",
        calibrating=calibrating,
        embeddings=embeddings,
        threads=args.threads,
        device="cuda" if cuda and args.device != "cpu" else "cpu",
    )


def engine(args: argparse.Namespace) -> Engine:
    from asd_agent.archive.engine import Engine

    return Engine("ray" if args.ray else args.engine, args.workers, args.ray)


def naming(settings: config.Config, args: argparse.Namespace) -> Naming:
    from asd_agent.archive.recordings import Naming

    args.paths = [_absolute(path) for path in args.paths]
    return Naming((m.id for m in settings.machines), args.machine, args.pattern, args.timezone)


@contextlib.contextmanager
def watching(what: str) -> Iterator[Watch]:
    """A bar with throughput and remaining time on a terminal; elsewhere a line a minute."""
    began = last = time.monotonic()
    with bar(what) as update:

        def watch(progress: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            rest = progress.all.recordings - progress.before
            share = progress.now.recordings / max(rest, 1)
            words = _words(progress, now - began)
            update(share, words)
            if not sys.stderr.isatty() and now - last >= LINE_EVERY_S:
                last = now
                left = (now - began) * (1 - share) / max(share, 1e-9)
                print(f"{what}: {words}, {lasted(left)} remaining", file=sys.stderr)

        yield watch


def _words(progress: Progress, elapsed_s: float) -> str:
    now = progress.now
    return (
        f"{progress.before + now.recordings} of {progress.all.recordings} recordings, {now.seconds / 3600:.1f} h of "
        f"sound, {now.seconds / max(elapsed_s, 1e-9):.0f} x real time"
    )


def _finish(args: argparse.Namespace, machines: dict[str, config.Machine], progress: Progress) -> int:
    """Decide in order of time, write the alarms, say what there is."""
    from asd_agent.archive.alarms import ALARMS, ArchiveAlarm, alarms, as_table, decided
    from asd_agent.archive.results import Results
    from asd_agent.archive.run import totals
    from asd_agent.archive.worker import stored_baseline

    results = Results(args.output)
    all_of = totals(results)
    found: dict[str, list[ArchiveAlarm]] = {}
    names = sorted(all_of.keys() & machines.keys())
    with bar("deciding") as update:
        for number, name in enumerate(names):
            update(number / len(names), name)
            manifest = stored_baseline(results, name).manifest
            found[name] = alarms(name, decided(results, machines[name], manifest))
    together = [alarm for of_machine in found.values() for alarm in of_machine]
    results.write_table(ALARMS, as_table(together))
    if args.json:
        data = {name: {**vars(all_of[name]), "alarms": of_machine} for name, of_machine in found.items()}
        print_json({"run": _data(progress), "machines": data})
    else:
        _show(all_of, found)
        say(f"windows and alarms: {args.output} (Parquet)")
    for line in notes(progress):
        print(f"asd-agent: {line}", file=sys.stderr)
    return 0 if all_of else 1


def _show(all_of: dict[str, Totals], found: dict[str, list[Any]]) -> None:
    from asd_agent.cli.words import local

    rows = []
    for name, of_machine in found.items():
        t = all_of[name]
        listed = [
            f"{alarm.level} {local(alarm.raised_utc_s)}, "
            + ("stood at the end" if alarm.cleared_utc_s is None else lasted(alarm.cleared_utc_s - alarm.raised_utc_s))
            + f": {alarm.reason} ({Path(alarm.file).name} at {alarm.start_s:.1f} s)"
            for alarm in of_machine[:PLENTY]
        ]
        if len(of_machine) > PLENTY:
            listed.append(f"and {len(of_machine) - PLENTY} more in alarms.parquet")
        cells = (name, str(t.recordings), lasted(t.seconds), str(t.windows), str(t.anomalous), str(len(of_machine)),
                 str(t.failed or ""))  # fmt: skip
        rows.append(Row(cells, listed))
    show(("machine", "recordings", "sound", "windows", "deviate", "alarms", "unreadable"), rows)


def notes(progress: Progress) -> list[str]:
    """What a person should know beside the results."""
    found = [
        f"{count} recordings left out, no machine with settings (and a baseline) is known for them: {where}"
        for where, count in progress.unknown.most_common(5)
    ]
    if progress.now.failed:
        found.append(f"{progress.now.failed} recordings could not be read: the column `error` says why")
    return found


def _data(progress: Progress) -> dict[str, object]:
    return {
        "recordings": progress.all.recordings,
        "done_before": progress.before,
        "now": vars(progress.now),
        "left_out": dict(progress.unknown),
    }


def _absolute(path: str) -> str:
    """Workers on a cluster have another current folder."""
    return path if "://" in path else str(Path(path).absolute())


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return number
