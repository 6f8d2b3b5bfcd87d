"""Scores of several systems -> one: the weighted sum of standard scores, machine by machine.

It works on the folders that `asd-train evaluate` writes (or anyone's anomaly_score_*.csv), so systems of any kind mix.
A system's scores of a machine are standardised by their mean and deviation over the test clips ("test", as the reports
do, with all test clips at hand), or over held-out normal clips ("train", which an agent can do too).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from asd_agent.errors import UsageError
from asd_agent.types import Floats
from asd_train.data.clip import Clip
from asd_train.data.names import parse_name, stem_of
from asd_train.data.tables import Truth
from asd_train.evaluate import Section
from asd_train.metrics import Rules, official_score, section_figures
from asd_train.results import read_scores

_FILE = re.compile(r"anomaly_score_(?P<machine>.+)_section_(?P<section>\d+)_test\.csv")
MOST = 50_000  # points of a grid


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    scores: str  # folder with anomaly_score_*.csv
    weight: Annotated[float, Meta(ge=0)] = 1.0


class Ensemble(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration file of `asd-train ensemble`."""

    members: Annotated[list[Member], Meta(min_length=1)]
    normalise: Literal["test", "train"] = "test"
    replace: dict[str, str] = {}  # machine -> folder whose score takes the place of the sum (report A's -MA systems)

    def __post_init__(self) -> None:
        if not any(member.weight for member in self.members):
            raise ValueError("all weights are 0")


@dataclass(frozen=True)
class Table:
    """The scores of all members for one section: rows are clips, columns members."""

    section: Section  # clips and labels; its scores are not yet set
    test: Floats  # [clips, members], standardised
    normal: Floats  # [normals, members], standardised; no rows where a member has none
    fixed: bool = False  # scores of one replacing system: weights do not matter


def read_tables(config: Ensemble, truth: Mapping[str, Mapping[str, Truth]] | None = None) -> list[Table]:
    """Everything that weights are to be applied to; raises UsageError where members do not cover the same clips."""
    folders = [Path(member.scores) for member in config.members]
    first = score_files(folders[0])
    tables = []
    for key in first:
        machine = _FILE.fullmatch(Path(key).name)
        assert machine is not None
        substitute = config.replace.get(machine["machine"])
        used = [Path(substitute)] if substitute else folders
        table = _table([folder / key for folder in used], truth or {}, config.normalise)
        tables.append(replace(table, fixed=substitute is not None))
    return tables


def combine(tables: Sequence[Table], weights: Sequence[float]) -> list[Section]:
    """The sections with the weighted sums as scores; the weights are scaled to sum 1."""
    w = np.asarray(weights) / np.sum(weights)
    return [
        replace(
            table.section,
            scores=table.test[:, 0] if table.fixed else table.test @ w,
            held_out=table.normal[:, 0] if table.fixed else table.normal @ w,
        )
        for table in tables
    ]


def grid_search(tables: Sequence[Table], step: float, rules: Rules) -> tuple[tuple[float, ...], float]:
    """(weights, official score) of the best point of a grid over all weights that sum to 1.

    The test labels choose, so the score that it finds is too good for other clips. Of equal points the first counts.
    Raises UsageError without labels, or for a grid of more than 50,000 points.
    """
    labelled = [table for table in tables if table.section.labelled]
    if not labelled:
        raise UsageError("a grid search needs labels: give --ground-truth")
    members = max(table.test.shape[1] for table in tables)
    parts = round(1 / step)
    points = math.comb(parts + members - 1, members - 1)
    if points > MOST:
        raise UsageError(f"a grid of {points} points is too many: a step above {step:g} or fewer systems")
    best: tuple[tuple[float, ...], float] = ((), -1.0)
    for weights in simplex(members, parts):
        figures = [section_figures(section.scored(), rules) for section in combine(labelled, weights)]
        score = official_score(figures, rules)
        if score > best[1] + 1e-12:
            best = weights, score
    return best


