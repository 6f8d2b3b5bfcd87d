"""Many windows of one machine as one compressed blob: columns of small numbers, deflated.

    version 2 (one byte), length of the history (4 bytes, little-endian), history (see `history`), the rest as JSON

The first version was all JSON, and said nothing of operating states, foreign sounds and sudden moments; it begins with
the first byte of a deflate stream. A year of eight machines has 50 million windows: rows of their own would take many
times the room.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from asd_agent.store import history
from asd_agent.store.history import NONE, STATES, History
from asd_agent.store.records import ScoreRow
from asd_agent.store.rounding import p_code, p_of
from asd_agent.types import Level, State

_SILENT_DBFS = -200.0
HEAD_BYTES = 5
_VERSION = 2
_DEFLATE = 0x78


class _Detector(msgspec.Struct):
    distance: list[float | None] = []
    z: list[int | None] = []  # tenths
    p: list[int | None] = []  # -100 log10 p


class _Columns(msgspec.Struct, omit_defaults=True):
    strings: list[str] = []  # the columns of words are indices into it
    utc_ms: list[int] = []  # differences; this and the columns with * only in the first version
    index: list[int] = []  # * differences
    state: list[int] = []  # *
    level: list[int] = []
    quality: list[int] = []
    baseline: list[int] = []  # *
    reason: list[int] = []
    level_dbfs: list[int] = []  # tenths
    p: list[int | None] = []  # * -100 log10 p
    embedding_p: list[int | None] = []
    mechanism_p: list[int | None] = []
    embedding_distance: list[float | None] = []
    detectors: dict[str, _Detector] = {}


def encode(rows: Sequence[ScoreRow]) -> bytes:
    columns = _Columns(
        level_dbfs=[round(10 * (row.level_dbfs if math.isfinite(row.level_dbfs) else _SILENT_DBFS)) for row in rows],
        embedding_p=[_log_p(row.embedding_p) for row in rows],
        mechanism_p=[_log_p(row.mechanism_p) for row in rows],
        embedding_distance=[_digits(row.embedding_distance) for row in rows],
    )
    known: dict[str, int] = {}
    for row in rows:
        columns.level.append(known.setdefault(row.level, len(known)))
        columns.quality.append(known.setdefault(",".join(row.quality), len(known)))
        columns.reason.append(known.setdefault(row.reason, len(known)))
    columns.strings = list(known)
    for name in dict.fromkeys(name for row in rows for name in row.detectors):
        columns.detectors[name] = _detector([row.detectors.get(name) for row in rows])
    first = history.pack(rows)
    rest = zlib.compress(msgspec.json.encode(columns), 9)
    return b"".join((bytes([_VERSION]), len(first).to_bytes(4, "little"), first, rest))


def decode(data: bytes) -> list[ScoreRow]:
    """Raises ValueError (also msgspec's and zlib's, translated) for damaged data."""
    size = history_bytes(data[:HEAD_BYTES])
    if size is None:
        return _decode_first(_columns(data))
    past = history.unpack(data[HEAD_BYTES : HEAD_BYTES + size])
    c, w = _columns(data[HEAD_BYTES + size :]), past.words
    if len(c.reason) != len(past):
        raise ValueError("damaged block of scores: its parts do not belong together")
    return [
        ScoreRow(
            utc_s=float(past.utc_s[i]),
            index=int(past.index[i]),
            state=STATES[past.state[i]],
            p_value=_p_or_none(past.p[i]),
            baseline=w[past.baseline[i]],
            operating=w[past.operating[i]],
            foreign=w[past.foreign[i]],
            event_p=_p_or_none(past.event_p[i]),
            event_at_s=None if past.event_ms[i] == NONE else float(past.event_ms[i]) / 1000,
            not_running=bool(past.not_running[i]),
            **_rest(c, i),
        )
        for i in range(len(past))
    ]


def history_bytes(head: bytes) -> int | None:
    """The first HEAD_BYTES of a block -> the length of the history behind them; None in a block of the first version,
    which has to be decoded whole. Raises ValueError for damaged data."""
    if head[:1] == bytes([_DEFLATE]):
        return None
    if head[:1] != bytes([_VERSION]) or len(head) < HEAD_BYTES:
        raise ValueError("damaged block of scores: it does not begin like one")
    return int.from_bytes(head[1:], "little")


def decode_history(data: bytes) -> History:
    """Of a whole block of the first version. Raises ValueError."""
    return History.of(decode(data))


def _columns(data: bytes) -> _Columns:
    try:
        return msgspec.json.decode(zlib.decompress(data), type=_Columns)
    except (zlib.error, msgspec.DecodeError) as exc:
        raise ValueError(f"damaged block of scores: {exc}") from exc


def _decode_first(c: _Columns) -> list[ScoreRow]:
    rows = []
    utc_ms = index = 0
    for i, (step_ms, step) in enumerate(zip(c.utc_ms, c.index, strict=True)):
        utc_ms, index = utc_ms + step_ms, index + step
        rows.append(
            ScoreRow(
                utc_s=utc_ms / 1000,
                index=index,
                state=State(c.strings[c.state[i]]),
                p_value=_p(c.p[i]),
                baseline=c.strings[c.baseline[i]],
                **_rest(c, i),
            )
        )
    return rows


def _rest(c: _Columns, i: int) -> dict[str, Any]:
    """The fields that are not in the history."""
    quality = c.strings[c.quality[i]]
    return {
        "level": Level(c.strings[c.level[i]]),
        "quality": tuple(quality.split(",")) if quality else (),
        "level_dbfs": c.level_dbfs[i] / 10,
        "embedding_distance": c.embedding_distance[i],
        "embedding_p": _p(c.embedding_p[i]),
        "mechanism_p": _p(c.mechanism_p[i]),
        "detectors": {n: d for n, column in c.detectors.items() if (d := _at(column, i)) is not None},
        "reason": c.strings[c.reason[i]],
    }


def _detector(values: Iterable[tuple[float, float, float] | None]) -> _Detector:
    column = _Detector()
    for value in values:
        distance, z, p = value if value is not None else (None, None, None)
        column.distance.append(_digits(distance))
        column.z.append(None if z is None or not math.isfinite(z) else round(10 * z))
        column.p.append(_log_p(p))
    return column


def _at(column: _Detector, i: int) -> tuple[float, float, float] | None:
    distance, z, p = column.distance[i], column.z[i], _p(column.p[i])
    return None if distance is None or z is None or p is None else (distance, z / 10, p)


def _digits(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.3g}")


def _log_p(p: float | None) -> int | None:
    return None if p is None or not math.isfinite(p) else p_code(p)


def _p(value: int | None) -> float | None:
    return None if value is None else p_of(value)


def _p_or_none(value: int) -> float | None:
    return None if value == NONE else p_of(int(value))
