"""Held-out scores of normal sound: by contiguous blocks of time, because neighbouring windows resemble each other.

With one window left out at a time its neighbours stay in the bank, the scores come out too small and the limits too
low.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Protocol

import numpy as np
import numpy.typing as npt

from asd_agent.errors import CalibrationError
from asd_agent.types import Floats

Labels = npt.NDArray[np.intp]

FEWEST_WINDOWS = 6
FEWEST_LEFT = 4  # a bank of three says nothing: all else is equally far from it
BLOCKS = 5
MOST_BLOCKS = 10
SESSION_BREAK_S = 6 * 3600.0
_DATE = re.compile(r"(?<!\d)20\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])")


class Measures(Protocol):
    """What a fitted bank offers here."""

    def distance(self, q: npt.ArrayLike) -> Floats: ...


def sessions(utc_s: Sequence[float], origins: Sequence[str]) -> Labels:
    """Which occasion of recording each of n windows belongs to -> [n], 0, 1, ... in order of appearance.

    Live sound: a pause of six hours begins a new one. Files: their folder and the date in their name tell, because a
    copied file has lost its time.
    """
    numbers: dict[tuple[str, str, int], int] = {}
    out = np.empty(len(utc_s), dtype=np.intp)
    breaks, before = 0, utc_s[0] if len(utc_s) else 0.0
    for i, (utc, origin) in enumerate(zip(utc_s, origins, strict=True)):
        breaks += abs(utc - before) > SESSION_BREAK_S
        before = utc
        path = PurePath(origin)
        date = _DATE.search(path.name)
        out[i] = numbers.setdefault((str(path.parent), date[0] if date else "", breaks), len(numbers))
    return out


def blocks(session: npt.ArrayLike, k: int = BLOCKS) -> Labels:
    """session [n] (windows in order of time) -> block of each window [n]: contiguous, of about equal size.

    No block reaches over the border of a session. k blocks are dealt out to fewer sessions by size; k or more sessions
    are blocks themselves, neighbours joined when there are more than ten. Raises CalibrationError below six windows.
    """
    labels = np.asarray(session, dtype=np.intp)
    if len(labels) < FEWEST_WINDOWS:
        raise CalibrationError(
            f"{len(labels)} windows of normal sound can be used, at least {FEWEST_WINDOWS} are needed: record longer"
        )
    names, sizes = np.unique(labels, return_counts=True)
    if len(names) >= k:
        group = _split(sizes, min(len(names), MOST_BLOCKS))
        return group[np.searchsorted(names, labels)]
    out, first = np.empty(len(labels), dtype=np.intp), 0
    for name, count in zip(names, _deal(sizes, k), strict=True):
        members = np.flatnonzero(labels == name)
        out[members] = first + _split(np.ones(len(members), dtype=np.intp), count)
        first += count
    return out


def leave_block_out(
    fit: Callable[[npt.NDArray[np.float32]], Measures],
    x: npt.NDArray[np.float32],
    block: Labels,
    session: npt.ArrayLike,
    guard: int = 0,
) -> Floats:
    """Distances [n] of the embeddings x [n, dim], each from a bank that `fit` made without its block.

    `guard`: windows on either side of a block that share sound with it (overlap) and are left out as well, as long as
    enough others remain.
    """
    out = np.empty(len(x))
    for name in np.unique(block):
        held = block == name
        rest = ~_widen(held, np.asarray(session), guard)
        if np.count_nonzero(rest) < FEWEST_LEFT:
            rest = ~held
        out[held] = fit(x[rest]).distance(x[held])
    return out


def _split(sizes: npt.NDArray[np.intp], count: int) -> Labels:
    """Which of `count` contiguous groups of about equal total each item belongs to; every group gets one."""
    middle = np.cumsum(sizes) - sizes / 2
    wanted = np.minimum((middle * count / sizes.sum()).astype(np.intp), count - 1)
    out = np.empty(len(sizes), dtype=np.intp)
    at = -1
    for i, group in enumerate(wanted):  # one step at a time, and in time for the groups that are left
        left = count - 1 - at
        at += int(at < 0 or len(sizes) - i <= left or (group > at and left > 0))
        out[i] = at
    return out


def _deal(sizes: npt.NDArray[np.intp], k: int) -> list[int]:
    """k blocks over the sessions: one each, the rest one by one to where blocks are longest."""
    counts = [1] * len(sizes)
    while sum(counts) < min(k, int(sizes.sum())):
        counts[int(np.argmax(sizes / counts))] += 1
    return counts


def _widen(held: npt.NDArray[np.bool_], session: npt.NDArray[np.intp], guard: int) -> npt.NDArray[np.bool_]:
    out = held.copy()
    for step in range(1, guard + 1):
        same = session[step:] == session[:-step]
        out[step:] |= held[:-step] & same
        out[:-step] |= held[step:] & same
    return out