def simplex(members: int, parts: int) -> Iterator[tuple[float, ...]]:
    """All tuples of multiples of 1 / parts that sum to 1."""
    for bars in itertools.combinations(range(parts + members - 1), members - 1):
        edges = (-1, *bars, parts + members - 1)
        yield tuple((b - a - 1) / parts for a, b in itertools.pairwise(edges))


def score_files(folder: Path) -> list[str]:
    """Names of the score files below a folder, relative to it, sorted; raises UsageError without any."""
    found = sorted(str(f.relative_to(folder)) for f in folder.rglob("anomaly_score_*.csv") if _FILE.fullmatch(f.name))
    if not found:
        raise UsageError(
            f"{folder}: no anomaly_score_<machine>_section_<NN>_test.csv in it; asd-train evaluate -o writes them"
        )
    return found


def _table(paths: Sequence[Path], truth: Mapping[str, Mapping[str, Truth]], normalise: str) -> Table:
    named = _FILE.fullmatch(paths[0].name)
    assert named is not None
    test = [_columns(path) for path in paths]
    normal = [_columns(_normals_of(path)) if _normals_of(path).is_file() else {} for path in paths]
    files = _same(paths, test)
    # Of the normal clips those that every member has held out: folds and clips that could not be judged differ.
    normals = [file for file in normal[0] if all(file in column for column in normal)]
    year = int(paths[0].parent.name) if re.fullmatch(r"20\d\d", paths[0].parent.name) else 0
    known = truth.get(named["machine"], {})
    clips = tuple(_clip(file, named["machine"], named["section"], year, known) for file in files)
    columns = [_standardised(paths[i], test[i], normal[i], normalise) for i in range(len(paths))]
    section = Section(
        year,
        named["machine"],
        named["section"],
        clips,
        np.empty(0),
        tuple(Clip(file, named["machine"], year, named["section"]) for file in normals),
        np.empty(0),
    )
    return Table(
        section,
        np.array([[test_z[file] for test_z, _ in columns] for file in files]),
        np.array([[normal_z[file] for _, normal_z in columns] for file in normals]).reshape(len(normals), len(paths)),
    )


def _columns(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise UsageError(f"{path}: missing; every system must have scored the same machines")
    return read_scores(path)


def _normals_of(path: Path) -> Path:
    name = path.name.replace("anomaly_score_", "normal_score_").replace("_test.csv", "_train.csv")
    return path.with_name(name)


def _same(paths: Sequence[Path], columns: Sequence[Mapping[str, float]]) -> list[str]:
    for path, column in zip(paths[1:], columns[1:], strict=True):
        differing = sorted(set(column) ^ set(columns[0]))
        if differing:
            raise UsageError(
                f"{path}: holds other clips than {paths[0]} ({differing[0]} and {len(differing) - 1} more)"
            )
    return list(columns[0])


def _standardised(
    path: Path, test: Mapping[str, float], normal: Mapping[str, float], normalise: str
) -> tuple[dict[str, float], dict[str, float]]:
    usual = normal if normalise == "train" else test
    if not usual:
        raise UsageError(f"{_normals_of(path)}: missing; normalise: train needs held-out scores of normal clips")
    values = np.fromiter(usual.values(), np.float64)
    mean, sd = float(values.mean()), float(values.std()) or 1.0
    return {f: (s - mean) / sd for f, s in test.items()}, {f: (s - mean) / sd for f, s in normal.items()}


def _clip(file: str, machine: str, section: str, year: int, truth: Mapping[str, Truth]) -> Clip:
    """What the file's name, or the ground truth, says about a test clip."""
    name, said = parse_name(file), truth.get(stem_of(file))
    label = said.label if said else name.label if name else ""
    domain = said.domain if said else name.domain if name else ""
    if label and not domain:
        domain = "source"  # 2020 had one
    return Clip(file, machine, year, section, domain, "test", label)
