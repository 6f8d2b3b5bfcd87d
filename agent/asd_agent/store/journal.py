"""An append-only file of checksummed records, apart from the database: one damaged file must not lose both.

    magic (4 bytes), length of the data, CRC-32 of the data (4 bytes each, little-endian), data

Space is allocated ahead, so that appending needs no room on a full disk, and syncing writes no metadata. What follows
the last record is zeros.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path

from asd_agent.files import write_whole

AHEAD_BYTES = 256 << 10  # allocated in steps of this size: some hundred alarm events
LARGEST_RECORD = 16 << 20
_MAGIC = b"aJ1\n"
_HEAD = struct.Struct("<4sII")


class Journal:
    """Thread-safe. Construction reads the file; `append` and `rewrite` raise OSError, and then nothing has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._allocated = 0
        _, self._end = _parse(_content(path))

    @property
    def size(self) -> int:
        """Bytes in use."""
        return self._end

    def append(self, data: bytes) -> None:
        """On the medium when this returns."""
        framed = _framed(data)
        with self._lock:
            fd = self._open()
            if self._end + len(framed) > self._allocated:
                self._allocate(fd, self._end + len(framed) + AHEAD_BYTES)
            if os.pwrite(fd, framed, self._end) != len(framed):
                os.pwrite(fd, b"\0" * _HEAD.size, self._end)
                raise OSError(28, os.strerror(28))
            os.fdatasync(fd)
            self._end += len(framed)

    def records(self) -> list[bytes]:
        """All that can be read, in order; damaged records are left out."""
        with self._lock:
            return _parse(_content(self.path))[0]

    def rewrite(self, records: Iterable[bytes]) -> None:
        """Replace the content in one step; it is on the medium when this returns."""
        content = b"".join(map(_framed, records))
        with self._lock:
            write_whole(self.path, content)
            self._close()
            self._end = len(content)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _open(self) -> int:
        if self._fd is not None and os.fstat(self._fd).st_nlink == 0:
            self._close()  # somebody has deleted the file: what is in it is in the database too
            self._end = 0
        if self._fd is None:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._allocated = os.fstat(self._fd).st_size
            self._allocate(self._fd, self._end + AHEAD_BYTES)
        return self._fd

    def _allocate(self, fd: int, size: int) -> None:
        """As far as there is room; without it the append itself must find some."""
        try:
            os.posix_fallocate(fd, 0, size)
            os.fsync(fd)
        except OSError:
            return
        self._allocated = max(self._allocated, size)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _framed(data: bytes) -> bytes:
    return _HEAD.pack(_MAGIC, len(data), zlib.crc32(data)) + data


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _parse(content: bytes) -> tuple[list[bytes], int]:
    """The whole records, and where the last of them ends."""
    records, end = [], 0
    at = content.find(_MAGIC)
    while 0 <= at <= len(content) - _HEAD.size:
        _, length, crc = _HEAD.unpack_from(content, at)
        data = content[at + _HEAD.size : at + _HEAD.size + length]
        if length <= LARGEST_RECORD and len(data) == length and zlib.crc32(data) == crc:
            records.append(data)
            at = end = at + _HEAD.size + length
        else:
            at += 1
        at = content.find(_MAGIC, at)
    return records, end
