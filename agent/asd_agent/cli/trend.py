"""asd-agent trend: score, level and distances of a machine over time, from the store."""

from __future__ import annotations

import argparse
import dataclasses
import math
import time

import numpy as np

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.cli.baseline import machine
from asd_agent.cli.options import add_config, add_json, add_machine, duration
from asd_agent.cli.words import Row, local, print_json, progress, say, show, track, zone
from asd_agent.errors import BaselineError, StoreError
from asd_agent.mechanism.trend import Trend, fit, trend_plot
from asd_agent.store import Store
from asd_agent.store.records import ScoreRow
from asd_agent.types import Floats
from asd_agent.whatif import episodes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_machine(parser)
    parser.add_argument("--since", type=duration, default=30 * 86400.0, metavar="30d", help="default 30d")
    parser.add_argument("--plot", metavar="out.png", help="draw score, level and distances over time")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    settings = config.load(args.config)
    target = machine(settings, args.config, args.machine)
    with progress("reading scores"), Store.reader(settings.state_dir) as store:
        rows = store.scores(target.id, since_utc_s=time.time() - args.since)
    if not rows:
        raise StoreError(f"{target.id}: no scores since then; is the daemon running?")
    when = np.array([row.utc_s for row in rows])
    series = [(name, when, values) for name, values in _series(rows).items()]
    by_name = {one[0]: one for one in series}
    trends = [fit(*by_name[name]) for name in track(list(by_name), "fitting")]
    if args.json:
        print_json([dataclasses.asdict(trend) | {"words": trend.words} for trend in trends], indent=0)
    else:
        say(f"{target.id}, {len(rows)} windows, {local(rows[0].utc_s)} to {local(rows[-1].utc_s)} {zone()}")
        show(("what", "now", "change", "p", "trend"), [_row(trend) for trend in sorted(trends, key=_growing_first)])
    if args.plot:
        with Store.reader(settings.state_dir) as store:
            raised = episodes(store.events(rows[0].utc_s, target.id, limit=10_000))
        alarms = [(e.raised_utc_s, e.cleared_utc_s or rows[-1].utc_s) for e in raised]
        trend_plot(args.plot, series, target.id, _limit(settings, target, rows), alarms)
    return 0


def _growing_first(trend: Trend) -> tuple[bool, float]:
    return not trend.growing, trend.p_value


def _row(trend: Trend) -> Row:
    cells = (trend.name, f"{trend.last:.2f}", f"{trend.change:+.2f}", f"{trend.p_value:.1g}", trend.words)
    return Row(cells, styles=dict.fromkeys(range(5), "bold") if trend.growing else {})


def _limit(settings: config.Config, target: config.Machine, rows: list[ScoreRow]) -> tuple[Floats, Floats]:
    """(utc_s, score) from which a window deviates, by the present settings; NaN where its baseline is gone."""
    store, known = BaselineStore(settings.state_dir, target.id), {"": math.nan}
    for version in {row.baseline for row in rows if row.baseline}:
        try:
            known[version] = -math.log10(store.load(version).manifest.thresholds(target).alert_p)
        except BaselineError:
            known[version] = math.nan
    return np.array([row.utc_s for row in rows]), np.array([known[row.baseline] for row in rows])


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
