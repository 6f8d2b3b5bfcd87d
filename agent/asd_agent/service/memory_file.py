"""What a machine's decision remembers, over restarts: <state_dir>/machines/<machine>/memory.json.

Written every two minutes and when the daemon ends. After a power cut the windows since then are missing values.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from asd_agent.files import write_whole
from asd_agent.scoring.decision import Memory

FILE = "memory.json"
log = structlog.get_logger()


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    baseline: str  # version: with another one it starts anew
    memory: Memory


def load(machine_folder: Path, version: str) -> Memory | None:
    """None when there is none of this baseline."""
    try:
        kept = msgspec.json.decode((machine_folder / FILE).read_bytes(), type=_Kept)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as exc:
        log.warning("drift and persistence start anew", file=str(machine_folder / FILE), error=str(exc))
        return None
    return kept.memory if kept.baseline == version else None


def encoded(version: str, memory: Memory) -> bytes:
    """What `save` writes: a copy, while the memory goes on changing."""
    return msgspec.json.encode(_Kept(baseline=version, memory=memory))


def save(machine_folder: Path, content: bytes) -> None:
    """Never raises."""
    try:
        write_whole(machine_folder / FILE, content)
    except OSError as exc:
        log.warning("drift and persistence not kept", error=str(exc))
