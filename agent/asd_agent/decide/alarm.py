"""The alarm of one machine: a pure state machine over window results and operators' commands.

                 k of n windows below alert_p or danger_p                k' of n' windows above the deadband
    normal ---------------- raised ----------------> alert / danger -------------- cleared -------------> normal
                                                     escalated, deescalated          | with latch, if not acknowledged
                                                                                     v
                                                                                  latched --- acknowledged --> normal

Only windows that can be judged vote. `learning`, `not_assessable` and `off` neither vote nor clear: a microphone that
dies during an alarm leaves it standing. They are reported when they last for several windows.

Shelved or out of service, everything goes on and is recorded with notify=False; afterwards an alarm that is still
present is raised again, and the end of one that was announced before is announced too.

No clock, no I/O: times come in. Replaying the same inputs from the same state gives the same events, ids included.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import msgspec

from asd_agent import config
from asd_agent.decide import reason
from asd_agent.decide.budget import SMALLEST_P, Thresholds
from asd_agent.errors import UsageError
from asd_agent.reasons import Deviation, Grounds, PartVerdict, Trigger
from asd_agent.types import AlarmEvent, AlarmState, EventKind, Level, State, TimeCourse, Vote, WindowResult

STEADY_WINDOWS = 3  # in a row, until a change between judged and not judged is reported
LONGEST_SHELVING_S = 400 * 86_400.0
LATEST_UTC_S = 4_102_444_800.0  # 2100-01-01
_RANK = {Level.NORMAL: 0, Level.ALERT: 1, Level.DANGER: 2}
_JUDGED = (State.NORMAL, State.ANOMALOUS)
_OF_PEOPLE = (
    EventKind.ACKNOWLEDGED,
    EventKind.SHELVED,
    EventKind.UNSHELVED,
    EventKind.OUT_OF_SERVICE,
    EventKind.IN_SERVICE,
    EventKind.MARKED_FAULT,
    EventKind.MARKED_NOTHING,
)
_OF_EVIDENCE = (EventKind.RAISED, EventKind.ESCALATED, EventKind.DEESCALATED, EventKind.CLEARED)
ALIKE = 1 / 3  # of the score of the middle voter is what the weakest of k must have
STANDS_FROM = 0.8  # share of its limit from which on such evidence keeps an alarm that it has raised
Events = tuple[AlarmEvent, ...]


def without_votes(state: AlarmState) -> AlarmState:
    """The alarm stands; its votes are void, as after an interruption of unknown length or under another limit."""
    return msgspec.structs.replace(state, rising=(), falling=())


class Standing(NamedTuple):
    """Evidence apart from the votes of windows."""

    trigger: Trigger
    share: float  # of what it takes; from 1 on an alarm is raised
    grounds: Grounds
    deviation: Deviation | None = None
    course: TimeCourse | None = None
    windows: tuple[int, ...] = ()  # indices of those that count; empty = the newest


class _Stamp(NamedTuple):
    utc_s: float
    synced: bool


class Alarm:
    """Not thread-safe. `state` is all there is to keep; build another one from it after a restart."""

    def __init__(self, machine: config.Machine, thresholds: Thresholds | None, state: AlarmState) -> None:
        """`thresholds` are None while there is no baseline."""
        self.state = state
        self._part: PartVerdict | None = None  # for the next event of evidence
        self._machine = machine.id
        self._latch = machine.alarm.latch
        self._hop_s = machine.hop_s
        self._thresholds = thresholds
        self._raise_votes = machine.votes
        self._clear_votes = config.votes(machine.alarm.clear_votes, "clear_votes")
        if thresholds is not None and thresholds.alert_p != state.alert_p:  # votes under another limit are void
            self.state = msgspec.structs.replace(without_votes(state), alert_p=thresholds.alert_p)
        if state.latched and not self._latch:  # latching was switched off, or the state was made from the events
            self._end_episode()

    def update(self, result: WindowResult, time_synced: bool) -> Events:
        """One window's result -> the transitions that it causes, at the end of the window."""
        stamp = _Stamp(result.utc_s + result.duration_s, time_synced)
        self._set(condition=result.state)
        events = self._follow_mode(result, stamp)
        if result.state in _JUDGED and result.p_value is not None and self._thresholds is not None:
            events += self._vote((result.index, result.p_value), self._thresholds, result, stamp)
        return events

    def stand(self, standing: Standing | None, result: WindowResult, time_synced: bool) -> Events:
        """What else than votes speaks for an alarm at the end of this window: it raises one, and keeps it standing."""
        least = STANDS_FROM if self.state.held else 1.0
        held = standing is not None and standing.share >= least
        if held != self.state.held:
            self._set(held=held)
        if standing is None or standing.share < 1 or self.state.active:
            return ()
        stamp = _Stamp(result.utc_s + result.duration_s, time_synced)
        return (
            self._begin(Level.ALERT, EventKind.RAISED, standing, standing.windows or (result.index,), result, stamp),
        )

    def know(self, part: PartVerdict | None) -> None:
        """What the windows added up say of the machine's parts, before the next window votes."""
        self._part = part

    def name(self, result: WindowResult, time_synced: bool) -> Events:
        """An event when the windows of a standing alarm name a part, or another one. A name stays until another is
        found."""
        before = self._known
        if not self.state.active or not self._learn() or self._known == before:
            return ()
        stamp = _Stamp(result.utc_s + result.duration_s, time_synced)
        return (self._event(EventKind.NAMED, stamp, self.state.reason, part=self.state.part, score=result.score),)

    def tick(self, now_utc_s: float, time_synced: bool) -> Events:
        """Shelving that has run out ends."""
        if not 0 < self.state.shelved_until_utc_s <= now_utc_s:
            return ()
        return self._unshelve("", "shelving has run out", _Stamp(now_utc_s, time_synced))

    def move_shelving(self, jump_s: float, now_utc_s: float) -> bool:
        """The wall clock has been set by `jump_s`: a shelving keeps the time that it had left. Whether it has moved.

        One that would have lasted for years was asked for on a clock that had not been set yet: its end is right.
        """
        until = self.state.shelved_until_utc_s
        if until == 0 or until - (now_utc_s - jump_s) > LONGEST_SHELVING_S:
            return False
        self._set(shelved_until_utc_s=until + jump_s)
        return True

    def acknowledge(self, by: str, comment: str, now_utc_s: float, time_synced: bool) -> Events:
        """Somebody has seen it; a latched alarm ends. Raises UsageError when there is none, or it was done before."""
        state = self.state
        if state.level is Level.NORMAL:
            raise UsageError(f"{self._machine}: there is no active or latched alarm to acknowledge")
        if state.acknowledged:
            raise UsageError(f"{self._machine}: the alarm was already acknowledged by {state.acknowledged_by}")
        level = Level.NORMAL if state.latched else state.level
        stamp = _Stamp(now_utc_s, time_synced)
        words = "the condition has gone" if state.latched else "the condition is still present"
        event = self._event(EventKind.ACKNOWLEDGED, stamp, words, level=level, by=by, comment=comment)
        if state.latched:
            self._end_episode()
        else:
            self._set(acknowledged=True, acknowledged_by=by, comment=comment)
        return (event,)

    def shelve(self, until_utc_s: float, comment: str, by: str, now_utc_s: float, time_synced: bool) -> Events:
        """No notifications until then; shelving again moves the end. Raises UsageError for a time that has passed."""
        if not math.isfinite(until_utc_s) or until_utc_s <= now_utc_s:
            raise UsageError(f"{self._machine}: shelve until a time that lies in the future")
        if until_utc_s > LATEST_UTC_S:
            raise UsageError(f"{self._machine}: shelve until a time before the year 2100 (out-of-service has no end)")
        self._set(shelved_until_utc_s=until_utc_s, shelve_reason=comment)
        stamp = _Stamp(now_utc_s, time_synced)
        return (self._event(EventKind.SHELVED, stamp, comment, by=by, until_utc_s=until_utc_s),)

    def unshelve(self, by: str, comment: str, now_utc_s: float, time_synced: bool) -> Events:
        """Raises UsageError when the alarm is not shelved."""
        if self.state.shelved_until_utc_s == 0:
            raise UsageError(f"{self._machine}: the alarm is not shelved")
        return self._unshelve(by, comment, _Stamp(now_utc_s, time_synced))

    def out_of_service(self, on: bool, by: str, comment: str, now_utc_s: float, time_synced: bool) -> Events:
        """Out of service, or back in service; nothing happens when it is so already."""
        if on == self.state.out_of_service:
            return ()
        self._set(out_of_service=on)
        stamp = _Stamp(now_utc_s, time_synced)
        event = self._event(EventKind.OUT_OF_SERVICE if on else EventKind.IN_SERVICE, stamp, comment, by=by)
        return (event,) if on else (event, *self._catch_up(stamp))

    def mark(self, alarm_id: str, fault: bool, by: str, comment: str, now_utc_s: float, time_synced: bool) -> Events:
        """A person says of an alarm, mostly of one that has gone, whether it was a fault."""
        kind = EventKind.MARKED_FAULT if fault else EventKind.MARKED_NOTHING
        words = "it was a fault" if fault else "it was nothing"
        stamp = _Stamp(now_utc_s, time_synced)
        return (self._event(kind, stamp, words, alarm_id=alarm_id, by=by, comment=comment),)

    # -- votes

    def _vote(self, vote: Vote, limits: Thresholds, result: WindowResult, stamp: _Stamp) -> Events:
        k, n = self._raise_votes
        self._set(
            rising=(*self.state.rising, vote)[-n:],
            falling=(*self.state.falling, vote)[-self._clear_votes[1] :],
        )
        level = self.state.level if self.state.active else Level.NORMAL
        for target, limit in ((Level.DANGER, limits.danger_p), (Level.ALERT, limits.alert_p)):
            voters = [v for v in self.state.rising if v[1] <= limit]
            if len(voters) >= k and _RANK[target] > _RANK[level] and _alike([p for _, p in voters], k):
                return (self._rise(target, voters, limit, result, stamp),)
        return self._calm(level, limits, result, stamp)

    def _rise(self, target: Level, voters: list[Vote], limit: float, result: WindowResult, stamp: _Stamp) -> AlarmEvent:
        kind = EventKind.ESCALATED if self.state.active else EventKind.RAISED
        windows = _indices(voters)
        grounds = Grounds(
            lasts_s=(windows[-1] - windows[0]) * self._hop_s + result.duration_s,
            windows=len(voters),
            of=len(self.state.rising),
            p_value=sorted(p for _, p in voters)[len(voters) // 2],
        )
        votes = Standing(Trigger.VOTES, 1.0, grounds, result.deviation)
        return self._begin(target, kind, votes, windows, result, stamp)

    def _begin(
        self, target: Level, kind: EventKind, standing: Standing, windows: tuple[int, ...], result: WindowResult,
        stamp: _Stamp,
    ) -> AlarmEvent:  # fmt: skip
        fresh = self.state.alarm_id == ""  # one that returns while it is latched is the same alarm still
        trigger, grounds, deviation = standing.trigger, standing.grounds, standing.deviation
        self._set(level=target, trigger=trigger, latched=False, acknowledged=False, acknowledged_by="", comment="")
        self._learn()
        words = reason.alarm(deviation, trigger, grounds, self.state.part)
        self._set(reason=words, grounds=grounds, deviation=deviation)
        about = {"grounds": grounds, "deviation": deviation, "part": self.state.part, "course": standing.course}
        event = self._event(kind, stamp, words, deciding_windows=windows, score=result.score, **about)
        if fresh:
            self._set(alarm_id=event.id, since_utc_s=stamp.utc_s)
        self._set(falling=())
        return event

    @property
    def _known(self) -> str:
        return self.state.part.component if self.state.part is not None else ""

    def _learn(self) -> bool:
        """Take over what is known of the parts; whether anything is new."""
        part = self._part
        if part is None or part == self.state.part or (self._known and not part.component):
            return False
        self._set(part=part)
        if self.state.trigger is not None and self.state.grounds is not None:
            self._set(reason=reason.alarm(self.state.deviation, self.state.trigger, self.state.grounds, part))
        return True

    def _calm(self, level: Level, limits: Thresholds, result: WindowResult, stamp: _Stamp) -> Events:
        """De-escalate or clear when enough windows are beyond the deadband."""
        if level is Level.NORMAL:
            return ()
        for kind, limit in (
            (EventKind.CLEARED, limits.alert_clear_p),
            (EventKind.DEESCALATED, limits.danger_clear_p),
        ):
            voters = [v for v in self.state.falling if v[1] > limit]
            if kind is EventKind.CLEARED and self.state.held:
                continue
            if len(voters) >= self._clear_votes[0] and (kind is EventKind.CLEARED or level is Level.DANGER):
                return (self._fall(kind, voters, limit, result, stamp),)
        return ()

    def _fall(
        self, kind: EventKind, voters: list[Vote], limit: float, result: WindowResult, stamp: _Stamp
    ) -> AlarmEvent:
        words = reason.calmer(kind is EventKind.CLEARED, len(voters), len(self.state.falling), _score(limit))
        level = Level.NORMAL if kind is EventKind.CLEARED else Level.ALERT
        event = self._event(kind, stamp, words, level=level, deciding_windows=_indices(voters), score=result.score)
        self._set(rising=())
        if kind is EventKind.DEESCALATED:
            self._set(level=Level.ALERT, reason=words)
        elif self._latch and not self.state.acknowledged:
            self._set(latched=True, falling=())
        else:
            self._end_episode()
        return event

    def _end_episode(self) -> None:
        self._set(
            level=Level.NORMAL,
            alarm_id="",
            since_utc_s=0.0,
            latched=False,
            acknowledged=False,
            acknowledged_by="",
            comment="",
            reason="",
            grounds=None,
            deviation=None,
            part=None,
            trigger=None,
            falling=(),
        )

    # -- judged or not

    def _follow_mode(self, result: WindowResult, stamp: _Stamp) -> Events:
        """Report a change between judged, not assessable, off and learning once it has lasted."""
        mode = State.NORMAL if result.state in _JUDGED else result.state
        if mode is self.state.mode:
            self._set(mode_windows=0)
            return ()
        self._set(mode_windows=self.state.mode_windows + 1)
        if self.state.mode_windows < STEADY_WINDOWS:
            return ()
        self._set(mode=mode, mode_windows=0)
        kinds = {State.NORMAL: EventKind.ASSESSABLE, State.LEARNING: EventKind.LEARNING}
        kind = kinds.get(mode, EventKind.NOT_ASSESSABLE)
        words = {State.NORMAL: "windows can be judged", State.OFF: result.reason or "the machine is not running"}
        return (self._event(kind, stamp, words.get(mode, result.reason or mode), score=result.score),)

    # -- shelving

    def _unshelve(self, by: str, words: str, stamp: _Stamp) -> Events:
        self._set(shelved_until_utc_s=0.0, shelve_reason="")
        return (self._event(EventKind.UNSHELVED, stamp, words, by=by), *self._catch_up(stamp))

    def _catch_up(self, stamp: _Stamp) -> Events:
        """Announce what changed while notifications were off."""
        state = self.state
        events: Events = ()
        if state.suppressed:
            return events
        if state.announced_id and not (state.active and state.announced_id == state.alarm_id):
            words, gone = "the condition went while notifications were off", state.announced_id
            events += (self._event(EventKind.CLEARED, stamp, words, level=Level.NORMAL, alarm_id=gone),)
        if state.active:
            events += (self._event(EventKind.RAISED, stamp, f"still present: {state.reason}", part=state.part),)
        return events

    # -- bookkeeping

    def _event(self, kind: EventKind, stamp: _Stamp, words: str, **more: Any) -> AlarmEvent:
        state = self.state
        key = f"{self._machine}\0{state.sequence}\0{kind}\0{stamp.utc_s!r}"
        event_id = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        more.setdefault("level", state.known_level)
        more.setdefault("trigger", state.trigger if kind in _OF_EVIDENCE else None)
        more.setdefault("alarm_id", state.alarm_id or (event_id if kind is EventKind.RAISED else ""))
        event = AlarmEvent(
            id=event_id,
            machine=self._machine,
            kind=kind,
            utc_s=stamp.utc_s,
            time_synced=stamp.synced,
            reason=words,
            notify=kind in _OF_PEOPLE or not state.suppressed,
            **more,
        )
        self._set(sequence=state.sequence + 1, changed_utc_s=stamp.utc_s)
        if event.notify and kind in (EventKind.RAISED, EventKind.CLEARED):
            self._set(announced_id=event.alarm_id if kind is EventKind.RAISED else "")
        return event

    def _set(self, **changes: Any) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)


def _alike(p_values: list[float], k: int) -> bool:
    """Whether k of the voters deviate to a like degree: a sound that passes is in some windows only, and needs the help
    of others that are a little beyond the limit."""
    scores = sorted((_score(max(p, SMALLEST_P)) for p in p_values), reverse=True)
    return scores[k - 1] >= ALIKE * scores[len(scores) // 2]


def _indices(voters: list[Vote]) -> tuple[int, ...]:
    return tuple(index for index, _ in voters)


def _score(p_value: float) -> float:
    return -math.log10(p_value)
