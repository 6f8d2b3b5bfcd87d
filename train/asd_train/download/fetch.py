"""Downloads of a release: in parallel, resumed where they stopped, verified by checksum, unpacked.

OUT/dcase2025t2/dev_data/raw/<machine>/{train,test,supplemental}     where `data: [{path: OUT/dcase2025t2}]` looks
OUT/dcase2025t2/eval_data/raw/<machine>/...
OUT/dcase2025t2/.fetch/<archive>.json                                what was unpacked, for `check`
OUT/dcase2025t2/.fetch/<archive>.part                                a download that is under way
"""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import msgspec

from asd_agent.errors import UsageError
from asd_agent.files import write_whole
from asd_train.download.records import TIMEOUT_S, Archive, DownloadError, unreachable

CHUNK = 1 << 20
ATTEMPTS = 5  # connections to one file before giving up

Progress = Callable[[str, int], None]  # (archive, bytes done)


class Member(msgspec.Struct, frozen=True):
    path: str  # below the release's folder
    size: int
    crc32: int


class Receipt(msgspec.Struct, frozen=True):
    """`.fetch/<archive>.json`: what came out of an archive."""

    archive: str
    checksum: str
    members: list[Member]


def release_folder(out: Path, name: str) -> Path:
    """OUT/dcase2025t2: the year in the name is how `data:` knows the rules."""
    return out / f"{name}t2"


def fetch(folder: Path, archives: Sequence[Archive], jobs: int, keep: bool, progress: Progress) -> int:
    """Download and unpack what is not there yet; returns the number of new archives.

    Raises DownloadError, UsageError.
    """
    try:
        (folder / ".fetch").mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"{folder}: cannot be written ({exc.strerror or exc})") from exc
    missing = [a for a in archives if not _is_done(folder, a)]
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        for _ in pool.map(lambda archive: _fetch_one(folder, archive, keep, progress), missing):
            pass
    return len(missing)


def check(folder: Path, deep: bool = False) -> list[str]:
    """One line for each file that is missing, of another size or, with `deep`, of other content. Raises UsageError."""
    receipts = sorted((folder / ".fetch").glob("*.json"))
    if not receipts:
        raise UsageError(f"{folder}: nothing was fetched here (asd-train data fetch)")
    problems = [f"{path.name}: the download was not finished" for path in sorted((folder / ".fetch").glob("*.part"))]
    for path in receipts:
        for member in msgspec.json.decode(path.read_bytes(), type=Receipt).members:
            problem = _problem(folder / member.path, member, deep)
            problems += [f"{member.path}: {problem}"] if problem else []
    return problems


def _problem(path: Path, member: Member, deep: bool) -> str:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != member.size:
        return f"holds {path.stat().st_size} bytes, not {member.size}"
    return "damaged (its checksum differs)" if deep and _crc32(path) != member.crc32 else ""


def _is_done(folder: Path, archive: Archive) -> bool:
    try:
        receipt = msgspec.json.decode((folder / ".fetch" / f"{archive.file.key}.json").read_bytes(), type=Receipt)
    except (OSError, msgspec.MsgspecError):
        return False
    return receipt.checksum == archive.file.checksum and all(
        not _problem(folder / member.path, member, deep=False) for member in receipt.members
    )


def _fetch_one(folder: Path, archive: Archive, keep: bool, progress: Progress) -> None:
    part = folder / ".fetch" / f"{archive.file.key}.part"
    try:
        _download(archive, part, progress)
        members = _unpack(part, folder, archive)
        receipt = Receipt(archive.file.key, archive.file.checksum, members)
        write_whole(folder / ".fetch" / f"{archive.file.key}.json", msgspec.json.encode(receipt))
        if keep:
            part.rename(folder / archive.file.key)
        else:
            part.unlink()
    except zipfile.BadZipFile as exc:
        raise DownloadError(f"{archive.file.key}: not a zip file ({exc})") from exc
    except OSError as exc:
        raise DownloadError(f"{archive.file.key}: cannot be written ({exc.strerror or exc})") from exc


def _download(archive: Archive, part: Path, progress: Progress) -> None:
    """Go on where `part` ends; one that turns out wrong is begun anew once."""
    file = archive.file
    for attempt in range(ATTEMPTS):
        done = part.stat().st_size if part.exists() else 0
        if done == file.size and _md5(part) == file.checksum:
            return
        if done >= file.size:
            part.unlink()
            done = 0
        try:
            _receive(file.links.self, part, done, lambda count: progress(file.key, count))
        except OSError as exc:
            if isinstance(exc, urllib.error.HTTPError) or attempt == ATTEMPTS - 1:
                raise unreachable(file.links.self, exc) from exc
    if part.exists() and part.stat().st_size == file.size and _md5(part) == file.checksum:
        return
    part.unlink(missing_ok=True)
    raise DownloadError(f"{file.key}: does not have its checksum after {ATTEMPTS} downloads; try again later")


def _receive(url: str, part: Path, done: int, tell: Callable[[int], None]) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        resumed = done and answer.status == 206
        with part.open("ab" if resumed else "wb") as out:
            count = done if resumed else 0
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                count += len(chunk)
                tell(count)


def _unpack(part: Path, folder: Path, archive: Archive) -> list[Member]:
    """Every file below OUT/.../raw; DownloadError for a name that leads elsewhere."""
    members = []
    with zipfile.ZipFile(part) as content:
        for entry in content.infolist():
            inner = PurePosixPath(entry.filename)
            if entry.is_dir():
                continue
            if inner.is_absolute() or ".." in inner.parts:
                raise DownloadError(f"{archive.file.key}: holds a file outside of its folder ({entry.filename})")
            path = PurePosixPath(archive.folder) / inner
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with content.open(entry) as source, target.open("wb") as out:
                while chunk := source.read(CHUNK):
                    out.write(chunk)
            members.append(Member(str(path), entry.file_size, entry.CRC))
    return members


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return f"md5:{hashlib.file_digest(stream, 'md5').hexdigest()}"


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value
