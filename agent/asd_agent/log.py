"""structlog: console lines on a terminal, JSON for journald. Credentials never pass through here."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque

if "rich" in sys.modules:
    import structlog
else:  # structlog would load rich for tracebacks that nobody prints: 9 MiB and a tenth of a second for the daemon
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog

    del sys.modules["rich"]

PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}  # syslog's
_json = structlog.processors.JSONRenderer()
_plain = structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"])
_newest: deque[str] = deque(maxlen=500)


def configure(level: str = "info") -> None:
    """Log to stderr: coloured key=value on a terminal, one JSON object a line elsewhere.

    Where stderr is systemd's journal, each line begins with its priority, e.g. "<4>" (man sd-daemon).
    """
    renderer: structlog.typing.Processor
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    elif _is_journal():
        renderer = _with_priority
    else:
        renderer = _json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _remember,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # whatever stderr is by then
        cache_logger_on_first_use=False,
    )


def tail(lines: int) -> list[str]:
    """The newest lines of this process, the oldest first."""
    return list(_newest)[-lines:]


def _remember(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    _newest.append(_plain(_logger, _method, dict(event)))
    return event


def _is_journal() -> bool:
    """systemd names device and inode of the stream that it gave us; a redirected stderr is another one."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or not a file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _with_priority(logger: object, method: str, event: structlog.typing.EventDict) -> str:
    return f"<{PRIORITIES.get(method, 6)}>{_json(logger, method, event)!s}"
