"""Where the releases of DCASE Task 2 lie on Zenodo, and what a record says of its files."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from asd_agent.errors import AsdError, UsageError

HOST = "https://zenodo.org"
TIMEOUT_S = 60.0
Part = Literal["dev", "train", "test"]
PARTS: tuple[Part, ...] = ("dev", "train", "test")

# Development data; additional training data and test data of the evaluation machines.
RECORDS: dict[str, dict[Part, int]] = {
    "dcase2020": {"dev": 3678171, "train": 3727685, "test": 3841772},
    "dcase2021": {"dev": 4562016, "train": 4660992, "test": 4884786},
    "dcase2022": {"dev": 6355122, "train": 6462969, "test": 6586456},
    "dcase2023": {"dev": 7882613, "train": 7830345, "test": 7860847},
    "dcase2024": {"dev": 10902294, "train": 11259435, "test": 11363076},
    "dcase2025": {"dev": 15097779, "train": 15392814, "test": 15519362},
    "dcase2026": {"dev": 19336329, "train": 20151556, "test": 20437238},
}


class DownloadError(AsdError):
    """The host cannot be reached, or what it sent is not what it promised."""


class _Links(msgspec.Struct):
    self: str


class RemoteFile(msgspec.Struct, frozen=True):
    """One file of a record."""

    key: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    size: Annotated[int, Meta(ge=0)]
    checksum: Annotated[str, Meta(pattern=r"^md5:[0-9a-f]{32}$")]
    links: _Links


class _Record(msgspec.Struct):
    files: list[RemoteFile]


@dataclass(frozen=True)
class Archive:
    """A file to download, and the folder of a release that it is unpacked into."""

    part: Part
    file: RemoteFile

    @property
    def folder(self) -> str:
        return "dev_data/raw" if self.part == "dev" else "eval_data/raw"


def record_of(name: str) -> dict[Part, int]:
    """The records of a release, by part; raises UsageError for an unknown one."""
    if name not in RECORDS:
        raise UsageError(f"unknown data {name!r}: use one of {', '.join(RECORDS)}")
    return RECORDS[name]


def archives_of(name: str, parts: tuple[Part, ...], host: str = HOST) -> list[Archive]:
    """What a release holds, as its records say now. Raises UsageError, DownloadError."""
    records = record_of(name)
    found = []
    for part in parts:
        text = _read(f"{host}/api/records/{records[part]}")
        try:
            files = msgspec.json.decode(text, type=_Record).files
        except msgspec.MsgspecError as exc:
            raise DownloadError(f"{host}: record {records[part]} cannot be read ({exc})") from exc
        found += [Archive(part, file) for file in files if file.key.endswith(".zip")]
    return found


def _read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read()
            return content
    except OSError as exc:
        raise unreachable(url, exc) from exc


def unreachable(url: str, exc: OSError) -> DownloadError:
    if isinstance(exc, urllib.error.HTTPError):
        return DownloadError(f"{url}: {exc.code} {exc.reason}; try again later")
    reason = getattr(exc, "reason", exc)
    why = (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
    host = "/".join(url.split("/")[:3])
    return DownloadError(f"{host} cannot be reached ({why}): fetch where there is internet, and copy the folder here")
