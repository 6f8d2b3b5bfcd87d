"""What the demo shows: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import datetime as dt
import json
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

ROWS = 12
BAR = 24
COLOUR = {"normal": "green", "alert": "yellow", "danger": "bold red"}


class Screen:
    """A context while listening; before and after it prints plain lines."""

    def __init__(self, source: str, broker: str, port: int, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._rows: deque[dict[str, Any]] = deque(maxlen=ROWS)
        self._events: list[Text] = []
        self._told = -1
        self._live: Live | None = None
        self._console.print(f"[bold]asd-agent demo[/bold]: source {source}, broker {broker} on 127.0.0.1:{port}")
        self._console.print("the daemon runs; learning what normal sounds like ...")

    def say(self, line: str) -> None:
        self._console.print(line, style="bold")

    def calibrating(self, done: float, windows: int, left_s: float) -> None:
        tenth = int(10 * done)
        if tenth > self._told:
            self._told = tenth
            self._console.print(f"  {done:4.0%}  {windows} windows, {left_s:.0f} s remaining")

    def calibrated(self, verdict: list[str]) -> None:
        for line in verdict:
            self._console.print(f"  [green]{line}[/green]")
        self._console.print("listening; this is what a subscriber to [bold]asd/demo/machine-1/#[/bold] receives:")

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.stderr:
            self._live = Live(self._view(), console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def score(self, payload: dict[str, Any]) -> None:
        self._rows.append(payload)
        if self._live is not None:
            self._live.update(self._view(), refresh=True)
        else:
            self._console.print(_line(payload))

    def event(self, payload: dict[str, Any]) -> None:
        text = Text(f"{_clock(payload)}  {payload['event_type'].upper()} ", style="bold")
        text.append(payload["level"], style=COLOUR.get(payload["level"], ""))
        text.append(f"  {payload['reason']}")
        self._events.append(text)
        if self._live is None:
            self._console.print(text)

    def summary(self, raised: int, cleared: int) -> None:
        self._console.print(f"done: {raised} alarm(s) raised, {cleared} cleared.")

    def _view(self) -> RenderableType:
        table = Table("time", "state", "score", "", "threshold", "level", box=None, header_style="bold")
        for row in self._rows:
            table.add_row(*_cells(row))
        return Group(table, Text(), *self._events)


class Lines(Screen):
    """Only what the subscriber receives, one JSON object a line; the rest goes to the standard error."""

    def __init__(self, source: str, broker: str, port: int) -> None:
        super().__init__(source, broker, port, Console(highlight=False, stderr=True))

    def score(self, payload: dict[str, Any]) -> None:
        print(json.dumps(payload), flush=True)

    event = score


def _clock(payload: dict[str, Any]) -> str:
    """A payload's time, as a clock on the wall shows it."""
    return dt.datetime.fromisoformat(payload["time"]).astimezone().strftime("%H:%M:%S")


def _cells(row: dict[str, Any]) -> list[Text]:
    score, threshold = row.get("score"), row.get("score_limit")
    style = COLOUR.get(row["window_level"], "")
    return [
        Text(_clock(row)),
        Text(row["state"].replace("_", " ")),
        Text("" if score is None else f"{score:6.2f}"),
        Text(_bar(score, threshold), style=style),
        Text("" if threshold is None else f"{threshold:.2f}"),
        Text(row["window_level"], style=style),
    ]


def _line(row: dict[str, Any]) -> Text:
    return Text("  ").join(cell for cell in _cells(row))


def _bar(score: float | None, threshold: float | None) -> str:
    """The score against the threshold, which stands in the middle."""
    if score is None or not threshold:
        return ""
    filled = min(round(BAR / 2 * score / threshold), BAR)
    bar = "█" * filled + "·" * (BAR - filled)
    return bar[: BAR // 2] + "│" + bar[BAR // 2 :]
