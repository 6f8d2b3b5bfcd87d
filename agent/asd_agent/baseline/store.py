"""The baseline: what `calibrate` learnt about one machine, as a versioned, checksummed, immutable folder.

    <state_dir>/machines/<machine>/
        pointers.json                    {"active": ..., "previous": ..., "candidate": ...}
        baselines/<version>/
            baseline.json                what it was learnt from and with; thresholds; the report
            arrays.npz                   banks and calibration scores
            SHA256SUMS                   check by hand with `sha256sum -c SHA256SUMS`

A folder is written under a temporary name, fsynced and renamed, so that a power cut leaves either none or all of
it. candidate -> active -> previous: promote and rollback only replace pointers.json.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from asd_agent.baseline.manifest import FORMAT, Baseline, Manifest, Pointers
from asd_agent.errors import BaselineError, StoreError
from asd_agent.files import load_arrays

MANIFEST, ARRAYS, SUMS = "baseline.json", "arrays.npz", "SHA256SUMS"
MOST_BYTES = 512 << 20  # of arrays: a baseline of thousands of windows takes some dozen


class BaselineStore:
    """The baselines of one machine under the state directory."""

    def __init__(self, state_dir: Path, machine: str) -> None:
        self.state_dir = state_dir
        self.folder = state_dir / "machines" / machine
        self.machine = machine

    def versions(self) -> list[str]:
        """Newest last."""
        return sorted(p.name for p in (self.folder / "baselines").glob("[0-9]*") if p.is_dir())

    def pointers(self) -> Pointers:
        path = self.folder / "pointers.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Pointers)
        except FileNotFoundError:
            return Pointers()
        except (OSError, msgspec.DecodeError) as exc:
            raise BaselineError(
                f"{path}: cannot be read ({exc}); remove it and promote one of: {', '.join(self.versions())}"
            ) from exc

    def new_version(self) -> str:
        """A name that sorts by time and is not taken."""
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        taken = set(self.versions())
        return next(v for v in (name, *(f"{name}-{i}" for i in range(2, 1000))) if v not in taken)

    def prepare(self) -> None:
        """Make the folder: whether it can be written shall be known before minutes of listening. Raises StoreError."""
        try:
            (self.folder / "baselines").mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as exc:
            raise StoreError(f"{self.folder}: baselines cannot be written here ({exc.strerror or exc})") from exc

    def write(self, baseline: Baseline) -> Path:
        """Write a new version atomically and make it the candidate. Raises StoreError."""
        manifest = baseline.manifest
        with _new_folder(self, manifest.version) as folder:
            _write_synced(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
            with (folder / ARRAYS).open("wb") as file:  # never a second time in memory
                np.savez(file, **baseline.arrays)  # type: ignore[arg-type]
                _sync(file)
            sums = "".join(f"{_sha256(folder / name)}  {name}\n" for name in (MANIFEST, ARRAYS))
            _write_synced(folder / SUMS, sums.encode())
        return self.folder / "baselines" / manifest.version

    def write_files(self, version: str, files: Mapping[str, bytes]) -> Path:
        """The files of a new version, checksums included. Raises StoreError."""
        with _new_folder(self, version) as folder:
            for name, content in files.items():
                _write_synced(folder / name, content)
        return self.folder / "baselines" / version

    def load(self, version: str) -> Baseline:
        """Read a version and check its checksums. Raises BaselineError."""
        baseline = decode(self.folder / "baselines" / version, _verified(self, version, (MANIFEST, ARRAYS)))
        return msgspec.structs.replace(baseline, bundles=self.state_dir / "bundles")

    def manifest(self, version: str) -> Manifest:
        """Of a version, without reading its arrays. Raises BaselineError."""
        found = _verified(self, version, (MANIFEST,))
        return _manifest(self.folder / "baselines" / version, found[MANIFEST])

    def files(self, version: str) -> dict[str, bytes]:
        """The files of a version, checksums included and verified. Raises BaselineError."""
        sums = self.folder / "baselines" / version / SUMS
        return _verified(self, version, (MANIFEST, ARRAYS)) | {SUMS: sums.read_bytes()}

    def checksum(self, version: str) -> str:
        """sha256 of its SHA256SUMS, which hold those of its files; empty when there is no such baseline."""
        try:
            return hashlib.sha256((self.folder / "baselines" / version / SUMS).read_bytes()).hexdigest()
        except OSError:
            return ""

    def active(self) -> Baseline | None:
        version = self.pointers().active
        return None if version is None else self.load(version)

    def nominate(self, version: str) -> None:
        """Make it the candidate, unless it is active. Raises StoreError."""
        pointers = self.pointers()
        if version != pointers.active:
            _point(self, msgspec.structs.replace(pointers, candidate=version))

    def promote(self, version: str | None = None) -> Pointers:
        """candidate (or `version`) -> active -> previous. The version is verified first. Raises BaselineError."""
        pointers = self.pointers()
        version = version or pointers.candidate
        if version is None:
            raise BaselineError(f"{self.machine}: there is no candidate baseline; run calibrate, or name a version")
        self.load(version)
        if version == pointers.active:
            return pointers
        candidate = None if version == pointers.candidate else pointers.candidate
        return _point(self, Pointers(active=version, previous=pointers.active, candidate=candidate))

    def rollback(self) -> Pointers:
        """previous -> active; what was active becomes the candidate. Raises BaselineError."""
        pointers = self.pointers()
        if pointers.previous is None:
            raise BaselineError(f"{self.machine}: there is no previous baseline to go back to")
        self.load(pointers.previous)
        return _point(self, Pointers(active=pointers.previous, previous=None, candidate=pointers.active))


REMEDY = "roll back (`asd-agent baseline rollback`), or calibrate again"


def _verified(store: BaselineStore, version: str, names: Sequence[str]) -> dict[str, bytes]:
    """The files of a version, as its checksums say they are. Raises BaselineError."""
    folder = store.folder / "baselines" / version
    if version not in store.versions():  # nor any other path
        known = ", ".join(store.versions()) or "none; calibrate first"
        raise BaselineError(f"{store.machine}: no baseline {version!r} (there are: {known})")
    try:
        files = {name: (folder / name).read_bytes() for name in names}
        sums = (folder / SUMS).read_bytes()
    except OSError as exc:
        raise BaselineError(f"{folder}: the baseline is incomplete ({exc}); {REMEDY}") from exc
    verify(folder, files, sums)
    return files


def _point(store: BaselineStore, pointers: Pointers) -> Pointers:
    path = store.folder / "pointers.json"
    temporary = path.with_suffix(".tmp")
    try:
        _write_synced(temporary, msgspec.json.encode(pointers))
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as exc:
        raise StoreError(f"{path}: cannot be written ({exc.strerror or exc})") from exc
    return pointers


def verify(folder: Path, files: Mapping[str, bytes], sums: bytes) -> None:
    """Raises BaselineError where a file is not as SHA256SUMS say."""
    try:
        known = {name: digest for digest, name in (line.split("  ", 1) for line in sums.decode().splitlines() if line)}
    except ValueError as exc:
        raise BaselineError(f"{folder}: the baseline is incomplete ({exc}); {REMEDY}") from exc
    for name, content in files.items():
        if known.get(name) != hashlib.sha256(content).hexdigest():
            raise BaselineError(f"{folder / name}: the checksum does not match SHA256SUMS; {REMEDY}")


def decode(folder: Path, files: Mapping[str, bytes]) -> Baseline:
    """The baseline that these files hold. Raises BaselineError, naming the folder."""
    manifest = _manifest(folder, files[MANIFEST])
    try:
        arrays = load_arrays(io.BytesIO(files[ARRAYS]), MOST_BYTES)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as exc:
        raise BaselineError(f"{folder}: not a baseline of this version ({exc}); {REMEDY}") from exc
    return Baseline(manifest=manifest, arrays=arrays)


def _manifest(folder: Path, content: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as exc:
        raise BaselineError(f"{folder}: not a baseline that this version reads ({exc}); {REMEDY}") from exc
    if manifest.format != FORMAT:
        raise BaselineError(f"{folder}: baseline format {manifest.format}, this version reads {FORMAT}; {REMEDY}")
    return manifest


@contextmanager
def _new_folder(store: BaselineStore, version: str) -> Iterator[Path]:
    """A folder to fill, which then becomes the version, and that the candidate. Raises StoreError."""
    final = store.folder / "baselines" / version
    temporary = final.with_name("." + final.name)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        _sync_folder(temporary)
        temporary.rename(final)
        _sync_folder(final.parent)
        store.nominate(final.name)
    except OSError as exc:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(f"{final}: the baseline cannot be written ({exc.strerror or exc})") from exc


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
