"""Many windows of one machine as one compressed blob: columns of small numbers, deflated.

    version (one byte), length of the history (4 bytes, little-endian), history (see `history`), the rest alike

A year of eight machines has 50 million windows: rows of their own would take many times the room.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from asd_agent.store import history
from asd_agent.store.history import NONE, STATES, History
from asd_agent.store.records import ScoreRow
from asd_agent.store.rounding import p_code, p_of
from asd_agent.types import Level

_SILENT_DBFS = -200.0
SMALLEST_DISTANCE = 1e-12
HEAD_BYTES = 5
_VERSION = 4
_DISTANCE_STEPS = 500  # per factor e: 0.2 % apart
_ZERO = -30_000  # the code of a distance of 0
_LARGEST = 32_767
_NO = -_LARGEST  # where there is no value


class _Rest(msgspec.Struct, array_like=True, frozen=True):
    """The columns that are not in the history, as byte planes."""

    words: list[str]
    level: bytes  # this and the next two: into words
    quality: bytes
    reason: bytes
    level_dbfs: bytes  # tenths
    embedding_p: bytes  # -100 log10 p
    mechanism_p: bytes
    embedding_distance: bytes  # 500 ln d
    detectors: dict[str, tuple[bytes, bytes]]  # distance, p; their z is in the history


def encode(rows: Sequence[ScoreRow]) -> bytes:
    known: dict[str, int] = {}

    def words(values: Iterable[str]) -> bytes:
        return _column(known.setdefault(value, len(known)) for value in values)

    rest = _Rest(
        level=words(row.level for row in rows),
        quality=words(",".join(row.quality) for row in rows),
        reason=words(row.reason for row in rows),
        words=list(known),
        level_dbfs=_column(_tenths(row.level_dbfs) for row in rows),
        embedding_p=_column(_log_p(row.embedding_p) for row in rows),
        mechanism_p=_column(_log_p(row.mechanism_p) for row in rows),
        embedding_distance=_column(_log_distance(row.embedding_distance) for row in rows),
        detectors={
            name: _detector([row.detectors.get(name) for row in rows])
            for name in dict.fromkeys(name for row in rows for name in row.detectors)
        },
    )
    first, second = history.pack(rows), zlib.compress(msgspec.msgpack.encode(rest), 9)
    return b"".join((bytes([_VERSION]), len(first).to_bytes(4, "little"), first, second))


def decode(data: bytes) -> list[ScoreRow]:
    """Raises ValueError (also msgspec's and zlib's, translated) for damaged data."""
    try:
        size = history_bytes(data[:HEAD_BYTES])
        past = history.unpack(data[HEAD_BYTES : HEAD_BYTES + size])
        rest = msgspec.msgpack.decode(zlib.decompress(data[HEAD_BYTES + size :]), type=_Rest)
        return _join(past, rest)
    except (zlib.error, msgspec.DecodeError, ValueError, IndexError) as exc:
        raise ValueError(f"damaged block of scores: {exc}") from exc


def history_bytes(head: bytes) -> int:
    """The first HEAD_BYTES of a block -> the length of the history behind them. Raises ValueError for damaged data."""
    if head[:1] != bytes([_VERSION]) or len(head) < HEAD_BYTES:
        raise ValueError("damaged block of scores: it does not begin like one")
    return int.from_bytes(head[1:], "little")


def _join(past: History, rest: _Rest) -> list[ScoreRow]:
    w, r = past.words, rest.words
    level, quality, reason = (_ints(data) for data in (rest.level, rest.quality, rest.reason))
    level_dbfs = _ints(rest.level_dbfs)
    embedding_p, mechanism_p, distance = map(_ints, (rest.embedding_p, rest.mechanism_p, rest.embedding_distance))
    detectors = {name: (*map(_ints, columns), past.z[name].tolist()) for name, columns in rest.detectors.items()}
    return [
        ScoreRow(
            utc_s=float(past.utc_s[i]),
            index=int(past.index[i]),
            state=STATES[past.state[i]],
            level=Level(r[level[i]]),
            quality=tuple(r[quality[i]].split(",")) if r[quality[i]] else (),
            level_dbfs=level_dbfs[i] / 10,
            p_value=_p_or_none(int(past.p[i]), NONE),
            embedding_distance=_distance(distance[i]),
            embedding_p=_p_or_none(embedding_p[i]),
            mechanism_p=_p_or_none(mechanism_p[i]),
            detectors={n: d for n, columns in detectors.items() if (d := _score(*(c[i] for c in columns))) is not None},
            baseline=w[past.baseline[i]],
            reason=r[reason[i]],
            operating=w[past.operating[i]],
            nuisance=w[past.nuisance[i]],
            transient_p=_p_or_none(int(past.transient_p[i]), NONE),
            transient_at_s=None if past.transient_ms[i] == NONE else float(past.transient_ms[i]) / 1000,
            cause=w[past.cause[i]],
        )
        for i in range(len(past))
    ]


# -- columns


def _column(values: Iterable[int]) -> bytes:
    return history.planes(np.clip(np.fromiter(values, np.int64), -_LARGEST, _LARGEST), "<i2")


def _ints(data: bytes) -> list[int]:
    found: list[int] = history.values(data, "<i2").tolist()
    return found


def _detector(found: Sequence[tuple[float, float, float] | None]) -> tuple[bytes, bytes]:
    return (
        _column(_NO if v is None else _log_distance(v[0]) for v in found),
        _column(_NO if v is None else _log_p(v[2]) for v in found),
    )


def _score(distance: int, p: int, z: int) -> tuple[float, float, float] | None:
    d, q = _distance(distance), _p_or_none(p)
    return None if d is None or z == history.NO_Z or q is None else (d, z / 10, q)


def _tenths(level_dbfs: float) -> int:
    return round(10 * (level_dbfs if math.isfinite(level_dbfs) else _SILENT_DBFS))


def _log_distance(distance: float | None) -> int:
    if distance is None or not math.isfinite(distance):
        return _NO
    return round(_DISTANCE_STEPS * math.log(distance)) if distance > SMALLEST_DISTANCE else _ZERO


def _distance(code: int) -> float | None:
    if code == _NO:
        return None
    return 0.0 if code == _ZERO else float(f"{math.exp(code / _DISTANCE_STEPS):.4g}")


def _log_p(p: float | None) -> int:
    return _NO if p is None or not math.isfinite(p) else p_code(p)


def _p_or_none(code: int, none: int = _NO) -> float | None:
    return None if code == none else p_of(code)
