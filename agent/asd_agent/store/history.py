"""What the alarm logic needs of each window, as columns: a year can be decided again (`asd-agent whatif`).

A block of scores begins with this part, packed by itself, so that nothing else of a year need be read. Numbers go byte
plane by byte plane: the high bytes of small numbers are all equal, and deflate to nothing.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent.store.records import ScoreRow
from asd_agent.store.rounding import p_code
from asd_agent.types import Floats, State

Ints = npt.NDArray[np.int64]
STATES = tuple(State)
WORDS = ("baseline", "operating", "nuisance", "cause")  # columns that are indices into a list of words
NONE = -1  # where there is no p-value or no moment
NO_Z = -32_767  # where a detector has none


@dataclass(frozen=True)
class History:
    """Windows in the order in which they were judged. Every column is [n]."""

    utc_s: Floats  # to milliseconds
    index: Ints
    state: Ints  # into STATES, as it was judged then
    p: Ints  # -100 log10 of the fused p-value, or NONE
    transient_p: Ints  # the same of the strongest transient
    transient_ms: Ints  # after the start of the window, or NONE
    baseline: Ints  # into words
    operating: Ints  # into words
    nuisance: Ints  # into words
    cause: Ints  # into words
    words: tuple[str, ...]
    z: Mapping[str, Ints]  # detector -> tenths, or NO_Z

    def __len__(self) -> int:
        return len(self.utc_s)

    @classmethod
    def of(cls, rows: Sequence[ScoreRow]) -> History:
        known: dict[str, int] = {}

        def words(values: list[str]) -> Ints:
            return np.array([known.setdefault(value, len(known)) for value in values], np.int64)

        columns = {name: words([getattr(row, name) for row in rows]) for name in WORDS}
        return cls(
            utc_s=np.array([round(row.utc_s * 1000) for row in rows], np.float64) / 1000,
            index=np.array([row.index for row in rows], np.int64),
            state=np.array([STATES.index(row.state) for row in rows], np.int64),
            p=np.array([_code(row.p_value) for row in rows], np.int64),
            transient_p=np.array([_code(row.transient_p) for row in rows], np.int64),
            transient_ms=np.array(
                [NONE if row.transient_at_s is None else round(row.transient_at_s * 1000) for row in rows], np.int64
            ),
            words=tuple(known),
            z={name: _tenths(name, rows) for name in dict.fromkeys(name for row in rows for name in row.detectors)},
            **columns,
        )

    @classmethod
    def joined(cls, parts: Sequence[History]) -> History:
        """One after the other; their words become one list."""
        known: dict[str, int] = {}
        maps = [np.array([known.setdefault(w, len(known)) for w in part.words], np.int64) for part in parts]
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("utc_s", "index", "state", "p", "transient_p", "transient_ms")
        }
        for name in WORDS:
            columns[name] = np.concatenate([at[getattr(part, name)] for part, at in zip(parts, maps, strict=True)])
        names = dict.fromkeys(name for part in parts for name in part.z)
        z = {n: np.concatenate([part.z.get(n, np.full(len(part), NO_Z, np.int64)) for part in parts]) for n in names}
        return cls(words=tuple(known), z=z, **columns)

    def between(self, since_utc_s: float, until_utc_s: float) -> History:
        """The windows that start then."""
        inside = (self.utc_s >= since_utc_s) & (self.utc_s <= until_utc_s)
        if inside.all():
            return self
        names = (name for name in self.__dataclass_fields__ if name not in ("words", "z"))
        z = {name: values[inside] for name, values in self.z.items()}
        return History(words=self.words, z=z, **{name: getattr(self, name)[inside] for name in names})


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    states: list[str]  # by name: their order may change
    words: list[str]
    utc_ms: bytes  # differences
    index: bytes  # differences
    state: bytes
    p: bytes
    transient_p: bytes
    transient_ms: bytes
    baseline: bytes
    operating: bytes
    nuisance: bytes
    cause: bytes
    z: dict[str, bytes]


_TYPES = {
    "state": "<u1", "p": "<i2", "transient_p": "<i2", "transient_ms": "<i4",
    "baseline": "<u2", "operating": "<u2", "nuisance": "<u2", "cause": "<u2",
}  # fmt: skip


def pack(rows: Sequence[ScoreRow]) -> bytes:
    history = History.of(rows)
    steps = {
        "utc_ms": np.diff(np.rint(history.utc_s * 1000).astype(np.int64), prepend=0),
        "index": np.diff(history.index, prepend=0),
    }
    packed = _Packed(
        states=list(STATES),
        words=list(history.words),
        z={name: planes(values, "<i2") for name, values in history.z.items()},
        **{name: planes(values, "<i8") for name, values in steps.items()},
        **{name: planes(getattr(history, name), kind) for name, kind in _TYPES.items()},
    )
    return zlib.compress(msgspec.msgpack.encode(packed), 9)


def unpack(data: bytes) -> History:
    """Raises ValueError for damaged data."""
    try:
        packed = msgspec.msgpack.decode(zlib.decompress(data), type=_Packed)
        named = np.array([STATES.index(State(word)) for word in packed.states], np.int64)
        columns: dict[str, Any] = {name: values(getattr(packed, name), kind) for name, kind in _TYPES.items()}
        columns["state"] = named[columns["state"]]
        return History(
            words=tuple(packed.words),
            z={name: values(data, "<i2") for name, data in packed.z.items()},
            utc_s=np.cumsum(values(packed.utc_ms, "<i8")) / 1000,
            index=np.cumsum(values(packed.index, "<i8")),
            **columns,
        )
    except (zlib.error, msgspec.DecodeError, ValueError, IndexError) as exc:
        raise ValueError(f"damaged block of scores: {exc}") from exc


def planes(values: npt.NDArray[Any], kind: str) -> bytes:
    """Integers [n] as byte planes of a small type."""
    small = np.ascontiguousarray(values.astype(kind))
    return small.view(np.uint8).reshape(len(small), small.itemsize).T.tobytes()


def values(data: bytes, kind: str) -> Ints:
    """The inverse. Raises ValueError for another length than a whole number of values."""
    size = np.dtype(kind).itemsize
    planes = np.frombuffer(data, np.uint8).reshape(size, -1)
    return np.ascontiguousarray(planes.T).view(kind).reshape(-1).astype(np.int64)


def _tenths(name: str, rows: Sequence[ScoreRow]) -> Ints:
    found = [row.detectors[name][1] if name in row.detectors else None for row in rows]
    codes = [NO_Z if z is None or not math.isfinite(z) else round(10 * z) for z in found]
    return np.clip(np.array(codes, np.int64), NO_Z, -NO_Z)


def _code(p_value: float | None) -> int:
    return NONE if p_value is None or p_value != p_value else p_code(p_value)
