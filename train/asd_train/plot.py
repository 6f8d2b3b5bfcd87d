"""A picture per machine: where the scores of normal and anomalous clips of both domains lie, and the ROC."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from asd_agent.errors import UsageError
from asd_train.evaluate import Section
from asd_train.metrics import MAX_FPR, auc, pauc, roc

_COLOURS = {"normal": "#2b6cb0", "anomaly": "#c05621"}


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def plot_section(section: Section, limit: float, path: Path) -> None:
    """Write the PNG of a labelled section; `limit` is the decision threshold (NaN: none)."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise UsageError('a plot needs matplotlib: pip install "asd-agent[plot]"') from exc
    figure = Figure(figsize=(9, 4), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(3, 2))
    upper = figure.add_subplot(grid[0, 0])
    _histogram(upper, section, limit, "source")
    _histogram(figure.add_subplot(grid[1, 0], sharex=upper), section, limit, "target")
    _roc(figure.add_subplot(grid[:, 1]), section)
    figure.suptitle(section.name)
    figure.savefig(path, dpi=110)


def _histogram(axes: Any, section: Section, limit: float, domain: str) -> None:
    scored = section.scored()
    inside = scored.target if domain == "target" else ~scored.target
    edges = np.histogram_bin_edges(scored.scores, bins=30)
    for label, rows in (("normal", inside & ~scored.anomalous), ("anomaly", inside & scored.anomalous)):
        name = f"{label} ({np.count_nonzero(rows)})"
        axes.hist(scored.scores[rows], edges, alpha=0.55, color=_COLOURS[label], label=name)
    if np.isfinite(limit):
        axes.axvline(limit, color="0.3", linewidth=1, label="threshold")
    axes.set_ylabel(f"{domain} clips")
    if domain == "target":
        axes.set_xlabel("anomaly score")
    axes.legend(fontsize=8, frameon=False)


def _roc(axes: Any, section: Section) -> None:
    scored = section.scored()
    axes.axvspan(0, MAX_FPR, color="0.92")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    for domain, inside, style in (("source", ~scored.target, "-"), ("target", scored.target, "--")):
        if not (inside & ~scored.anomalous).any():
            continue
        rows = inside | scored.anomalous
        area = auc(scored.scores[rows], scored.anomalous[rows])
        axes.plot(
            *roc(scored.scores[rows], scored.anomalous[rows]),
            style,
            color=_COLOURS["normal"],
            label=f"{domain} AUC {100 * area:.1f}",
        )
    partial = pauc(scored.scores, scored.anomalous)
    axes.plot(
        *roc(scored.scores, scored.anomalous),
        color="0.2",
        linewidth=1,
        label=f"all, pAUC {100 * partial:.1f}",
    )
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(fontsize=8, frameon=False, loc="lower right")
