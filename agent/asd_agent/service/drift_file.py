"""The drift of normal sound over restarts: <state_dir>/machines/<machine>/drift.json. Losing it delays a warning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from asd_agent.decide.drift import DriftState
from asd_agent.files import write_whole

FILE = "drift.json"
log = structlog.get_logger()


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    baseline: str  # version: with another one it starts anew
    states: dict[str, DriftState]


def load(machine_folder: Path, version: str) -> dict[str, DriftState]:
    """By operating state; empty when there is none of this baseline."""
    try:
        kept = msgspec.json.decode((machine_folder / FILE).read_bytes(), type=_Kept)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as exc:
        log.warning("drift starts anew", file=str(machine_folder / FILE), error=str(exc))
        return {}
    return kept.states if kept.baseline == version else {}


def save(machine_folder: Path, version: str, states: Mapping[str, DriftState]) -> None:
    """Never raises."""
    try:
        write_whole(machine_folder / FILE, msgspec.json.encode(_Kept(baseline=version, states=dict(states))))
    except OSError as exc:
        log.warning("drift not kept", error=str(exc))
