"""The tables beside the recordings: attributes and ground truth."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asd_agent.errors import UsageError
from asd_train.data.clip import Domain, Label
from asd_train.data.names import parse_name, stem_of

Attributes = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Truth:
    """What the organisers published after the challenge about one clip of an evaluation set."""

    label: Label
    domain: Domain
    attributes: Attributes = ()


def read_rows(path: Path) -> list[list[str]]:
    """Rows of a CSV without empty ones; raises UsageError naming the file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise UsageError(f"{path}: cannot be read as CSV ({exc})") from exc


def read_attributes(path: Path) -> dict[str, Attributes]:
    """`attributes_00.csv` (file_name,d1p,d1v,d2p,...): clip -> attributes, by full and by short name."""
    rows = read_rows(path)
    if not rows or rows[0][0].strip() != "file_name":
        raise UsageError(f"{path}: the first line must be a header that begins with file_name")
    found: dict[str, Attributes] = {}
    for row in rows[1:]:
        cells = [cell.strip() for cell in row[1:]]
        pairs = tuple((k, v) for k, v in zip(cells[::2], cells[1::2], strict=False) if k and v)
        name = parse_name(row[0])
        found[stem_of(row[0])] = pairs
        if name is not None:
            found.setdefault(name.core, pairs)
    return found


def read_truth(path: Path) -> dict[str, dict[str, Truth]]:
    """Ground truth of an evaluation set: machine -> short clip name -> Truth.

    `path` is a list in the challenge baseline's format (a line with the machine's name, then rows
    `section_00_0000.wav,section_00_source_test_normal_..._.wav`, or `...,0|1` in 2020) or the evaluator's
    folder (`ground_truth_attributes/`, or `ground_truth_data/` with `ground_truth_domain/`). Raises
    UsageError.
    """
    if not path.exists():
        raise UsageError(f"{path}: ground truth not found")
    found = _from_folder(path) if path.is_dir() else _from_list(path)
    if not any(found.values()):
        raise UsageError(f"{path}: no ground truth in it (expected the baseline's list or the evaluator's folder)")
    return found


def _from_list(path: Path) -> dict[str, dict[str, Truth]]:
    found: dict[str, dict[str, Truth]] = {}
    machine: dict[str, Truth] | None = None
    for row in read_rows(path):
        cells = [cell.strip() for cell in row if cell.strip()]
        if len(cells) == 1:
            machine = found.setdefault(cells[0], {})
        elif machine is None:
            raise UsageError(f"{path}: the first line must be a machine's name, not {cells[0]!r}")
        else:
            machine[stem_of(cells[0])] = _truth(path, cells[0], cells[1])
    return found


def _from_folder(folder: Path) -> dict[str, dict[str, Truth]]:
    found: dict[str, dict[str, Truth]] = {}
    named = _section_files(folder, "ground_truth_attributes")
    data = _section_files(folder, "ground_truth_data")
    domains = _section_files(folder, "ground_truth_domain")
    for file in (named or data).values():
        machine = file.name.removeprefix("ground_truth_").split("_section_")[0]
        entry = found.setdefault(machine, {})
        domain = {stem_of(r[0]): r[1].strip() for r in read_rows(domains[file.name])} if file.name in domains else {}
        for row in read_rows(file):
            stem = stem_of(row[0])
            truth = _truth(file, row[0], row[1].strip() if len(row) > 1 else "")
            if stem in domain:
                truth = Truth(truth.label, "target" if domain[stem] == "1" else "source", truth.attributes)
            entry[stem] = truth
    return found


def _section_files(folder: Path, kind: str) -> Mapping[str, Path]:
    return {file.name: file for file in sorted(folder.rglob(f"{kind}/**/ground_truth_*_section_*_test.csv"))}


def _truth(path: Path, clip: str, says: str) -> Truth:
    if says in ("0", "1"):
        return Truth("anomaly" if says == "1" else "normal", "")
    name = parse_name(says)
    if name is None or not name.label:
        raise UsageError(f"{path}: {clip}: {says!r} is neither 0, 1 nor a name that says normal or anomaly")
    return Truth(name.label, name.domain, name.attributes)
