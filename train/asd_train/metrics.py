"""The challenge's figures: AUC, partial AUC, their means, and how sure they are.

`Rules` of the years:
    2020    AUC and pAUC of a section, arithmetic mean
    2021    AUC and pAUC of each domain alone, harmonic mean
    2022    and later: AUC of a domain's normals against the anomalies of both, pAUC of the whole section,
    harmonic mean
Scores are high = anomalous. Equal to scikit-learn's roc_auc_score, but fast enough to bootstrap with.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from asd_agent.errors import UsageError
from asd_agent.types import Floats

Rules = Literal["2020", "2021", "2022"]
Bools = npt.NDArray[np.bool_]
MAX_FPR = 0.1


@dataclass(frozen=True)
class Scored:
    """The scored test clips of one section of one machine."""

    name: str
    scores: Floats  # [n]
    anomalous: Bools  # [n]
    target: Bools  # [n] of the target domain

    def pick(self, rows: npt.NDArray[np.int64]) -> Scored:
        return Scored(self.name, self.scores[rows], self.anomalous[rows], self.target[rows])


def auc(scores: Floats, anomalous: Bools) -> float:
    """Area under the ROC curve, ties at half: the chance that an anomaly scores above a normal clip."""
    fpr, tpr = roc(scores, anomalous)
    return _area(fpr, tpr)


def pauc(scores: Floats, anomalous: Bools, max_fpr: float = MAX_FPR) -> float:
    """Partial area for false positive rates up to `max_fpr`, standardised after McClish (0.5 = chance)."""
    fpr, tpr = roc(scores, anomalous)
    stop = int(np.searchsorted(fpr, max_fpr, side="right"))
    if stop < len(fpr):  # end exactly at max_fpr, on the line between two points
        edge = np.interp(max_fpr, fpr[stop - 1 : stop + 1], tpr[stop - 1 : stop + 1])
        fpr, tpr = np.append(fpr[:stop], max_fpr), np.append(tpr[:stop], edge)
    area = _area(fpr, tpr)
    least = max_fpr**2 / 2
    return 0.5 * (1 + (area - least) / (max_fpr - least))


def roc(scores: Floats, anomalous: Bools) -> tuple[Floats, Floats]:
    """False and true positive rates, (0, 0) to (1, 1), a point per distinct score. Raises UsageError."""
    positives = int(np.count_nonzero(anomalous))
    negatives = len(anomalous) - positives
    if not positives or not negatives:
        raise UsageError(f"an AUC needs normal and anomalous clips: {negatives} normal, {positives} anomalous")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(anomalous[order])[ends]
    false = ends + 1 - true
    return np.append(0.0, false / negatives), np.append(0.0, true / positives)


def _area(x: Floats, y: Floats) -> float:
    """Under the line through the points [n], by trapezia."""
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)


def section_figures(scored: Scored, rules: Rules = "2022") -> dict[str, float]:
    """The numbers that a section contributes to the official score; of domains with normal clips only."""
    if rules == "2020":
        return {"auc": auc(scored.scores, scored.anomalous), "pauc": pauc(scored.scores, scored.anomalous)}
    figures: dict[str, float] = {}
    for domain, inside in (("source", ~scored.target), ("target", scored.target)):
        if not (inside & ~scored.anomalous).any():
            continue
        rows = inside if rules == "2021" else inside | scored.anomalous
        figures[f"auc_{domain}"] = auc(scored.scores[rows], scored.anomalous[rows])
        if rules == "2021":
            figures[f"pauc_{domain}"] = pauc(scored.scores[rows], scored.anomalous[rows])
    if rules == "2022":
        figures["pauc"] = pauc(scored.scores, scored.anomalous)
    return figures


def harmonic_mean(values: Iterable[float]) -> float:
    """As the evaluators: values floored at the machine epsilon."""
    floored = np.maximum(np.fromiter(values, np.float64), sys.float_info.epsilon)
    return float(len(floored) / (1 / floored).sum())


def official_score(figures: Iterable[Mapping[str, float]], rules: Rules = "2022") -> float:
    """One number for all sections: the mean, harmonic since 2021, of every figure of every section."""
    values = [value for section in figures for value in section.values()]
    return float(np.mean(values)) if rules == "2020" else harmonic_mean(values)


def bootstrap(
    sections: Sequence[Scored], rules: Rules = "2022", rounds: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of each section's mean (by name) and of the official score ("all").

    Clips are drawn with replacement within their domain and label, as the challenge fixes those counts. It
    tells how much the figures owe to the choice of the test clips, not to the seed of a training.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in [*(s.name for s in sections), "all"]}
    for _ in range(rounds):
        figures = [section_figures(s.pick(resample(s, rng)), rules) for s in sections]
        for section, values in zip(sections, figures, strict=True):
            found[section.name].append(official_score([values], rules))
        found["all"].append(official_score(figures, rules))
    edges = [(1 - level) / 2 * 100, (1 + level) / 2 * 100]
    return {name: tuple(np.percentile(values, edges).tolist()) for name, values in found.items()}


def decision_figures(scored: Scored, threshold: float) -> dict[str, float]:
    """Precision, recall and F1 of each domain at a threshold, by clips of that domain alone (informative)."""
    figures: dict[str, float] = {}
    for domain, inside in (("source", ~scored.target), ("target", scored.target)):
        anomalous, alarm = scored.anomalous[inside], scored.scores[inside] > threshold
        if not anomalous.any():
            continue
        hits = float(np.count_nonzero(alarm & anomalous))
        precision = hits / max(1, int(np.count_nonzero(alarm)))
        recall = hits / np.count_nonzero(anomalous)
        figures[f"precision_{domain}"], figures[f"recall_{domain}"] = precision, recall
        figures[f"f1_{domain}"] = 2 * precision * recall / (precision + recall) if hits else 0.0
    return figures


def resample(scored: Scored, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Rows of as many clips of each domain and label, drawn with replacement."""
    stratum = scored.anomalous * 2 + scored.target
    parts = [np.flatnonzero(stratum == s) for s in np.unique(stratum)]
    return np.concatenate([part[rng.integers(len(part), size=len(part))] for part in parts])
