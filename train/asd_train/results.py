"""What an evaluation leaves behind: the challenge's CSVs, a table, numbers for other programs, and reading it back.

    anomaly_score_<machine>_section_00_test.csv      file,score     no header, as the challenge asks
    decision_result_<machine>_section_00_test.csv    file,0|1
    normal_score_<machine>_section_00_train.csv      held-out scores of normal training clips
    results.json  results.md  <machine>.png          figures (where the truth is known)

Clips of several years lie in a folder a year.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asd_agent.errors import UsageError
from asd_agent.types import Floats
from asd_train.data.tables import read_rows
from asd_train.evaluate import Section
from asd_train.metrics import Rules, bootstrap, decision_figures, official_score, section_figures

QUANTILE = 0.9


def threshold(held_out: Floats) -> float:
    """The baseline's: 90th percentile of a gamma distribution fitted to normal scores; NaN without any."""
    if len(held_out) < 2 or np.ptp(held_out) == 0:
        return float(held_out[0]) if len(held_out) else math.nan
    from scipy.stats import gamma

    with np.errstate(all="ignore"):
        shape, place, scale = gamma.fit(held_out)
        found = float(gamma.ppf(QUANTILE, shape, loc=place, scale=scale))
    return found if math.isfinite(found) else float(np.quantile(held_out, QUANTILE))


def write_scores(sections: Sequence[Section], out: Path) -> None:
    """The CSVs of every section."""
    for section in sections:
        folder = out / str(section.year) if _years(sections) > 1 else out
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{section.machine}_section_{section.section}"
        files = [clip.file for clip in section.clips]
        _write_rows(folder / f"anomaly_score_{name}_test.csv", files, section.scores.tolist())
        limit = threshold(section.held_out)
        if not math.isnan(limit):
            decisions = (section.scores > limit).astype(int).tolist()
            _write_rows(folder / f"decision_result_{name}_test.csv", files, decisions)
            normals = [clip.file for clip in section.normals]
            _write_rows(folder / f"normal_score_{name}_train.csv", normals, section.held_out.tolist())


def read_scores(path: Path) -> dict[str, float]:
    """File name -> score; raises UsageError naming the file and the row."""
    found: dict[str, float] = {}
    for row in read_rows(path):
        try:
            found[row[0].strip()] = float(row[1])
        except (IndexError, ValueError) as exc:
            raise UsageError(f"{path}: {','.join(row)!r} is not `file,score`") from exc
    return found


@dataclass(frozen=True)
class Remarks:
    """What readers of figures must be told."""

    transductive: bool = False  # the scores of a clip depend on the other test clips
    selected: str = ""  # what was chosen by test labels; empty = nothing


def summarise(
    sections: Sequence[Section], rules: Rules, rounds: int = 1000, remarks: Remarks | None = None
) -> dict[str, Any]:
    """Figures of every labelled section and of all, with intervals; `score` None where no truth is known."""
    remarks = remarks or Remarks()
    known = [section for section in sections if section.labelled]
    unlabelled = [section.name for section in sections if not section.labelled]
    about = {"rules": rules, "unlabelled": unlabelled, **dataclasses.asdict(remarks)}
    if not known:
        return {**about, "machines": [], "score": None, "interval": None}
    scored = [section.scored() for section in known]
    figures = [section_figures(s, rules) for s in scored]
    intervals = bootstrap(scored, rules, rounds) if rounds else {}
    machines = [
        {
            "machine": section.machine,
            "section": section.section,
            "year": section.year,
            "figures": values,
            "score": official_score([values], rules),
            "interval": intervals.get(s.name),
            "decision": decision_figures(s, threshold(section.held_out)),
        }
        for section, s, values in zip(known, scored, figures, strict=True)
    ]
    return {
        **about,
        "machines": machines,
        "score": official_score(figures, rules),
        "interval": intervals.get("all"),
        "means": _means(figures, rules),
    }


def write_summary(summary: Mapping[str, Any], out: Path) -> None:
    """`results.json` and `results.md`."""
    _replace(out / "results.json", json.dumps(summary, indent=1) + "\n")
    _replace(out / "results.md", markdown(summary))


def markdown(summary: Mapping[str, Any]) -> str:
    """The figures in % as a table, one row a machine, the official score below."""
    if summary["score"] is None:
        return "No labels of test clips known: scores written, no figures.\n"
    columns = list(dict.fromkeys(name for m in summary["machines"] for name in m["figures"]))
    mean = "mean" if summary["rules"] == "2020" else "harmonic mean"
    head = ["machine", *(_TITLES[c] for c in columns), mean, "95 % interval"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    several = len({m["year"] for m in summary["machines"]}) > 1
    for m in summary["machines"]:
        name = " ".join(
            [
                *([str(m["year"])] if several else []),
                m["machine"],
                *([m["section"]] if m["section"] != "00" else []),
            ]
        )
        rows.append(
            [
                name,
                *(_percent(m["figures"].get(c)) for c in columns),
                _percent(m["score"]),
                _span(m["interval"]),
            ]
        )
    means = [_percent(summary["means"].get(c)) for c in columns]
    rows.append(["**all**", *means, f"**{_percent(summary['score'])}**", _span(summary["interval"])])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    if summary["unlabelled"]:
        table += f"\nNo labels of {', '.join(summary['unlabelled'])}: scored, but not among the figures.\n"
    if summary["selected"]:
        table += f"\nSelected on test labels: {summary['selected']}. The figures are too good for other clips.\n"
    return table + (_TRANSDUCTIVE if summary["transductive"] else "")


_TRANSDUCTIVE = """
Scores are standardised over all test clips of a machine, as in the report; an agent has no test set and cannot do it.
"""
_TITLES = {
    "auc": "AUC",
    "pauc": "pAUC",
    "auc_source": "AUC source",
    "auc_target": "AUC target",
    "pauc_source": "pAUC source",
    "pauc_target": "pAUC target",
}


def _means(figures: Sequence[Mapping[str, float]], rules: Rules) -> dict[str, float]:
    """Each column alone, by the mean of the rules."""
    names = dict.fromkeys(name for values in figures for name in values)
    return {n: official_score([{n: v[n]} for v in figures if n in v], rules) for n in names}


def _years(sections: Sequence[Section]) -> int:
    return len({section.year for section in sections})


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _span(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _write_rows(path: Path, files: Sequence[str], values: Sequence[float]) -> None:
    _replace(path, "".join(f"{file},{value!r}\n" for file, value in zip(files, values, strict=True)))


def _replace(path: Path, text: str) -> None:
    """Written under another name first: a file of that name is complete."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)
