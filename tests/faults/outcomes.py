"""What came of each fault, and the table that is made of it."""

from __future__ import annotations

import statistics
import threading
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """Of one fault."""

    kind: str
    events: int = 0  # that were on disk and had to survive it
    lost: int = 0
    duplicates: int = 0  # arrivals of an id that had arrived before, with the same content
    conflicts: int = 0  # ids with two contents
    wrong_states: int = 0  # retained alarm states, at the latest 30 s after the fault
    recovery_s: float | None = None  # None where there is nothing to wait for
    stuck: bool = False  # it had not recovered after 60 s
    note: str = ""  # what was wrong, for a person


class Outcomes:
    """Thread-safe."""

    def __init__(self) -> None:
        self._all: list[Outcome] = []
        self._lock = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        with self._lock:
            self._all.append(outcome)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def bad(self) -> list[Outcome]:
        with self._lock:
            return [o for o in self._all if o.lost or o.conflicts or o.wrong_states or o.stuck]

    def table(self) -> list[dict[str, Any]]:
        with self._lock:
            kinds = sorted({o.kind for o in self._all})
            return [_row(kind, [o for o in self._all if o.kind == kind]) for kind in kinds]

    def areas(self) -> list[dict[str, Any]]:
        """The kinds of one area together."""
        with self._lock:
            names = sorted({o.kind.split(":")[0] for o in self._all})
            return [_row(f"all of {name}", [o for o in self._all if o.kind.startswith(f"{name}:")]) for name in names]

    def total(self) -> dict[str, Any]:
        with self._lock:
            return {**_row("all", self._all), "kinds": len({o.kind for o in self._all})}


def _row(kind: str, found: list[Outcome]) -> dict[str, Any]:
    recoveries = [o.recovery_s for o in found if o.recovery_s is not None]
    return {
        "kind": kind,
        "faults": len(found),
        "events": sum(o.events for o in found),
        "lost": sum(o.lost for o in found),
        "duplicates": sum(o.duplicates for o in found),
        "ids_with_two_contents": sum(o.conflicts for o in found),
        "wrong_states": sum(o.wrong_states for o in found),
        "stuck": sum(o.stuck for o in found),
        "recovery_median_s": round(statistics.median(recoveries), 2) if recoveries else None,
        "recovery_max_s": round(max(recoveries), 2) if recoveries else None,
        "notes": sorted({o.note for o in found if o.note})[:5],
    }


def as_text(table: list[dict[str, Any]], *sums: dict[str, Any]) -> str:
    """For a terminal and for docs/faults.md (a Markdown table)."""
    heads = ("kind", "faults", "events", "lost", "duplicates", "wrong_states", "recovery_median_s", "recovery_max_s")
    lines = ["| " + " | ".join(h.replace("_", " ") for h in heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join("" if row[h] is None else str(row[h]) for h in heads) + " |" for row in [*table, *sums]]
    return "\n".join(lines)
