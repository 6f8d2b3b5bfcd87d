"""File names of DCASE Task 2, 2020-2026.

    2020        normal_id_00_00000000.wav, anomaly_id_00_00000000.wav, id_01_00000000.wav (evaluation)
    2021-2026   section_00_source_train_normal_0000_<attributes>.wav, section_00_0000.wav (evaluation)
    2025-2026   supplemental clips: section_00_<words with "noise", "machine" or
    "clean">_0000_<attributes>.wav

The words between section and number are read by meaning, never by position: releases differ in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from asd_train.data.clip import Domain, Kind, Label

_SECTION = re.compile(r"section_(?P<section>\d+)_(?P<words>(?:[A-Za-z]+_)*?)(?P<number>\d+)(?:_(?P<rest>.+))?")
_ID = re.compile(r"(?:(?P<words>normal|anomaly)_)?id_(?P<section>\d+)_(?P<number>\d+)")


@dataclass(frozen=True, slots=True)
class Name:
    section: str
    number: str
    domain: Domain
    label: Label
    attributes: tuple[tuple[str, str], ...]
    kind: Kind | None  # None: the name does not say
    core: str  # up to the number, without attributes: how tables may shorten it


def parse_name(file: str) -> Name | None:
    """Read a file name (with or without folders and suffix); None when it is no challenge name."""
    stem = stem_of(file)
    match = _SECTION.fullmatch(stem) or _ID.fullmatch(stem)
    if match is None:
        return None
    words = set((match["words"] or "").strip("_").split("_"))
    rest = match.groupdict().get("rest") or ""
    return Name(
        section=match["section"],
        number=match["number"],
        domain="target" if "target" in words else "source" if "source" in words else "",
        label="anomaly" if "anomaly" in words else "normal" if "normal" in words else "",
        attributes=_attributes(rest),
        kind=_kind(words) or _kind(set(rest.split("_"))),
        core=stem[: match.end("number")],
    )


def stem_of(file: str) -> str:
    """`fan/train/x.wav` -> `x`; a name without suffix stays (attribute values may hold a point: ac_0.08)."""
    name = file.strip().replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"\.(wav|flac)$", "", name, flags=re.IGNORECASE)


def _kind(words: set[str]) -> Kind | None:
    if "noise" in words:
        return "noise"
    return "clean" if words & {"machine", "clean"} else None


def _attributes(rest: str) -> tuple[tuple[str, str], ...]:
    """key_value_key_value; a key may hold "_" too, so an odd count stays one piece (the CSV knows)."""
    parts = rest.split("_")
    if not rest or rest.lower() == "noattribute":
        return ()
    if len(parts) % 2:
        return (("attributes", rest),)
    return tuple(zip(parts[::2], parts[1::2], strict=True))
