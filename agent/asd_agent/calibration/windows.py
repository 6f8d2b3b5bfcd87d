"""The windows of the last calibration, kept beside the baselines: a baseline without some of them can be made without
new sound.

    <state_dir>/machines/<machine>/calibration.npz
"""

from __future__ import annotations

import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from asd_agent.errors import BaselineError
from asd_agent.files import load_arrays, whole_file
from asd_agent.types import Description, WindowRef

MOST = 20_000  # windows; a longer calibration is not kept
FILE = "calibration.npz"
MOST_BYTES = 1 << 30  # of arrays
log = structlog.get_logger()


@dataclass(frozen=True)
class CalibrationWindows:
    version: str  # of the baseline that was made of them
    windows: tuple[Description, ...]
    excluded: frozenset[WindowRef] = frozenset()


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    excluded: list[WindowRef]
    windows: list[dict[str, Any]]
    indicators: list[str]


def keep(machine_folder: Path, calibration: CalibrationWindows) -> None:
    """Never raises: without it windows cannot be left out later, and nothing else is lost."""
    windows = calibration.windows
    if len(windows) > MOST:
        return
    assessable = [d for d in windows if d.embeddings]
    indicators = sorted({key for d in assessable for key in d.indicators})
    head = _Head(
        version=calibration.version,
        excluded=list(calibration.excluded),
        windows=[asdict(replace(d, embeddings={}, indicators={})) for d in windows],
        indicators=indicators,
    )
    arrays: dict[str, npt.NDArray[Any]] = {
        "head": np.frombuffer(msgspec.json.encode(head), np.uint8),
        "assessable": np.array([bool(d.embeddings) for d in windows]),
        "indicators": np.array([[d.indicators.get(k, np.nan) for k in indicators] for d in assessable]),
    }
    for name in assessable[0].embeddings if assessable else ():
        arrays[f"embedding/{name}"] = np.stack([d.embeddings[name] for d in assessable])
    try:
        with whole_file(machine_folder / FILE) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as exc:
        log.warning("windows of the calibration not kept", error=str(exc))


def load(machine_folder: Path) -> CalibrationWindows:
    """Raises BaselineError."""
    path = machine_folder / FILE
    try:
        arrays = load_arrays(path, MOST_BYTES)
        head = msgspec.json.decode(arrays["head"].tobytes(), type=_Head)
        bare = [msgspec.convert(fields, Description) for fields in head.windows]
        names = [k for k in arrays if k.startswith("embedding/")]
        row, windows = 0, []
        for description, found in zip(bare, arrays["assessable"], strict=True):
            if found:
                values = dict(zip(head.indicators, arrays["indicators"][row].tolist(), strict=True))
                embeddings = {name.removeprefix("embedding/"): arrays[name][row] for name in names}
                description = replace(
                    description, embeddings=embeddings, indicators={k: v for k, v in values.items() if not np.isnan(v)}
                )
                row += 1
            windows.append(description)
    except FileNotFoundError as exc:
        raise BaselineError(f"{path}: the windows of the last calibration are not here: calibrate again") from exc
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile, msgspec.MsgspecError) as exc:
        raise BaselineError(f"{path}: cannot be read ({exc}): calibrate again") from exc
    return CalibrationWindows(head.version, tuple(windows), frozenset(head.excluded))
