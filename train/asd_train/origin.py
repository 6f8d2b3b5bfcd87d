"""What a run or a result came from: its configuration, the code's revision, the data."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from asd_train.data.clip import Clip


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was started with; a run only resumes where all but the revision agree."""

    config: dict[str, Any]
    data: str  # fingerprint of the training clips
    processes: int
    revision: str


def origin_of(config: msgspec.Struct, used: Iterable[tuple[Clip, int]], processes: int) -> Origin:
    """`used`: the clips that are learnt from, each with its class (-1 without)."""
    plain = msgspec.json.decode(msgspec.json.encode(config))
    return Origin(config=plain, data=fingerprint(used), processes=processes, revision=revision())


def difference(then: Origin, now: Origin) -> str:
    """In words, what forbids to go on with a run; "" when nothing does. Another git revision is fine."""
    if then.data != now.data:
        return "the training data has changed"
    if then.processes != now.processes:
        return f"it ran on {then.processes} processes, this would be {now.processes}"
    keys = sorted(_changed(then.config, now.config))
    return f"the configuration has changed ({', '.join(keys)})" if keys else ""


def _changed(then: Any, now: Any, key: str = "") -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in then.keys() | now.keys():
            yield from _changed(then.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif then != now:
        yield key


def fingerprint(used: Iterable[tuple[Clip, int]]) -> str:
    """Of clips and their classes: machines, names and sizes, whatever folder they lie in."""
    digest = hashlib.sha256()
    for clip, label in used:
        digest.update(f"{clip.group} {clip.split} {clip.file} {Path(clip.path).stat().st_size} {label}\n".encode())
    return digest.hexdigest()[:32]


def fingerprint_of(*arrays: npt.NDArray[Any]) -> str:
    """Of sound that is in memory, and its labels."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()[:32]


def revision() -> str:
    """Git revision of the code, "+" when files have been changed since; "" outside a repository."""
    here = Path(__file__).parent
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
