"""Disk space held back for alarm events: a file that is given up when the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

BALLAST_BYTES = 8 << 20


class Ballast:
    """`hold` allocates the file, or as much as there is room for; `release` gives the room to SQLite."""

    def __init__(self, path: Path, size: int = BALLAST_BYTES) -> None:
        self.path = path
        self.size = size

    @property
    def held(self) -> bool:
        return self._allocated() >= self.size // 4

    def hold(self) -> bool:
        """True when at least a quarter is held. Never raises."""
        for size in (self.size, self.size // 2, self.size // 4):
            if self._allocated() >= size or self._allocate(size):
                return True
        return False

    def release(self) -> None:
        self.path.unlink(missing_ok=True)

    def _allocated(self) -> int:
        try:
            return self.path.stat().st_blocks * 512
        except OSError:
            return 0

    def _allocate(self, size: int) -> bool:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.posix_fallocate(fd, 0, size)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            self.path.unlink(missing_ok=True)
            return False
        return True
