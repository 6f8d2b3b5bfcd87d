"""asd-agent trend: score, level and distances of a machine over time, from the store."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time

import msgspec
import numpy as np

from asd_agent import config
from asd_agent.cli.baseline import machine
from asd_agent.cli.options import add_config, add_json, add_machine, duration
from asd_agent.cli.words import console
from asd_agent.errors import StoreError
from asd_agent.mechanism.trend import fit, trend_plot, trend_table
from asd_agent.store import Store
from asd_agent.store.records import ScoreRow
from asd_agent.types import Floats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_machine(parser)
    parser.add_argument("--since", type=duration, default=30 * 86400.0, metavar="30d", help="default 30d")
    parser.add_argument("--plot", metavar="out.png", help="draw score, level and distances over time")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    target = machine(settings, args.config, args.machine)
    with Store.reader(settings.state_dir) as store:
        rows = store.scores(target.id, since_utc_s=time.time() - args.since)
    if not rows:
        raise StoreError(f"{target.id}: no scores since then; is the daemon running?")
    when = np.array([row.utc_s for row in rows])
    series = [(name, when, values) for name, values in _series(rows).items()]
    trends = [fit(*one) for one in series]
    if args.json:
        data = [dataclasses.asdict(trend) | {"words": trend.words} for trend in trends]
        sys.stdout.write(msgspec.json.encode(data).decode() + "\n")
    else:
        console().print(trend_table(trends, f"{target.id}, {len(rows)} windows"))
    if args.plot:
        trend_plot(args.plot, series, target.id)
    return 0


def _series(rows: list[ScoreRow]) -> dict[str, Floats]:
    """Name -> [n], NaN where a window was not judged."""
    detectors = sorted({name for row in rows for name in row.detectors})
    found = {
        "score": [row.score for row in rows],
        "level dBFS": [None if "silence" in row.quality else row.level_dbfs for row in rows],
    }
    for name in detectors:
        found[f"z of {name}"] = [row.detectors[name][1] if name in row.detectors else None for row in rows]
    return {name: np.array([np.nan if v is None else v for v in values], float) for name, values in found.items()}
