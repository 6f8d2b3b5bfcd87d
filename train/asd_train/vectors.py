"""Embedding files of `asd-train embed` and `asd-agent embed`, put beside the clips they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from asd_agent.errors import UsageError
from asd_agent.types import Floats
from asd_train.data.clip import Clip

Vectors = npt.NDArray[np.float32]


def read_npz(path: str | Path) -> tuple[list[str], dict[str, Vectors]]:
    """(files [n], arrays by name, each [n, dim]); raises UsageError naming the file."""
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, BadZipFile) as exc:
        raise UsageError(f"{path}: cannot be read as embeddings ({exc})") from exc
    files = arrays.pop("file", None)
    if files is None:
        raise UsageError(f"{path}: holds no array `file`; write it with asd-train embed or asd-agent embed")
    vectors = {name: a.astype(np.float32) for name, a in arrays.items() if a.ndim == 2 and len(a) == len(files)}
    if not vectors:
        raise UsageError(f"{path}: holds no array [files, dim]; embed with a pooling other than none")
    return [str(f) for f in files], vectors


def read_blocks(path: str | Path) -> tuple[int, ...]:
    """Values in each band of the array `embedding`, as `asd-train evaluate` keeps them; () where the file has none."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return tuple(int(size) for size in content["blocks"]) if "blocks" in content.files else ()
    except (OSError, ValueError, BadZipFile) as exc:
        raise UsageError(f"{path}: cannot be read as embeddings ({exc})") from exc


def join_arrays(arrays: dict[str, Vectors], names: Sequence[str], path: str | Path) -> Vectors:
    """The named arrays side by side [n, sum of dims]; without names the only one. Raises UsageError."""
    if not names and len(arrays) > 1:
        raise UsageError(f"{path}: holds {', '.join(arrays)}; choose with --array (several are joined)")
    unknown = [name for name in names if name not in arrays]
    if unknown:
        raise UsageError(f"{path}: holds no array {unknown[0]!r}, only {', '.join(arrays)}")
    return np.concatenate([arrays[name] for name in names or arrays], axis=1)


def match(files: Sequence[str], vectors: Vectors, clips: Sequence[Clip]) -> Floats:
    """The vector of each clip [clips, dim], by the longest end of the path that tells them apart.

    An .npz may have been written on another machine, so the folders above machine/split/name may differ.
    Raises UsageError naming a clip that has no embedding, or more than one that fits.
    """
    rows = _rows(files, clips)
    out = vectors[rows].astype(np.float64)
    if not np.isfinite(out).all():
        broken = clips[int(np.flatnonzero(~np.isfinite(out).all(axis=1))[0])]
        raise UsageError(f"{broken.path}: its embedding holds NaN or infinity")
    return out


def _rows(files: Sequence[str], clips: Sequence[Clip]) -> list[int]:
    ends = [Path(f).parts for f in files]
    wanted = [Path(clip.path).parts for clip in clips]
    full = {parts: row for row, parts in enumerate(ends)}
    if all(parts in full for parts in wanted):
        return [full[parts] for parts in wanted]
    found: dict[tuple[str, ...], int] = {}
    doubled: set[tuple[str, ...]] = set()
    for row, parts in enumerate(ends):
        for depth in (3, 1):
            end = parts[-depth:]
            if found.setdefault(end, row) != row:
                doubled.add(end)
    return [_row(parts, found, doubled) for parts in wanted]


def _row(parts: tuple[str, ...], found: dict[tuple[str, ...], int], doubled: set[tuple[str, ...]]) -> int:
    for end in (parts[-3:], parts[-1:]):
        if end in found and end not in doubled:
            return found[end]
        if end in doubled:
            raise UsageError(f"{'/'.join(end)}: the embeddings hold several files of that name; embed with full paths")
    raise UsageError(
        f"{'/'.join(parts[-3:])}: no embedding of this clip; embed all clips of the data, or use --machine"
    )
