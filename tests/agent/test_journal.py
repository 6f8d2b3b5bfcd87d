"""Transitions as lines of the log, with journald's priorities."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from asd_agent.service.journal import ChainLog, log_transition
from asd_agent.types import AlarmEvent, ChainStatus, EventKind, Level

SPEAK = """
import structlog
from asd_agent import log
log.configure("debug")
logger = structlog.get_logger()
for method in ("debug", "info", "warning", "error", "critical"):
    getattr(logger, method)("hello", machine="m")
"""


@pytest.fixture(autouse=True)
def every_priority_is_logged() -> None:
    """A command that ran before in this process may have raised the level."""
    structlog.reset_defaults()


def event(kind: EventKind, level: Level, **more: object) -> AlarmEvent:
    return AlarmEvent(
        id="e1", alarm_id="a1", machine="m", kind=kind, level=level, utc_s=1.0, time_synced=True, reason="why", **more
    )


@pytest.mark.parametrize(
    ("kind", "level", "priority"),
    [
        (EventKind.RAISED, Level.ALERT, "warning"),
        (EventKind.RAISED, Level.DANGER, "critical"),
        (EventKind.ESCALATED, Level.DANGER, "critical"),
        (EventKind.DEESCALATED, Level.ALERT, "warning"),
        (EventKind.CLEARED, Level.NORMAL, "info"),
        (EventKind.ACKNOWLEDGED, Level.DANGER, "info"),
        (EventKind.NOT_ASSESSABLE, Level.NORMAL, "warning"),
    ],
)
def test_priority_of_a_transition(kind: EventKind, level: Level, priority: str) -> None:
    with capture_logs() as lines:
        log_transition(event(kind, level))
    assert [(line["log_level"], line["machine"], line["alarm_id"]) for line in lines] == [(priority, "m", "a1")]


def test_every_kind_of_transition_is_logged() -> None:
    for kind in EventKind:
        with capture_logs() as lines:
            log_transition(event(kind, Level.ALERT))
        assert lines[0]["event"] == f"alarm {kind.replace('_', ' ')}"


def test_a_shelved_alarm_is_logged_without_a_call_for_attention() -> None:
    with capture_logs() as lines:
        log_transition(event(EventKind.RAISED, Level.DANGER, notify=False))
    assert lines[0]["log_level"] == "info"
    assert lines[0]["suppressed"] is True


def test_chain_is_logged_when_its_class_changes() -> None:
    chain = ChainLog()
    with capture_logs() as lines:
        chain.see("m", ChainStatus.GOOD, [])
        chain.see("m", ChainStatus.FAILURE, ["source unavailable: unplugged"])
        chain.see("m", ChainStatus.FAILURE, ["source unavailable: unplugged", "another"])
        chain.see("other", ChainStatus.OUT_OF_SPECIFICATION, ["clipping"])
        chain.see("m", ChainStatus.GOOD, [])
    assert [(line["machine"], line["before"], line["chain"], line["log_level"]) for line in lines] == [
        ("m", "good", "failure", "error"),
        ("other", "good", "out_of_specification", "warning"),
        ("m", "failure", "good", "info"),
    ]


def _speak(path: Path, journal: bool) -> list[str]:
    with path.open("wb") as stream:
        status = os.fstat(stream.fileno())
        inode = status.st_ino if journal else status.st_ino + 1
        subprocess.run(
            [sys.executable, "-c", SPEAK],
            stderr=stream,
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{inode}"},
            check=True,
        )
    return path.read_text().splitlines()


def test_lines_to_the_journal_begin_with_their_priority(tmp_path: Path) -> None:
    lines = _speak(tmp_path / "stderr", journal=True)
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert all(json.loads(line[3:])["machine"] == "m" for line in lines)


def test_a_redirected_stderr_is_not_the_journal(tmp_path: Path) -> None:
    assert all(line.startswith("{") for line in _speak(tmp_path / "stderr", journal=False))
