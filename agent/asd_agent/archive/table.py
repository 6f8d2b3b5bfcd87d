"""Windows as rows of a Parquet file and back: what the encoder made of them, and what the baseline says.

Numbers are stored as they are computed (float64, embeddings float32): what is read back scores the same, to the last
bit. Embeddings are columns `embedding.<name>` of their own, because bundles differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from asd_agent.reasons import Deviation
from asd_agent.types import (
    Cause,
    Description,
    DetectorScore,
    Fingerprint,
    Level,
    Quality,
    RoomSound,
    State,
    Transient,
    WindowResult,
)

EMBEDDING = "embedding."
_DETECTOR = pa.struct(
    [("name", pa.string()), ("distance", pa.float64()), ("z", pa.float64()), ("p_value", pa.float64())]
)
_FINGERPRINT = pa.struct(
    [("rate_hz", pa.int32()), ("floor_db", pa.list_(pa.float64())), ("edge_hz", pa.float64()), ("dc", pa.float64())]
)
PLACE = [
    pa.field("file", pa.string()),
    pa.field("recorded_utc_s", pa.float64()),  # when the file begins
    pa.field("error", pa.string()),  # of a file that cannot be read (further): such a row is no window
    pa.field("index", pa.int32()),  # of the window in the file
    pa.field("start_s", pa.float64()),
    pa.field("duration_s", pa.float64()),
    pa.field("utc_s", pa.float64()),
]
DESCRIPTION = [
    pa.field("quality", pa.list_(pa.string())),  # causes; empty = assessable
    pa.field("level_dbfs", pa.float64()),
    pa.field("peak", pa.float64()),
    pa.field("dc", pa.float64()),
    pa.field("clipped", pa.float64()),
    pa.field("transient", pa.struct([("at_s", pa.float64()), ("excess_db", pa.float64())])),
    pa.field("indicators", pa.map_(pa.string(), pa.float64())),
    pa.field("fingerprint", _FINGERPRINT),
    pa.field("room", pa.struct([("coherence", pa.float64()), ("over_near_db", pa.list_(pa.float64()))])),
]
RESULT = [
    pa.field("state", pa.string()),
    pa.field("cause", pa.string()),
    pa.field("level", pa.string()),
    pa.field("score", pa.float64()),
    pa.field("p_value", pa.float64()),
    pa.field("embedding_distance", pa.float64()),
    pa.field("embedding_p", pa.float64()),
    pa.field("mechanism_p", pa.float64()),
    pa.field("transient_p", pa.float64()),
    pa.field("transient_at_s", pa.float64()),
    pa.field("operating", pa.string()),
    pa.field("nuisance", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("deviation", pa.string()),  # JSON
    pa.field("detectors", pa.list_(_DETECTOR)),
]
_AS_IT_IS = (
    "score", "p_value", "embedding_distance", "embedding_p", "mechanism_p", "transient_p", "transient_at_s",
    "operating", "nuisance", "reason",
)  # fmt: skip

Row = Mapping[str, Any]


class Rows:
    """Windows of some recordings, to become a table."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._embeddings: list[Mapping[str, Any]] = []

    def add(self, file: str, recorded_utc_s: float, description: Description, result: WindowResult) -> None:
        self._rows.append(
            {"file": file, "recorded_utc_s": recorded_utc_s, **_described(description), **_judged(result)}
        )
        self._embeddings.append(description.embeddings)

    def fail(self, file: str, recorded_utc_s: float, error: str) -> None:
        self._rows.append({"file": file, "recorded_utc_s": recorded_utc_s, "error": error})
        self._embeddings.append({})

    def table(self) -> pa.Table:
        names = sorted({name for row in self._embeddings for name in row})
        columns = [pa.array([row.get(field.name) for row in self._rows], field.type) for field in _FIELDS]
        columns += [pa.array([row.get(name) for row in self._embeddings], pa.list_(pa.float32())) for name in names]
        return pa.table(columns, names=[*(field.name for field in _FIELDS), *(EMBEDDING + name for name in names)])


_FIELDS = PLACE + DESCRIPTION + RESULT


