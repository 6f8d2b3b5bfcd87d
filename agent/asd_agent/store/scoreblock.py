"""Many windows of one machine as one compressed blob: columns of small numbers as JSON, deflated.

A year of eight machines has 50 million windows: rows of their own would take many times the room.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence

import msgspec

from asd_agent.store.records import ScoreRow
from asd_agent.types import Level, State

_SILENT_DBFS = -200.0


class _Detector(msgspec.Struct):
    distance: list[float | None] = []
    z: list[int | None] = []  # tenths
    p: list[int | None] = []  # -100 log10 p


class _Columns(msgspec.Struct, omit_defaults=True):
    strings: list[str] = []  # the columns of words are indices into it
    utc_ms: list[int] = []  # differences
    index: list[int] = []  # differences
    state: list[int] = []
    level: list[int] = []
    quality: list[int] = []
    baseline: list[int] = []
    reason: list[int] = []
    level_dbfs: list[int] = []  # tenths
    p: list[int | None] = []  # -100 log10 p
    embedding_p: list[int | None] = []
    mechanism_p: list[int | None] = []
    embedding_distance: list[float | None] = []
    detectors: dict[str, _Detector] = {}


def encode(rows: Sequence[ScoreRow]) -> bytes:
    columns = _Columns(
        utc_ms=_differences(round(row.utc_s * 1000) for row in rows),
        index=_differences(row.index for row in rows),
        level_dbfs=[round(10 * (row.level_dbfs if math.isfinite(row.level_dbfs) else _SILENT_DBFS)) for row in rows],
        p=[_log_p(row.p_value) for row in rows],
        embedding_p=[_log_p(row.embedding_p) for row in rows],
        mechanism_p=[_log_p(row.mechanism_p) for row in rows],
        embedding_distance=[_digits(row.embedding_distance) for row in rows],
    )
    known: dict[str, int] = {}
    for row in rows:
        columns.state.append(known.setdefault(row.state, len(known)))
        columns.level.append(known.setdefault(row.level, len(known)))
        columns.quality.append(known.setdefault(",".join(row.quality), len(known)))
        columns.baseline.append(known.setdefault(row.baseline, len(known)))
        columns.reason.append(known.setdefault(row.reason, len(known)))
    columns.strings = list(known)
    for name in dict.fromkeys(name for row in rows for name in row.detectors):
        columns.detectors[name] = _detector([row.detectors.get(name) for row in rows])
    return zlib.compress(msgspec.json.encode(columns), 9)


def decode(data: bytes) -> list[ScoreRow]:
    """Raises ValueError (also msgspec's and zlib's, translated) for damaged data."""
    try:
        c = msgspec.json.decode(zlib.decompress(data), type=_Columns)
    except (zlib.error, msgspec.DecodeError) as exc:
        raise ValueError(f"damaged block of scores: {exc}") from exc
    words = c.strings
    rows = []
    utc_ms = index = 0
    for i, (step_ms, step) in enumerate(zip(c.utc_ms, c.index, strict=True)):
        utc_ms, index = utc_ms + step_ms, index + step
        quality = words[c.quality[i]]
        rows.append(
            ScoreRow(
                utc_s=utc_ms / 1000,
                index=index,
                state=State(words[c.state[i]]),
                level=Level(words[c.level[i]]),
                quality=tuple(quality.split(",")) if quality else (),
                level_dbfs=c.level_dbfs[i] / 10,
                p_value=_p(c.p[i]),
                embedding_distance=c.embedding_distance[i],
                embedding_p=_p(c.embedding_p[i]),
                mechanism_p=_p(c.mechanism_p[i]),
                detectors={n: d for n, column in c.detectors.items() if (d := _at(column, i)) is not None},
                baseline=words[c.baseline[i]],
                reason=words[c.reason[i]],
            )
        )
    return rows


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


def _differences(values: Iterable[int]) -> list[int]:
    differences, last = [], 0
    for value in values:
        differences.append(value - last)
        last = value
    return differences


def _digits(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.3g}")


def _log_p(p: float | None) -> int | None:
    return None if p is None or not math.isfinite(p) else round(-100 * math.log10(max(p, 1e-300)))


def _p(value: int | None) -> float | None:
    return None if value is None else float(10.0 ** (-value / 100))
