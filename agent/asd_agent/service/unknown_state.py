"""Windows that are like no known operating state: kept, in bounded memory, until a person confirms or forgets them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from asd_agent import config
from asd_agent.decide.reason import when
from asd_agent.errors import CalibrationError
from asd_agent.types import Description, State, WindowResult

KNOWN_AFTER = 12  # deviating windows without a break, until they are called an unknown state
MOST = 720  # windows: an hour of them every 5 s


class UnknownState:
    """Not thread-safe. Nothing of it is learnt by itself."""

    def __init__(self, machine: config.Machine, reported: Collection[str] | None) -> None:
        """`reported`: the states of the active baseline where the machine reports them; None = found in the sound."""
        self._machine, self._known = machine, reported
        self._windows: deque[Description] = deque(maxlen=MOST)
        self._segment: list[float] = []  # when the present segment began, and how many windows it has had
        self._reported = ""

    def see(self, description: Description, result: WindowResult) -> None:
        """Every window, in turn."""
        reported = "" if self._known is None or description.operating in self._known else description.operating
        if reported != self._reported:
            self._reported, self._segment = reported, []
        deviates = result.state is State.ANOMALOUS and not result.nuisance
        if (deviates or reported) and description.embeddings and not description.changing:
            self._windows.append(description)
            began, count = self._segment or (description.utc_s, 0)
            self._segment = [began, count + 1]
        elif result.state in (State.NORMAL, State.OFF):
            self._segment = []

    @property
    def words(self) -> str:
        """ "new operating state since 2026-03-02 10:42 CET, 37 windows", or empty. It may be a fault that stays."""
        if not self._segment or self._segment[1] < KNOWN_AFTER:
            return ""
        since = when(self._segment[0])
        name = f" {self._reported!r}" if self._reported else ""
        return f"new operating state{name} since {since}, {self._segment[1]:.0f} windows"

    def windows_since(self, since_utc_s: float | None) -> tuple[list[Description], str]:
        """Windows of the present unknown state, or since a time; and the name that was reported for them.

        Raises CalibrationError with what is missing.
        """
        who = self._machine.id
        if since_utc_s is None:
            if not self._segment:
                raise CalibrationError(f"{who}: there is no unknown operating state now{self._last_words()}")
            since_utc_s = self._segment[0]
        found = [d for d in self._windows if d.utc_s >= since_utc_s]
        names = {d.operating for d in found if d.operating}
        if len(names) > 1:
            raise CalibrationError(
                f"{who}: the states {', '.join(sorted(names))} were reported meanwhile: confirm them one by one"
            )
        if len(found) < KNOWN_AFTER:
            more_s = (KNOWN_AFTER - len(found)) * self._machine.hop_s
            raise CalibrationError(
                f"{who}: {len(found)} windows of an unknown operating state so far, {KNOWN_AFTER} are needed: "
                f"{more_s:.0f} s more{self._last_words() if not found else ''}"
            )
        return found, next(iter(names), "")

    def _last_words(self) -> str:
        if not self._windows:
            return ""
        last = when(self._windows[-1].utc_s)
        return f" ({len(self._windows)} deviating windows are kept, the last of {last}: give --since or --last)"
