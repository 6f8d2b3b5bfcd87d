"""`asd-train ensemble`: one score from several systems."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asd_agent.errors import UsageError

if TYPE_CHECKING:
    from asd_train.ensemble import Ensemble
    from asd_train.metrics import Rules

EPILOG = """\
RESULTS are folders that asd-train evaluate wrote (anomaly_score_*.csv), or one YAML:
  members: [{scores: results/eat_lora, weight: 0.6}, {scores: results/fbeats, weight: 0.4}]
  normalise: train                      # test (default): by the test clips themselves, as the reports do
  replace: {gearbox: results/mechanism} # machine -> whose score it takes instead of the sum

The weights are scaled to sum 1. --grid tries all weights in steps and keeps those with the best official score: the
test labels choose, so use it on the development set and apply the weights it prints to the evaluation set.

  asd-train ensemble results/a results/b results/c -o results/abc
  asd-train ensemble results/a results/b -o results/ab --weights 0.7,0.3
  asd-train ensemble results/a results/b results/c -o results/best --grid 0.1
"""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "ensemble",
        help="weighted sum of the scores of several systems",
        description="Standardise every system's scores machine by machine, add them with weights, and evaluate.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", metavar="RESULTS", nargs="+", help="folders of asd-train evaluate, or one YAML")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for scores and results")
    weighting = parser.add_mutually_exclusive_group()
    weighting.add_argument("--weights", metavar="W,W,...", help="one a folder (default: equal)")
    weighting.add_argument("--grid", type=float, metavar="STEP", help="search weights in these steps, such as 0.1")
    parser.add_argument(
        "--normalise", choices=("test", "train"), help="by test clips, or by held-out normal clips (test)"
    )
    parser.add_argument("--replace", metavar="MACHINE=FOLDER", action="append", default=[], help="repeatable")
    parser.add_argument("--ground-truth", metavar="PATH", help="of an evaluation set without labels")
    parser.add_argument("--rules", choices=("2020", "2021", "2022"), help="default: as the first folder was evaluated")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="rounds; 0 = no intervals (1000)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from asd_train.data.tables import read_truth
    from asd_train.ensemble import combine, grid_search, read_tables
    from asd_train.results import Remarks, summarise, write_scores, write_summary

    config = _config(args)
    if args.grid is not None and not 0 < args.grid <= 0.5:
        raise UsageError("--grid: a step above 0 and up to 0.5")
    rules = args.rules or _rules_of(Path(config.members[0].scores))
    tables = read_tables(config, read_truth(Path(args.ground_truth)) if args.ground_truth else None)
    absent = sorted(set(config.replace) - {table.section.machine for table in tables})
    if absent:  # report A replaces machines of the evaluation set, which a development set has not
        print(f"asd-train: replace: no scores of {', '.join(absent)} here; they are left out", file=sys.stderr)
    weights: tuple[float, ...] = tuple(member.weight for member in config.members)
    if args.grid is not None:
        weights, _ = grid_search(tables, args.grid, rules)
    sections = combine(tables, weights)
    out = Path(args.output)
    try:
        write_scores(sections, out)
        remarks = Remarks(config.normalise == "test", _selected(config, args.grid))
        summary = summarise(sections, rules, args.bootstrap, remarks)
        write_summary(summary, out)
        used = {m.scores: w / sum(weights) for m, w in zip(config.members, weights, strict=True)}
        (out / "weights.json").write_text(json.dumps(used, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"{out}: cannot be written ({exc.strerror or exc})") from exc
    for folder, weight in used.items():
        print(f"{weight:.3f}  {folder}")
    print(f"\n{(out / 'results.md').read_text()}")
    return 0


def _config(args: argparse.Namespace) -> Ensemble:
    import msgspec

    from asd_agent.config.load import read
    from asd_train.ensemble import Ensemble, Member
    from asd_train.kinds import check_kind

    if Path(args.results[0]).suffix in (".yaml", ".yml"):
        if len(args.results) > 1 or args.weights:
            raise UsageError("give either one YAML, which holds members and weights, or folders")
        check_kind(args.results[0], "ensemble")
        config = read(args.results[0], Ensemble)
    else:
        weights = _weights(args.weights, len(args.results))
        config = Ensemble(members=[Member(scores=f, weight=w) for f, w in zip(args.results, weights, strict=True)])
    changes: dict[str, Any] = {"normalise": args.normalise} if args.normalise else {}
    pairs = [text.partition("=") for text in args.replace]
    if any(not folder for _, _, folder in pairs):
        raise UsageError("--replace is of the form MACHINE=FOLDER")
    replaced = {**config.replace, **{machine: folder for machine, _, folder in pairs}}
    return msgspec.structs.replace(config, replace=replaced, **changes)


def _weights(text: str | None, count: int) -> list[float]:
    if text is None:
        return [1.0] * count
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError as exc:
        raise UsageError(f"--weights {text}: numbers with commas between, such as 0.6,0.4") from exc
    if len(weights) != count or min(weights) < 0 or sum(weights) <= 0:
        raise UsageError(f"--weights {text}: {count} numbers are needed, none negative, not all 0")
    return weights


def _selected(config: Ensemble, grid: float | None) -> str:
    """What was chosen by test labels: the weights, or a step of a member."""
    found = [f"weights in steps of {grid:g} by the official score"] if grid is not None else []
    found += [f"{m.scores}: {said}" for m in config.members if (said := _summary(Path(m.scores)).get("selected"))]
    return "; ".join(found)


def _rules_of(folder: Path) -> Rules:
    rules: Rules = _summary(folder).get("rules", "2022")
    return rules


def _summary(folder: Path) -> dict[str, Any]:
    """results.json of an evaluation; {} where there is none."""
    try:
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
