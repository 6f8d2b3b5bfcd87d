"""A notifier: a line in a file per alarm event. A real one would send a mail or call a web service."""

from __future__ import annotations

from pathlib import Path

from asd_agent.api import AlarmEvent


class FileNotifier:
    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def notify(self, event: AlarmEvent) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{event.machine}: {event.kind} {event.level}: {event.reason}\n")

    def close(self) -> None:
        """Nothing stays open."""
