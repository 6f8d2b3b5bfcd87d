"""A candidate in shadow against the active baseline, over the windows that both have judged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asd_agent.errors import StoreError
from asd_agent.store import Reader
from asd_agent.store.history import NONE, STATES
from asd_agent.store.records import shadow_name
from asd_agent.store.rounding import STEP
from asd_agent.types import Floats, State
from asd_agent.whatif.answer import ALL_EVENTS, DAY_S
from asd_agent.whatif.episodes import Episode, episodes

QUANTILES = (0.5, 0.9, 0.99, 0.999)
LONG_ENOUGH_DAYS = 1.0
_ANOMALOUS = STATES.index(State.ANOMALOUS)
_JUDGED = [STATES.index(State.NORMAL), _ANOMALOUS]


@dataclass(frozen=True)
class Side:
    """One of the two over the common windows."""

    anomalous: int
    scores: tuple[float, ...]  # at QUANTILES
    alarms: list[Episode]


@dataclass(frozen=True)
class Comparison:
    version: str
    first_utc_s: float
    last_utc_s: float
    windows: int  # that both have judged
    differ: int  # of them, where one calls anomalous what the other does not
    active: Side
    shadow: Side

    @property
    def days(self) -> float:
        return (self.last_utc_s - self.first_utc_s) / DAY_S

    @property
    def line(self) -> str:
        """In one sentence."""
        a, s, n = self.active, self.shadow, self.windows
        return (
            f"in shadow over {n} windows, {self.days:.1f} days: {_alarms(len(s.alarms))} where the active baseline had "
            f"{len(a.alarms)}, {_share(s.anomalous, n)} of windows deviate (active {_share(a.anomalous, n)}), "
            f"both agree on {_share(n - self.differ, n)}"
        )

    @property
    def advice(self) -> str:
        """What a person does with it. Nobody but a person knows which alarms were true."""
        active, shadow = len(self.active.alarms), len(self.shadow.alarms)
        if self.days < LONG_ENOUGH_DAYS:
            return "less than a day together: let it run on before you decide"
        if shadow > active:
            return "it raises more alarms: look at them; promote it only if they were true"
        if shadow < active:
            return "it raises fewer alarms: promote it if the ones that are missing were false"
        if shadow:
            return "both raise as many alarms: compare their times, promote it if they are the same machine faults"
        return "neither raised an alarm: promote it if the machine was as it should be all this time"


def compare(reader: Reader, machine: str, version: str, since_utc_s: float) -> Comparison:
    """Raises StoreError when the version has not run in shadow since then, or not beside judged windows."""
    name = shadow_name(machine, version)
    when, state, code = _columns(reader, name, since_utc_s)
    if not len(when):
        raise StoreError(f"{machine}: baseline {version} has no scores in shadow since then; is the daemon running?")
    other_when, other_state, other_code = _columns(reader, machine, float(when.min()) / 1000 - 1.0)
    _, ours, theirs = np.intersect1d(when, other_when, return_indices=True)
    judged = np.isin(state[ours], _JUDGED) & np.isin(other_state[theirs], _JUDGED)
    ours, theirs = ours[judged], theirs[judged]
    if not len(ours):
        raise StoreError(f"{machine}: there is no window that both baselines have judged")
    first_s, last_s = float(when[ours].min()) / 1000, float(when[ours].max()) / 1000
    odd, other_odd = state[ours] == _ANOMALOUS, other_state[theirs] == _ANOMALOUS
    return Comparison(
        version=version,
        first_utc_s=first_s,
        last_utc_s=last_s,
        windows=len(ours),
        differ=int((odd != other_odd).sum()),
        active=Side(int(other_odd.sum()), _quantiles(other_code[theirs]), _episodes(reader, machine, first_s)),
        shadow=Side(int(odd.sum()), _quantiles(code[ours]), _episodes(reader, name, first_s)),
    )


def _columns(reader: Reader, name: str, since_utc_s: float) -> tuple[npt.NDArray[np.int64], ...]:
    """Time in ms, state and code of p of the windows, each [n]."""
    parts = [
        (np.rint(h.utc_s * 1000).astype(np.int64), h.state, h.p) for h in reader.history(name, since_utc_s)
    ]  # fmt: skip
    if not parts:
        return tuple(np.zeros(0, np.int64) for _ in range(3))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _quantiles(code: npt.NDArray[np.int64]) -> tuple[float, ...]:
    scores: Floats = code[code != NONE] / STEP
    return tuple(float(q) for q in np.quantile(scores, QUANTILES)) if len(scores) else (math.nan,) * len(QUANTILES)


def _episodes(reader: Reader, name: str, first_s: float) -> list[Episode]:
    found = episodes(reader.events(machine=name, limit=ALL_EVENTS))
    return [e for e in found if (e.cleared_utc_s or math.inf) >= first_s]


def _alarms(count: int) -> str:
    return f"{count} alarm" + "s" * (count != 1)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"