def rows(table: pa.Table) -> list[Row]:
    """The rows without their embeddings, in the order of recordings and windows; `row` is the number in the table."""
    plain = table.select([name for name in table.column_names if not name.startswith(EMBEDDING)])
    found = [{**row, "row": number} for number, row in enumerate(plain.to_pylist())]
    return sorted(
        found, key=lambda row: (row["recorded_utc_s"], row["file"], -1 if row["index"] is None else row["index"])
    )


def is_window(row: Row) -> bool:
    return row["error"] is None


def descriptions(table: pa.Table, wanted: Sequence[Row]) -> list[Description]:
    """Of some rows of the table, embeddings included."""
    columns = {
        name.removeprefix(EMBEDDING): table.column(name).combine_chunks()
        for name in table.column_names
        if name.startswith(EMBEDDING)
    }
    flat = {
        name: (np.asarray(column.values), np.asarray(column.offsets), np.asarray(column.is_valid()))
        for name, column in columns.items()
    }
    found = []
    for row in wanted:
        at = row["row"]
        embeddings = {
            name: values[offsets[at] : offsets[at + 1]] for name, (values, offsets, valid) in flat.items() if valid[at]
        }
        found.append(_description(row, embeddings))
    return found


def result(row: Row) -> WindowResult:
    return WindowResult(
        index=row["index"],
        start_s=row["start_s"],
        duration_s=row["duration_s"],
        utc_s=row["utc_s"],
        origin=row["file"],
        quality=_quality(row),
        state=State(row["state"]),
        cause=Cause(row["cause"]) if row["cause"] else None,
        level=Level(row["level"]),
        deviation=msgspec.json.decode(row["deviation"], type=Deviation) if row["deviation"] else None,
        detectors=tuple(DetectorScore(**one) for one in row["detectors"]),
        **{name: row[name] for name in _AS_IT_IS if name != "score"},
    )


def _described(description: Description) -> dict[str, Any]:
    q, t = description.quality, description.transient
    return {
        "index": description.index,
        "start_s": description.start_s,
        "duration_s": description.duration_s,
        "utc_s": description.utc_s,
        "quality": [cause.value for cause in q.causes],
        "level_dbfs": q.level_dbfs,
        "peak": q.peak,
        "dc": q.dc,
        "clipped": q.clipped,
        "transient": None if t is None else {"at_s": t.at_s, "excess_db": t.excess_db},
        "indicators": list(description.indicators.items()),
        "fingerprint": _plain(description.fingerprint),
        "room": _plain(description.room),
    }


def _plain(value: Fingerprint | RoomSound | None) -> dict[str, Any] | None:
    return None if value is None else asdict(value)


def _judged(found: WindowResult) -> dict[str, Any]:
    return {
        "state": found.state.value,
        "cause": found.cause.value if found.cause else None,
        "level": found.level.value,
        "deviation": msgspec.json.encode(found.deviation).decode() if found.deviation else None,
        "detectors": [
            {"name": d.name, "distance": d.distance, "z": d.z, "p_value": d.p_value} for d in found.detectors
        ],
        **{name: getattr(found, name) for name in _AS_IT_IS},
    }


def _quality(row: Row) -> Quality:
    causes = tuple(Cause(cause) for cause in row["quality"])
    return Quality(causes, row["level_dbfs"], row["peak"], row["dc"], row["clipped"])


def _description(row: Row, embeddings: Mapping[str, Any]) -> Description:
    transient, chain, room = row["transient"], row["fingerprint"], row["room"]
    return Description(
        index=row["index"],
        start_s=row["start_s"],
        duration_s=row["duration_s"],
        utc_s=row["utc_s"],
        origin=row["file"],
        quality=_quality(row),
        embeddings=embeddings,
        indicators=dict(row["indicators"] or ()),
        transient=None if transient is None else Transient(**transient),
        fingerprint=None if chain is None else Fingerprint(**{**chain, "floor_db": tuple(chain["floor_db"])}),
        room=None if room is None else RoomSound(room["coherence"], tuple(room["over_near_db"])),
    )
