"""Sources of clips, as a configuration lists them -> clips. Several sources may be of several years."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec

from asd_agent.errors import UsageError
from asd_train.data.clip import Clip, Kind
from asd_train.data.folder import folder_clips
from asd_train.data.layout import dcase_clips, layout_year, machine_folders
from asd_train.data.tables import Truth, read_truth


class DataSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `data:` in a training configuration."""

    path: str
    layout: Literal["auto", "dcase", "folder"] = "auto"  # folder: a user's own machines, see data/folder.py
    year: int = 0  # 0: the year in the path (dcase2025t2), else by the names if of 2020 or 2021
    machines: tuple[str, ...] = ()  # only these; empty = all
    ground_truth: str = ""  # of an evaluation set: the baseline's list or the evaluator's folder
    supplemental: dict[str, Literal["noise", "clean"]] = {}  # machine -> kind, where the names do not say


def load_clips(sources: Sequence[DataSource]) -> list[Clip]:
    """All clips of all sources, in a stable order; raises UsageError where a source has none."""
    if not sources:
        raise UsageError("no data: give at least one folder")
    clips = [clip for source in sources for clip in _load(source)]
    twice = [path for path, n in Counter(clip.path for clip in clips).items() if n > 1]
    if twice:
        raise UsageError(f"{twice[0]}: read twice, the sources overlap ({len(twice)} files)")
    return clips


def training_clips(clips: Iterable[Clip]) -> list[Clip]:
    """What may be learnt from: normal clips of train and supplemental; raises UsageError without any."""
    found = [c for c in clips if c.split != "test" and c.label == "normal"]
    if not any(c.kind == "clip" for c in found):
        raise UsageError("no training clips: no machine has normal clips in a train folder")
    return found


def _load(source: DataSource) -> list[Clip]:
    root = Path(source.path).expanduser().absolute()
    if not root.is_dir():
        raise UsageError(f"{source.path}: no such folder")
    folders = machine_folders(root) if source.layout != "folder" else []
    if source.layout == "dcase" and not folders:
        raise UsageError(
            f"{source.path}: no folder <machine>/train or <machine>/test with names of the challenge in it"
        )
    clips = _dcase(source, folders) if folders else list(folder_clips(root))
    clips = [c for c in clips if not source.machines or c.machine in source.machines]
    missing = sorted(set(source.machines) - {c.machine for c in clips})
    if missing:
        raise UsageError(f"{source.path}: no clips of {', '.join(missing)}")
    if not clips:
        raise UsageError(f"{source.path}: no WAV or FLAC files in it")
    return clips if folders else [replace(c, year=source.year) for c in clips]


def _dcase(source: DataSource, folders: Sequence[Path]) -> list[Clip]:
    truth: dict[str, dict[str, Truth]] = read_truth(Path(source.ground_truth)) if source.ground_truth else {}
    kinds: dict[str, Kind] = dict(source.supplemental)
    clips: list[Clip] = []
    for folder in folders:
        year = source.year or year_of(folder) or layout_year(folder)
        clips += dcase_clips(folder, year, truth.get(folder.name, {}), kinds)
    return clips


def year_of(path: Path) -> int:
    """The last 2020-2029 in the path, 0 without one (`.../dcase2025t2/dev_data/fan` -> 2025)."""
    years = re.findall(r"(?<!\d)202\d(?!\d)", str(path))
    return int(years[-1]) if years else 0
