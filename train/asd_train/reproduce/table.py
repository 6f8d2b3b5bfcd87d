"""What a reproduction leaves behind: a table of all systems over the seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asd_train.plot import available

Summary = dict[str, Any]


def collect(out: Path, systems: Sequence[str], seeds: int) -> dict[str, list[Summary]]:
    """System -> results.json of each seed; systems that are not scored (pre-training) are left out."""
    found: dict[str, list[Summary]] = {}
    for name in systems:
        paths = [out / f"seed-{seed}" / "results" / name / "results.json" for seed in range(seeds)]
        results = [json.loads(path.read_bytes()) for path in paths if path.is_file()]
        if results:
            found[name] = results
    return found


def write_table(out: Path, title: str, found: Mapping[str, Sequence[Summary]]) -> str:
    """reproduce.md, reproduce.json and, with matplotlib, reproduce.png; returns the Markdown."""
    rows = {name: _row(results) for name, results in found.items()}
    (out / "reproduce.json").write_text(
        json.dumps({"title": title, "systems": rows}, indent=1) + "\n", encoding="utf-8"
    )
    columns = list(dict.fromkeys(key for row in rows.values() for key in row["means"]))
    head = ["system", *columns, "official score", "deviation over seeds", "95 % interval of the test clips"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for name, row in rows.items():
        cells = [_percent(row["means"].get(column)) for column in columns]
        seeds = f"{_percent(row['deviation'])} ({row['seeds']})" if row["seeds"] > 1 else "one seed"
        low, high = row["interval"] or (None, None)
        lines.append(
            f"| {' | '.join([name, *cells, _percent(row['score']), seeds, f'{_percent(low)} to {_percent(high)}'])} |"
        )
    text = f"# {title}\n\n" + "\n".join(lines) + "\n"
    if any(row["transductive"] for row in rows.values()):
        text += "\nScores of some systems are standardised over all test clips of a machine, as in their reports.\n"
    for name, said in ((name, row["selected"]) for name, row in rows.items() if row["selected"]):
        text += f"\n{name}: {said}. Its figures are too good for other clips.\n"
    (out / "reproduce.md").write_text(text, encoding="utf-8")
    if available() and any(row["score"] is not None for row in rows.values()):
        _plot(rows, out / "reproduce.png")
    return text


def _row(results: Sequence[Summary]) -> Summary:
    """Mean and deviation over seeds; the interval is that of the first seed's test clips."""
    scores = [r["score"] for r in results if r["score"] is not None]
    names = dict.fromkeys(name for r in results for name in r.get("means", {}))
    return {
        "seeds": len(results),
        "score": float(np.mean(scores)) if scores else None,
        "deviation": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "means": {name: float(np.mean([r["means"][name] for r in results if name in r["means"]])) for name in names},
        "interval": results[0]["interval"],
        "transductive": results[0]["transductive"],
        "selected": results[0]["selected"],
    }


def _plot(rows: Mapping[str, Summary], path: Path) -> None:
    from matplotlib.figure import Figure

    known = {name: row for name, row in rows.items() if row["score"] is not None}
    figure = Figure(figsize=(8, 0.4 * len(known) + 1.5), layout="constrained")
    axes = figure.subplots()
    errors = [100 * (row["deviation"] or 0.0) for row in known.values()]
    axes.barh(list(known), [100 * row["score"] for row in known.values()], xerr=errors, color="#2b6cb0")
    axes.invert_yaxis()
    axes.set_xlabel("official score, %")
    figure.savefig(path, dpi=110)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
