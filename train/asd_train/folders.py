"""Folders that exist whole or not at all, whenever the power goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asd_agent.errors import UsageError

PART = ".part"


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into; flushed and renamed to `folder` at the end, replacing an older one.

    Nothing stays when the block raises; UsageError when the disk refuses.
    """
    part = folder.with_name(folder.name + PART)
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            _flush(file)
        _flush(part)
        if folder.exists():  # a folder cannot be renamed over a full one
            old = folder.with_name(f"{folder.name}.old{PART}")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            part.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            part.rename(folder)
        _flush(folder.parent)
    except OSError as exc:
        raise UsageError(f"{folder}: cannot be written ({exc.strerror or exc})") from exc
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
