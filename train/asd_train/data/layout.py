"""Folders in the layout of DCASE Task 2 -> clips.

`<machine>/train`, `<machine>/test` (2021: `source_test`, `target_test`), `<machine>/supplemental` and
`<machine>/attributes_00.csv`, at any depth below the root, so that `dev_data/raw/fan` and `eval_data/raw/fan`
of one year can lie under one root.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from asd_agent.errors import UsageError
from asd_train.data.clip import Clip, Domain, Kind, Split
from asd_train.data.names import Name, parse_name, stem_of
from asd_train.data.tables import Attributes, Truth, read_attributes

SUFFIXES = (".wav", ".flac")
_OLD = re.compile(r"(normal_|anomaly_)?id_")  # names of 2020
_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "test": "test",
    "source_test": "test",
    "target_test": "test",
    "supplemental": "supplemental",
}


def machine_folders(root: Path) -> list[Path]:
    """Folders below (or at) `root` that hold a split with a clip of a challenge name, sorted."""
    found = []
    for folder, inner, _ in os.walk(root, followlinks=True):
        if any(_holds_challenge_names(Path(folder, split)) for split in inner if split in _SPLITS):
            found.append(Path(folder))
            inner.clear()
    return sorted(found)


def dcase_clips(
    folder: Path, year: int, truth: Mapping[str, Truth], supplemental: Mapping[str, Kind]
) -> Iterator[Clip]:
    """The clips of one machine's folder, sorted by split and name; raises UsageError naming the file."""
    attributes: dict[str, Attributes] = {}
    for table in sorted(folder.glob("attributes_*.csv")):
        attributes.update(read_attributes(table))
    for split in _SPLITS:
        for path in audio_files(folder / split):
            name = parse_name(path.name)
            if name is None:
                raise UsageError(f"{path}: not a name of the challenge (section_00_source_train_normal_0000_....wav)")
            yield _clip(path, split, name, year, attributes, truth, supplemental)


def layout_year(folder: Path) -> int:
    """2020 and 2021 are told by their names and folders; 0 for all later years, which look alike."""
    if any((folder / split).is_dir() for split in ("source_test", "target_test")):
        return 2021
    first = [path.stem for split in _SPLITS for path in audio_files(folder / split)[:1]]
    return 2020 if any(_OLD.match(stem) for stem in first) else 0


def audio_files(folder: Path) -> list[Path]:
    """WAV and FLAC files directly in `folder`, sorted; hidden files (macOS leaves `._x.wav`) are no clips."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def _holds_challenge_names(folder: Path) -> bool:
    return any(parse_name(path.name) for path in audio_files(folder)[:5])


def _clip(
    path: Path,
    folder: str,
    name: Name,
    year: int,
    attributes: Mapping[str, Attributes],
    truth: Mapping[str, Truth],
    supplemental: Mapping[str, Kind],
) -> Clip:
    machine = path.parent.parent.name
    split = _SPLITS[folder]
    stem = stem_of(path.name)
    known = attributes.get(stem, attributes.get(name.core, name.attributes))
    clip = Clip(str(path), machine, year, name.section, name.domain, split, name.label, known)
    if split == "supplemental":
        kind = supplemental.get(machine) or name.kind
        if kind is None:
            raise UsageError(
                f"{path}: the name says neither noise nor machine/clean; "
                f"say which in the configuration (supplemental: {{{machine}: noise}})"
            )
        return replace(clip, kind=kind, domain=name.domain or "source", label="normal")
    if split == "train":
        return replace(clip, domain=name.domain or "source", label=name.label or "normal")
    if not name.label and stem in truth:
        said = truth[stem]
        clip = replace(clip, label=said.label, domain=said.domain, attributes=said.attributes)
    return clip if clip.domain else replace(clip, domain=_domain_of(folder, stem))


def _domain_of(folder: str, stem: str) -> Domain:
    if folder != "test":
        return "target" if folder.startswith("target") else "source"
    return "source" if _OLD.match(stem) else ""  # 2020 had one domain
