"""NPZ files with any array names."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from asd_agent.errors import AsdError


def save_arrays(output: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write an .npz; np.savez itself takes no array of the name `file`. Raises AsdError."""
    try:
        with zipfile.ZipFile(output, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)
    except OSError as exc:
        raise AsdError(f"{output}: cannot be written ({exc.strerror})") from exc


def load_arrays(source: Path | BinaryIO, most_bytes: int) -> dict[str, npt.NDArray[Any]]:
    """Read an .npz without pickles whose arrays take at most `most_bytes` altogether, whatever it claims.

    Raises ValueError, KeyError, OSError, zipfile.BadZipFile for a file that is none, or that claims more than it holds.
    """
    arrays = {}
    with zipfile.ZipFile(source) as archive:
        if sum(member.file_size for member in archive.infolist()) > most_bytes:
            raise ValueError(f"more than {most_bytes >> 20} MiB of arrays")
        for member in archive.infolist():
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in read:
                    raise ValueError(f"{member.filename}: a format of version {version}")
                shape, _, kind = read[version](stream)
                if kind.hasobject or math.prod(shape) * kind.itemsize > member.file_size:
                    raise ValueError(f"{member.filename}: claims {shape} values of {kind}, and is shorter than that")
            with archive.open(member) as stream:
                name = member.filename.removesuffix(".npy")
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def write_whole(path: Path, data: bytes) -> None:
    """Under its name it is complete, also after a power cut. Raises OSError."""
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """To be written: it gets its name, complete, at the end. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
