"""A bundle as one file, and back into a folder whose name is its checksum."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

import msgspec

from asd_agent.encode.bundle import Bundle
from asd_agent.encode.meta import BundleMeta
from asd_agent.errors import BundleError

BUNDLE = "bundle.json"
MOST_BYTES = 2 << 30


def pack(bundle: Bundle) -> bytes:
    """What the agent needs of it; the same bundle gives the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in (BUNDLE, *bundle.meta.files):
            archive.writestr(zipfile.ZipInfo(name), (bundle.folder / name).read_bytes())
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> Bundle:
    """Into a subfolder of `folder` that is named by the bundle's checksum; complete when it is there.

    Raises BundleError, naming what is wrong.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            described = archive.read(BUNDLE)
            meta = msgspec.json.decode(described, type=BundleMeta)
            names = (BUNDLE, *meta.files)  # plain names: their types say so
            if sum(archive.getinfo(name).file_size for name in names) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
            files = {name: archive.read(name) for name in names}
    except (ValueError, KeyError, OSError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as exc:
        raise BundleError(f"not a packed bundle that this version reads ({exc})") from exc
    final = folder / hashlib.sha256(described).hexdigest()
    part = folder / f".{final.name}.part"
    try:
        if not final.is_dir():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for name, content in files.items():
                with (part / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            Bundle.load(part)
            part.rename(final)
    except OSError as exc:
        raise BundleError(f"{final}: cannot be written ({exc.strerror or exc})") from exc
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Bundle.load(final)
