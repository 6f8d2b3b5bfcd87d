"""Recordings of an archive: where they are, which machine they are of, and when they began.

A path is a file, a folder, a pattern with `*`, or the same as URL of any file system that fsspec knows.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import tempfile
import time
import zoneinfo
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import msgspec

from asd_agent.capture.files import SUFFIXES
from asd_agent.errors import SourceError, UsageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ATTEMPTS, PAUSE_S = 3, 1.0  # of a download
_DATE = r"(?<!\d)(20\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)"
_TIMES = (
    re.compile(_DATE + r"[T _-]?([0-2]\d)[-_:.h]?([0-5]\d)[-_:.m]?([0-5]\d)(?:[.,](\d{1,6}))?"),
    re.compile(_DATE + r"(?!\d)"),
)
_EPOCH_MS = re.compile(r"(?<!\d)(1\d{12})(?!\d)")


class Recording(msgspec.Struct, frozen=True):
    """One file of an archive."""

    url: str  # a plain path where it is local
    version: str  # of its content, as the file system tells it: size, and time or entity tag
    size: int  # bytes
    machine: str
    utc_s: float  # when it began


class Naming:
    """Reads machine and time from the path of a recording."""

    def __init__(
        self, machines: Iterable[str], only: str | None = None, pattern: str | None = None, timezone: str = "UTC"
    ) -> None:
        """`machines`: the ids that the innermost folder of that name stands for; `only`: the machine of all recordings;
        `pattern`: a regular expression with the groups `machine` and `time`, or one of them. Raises UsageError."""
        self._machines = frozenset(machines)
        self._only = only or (next(iter(self._machines)) if len(self._machines) == 1 and pattern is None else None)
        try:
            self._pattern = re.compile(pattern) if pattern is not None else None
            self._zone = zoneinfo.ZoneInfo(timezone)
        except re.error as exc:
            raise UsageError(f"--pattern {pattern!r} is not a regular expression: {exc}") from exc
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as exc:
            raise UsageError(f"--timezone {timezone!r}: there is no such time zone, e.g. Europe/Berlin") from exc
        if self._pattern is not None and not {"machine", "time"} & set(self._pattern.groupindex):
            raise UsageError(f"--pattern {pattern!r} has no group (?P<machine>...) and no group (?P<time>...)")

    def machine(self, url: str) -> str:
        """Empty where nothing tells."""
        if self._only is not None:
            return self._only
        if (found := self._group(url, "machine")) is not None:
            return found
        return next((part for part in reversed(PurePosixPath(url).parts[:-1]) if part in self._machines), "")

    def utc_s(self, url: str) -> float | None:
        """None where the name holds no time."""
        text = self._group(url, "time")
        return self._parsed(PurePosixPath(url).stem if text is None else text)

    def _group(self, url: str, name: str) -> str | None:
        match = self._pattern.search(url) if self._pattern is not None else None
        return match.groupdict().get(name) if match is not None else None

    def _parsed(self, text: str) -> float | None:
        if match := _EPOCH_MS.search(text):
            return int(match[1]) / 1000
        for known in _TIMES:
            if match := known.search(text):
                numbers, fraction = [int(n) for n in match.groups()[:6]], match[7] if known.groups == 7 else None
                with contextlib.suppress(ValueError):  # digits that are no date
                    moment = dt.datetime(*numbers, tzinfo=self._zone)  # type: ignore[arg-type,misc]
                    return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
        return None


def found(paths: Iterable[str], naming: Naming) -> Iterator[Recording]:
    """All recordings in the order of their names, folder by folder. Raises SourceError for a path that is not there."""
    for path in paths:
        system, root = file_system(path)
        count = 0
        for info in _files(system, root):
            count += 1
            url = _url(system, info["name"])
            began = naming.utc_s(url)
            yield Recording(
                url=url,
                version=_version(info),
                size=int(info["size"] or 0),
                machine=naming.machine(url),
                utc_s=_changed_utc_s(info) if began is None else began,
            )
        if not count:
            raise SourceError(f"{path}: no recordings there ({', '.join(sorted(SUFFIXES))})")


def file_system(path: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a path or URL, and the path in it. Raises UsageError where its driver is missing."""
    from fsspec.core import url_to_fs

    try:
        system, root = url_to_fs(path, use_listings_cache=False)
    except (ImportError, ValueError) as exc:
        raise UsageError(f"{path}: {exc}") from exc
    return system, root


@contextlib.contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """The recording as a local file: itself, or a copy that is deleted afterwards. Raises SourceError."""
    system, path = file_system(url)
    if is_local(system):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="asd-archive-") as folder:
        copy = Path(folder, PurePosixPath(path).name)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                system.get_file(path, str(copy))
                break
            except Exception as exc:  # every driver has errors of its own
                if attempt == ATTEMPTS:
                    raise SourceError(f"{url}: cannot be fetched ({type(exc).__name__}: {exc})") from exc
                time.sleep(PAUSE_S * attempt)
        yield copy


def is_local(system: AbstractFileSystem) -> bool:
    return "file" in ((system.protocol,) if isinstance(system.protocol, str) else system.protocol)


def _files(system: AbstractFileSystem, root: str) -> Iterator[dict[str, Any]]:
    """Entries of recordings below a path or pattern. Holds the names of one folder at a time."""
    try:
        if any(sign in root for sign in "*?[") and not system.exists(root):
            for path in sorted(system.glob(root)):
                yield from _files(system, path)
            return
        info = system.info(root)
        if info["type"] == "file":
            yield info
            return
        for entry in sorted(system.ls(root, detail=True), key=lambda entry: str(entry["name"])):
            if entry["type"] == "directory" and entry["name"].rstrip("/") != root.rstrip("/"):
                yield from _files(system, entry["name"])
            elif entry["type"] == "file" and PurePosixPath(entry["name"]).suffix.lower() in SUFFIXES:
                yield entry
    except FileNotFoundError as exc:
        raise SourceError(f"{root}: no such file or folder") from exc
    except OSError as exc:
        raise SourceError(f"{root}: cannot be listed ({exc.strerror or exc})") from exc


def _url(system: AbstractFileSystem, path: str) -> str:
    return path if is_local(system) else str(system.unstrip_protocol(path))


def _version(info: dict[str, Any]) -> str:
    tag = next(
        (info[key] for key in ("ETag", "etag", "mtime", "LastModified", "last_modified", "created") if info.get(key)),
        "",
    )
    return f"{info['size']}-{tag}"


def _changed_utc_s(info: dict[str, Any]) -> float:
    """Where a name holds no time, the file's own one is the best there is."""
    found = next((info[key] for key in ("mtime", "LastModified", "last_modified", "created") if info.get(key)), 0.0)
    if isinstance(found, dt.datetime):
        return found.timestamp()
    return float(found) if isinstance(found, int | float) else 0.0
