"""A version of a baseline as one file, to be judged with on another host."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from asd_agent.baseline.manifest import Baseline
from asd_agent.baseline.store import ARRAYS, MANIFEST, MOST_BYTES, SUMS, BaselineStore, decode, verify
from asd_agent.errors import BaselineError

_FILES = (MANIFEST, ARRAYS, SUMS)
_VERSION = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[0-9]{1,3})?")


def pack(store: BaselineStore, version: str) -> bytes:
    """The same version gives the same bytes. Raises BaselineError."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in store.files(version).items():
            archive.writestr(zipfile.ZipInfo(name), content)  # without a time
    return packed.getvalue()


def unpack(packed: bytes, name: str) -> Baseline:
    """`name` is how errors call it. Raises BaselineError where it is damaged."""
    return _checked(packed, name)[1]


def add(store: BaselineStore, packed: bytes) -> str:
    """It becomes the candidate of the machine; returns its version. Raises BaselineError, StoreError."""
    files, baseline = _checked(packed, f"{store.machine}: the packed baseline")
    manifest = baseline.manifest
    if manifest.machine != store.machine or not _VERSION.fullmatch(manifest.version):
        raise BaselineError(f"{store.machine}: the packed baseline is {manifest.version!r} of {manifest.machine!r}")
    if manifest.version not in store.versions():
        store.write_files(manifest.version, files)
    elif store.files(manifest.version) != files:
        raise BaselineError(f"{store.machine}: there is another baseline of the name {manifest.version} already")
    else:
        store.nominate(manifest.version)
    return manifest.version


def _checked(packed: bytes, name: str) -> tuple[dict[str, bytes], Baseline]:
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            if sum(archive.getinfo(member).file_size for member in _FILES) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
            files = {member: archive.read(member) for member in _FILES}
    except (ValueError, KeyError, OSError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as exc:
        raise BaselineError(f"{name}: not a packed baseline ({exc})") from exc
    verify(Path(name), {member: files[member] for member in (MANIFEST, ARRAYS)}, files[SUMS])
    return files, decode(Path(name), files)
