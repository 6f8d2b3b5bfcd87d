"""The running daemon as its clients see it: typed answers over the control socket."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from asd_agent.config.model import Config
from asd_agent.errors import AsdError
from asd_agent.service.control import ask
from asd_agent.service.status import AgentStatus, CalibrationProgress

T = TypeVar("T")


def status(settings: Config) -> AgentStatus:
    """Raises DaemonAbsent, AsdError."""
    return typed(ask(settings, "status"), AgentStatus)


def calibration(settings: Config, machine: str) -> CalibrationProgress:
    """Of the last calibration of the machine. Raises DaemonAbsent, AsdError."""
    return typed(ask(settings, "calibration", machine=machine), CalibrationProgress)


def typed(answer: Any, kind: type[T]) -> T:
    """Raises AsdError when the daemon is of another version than this client."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as exc:
        raise AsdError(f"the daemon's answer is not one of this version ({exc}): restart the daemon") from exc
