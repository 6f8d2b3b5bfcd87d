"""asd-agent baseline compare: the candidate in shadow against the active baseline."""

from __future__ import annotations

import argparse
import math
import time

from asd_agent import config
from asd_agent.baseline import BaselineStore
from asd_agent.cli.words import Row, lasted, local, print_json, say, show, zone
from asd_agent.errors import AsdError, BaselineError
from asd_agent.store import Store
from asd_agent.types import rfc3339
from asd_agent.whatif import Episode
from asd_agent.whatif.compare import QUANTILES, Comparison, Side, compare


def run(settings: config.Config, target: config.Machine, args: argparse.Namespace) -> int:
    version = args.version or BaselineStore(settings.state_dir, target.id).pointers().candidate
    if version is None:
        raise BaselineError(f"{target.id}: there is no candidate; calibrate without --promote, or name a version")
    with Store.reader(settings.state_dir) as store:
        found = compare(store, target.id, version, time.time() - args.since)
    if args.json:
        print_json({"line": found.line, "advice": found.advice, **_data(found)}, indent=0)
        return 0
    _show(target.id, found)
    return 0


def line(settings: config.Config, machine: str, version: str) -> str:
    """The comparison in one sentence; empty when there is none."""
    try:
        with Store.reader(settings.state_dir) as store:
            return compare(store, machine, version, 0.0).line
    except AsdError:
        return ""


def _show(machine: str, found: Comparison) -> None:
    a, s = found.active, found.shadow
    say(
        f"{machine}: {local(found.first_utc_s)} to {local(found.last_utc_s)} {zone()}, in shadow: {found.version}",
        found.line,
        found.advice,
    )
    rows = [
        Row(("windows that both judged", str(found.windows), str(found.windows))),
        Row(("of them deviate", _anomalous(a, found.windows), _anomalous(s, found.windows))),
    ]
    for i, quantile in enumerate(QUANTILES):
        rows.append(Row((f"score, {100 * quantile:g} % of windows below", f"{a.scores[i]:.2f}", f"{s.scores[i]:.2f}")))
    rows.append(Row(("alarms", str(len(a.alarms)), str(len(s.alarms)))))
    show(("", "active", "in shadow"), rows)
    for name, alarms in (("active", a.alarms), ("in shadow", s.alarms)):
        for alarm in alarms[-20:]:
            say(f"{name}: {alarm.level} {local(alarm.raised_utc_s)}, {_length(alarm)}", indent="  ")


def _length(alarm: Episode) -> str:
    return "present" if alarm.cleared_utc_s is None else lasted(alarm.cleared_utc_s - alarm.raised_utc_s)


def _anomalous(side: Side, windows: int) -> str:
    return f"{side.anomalous} ({100 * side.anomalous / windows:.3g} %)"


def _data(found: Comparison) -> dict[str, object]:
    def side(one: Side) -> dict[str, object]:
        scores = {f"{q:g}": None if math.isnan(v) else v for q, v in zip(QUANTILES, one.scores, strict=True)}
        return {"anomalous": one.anomalous, "scores": scores, "alarms": one.alarms}

    return {
        "baseline": found.version,
        "since": rfc3339(found.first_utc_s),
        "until": rfc3339(found.last_utc_s),
        "windows": found.windows,
        "differ": found.differ,
        "active": side(found.active),
        "shadow": side(found.shadow),
    }
