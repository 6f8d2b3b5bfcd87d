"""Which clip belongs to the alarm that stands: the retained alarm state names it as long as it is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from asd_agent.errors import StoreError
from asd_agent.store import Store
from asd_agent.types import AlarmEvent, AlarmState

log = structlog.get_logger()


class AlarmClips:
    """Of all machines. Each entry is replaced whole, so that any thread may ask. Never raises."""

    def __init__(self, store: Store, state_dir: Path) -> None:
        self._store, self._state_dir = store, state_dir
        self._clips: dict[str, tuple[str, str]] = {}  # machine -> its last alarm with a clip, and the clip's path

    def note(self, events: Sequence[AlarmEvent]) -> None:
        """Events that are about to be committed."""
        for event in events:
            if event.evidence:
                self._clips[event.machine] = event.alarm_id, event.evidence

    def of(self, machine: str, state: AlarmState) -> str:
        """The path for the alarm that is active or latched; empty where there is none."""
        alarm_id, path = self._clips.get(machine, ("", ""))
        return path if state.alarm_id and alarm_id == state.alarm_id else ""

    def find(self, machine: str, state: AlarmState) -> None:
        """After a restart: the clip that an event of the alarm names, if it is there."""
        if not state.alarm_id or self.of(machine, state):
            return
        try:
            events = self._store.events(machine=machine)
        except StoreError:
            return
        named = [event.evidence for event in events if event.alarm_id == state.alarm_id and event.evidence]
        there = [path for path in named if (self._state_dir / path).exists()]
        if there:
            self._clips[machine] = state.alarm_id, there[-1]
        elif named:
            log.warning("the clip of an alarm was lost with the process", machine=machine, clip=named[-1])

    def withdraw(self, missing: Iterable[tuple[str, str]]) -> list[tuple[str, AlarmState]]:
        """(machine, path) that will not be there -> the machines whose alarm names them, with its state."""
        gone = [machine for machine, path in missing if self._clips.get(machine, ("", ""))[1] == path]
        for machine in gone:
            self._clips.pop(machine, None)
        if not gone:
            return []
        try:
            states = self._store.states()
        except StoreError as exc:
            log.warning("missing clips not withdrawn", error=str(exc))
            return []
        return [(machine, states[machine]) for machine in gone if machine in states]
