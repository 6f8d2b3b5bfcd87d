"""The alarms of a period of time, as they were and as they would have been with other settings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import msgspec
import numpy as np

from asd_agent import config
from asd_agent.baseline import BaselineStore, Manifest
from asd_agent.decide.event_rate import HOUR_S
from asd_agent.errors import BaselineError, StoreError
from asd_agent.store import History, Reader
from asd_agent.store.history import STATES
from asd_agent.types import State
from asd_agent.whatif.episodes import Episode, episodes
from asd_agent.whatif.replay import Replay

WARM_UP_S = 2 * HOUR_S  # before the time that is asked for: votes and the moments of an hour reach back
ALL_EVENTS = 1_000_000
DAY_S = 86_400.0
_JUDGED = [STATES.index(State.NORMAL), STATES.index(State.ANOMALOUS)]


@dataclass
class Answer:
    first_utc_s: float = math.inf  # start of the first window asked for
    last_utc_s: float = -math.inf  # and of the last one
    windows: int = 0
    judged: int = 0  # as they were judged then
    then: list[Episode] = field(default_factory=list)
    now: list[Episode] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)  # baseline that is gone -> windows
    score: float | None = None  # from which a window deviates, with the newest baseline
    stepped: int = 0  # windows that were gone through one by one

    @property
    def days(self) -> float:
        return max(self.last_utc_s - self.first_utc_s, 0.0) / DAY_S

    def count(self, history: History, since_utc_s: float) -> None:
        asked = history.utc_s >= since_utc_s
        if asked.any():
            self.first_utc_s = min(self.first_utc_s, float(history.utc_s[asked].min()))
            self.last_utc_s = max(self.last_utc_s, float(history.utc_s[asked].max()))
            self.windows += int(asked.sum())
            judged = asked & np.isin(history.state, _JUDGED)
            self.judged += int(judged.sum())


def what_if(
    reader: Reader,
    baselines: BaselineStore,
    machine: config.Machine,
    since_utc_s: float,
    *,
    screened: bool = True,
    update: Callable[[float, str], None] = lambda share, words: None,
) -> Answer:
    """`machine` with the alarm settings in question; `update` hears the share done, and words.

    Raises StoreError when there are no scores.
    """
    events = reader.events(machine=machine.id, limit=ALL_EVENTS)
    then = episodes(events)
    present = [e.raised_utc_s for e in then if e.raised_utc_s < since_utc_s <= (e.cleared_utc_s or math.inf)]
    begin_s = min([since_utc_s, *present]) - WARM_UP_S
    replay = Replay(machine, _manifests(baselines), events, screened=screened)
    answer, replayed = Answer(), []
    for history in reader.history(machine.id, begin_s):
        answer.count(history, since_utc_s)
        replayed += replay.feed(history)
        done = (float(history.utc_s[-1]) - begin_s) / max(time.time() - begin_s, 1.0) if len(history) else 0.0
        update(min(max(done, 0.0), 1.0), f"{answer.windows} windows")
    replayed += replay.finish()
    if not answer.windows:
        raise StoreError(f"{machine.id}: no scores since then; is the daemon running?")
    end_s = answer.last_utc_s + machine.window_s + 1.0
    answer.then = [e for e in _until(then, end_s) if (e.cleared_utc_s or math.inf) >= answer.first_utc_s]
    answer.now = [e for e in episodes(replayed) if (e.cleared_utc_s or math.inf) >= answer.first_utc_s]
    answer.lost, answer.stepped = replay.lost, replay.stepped
    answer.score = -math.log10(replay.limits.alert_p) if replay.limits is not None else None
    return answer


def _until(found: list[Episode], end_s: float) -> list[Episode]:
    """As they stood at the end of the last window that is stored: the daemon writes some seconds later."""
    return [
        msgspec.structs.replace(e, cleared_utc_s=None) if (e.cleared_utc_s or 0.0) > end_s else e
        for e in found
        if e.raised_utc_s <= end_s
    ]


def _manifests(baselines: BaselineStore) -> Callable[[str], Manifest | None]:
    @cache
    def manifest(version: str) -> Manifest | None:
        try:
            return baselines.load(version).manifest
        except BaselineError:
            return None

    return manifest
