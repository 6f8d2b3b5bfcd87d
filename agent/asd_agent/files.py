"""NPZ files with any array names."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def write_whole(path: Path, data: bytes) -> None:
    """Under its name it is complete, also after a power cut. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
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
