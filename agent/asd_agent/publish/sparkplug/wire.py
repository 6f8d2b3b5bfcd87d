"""Sparkplug B payloads as bytes: the part of the specification's protobuf schema that an edge node needs.

Sparkplug 3.0.0, chapter 6.4 (payload and metric structure): field numbers and data types are those of its
`sparkplug_b.proto`. Of protobuf's wire types a Payload needs varint, 64-bit, 32-bit and length-delimited.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

Value = bool | int | float | str | None


class DataType(enum.IntEnum):
    INT32 = 3
    INT64 = 4
    UINT64 = 8
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12


@dataclass(frozen=True, slots=True)
class Metric:
    """`name` and `data_type` belong into births; afterwards `alias` stands for both. The value None is null."""

    value: Value
    name: str = ""
    alias: int | None = None
    timestamp_ms: int | None = None
    data_type: DataType | None = None
    historical: bool = False
    unit: str = ""  # the property engUnit


@dataclass(frozen=True, slots=True)
class Payload:
    timestamp_ms: int | None
    metrics: tuple[Metric, ...]
    seq: int | None = None  # 0 to 255; none in NDEATH


class WireError(ValueError):
    """Not a Sparkplug payload."""


_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONG, _INT, _DOUBLE, _BOOL, _STRING = 11, 10, 13, 14, 15  # of the metric's oneof `value`; 12 is float
_FLOAT = 12


def encode(payload: Payload) -> bytes:
    parts = []
    if payload.timestamp_ms is not None:
        parts.append(_number(1, payload.timestamp_ms))
    parts += [_chunk(2, _metric(metric)) for metric in payload.metrics]
    if payload.seq is not None:
        parts.append(_number(3, payload.seq))
    return b"".join(parts)


def decode(data: bytes) -> Payload:
    """Raises WireError. Metrics of kinds that we never send (templates, data sets) come with the value None."""
    timestamp: int | None = None
    seq: int | None = None
    metrics = []
    for field, value in _fields(data):
        if field == 1 and isinstance(value, int):
            timestamp = value
        elif field == 2 and isinstance(value, bytes):
            metrics.append(_read_metric(value))
        elif field == 3 and isinstance(value, int):
            seq = value
    return Payload(timestamp, tuple(metrics), seq)


def _metric(metric: Metric) -> bytes:
    parts = []
    if metric.name:
        parts.append(_chunk(1, metric.name.encode()))
    if metric.alias is not None:
        parts.append(_number(2, metric.alias))
    if metric.timestamp_ms is not None:
        parts.append(_number(3, metric.timestamp_ms))
    if metric.data_type is not None:
        parts.append(_number(4, metric.data_type))
    if metric.historical:
        parts.append(_number(5, 1))
    if metric.value is None:
        parts.append(_number(7, 1))
    if metric.unit:
        parts.append(_chunk(9, _unit(metric.unit)))
    if metric.value is not None:
        parts.append(_value(metric.value, metric.data_type))
    return b"".join(parts)


def _unit(unit: str) -> bytes:
    """A PropertySet with engUnit: keys are field 1, values field 2; of a value, 1 is the type and 8 the string."""
    return _chunk(1, b"engUnit") + _chunk(2, _number(1, DataType.STRING) + _chunk(8, unit.encode()))


def _value(value: Value, data_type: DataType | None) -> bytes:
    if isinstance(value, bool):
        return _number(_BOOL, int(value))
    if isinstance(value, int):
        if data_type is DataType.INT32:
            return _number(_INT, value & 0xFFFFFFFF)
        return _number(_LONG, value & 0xFFFFFFFFFFFFFFFF)
    if isinstance(value, float):
        return _varint(_DOUBLE << 3 | _FIXED64) + struct.pack("<d", value)
    return _chunk(_STRING, str(value).encode())


def _read_metric(data: bytes) -> Metric:
    name, alias, timestamp, value = "", None, None, None
    for field, raw in _fields(data):
        if field == 1 and isinstance(raw, bytes):
            name = _text(raw)
        elif field == 2 and isinstance(raw, int):
            alias = raw
        elif field == 3 and isinstance(raw, int):
            timestamp = raw
        else:
            value = _read_value(field, raw) if _INT <= field <= _STRING else value
    return Metric(value, name, alias, timestamp)


def _read_value(field: int, raw: int | bytes) -> Value:
    if field == _BOOL and isinstance(raw, int):
        return bool(raw)
    if field in (_INT, _LONG) and isinstance(raw, int):
        return raw
    if field == _DOUBLE and isinstance(raw, bytes) and len(raw) == 8:
        return float(struct.unpack("<d", raw)[0])
    if field == _FLOAT and isinstance(raw, bytes) and len(raw) == 4:
        return float(struct.unpack("<f", raw)[0])
    if field == _STRING and isinstance(raw, bytes):
        return _text(raw)
    raise WireError(f"field {field} of a metric is of the wrong kind")


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise WireError("a string is not UTF-8") from exc


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _chunk(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field number and raw value: an int for a varint, else the bytes."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            number, at = _read_varint(data, at)
            yield field, number
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise WireError(f"wire type {kind} is not known")
        if at + size > len(data):
            raise WireError("the payload is cut off")
        yield field, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + place + 1
    raise WireError("a number is cut off or too long")
