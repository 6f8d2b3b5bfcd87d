"""The machine's metrics, made of the native payloads: one table says what each is called and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from asd_agent.publish import payloads
from asd_agent.publish.sparkplug.wire import DataType, Value

Values = dict[str, Value]


class Definition(NamedTuple):
    name: str
    data_type: DataType
    unit: str = ""
    payload: type | None = None  # the native payload that it is read from; None = a command
    read: Callable[[Any], Value] = lambda payload: None


_B, _D, _S = DataType.BOOLEAN, DataType.DOUBLE, DataType.STRING

ACKNOWLEDGE, SHELVE, UNSHELVE = "Device Control/Acknowledge", "Device Control/Shelve Minutes", "Device Control/Unshelve"

MACHINE = (
    Definition("Alarm/Level", _S, "", payloads.Alarm, lambda p: p.level.value),
    Definition("Alarm/Active", _B, "", payloads.Alarm, lambda p: p.level in ("alert", "danger") and not p.latched),
    Definition("Alarm/Acknowledged", _B, "", payloads.Alarm, lambda p: p.acknowledged),
    Definition("Alarm/Latched", _B, "", payloads.Alarm, lambda p: p.latched),
    Definition("Alarm/Suppressed", _B, "", payloads.Alarm, lambda p: p.out_of_service or p.shelved_until is not None),
    Definition("Alarm/Id", _S, "", payloads.Alarm, lambda p: p.alarm_id),
    Definition("Alarm/Reason", _S, "", payloads.Alarm, lambda p: p.reason),
    Definition("Score/Value", _D, "", payloads.Score, lambda p: p.score),
    Definition("Score/Limit", _D, "", payloads.Score, lambda p: p.score_limit),
    Definition("Score/State", _S, "", payloads.Score, lambda p: p.state.value),
    Definition("Score/Operating State", _S, "", payloads.Score, lambda p: p.operating),
    Definition("Score/Sound Level", _D, "dBFS", payloads.Score, lambda p: p.level_dbfs),
    Definition("Chain/Status", _S, "", payloads.Health, lambda p: p.status),
    Definition("Chain/Reasons", _S, "", payloads.Health, lambda p: "; ".join(p.reasons)),
    Definition("Chain/Lag", _D, "s", payloads.Health, lambda p: p.lag_s),
    Definition("Properties/Baseline", _S, "", payloads.Health, lambda p: p.baseline),
    Definition(ACKNOWLEDGE, _B),
    Definition(SHELVE, _D, "min"),
    Definition(UNSHELVE, _B),
)
TYPES = {definition.name: definition.data_type for definition in MACHINE}
_COMMANDS: Values = {ACKNOWLEDGE: False, SHELVE: 0.0, UNSHELVE: False}


def initial() -> Values:
    """Before anything is known of a machine: null, and the commands at rest."""
    return {d.name: _COMMANDS.get(d.name) for d in MACHINE}


def values(payload: payloads.Payload) -> Values:
    """What a native payload says of the metrics."""
    return {d.name: d.read(payload) for d in MACHINE if d.payload is type(payload)}


def command(name: str, value: Value) -> tuple[str, dict[str, Value]] | None:
    """The verb and its arguments, of a metric that a host writes; None for one that cannot be written."""
    if name == ACKNOWLEDGE and value is True:
        return "ack", {}
    if name == UNSHELVE and value is True:
        return "unshelve", {}
    if name == SHELVE and isinstance(value, float | int) and not isinstance(value, bool):
        return "shelve", {"minutes": float(value)}
    return None
