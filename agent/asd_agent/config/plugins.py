"""What other packages add through entry points: sources, detectors (kinds of distance), notifiers.

A plug-in is imported only when the configuration names it. It runs with the rights of the agent.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from asd_agent.errors import UsageError

Group = Literal["asd_agent.sources", "asd_agent.detectors", "asd_agent.notifiers"]


def names(group: Group) -> list[str]:
    """What is installed."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: Group, name: str) -> Any:
    """The object that an installed package registered under this name. Raises UsageError, one line."""
    found: EntryPoint | None = next(iter(entry_points(group=group, name=name)), None)
    if found is None:
        known = ", ".join(names(group)) or "none is installed"
        raise UsageError(f"there is no plug-in {name!r} among the {group.partition('.')[2]} ({known})")
    try:
        return found.load()
    except Exception as exc:
        raise UsageError(f"the plug-in {name!r} ({found.value}) cannot be loaded: {exc!r}") from exc
