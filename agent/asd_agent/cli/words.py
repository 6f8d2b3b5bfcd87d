"""How the commands speak: one console, one way to write a time, a listing that fits any width, JSON, progress."""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

GAP = 2  # spaces between columns
PLAIN_WIDTH = 400  # where nobody looks at it: one line stays one line, for grep
Progress = Callable[[float, str], None]  # share done, words
T = TypeVar("T")


def console(*, stderr: bool = False) -> Console:
    """A rich console that neither wraps nor colours when its output is not a terminal."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=PLAIN_WIDTH, no_color=True)
    return made


def local(seconds: float) -> str:
    """A time for people, in the time zone of this computer: "2026-03-02 10:42:31"."""
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def zone() -> str:
    """Name of the time zone that `local` uses."""
    return dt.datetime.now().astimezone().tzname() or "local time"


def lasted(seconds: float) -> str:
    """ "45 s", "12 min", "3.2 h", "4.1 d"."""
    for unit, size, limit in (("s", 1.0, 100.0), ("min", 60.0, 100.0), ("h", 3600.0, 48.0)):
        if seconds < limit * size:
            return f"{seconds / size:.1f} {unit}" if unit == "h" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.1f} d"


def print_json(data: object, *, indent: int = 1) -> None:
    """One JSON document on the standard output; `indent` 0: on one line."""
    import msgspec

    encoded = msgspec.json.encode(data)
    sys.stdout.write((msgspec.json.format(encoded, indent=indent) if indent else encoded).decode() + "\n")


@dataclass(frozen=True)
class Row:
    """Short cells that stand in columns, and sentences that follow below them."""

    cells: Sequence[str]
    notes: Sequence[str] = ()
    styles: dict[int, str] = field(default_factory=dict)  # of cells, by column


def listing(heads: Sequence[str], rows: Sequence[Row], width: int) -> Text:
    """A table whose sentences are wrapped below their row; where the columns do not fit, "head: cell" line by line.

    Nothing is cut, and no word is broken that fits a line.
    """
    from rich.text import Text

    used = [i for i in range(len(heads)) if any(row.cells[i] for row in rows)]
    widths = {i: max(len(heads[i]), *(len(row.cells[i]) for row in rows)) for i in used}
    fits = sum(widths.values()) + GAP * (len(used) - 1) <= width
    out = Text()
    if fits and any(heads):
        out.append((" " * GAP).join(heads[i].ljust(widths[i]) for i in used).rstrip() + "\n", style="bold")
    for row in rows:
        if fits:
            for i in used:
                last = i == used[-1]
                out.append(row.cells[i] if last else row.cells[i].ljust(widths[i] + GAP), style=row.styles.get(i))
            out.rstrip()
            out.append("\n")
        else:
            for i in used:
                out.append(f"{heads[i]}: " if heads[i] else "", style="bold")
                out.append(row.cells[i] + "\n", style=row.styles.get(i))
        for note in row.notes:
            out.append(wrapped(note, width, "  ") + "\n")
    out.rstrip()
    return out


def wrapped(text: str, width: int, indent: str = "") -> str:
    """A sentence over as many lines as it needs; paths and commands stay whole."""
    return textwrap.fill(
        text, max(width, 20), initial_indent=indent, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def say(*sentences: str, indent: str = "") -> None:
    """Sentences for a person, wrapped to the terminal."""
    out = console()
    for sentence in sentences:
        out.print(wrapped(sentence, out.width, indent), soft_wrap=True)


def show(heads: Sequence[str], rows: Sequence[Row]) -> None:
    """Print a listing."""
    out = console()
    out.print(listing(heads, rows, out.width), soft_wrap=True)


def track(items: Sequence[T], what: str) -> Iterator[T]:
    """The items one by one, with a bar that counts them."""
    with progress(what) as update:
        for number, item in enumerate(items):
            update(number / len(items), f"{number + 1} of {len(items)}")
            yield item


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A bar with the remaining time on the terminal's standard error; nothing elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(), TextColumn("remaining"), TimeRemainingColumn(),
        console=console(stderr=True), disable=not sys.stderr.isatty(), transient=True,
    )  # fmt: skip
    task: Any = bar.add_task(what, total=1.0, words="")
    with bar:
        yield lambda share, words: bar.update(task, completed=share, words=words)
