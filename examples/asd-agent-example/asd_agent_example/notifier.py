"""A notifier: a line in a file per notice. A real one would send a mail or call a web service."""

from __future__ import annotations

from pathlib import Path

from asd_agent.api import Event, Health


class FileNotifier:
    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def notify(self, payload: Event | Health) -> None:
        if isinstance(payload, Event):
            line = f"{payload.event_type} {payload.level}: {payload.reason}"
        else:
            line = f"signal chain {payload.status}: {'; '.join(payload.reasons)}"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{payload.machine}: {line}\n")

    def close(self) -> None:
        """Nothing stays open."""
