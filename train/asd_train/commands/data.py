"""`asd-train data`: the challenge's recordings, fetched and checked."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from asd_agent.errors import UsageError

EPILOG = """\
Every release has three records on Zenodo: dev (development machines), train and test (evaluation machines). Files
land where the configurations look, OUT/dcase2025t2/{dev_data,eval_data}/raw/<machine>; a fetch that was stopped goes
on where it stopped. Sizes and checksums are those that Zenodo states. A release takes 5 to 20 GB.

  asd-train data list
  asd-train data fetch dcase2025 -o data                      all three parts
  asd-train data fetch dcase2025 -o data --part dev --machine fan
  asd-train data check dcase2025 -o data --deep               reads every file again
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "data",
        help="list, fetch and check the challenge's recordings",
        description="Fetch releases of DCASE Task 2 from Zenodo: resumable, parallel, verified.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("list", "fetch", "check"))
    parser.add_argument("names", metavar="NAME", nargs="*", help="dcase2020 ... dcase2026")
    parser.add_argument("-o", "--output", default="data", metavar="OUT", help="folder of all releases (data)")
    parser.add_argument("--part", action="append", choices=("dev", "train", "test"), help="default: all; repeatable")
    parser.add_argument("--machine", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="downloads at a time (4)")
    parser.add_argument("--keep", action="store_true", help="keep the zip files too")
    parser.add_argument("--deep", action="store_true", help="check: compare contents, not only sizes")
    parser.add_argument("--host", default=None, metavar="URL", help="another host with Zenodo's interface")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.jobs < 1:
        raise UsageError("--jobs must be at least 1")
    if args.action == "list":
        return _list(Path(args.output))
    if not args.names:
        raise UsageError(f"asd-train data {args.action} needs a name, such as dcase2025 (asd-train data list)")
    if args.action == "fetch":
        return _fetch(args)
    return _check(args)


def _list(out: Path) -> int:
    from asd_train.download.fetch import release_folder
    from asd_train.download.records import RECORDS

    for name, parts in RECORDS.items():
        folder = release_folder(out, name)
        here = len(list((folder / ".fetch").glob("*.json"))) if folder.is_dir() else 0
        state = f"{here} archives in {folder}" if here else "not fetched"
        print(f"{name}  {'  '.join(f'{part} {record}' for part, record in parts.items())}  {state}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    from asd_train.download.fetch import fetch, release_folder
    from asd_train.download.records import HOST, PARTS, archives_of

    console = Console(stderr=True)
    for name in args.names:
        archives = archives_of(name, tuple(args.part or PARTS), args.host or HOST)
        chosen = [a for a in archives if not args.machine or any(m in _words(a.file.key) for m in args.machine)]
        if not chosen:
            raise UsageError(f"{name}: no archive of {', '.join(args.machine)}; there are "
                             f"{', '.join(a.file.key for a in archives)}")  # fmt: skip
        folder = release_folder(Path(args.output), name)
        columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
            tasks = {a.file.key: bars.add_task(a.file.key, total=a.file.size) for a in chosen}

            def tell(key: str, done: int, bars: Progress = bars, tasks: dict[str, TaskID] = tasks) -> None:
                bars.update(tasks[key], completed=done)

            new = fetch(folder, chosen, args.jobs, args.keep, tell)
        print(f"{folder}: {new} archives fetched, {len(chosen) - new} were there")
    return 0


def _check(args: argparse.Namespace) -> int:
    from asd_train.download.fetch import check, release_folder
    from asd_train.download.records import record_of

    wrong = 0
    for name in args.names:
        record_of(name)
        folder = release_folder(Path(args.output), name)
        problems = check(folder, args.deep)
        wrong += len(problems)
        for problem in problems[:20]:
            print(problem)
        print(f"{folder}: {f'{len(problems)} files are not as fetched; fetch again' if problems else 'complete'}")
    return 1 if wrong else 0


def _words(key: str) -> set[str]:
    """eval_data_fan_train.zip -> {eval, data, fan, train}"""
    return set(key.removesuffix(".zip").split("_"))
