"""Recordings of a user's own machines -> clips.

`root/<machine>/**.wav`, or WAVs directly in `root` (then the folder's name is the machine). All are normal training
clips of the source domain, unless a folder below says otherwise: `test`, `anomaly` (always test), `target`, `noise` and
`clean` mean what they mean in `Clip`. An optional `attributes.csv` (beside the recordings or in the root) rules over
folders: its first column `file_name` is the path below the CSV's folder or the bare file name; the columns `domain`,
`section`, `split`, `label` and `kind` mean what they mean in `Clip`; d1p,d1v,... are read as in the challenge; every
other column is an attribute.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from asd_agent.errors import UsageError
from asd_train.data.clip import Clip, Domain, Kind, Label, Split
from asd_train.data.layout import audio_files
from asd_train.data.tables import read_rows

TABLE = "attributes.csv"
_MEANING: Mapping[str, tuple[str, ...]] = {
    "domain": tuple(d for d in get_args(Domain) if d),
    "split": get_args(Split),
    "label": get_args(Label),
    "kind": get_args(Kind),
}


_FOLDERS: Mapping[str, dict[str, str]] = {
    "test": {"split": "test"},
    "anomaly": {"split": "test", "label": "anomaly"},
    "target": {"domain": "target"},
    "noise": {"split": "supplemental", "kind": "noise"},
    "clean": {"split": "supplemental", "kind": "clean"},
}


def folder_clips(root: Path) -> Iterator[Clip]:
    """Every WAV or FLAC below `root`, sorted by path; raises UsageError for a table that does not fit."""
    tables: dict[Path, dict[str, dict[str, str]]] = {}
    for folder, inner, _ in sorted(os.walk(root, followlinks=True)):
        inner.sort()
        here = Path(folder)
        if (here / TABLE).is_file():
            tables[here] = _read_table(here / TABLE)
        for path in audio_files(here):
            folders = path.relative_to(root).parts[:-1]
            flat = not folders or folders[0] in _FOLDERS
            machine = root.resolve().name if flat else folders[0]
            said = {key: value for name in folders for key, value in _FOLDERS.get(name, {}).items()}
            yield _clip(path, machine, said, tables)


def _clip(
    path: Path, machine: str, said: Mapping[str, str], tables: Mapping[Path, Mapping[str, Mapping[str, str]]]
) -> Clip:
    row: Mapping[str, str] = {}
    for folder in reversed(path.parents):
        table = tables.get(folder, {})
        row = table.get(path.relative_to(folder).as_posix(), table.get(path.name, row))
    row = {**said, **{key: value for key, value in row.items() if value}}
    attributes = tuple((k, v) for k, v in row.items() if k not in _MEANING and k != "section")
    return Clip(
        path=str(path),
        machine=machine,
        section=row.get("section") or "00",
        domain=row.get("domain") or "source",  # type: ignore[arg-type] # checked by _read_table
        split=row.get("split") or "train",  # type: ignore[arg-type]
        label=row.get("label") or "normal",  # type: ignore[arg-type]
        attributes=attributes,
        kind=row.get("kind") or "clip",  # type: ignore[arg-type]
    )


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    rows = read_rows(path)
    header = [cell.strip() for cell in rows[0]] if rows else []
    if not header or header[0] != "file_name":
        raise UsageError(f"{path}: the first line must be a header that begins with file_name")
    return {row[0].strip(): _row(path, header, [cell.strip() for cell in row]) for row in rows[1:]}


def _row(path: Path, header: list[str], row: list[str]) -> dict[str, str]:
    values = dict(zip(header[1:], row[1:], strict=False))
    for key, allowed in _MEANING.items():
        if values.get(key) and values[key] not in allowed:
            raise UsageError(f"{path}: {row[0]}: {key} is {values[key]!r}, it must be one of {', '.join(allowed)}")
    for key in [k for k in header if k.startswith("d") and k.endswith("p") and k[1:-1].isdigit()]:
        name, value = values.pop(key, ""), values.pop(key[:-1] + "v", "")
        if name:
            values[name] = value
    return values
