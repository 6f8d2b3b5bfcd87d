"""One vocabulary: what is said over MQTT, on the socket, in the CLI's JSON and on the page has the same names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

pytest.importorskip("starlette", reason="needs the extra `web`")

from asd_agent.baseline import Report
from asd_agent.publish import payloads
from asd_agent.service.commands import VERBS
from asd_agent.service.status import AgentStatus, CalibrationProgress, MachineStatus
from asd_agent.web import metrics
from asd_agent.web.child import Again, Compared, Tried
from asd_agent.web.pages.alarm import Sound
from asd_agent.web.pages.calibrate import Version
from asd_agent.web.pages.machine import Detectors
from asd_agent.web.series import Series
from asd_agent.whatif import AlarmSpan

SAID = [AgentStatus, CalibrationProgress, Series, Detectors, AlarmSpan, Sound, Again, Compared, Tried, Version]
SAID += get_args(payloads.Payload)
# One word, and what it means is said by the message that holds it.
OF_THE_MESSAGE = {
    "status",  # of a response: ok or error, as Zigbee2MQTT has it; of health: the NE 107 class
    "data",
    "name",
}
COLUMNS = (Series.__name__, Detectors.__name__)  # of a plot: many values of the same name
OF_MACHINES = {
    "lag_seconds": "lag_s",  # as Prometheus wants units
    "alarm_level": "level",
    "alarm_acknowledged": "acknowledged",
    "shelved": "shelved_until",
}


def structs(kind: inspect.Type) -> Iterator[inspect.StructType]:
    """All that can be reached."""
    if isinstance(kind, inspect.Metadata):
        yield from structs(kind.type)
    elif isinstance(kind, inspect.StructType) and kind.cls is not Report:  # the content of a file
        yield kind
        for field in kind.fields:
            yield from structs(field.type)
    elif isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from structs(one)
    elif isinstance(kind, inspect.ListType | inspect.VarTupleType):
        yield from structs(kind.item_type)
    elif isinstance(kind, inspect.DictType):
        yield from structs(kind.value_type)


FIELDS = {
    (struct.cls.__name__, field.encode_name): field.type
    for said in SAID
    for struct in structs(inspect.type_info(said))
    for field in struct.fields
}


def plain(kind: inspect.Type) -> Any:
    """Without limits, descriptions and None."""
    if isinstance(kind, inspect.Metadata):
        return plain(kind.type)
    if isinstance(kind, inspect.UnionType):
        found = sorted({plain(one) for one in kind.types if not isinstance(one, inspect.NoneType)})
        return found[0] if len(found) == 1 else tuple(found)
    if isinstance(kind, inspect.EnumType | inspect.StructType):
        return (str(kind.cls),)
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return ("many", *plain(kind.item_type))
    return (type(kind).__name__,)


def test_the_same_name_has_the_same_type_everywhere() -> None:
    seen: dict[str, tuple[str, Any]] = {}
    wrong = []
    for (struct, name), kind in FIELDS.items():
        if name in OF_THE_MESSAGE or struct in (MachineStatus.__name__, *COLUMNS):
            continue
        first, other = seen.setdefault(name, (struct, plain(kind)))
        if other != plain(kind):
            wrong.append(f"{name} in {first} and in {struct}")
    assert wrong == []


def test_a_machine_s_status_is_its_messages() -> None:
    for kind, channel in payloads.CHANNELS.items():
        if kind is not payloads.Event:  # of events there are many: `asd-agent alarms list --json`, /api/v1/events
            found = FIELDS["MachineStatus", channel.name]
            assert kind in {s.cls for s in structs(found)}, channel.name


def test_times_are_texts() -> None:
    """Seconds since 1970 stand only in the columns of a plot."""
    for (struct, name), kind in FIELDS.items():
        if "utc" in name:
            assert plain(kind)[0] == "many", f"{struct}.{name}"
    for verb, kind in VERBS.items():
        assert not [field.name for field in msgspec.structs.fields(kind) if "utc" in field.name], verb


def test_windows_are_counted() -> None:
    for (struct, name), kind in FIELDS.items():
        if name == "windows":
            assert plain(kind) == ("IntType",), struct


def test_metrics_are_called_as_the_fields_are() -> None:
    fields = {name for struct, name in FIELDS if struct in ("Alarm", "Health", "Score")}
    for name, _, _ in metrics._NUMBERS:
        assert OF_MACHINES.get(name, name) in fields, name
