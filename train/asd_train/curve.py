"""Figures over the steps of a training: what `asd-train evaluate RUN --snapshots` leaves behind.

They are computed on test labels after the training and choose nothing: who takes the best step selects on the test set.
`select: dev_score` of a configuration does that, and says so (`asd_train.selection`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asd_agent.errors import UsageError
from asd_train.plot import available

WARNING = "The test labels say which step is best: a system that is chosen by them is too good for other clips."


def points_of(run: Path) -> dict[int, Path]:
    """Step -> system of each snapshot of a run, and of its end; raises UsageError without a snapshot."""
    found = {int(folder.name.removeprefix("step-")): folder for folder in sorted(run.glob("snapshots/step-*"))}
    if not found:
        raise UsageError(
            f"{run}: no snapshots in it; name their steps before training (--set train.snapshots=[100,200])"
        )
    card = run / "system" / "system.json"
    if card.is_file():
        found.setdefault(int(json.loads(card.read_bytes())["training"]["steps"]), card.parent)
    return dict(sorted(found.items()))


def write_curve(out: Path, steps: list[int]) -> str:
    """curve.json, curve.md and, with matplotlib, curve.png from the results of every step; returns the table."""
    results = {step: json.loads((out / f"step-{step:08d}" / "results.json").read_bytes()) for step in steps}
    (out / "curve.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    names = list(dict.fromkeys(name for result in results.values() for name in result.get("means", {})))
    if not names:
        return "No labels of test clips known: no curve.\n"
    lines = [f"| step | {' | '.join(names)} | official score |", f"| ---: |{' ---: |' * (len(names) + 1)}"]
    for step, result in results.items():
        values = [*(result["means"].get(name) for name in names), result["score"]]
        cells = " | ".join("" if value is None else f"{100 * value:.2f}" for value in values)
        lines.append(f"| {step} | {cells} |")
    text = "\n".join([*lines, "", WARNING, ""])
    (out / "curve.md").write_text(text, encoding="utf-8")
    if available():
        _plot(results, names, out / "curve.png")
    return text


def _plot(results: dict[int, dict[str, Any]], names: list[str], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in names:
        axes.plot(list(results), [100 * r["means"].get(name, float("nan")) for r in results.values()], label=name)
    axes.plot(list(results), [100 * r["score"] for r in results.values()], "k--", label="official score")
    axes.set(xlabel="step", ylabel="%")
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
