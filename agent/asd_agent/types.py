"""What travels between the rooms: blocks of sound, windows, results and alarm events.

Times: `utc_s` is seconds since the Unix epoch (may jump; what is said to others has RFC 3339 instead),
`monotonic_s` is time.monotonic() (never jumps),
`start_frame` counts native samples since the stream began. Levels are dB relative to full scale (dBFS).
Scores are high = anomalous everywhere.
"""

from __future__ import annotations

import datetime as dt
import enum
import time as clock
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent.reasons import Deviation, Grounds, PartVerdict, Trigger

Samples = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Block:
    """Some frames from a source, all channels."""

    samples: Samples  # [frames, channels], full scale = 1.0
    rate_hz: int
    start_frame: int  # of the first frame, since this stream (device session or file) began
    utc_s: float  # wall clock of the first frame
    monotonic_s: float  # when the last frame was at hand
    gap: bool = False  # frames are missing between the block before and this one
    origin: str = ""  # the file it came from; empty for live sound
    last: bool = False  # the file ends with this block


class Cause(enum.StrEnum):
    """Why a window is not judged, why it counts as off, or why a calibration leaves it out."""

    GAP = "gap"  # frames are missing
    SHORT = "short"
    NAN = "nan"
    SILENCE = "silence"
    FLAT = "flat"  # a stuck converter, a torn cable
    DC = "dc"
    CLIPPING = "clipping"
    RANDOM = "random"  # bytes that are no samples: another format, a pipe that lost its place
    BAND_LOST = "band_lost"  # a part of the spectrum that the encoder needs does not arrive any more
    STATE_CHANGING = "state_changing"  # the reported operating state changed during the window
    STATE_UNKNOWN = "state_unknown"  # the reported operating state is not in the baseline
    STATE_NOT_REPORTED = "state_not_reported"  # calibration: other windows have a reported state
    NOT_RUNNING = "not_running"  # far quieter than in calibration, and unlike it
    EXCLUDED = "excluded"  # calibration: a person left it out


class ChainStatus(enum.StrEnum):
    """NAMUR NE 107 classes of the signal chain, from good to the most serious."""

    GOOD = "good"
    MAINTENANCE_REQUIRED = "maintenance_required"
    OUT_OF_SPECIFICATION = "out_of_specification"
    FUNCTION_CHECK = "function_check"
    FAILURE = "failure"


class WindowRef(msgspec.Struct, frozen=True):
    """Names one window of a recording or of live sound."""

    origin: str  # the file; empty for live sound
    start_s: float  # since the file or the device session began
    duration_s: float
    utc_s: float


@dataclass(frozen=True, slots=True)
class WindowPosition:
    """Where a window lies. All counts but the number are in native frames of its first sample."""

    received: int = 0  # frames since the source was opened, holes not counted
    segment: int = 0  # frames since the segment began; a segment is sound without a hole
    number: int = 0  # of the window in its segment


@dataclass(frozen=True, slots=True)
class Window:
    """One analysis window of one channel."""

    samples: Samples  # [native samples]
    rate_hz: int
    resampled: Mapping[int, Samples]  # bundle rate -> [samples]; holds rate_hz itself when a bundle wants it
    index: int  # counts up since the source was opened
    start_frame: int
    utc_s: float  # wall clock of the first sample
    monotonic_s: float  # when the last sample was at hand
    gap: bool = False  # cut short by missing frames: never scored
    origin: str = ""
    position: WindowPosition = WindowPosition()
    reference: Mapping[int, Samples] = field(default_factory=dict)  # as `resampled`, of the reference microphone

    @property
    def start_s(self) -> float:
        return self.start_frame / self.rate_hz

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.rate_hz


@dataclass(frozen=True, slots=True)
class Quality:
    """Whether a window can be judged at all, and the levels that the health of the signal chain is read from."""

    causes: tuple[Cause, ...]  # empty = assessable
    level_dbfs: float  # RMS without DC
    peak: float  # max |x|, 1.0 = full scale
    dc: float  # mean
    clipped: float  # share of samples at the rail

    @property
    def assessable(self) -> bool:
        return not self.causes


@dataclass(frozen=True, slots=True)
class Transient:
    """The moment of a window that stands out most from the rest of it (windowing/transients.py)."""

    at_s: float  # after the start of the window
    excess_db: float  # mean over octaves above their medians


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the signal chain does to any sound, seen in one window (windowing/signal_chain.py)."""

    rate_hz: int  # native
    floor_db: tuple[
        float, ...
    ]  # third octaves from 100 Hz (signal_chain.CENTRES_HZ): the level in the quietest moments, dBFS
    edge_hz: float  # above it there is next to nothing; half the rate where sound reaches up to there
    dc: float  # full scale = 1


@dataclass(frozen=True, slots=True)
class RoomSound:
    """What a second microphone, which hears the room, says of one window (windowing/reference.py)."""

    coherence: float  # share of the energy at the machine that it explains, 0 to 1
    over_near_db: tuple[float, ...]  # its level over that at the machine, third octaves from 100 Hz


@dataclass(frozen=True, slots=True)
class Description:
    """All that the scoring needs of a window; small, so that calibration can keep thousands."""

    index: int
    start_s: float
    duration_s: float
    utc_s: float
    origin: str
    quality: Quality
    embeddings: Mapping[str, npt.NDArray[np.float32]]  # detector name -> [dim]; empty when not assessable
    indicators: Mapping[str, float] = field(default_factory=dict)  # mechanism analysis
    transient: Transient | None = None  # the strongest one
    operating: str = ""  # the operating state as the machine's controller reports it; empty = found in the sound
    changing: bool = False  # it was reported to change during the window
    fingerprint: Fingerprint | None = None  # of the signal chain; set about once a minute
    room: RoomSound | None = None  # None = no reference microphone, or it is silent

    @property
    def ref(self) -> WindowRef:
        return WindowRef(self.origin, self.start_s, self.duration_s, self.utc_s)


class State(enum.StrEnum):
    """Of one window, and of the machine (not of the signal chain)."""

    NORMAL = "normal"
    ANOMALOUS = "anomalous"
    NOT_ASSESSABLE = "not_assessable"  # the sound cannot be judged: see the reason
    OFF = "off"  # far quieter than in calibration and unlike it: the machine is not running
    LEARNING = "learning"  # no active baseline yet


class Level(enum.StrEnum):
    NORMAL = "normal"
    ALERT = "alert"
    DANGER = "danger"
    UNKNOWN = "unknown"  # not calibrated, or the sound cannot be judged: normal would be a guess


@dataclass(frozen=True, slots=True)
class DetectorScore:
    name: str
    distance: float
    z: float  # robust standard score of the log distance on held-out normals
    p_value: float


@dataclass(frozen=True, slots=True)
class WindowResult:
    """What the scoring says of one window: a pure function of the window and the baseline."""

    index: int
    start_s: float
    duration_s: float
    utc_s: float
    origin: str
    state: State
    quality: Quality
    p_value: float | None = None  # fused
    level: Level = Level.UNKNOWN  # of this window alone, before votes
    detectors: tuple[DetectorScore, ...] = ()
    embedding_p: float | None = None
    embedding_distance: float | None = None
    mechanism_p: float | None = None
    cause: Cause | None = None  # why it is not judged, or off by its level; the first of several
    reason: str = ""  # for people; no program decides by it
    deviation: Deviation | None = None  # of an anomalous window: the reason as data
    operating: str = ""  # the operating state that the sound is nearest to
    nuisance: str = ""  # a recognised sound of no machine; it explains a deviation. E.g. "Dog (z 7)"
    transient_p: float | None = None  # of the strongest transient, as on the days of the calibration
    transient_at_s: float | None = None  # after the start of the window

    @property
    def score(self) -> float | None:
        """-log10 of the fused p-value; high = anomalous."""
        return None if self.p_value is None else float(0.0 - np.log10(max(self.p_value, 1e-300)))  # 0.0, never -0.0


class EventKind(enum.StrEnum):
    RAISED = "raised"
    ESCALATED = "escalated"
    DEESCALATED = "deescalated"
    CLEARED = "cleared"  # the condition has gone (a latched alarm stays until acknowledged)
    ACKNOWLEDGED = "acknowledged"
    SHELVED = "shelved"
    UNSHELVED = "unshelved"
    OUT_OF_SERVICE = "out_of_service"
    IN_SERVICE = "in_service"
    LEARNING = "learning"
    NOT_ASSESSABLE = "not_assessable"  # windows cannot be judged: signal chain or operating state
    ASSESSABLE = "assessable"
    NAMED = "named"  # the windows of the alarm, added up, name a part, or another one than before
    MARKED_FAULT = "marked_fault"  # a person says, afterwards, that the alarm was right
    MARKED_NOTHING = "marked_nothing"  # or that it was not


Vote = tuple[int, float]  # index of an assessable window, its fused p-value


class AlarmState(msgspec.Struct, frozen=True, kw_only=True):
    """The alarm of one machine as it stands; survives a restart. ISA-18.2 words."""

    level: Level = Level.NORMAL  # of the alarm, also while it is latched; never unknown, see `known_level`
    condition: State = State.LEARNING  # what the windows say just now
    alarm_id: str = ""  # of the alarm episode that is active or latched
    since_utc_s: float = 0.0
    latched: bool = False  # the condition has gone, nobody has acknowledged yet
    acknowledged: bool = False
    acknowledged_by: str = ""
    comment: str = ""
    shelved_until_utc_s: float = 0.0  # 0 = not shelved
    shelve_reason: str = ""
    out_of_service: bool = False
    reason: str = ""
    deviation: Deviation | None = None  # the reason as data, with the next two
    grounds: Grounds | None = None
    part: PartVerdict | None = None  # which part of the machine it is about, as far as its windows tell
    trigger: Trigger | None = None  # what raised it
    held: bool = False  # evidence apart from the votes keeps it standing
    mode: State = State.LEARNING  # the condition without flicker; normal stands for all that is judged
    mode_windows: int = 0  # consecutive windows that differ from it
    rising: tuple[Vote, ...] = ()  # the last windows since the level last fell
    falling: tuple[Vote, ...] = ()  # the last windows since the level last rose
    alert_p: float = 0.0  # the threshold that the votes were cast under
    announced_id: str = ""  # of the announced alarm whose clearing has not been announced yet
    sequence: int = 0  # events so far
    changed_utc_s: float = 0.0  # when the last of them happened

    @property
    def active(self) -> bool:
        """The condition is present."""
        return self.level is not Level.NORMAL and not self.latched

    @property
    def known_level(self) -> Level:
        """As it is said to others: of a machine that cannot be judged nobody may say that it is normal."""
        judged = self.mode not in (State.LEARNING, State.NOT_ASSESSABLE)
        return self.level if judged or self.level is not Level.NORMAL else Level.UNKNOWN

    @property
    def suppressed(self) -> bool:
        """Recorded, but not published as an alarm."""
        return self.out_of_service or self.shelved_until_utc_s > 0


class HeardSound(msgspec.Struct, frozen=True, kw_only=True):
    """A sound that no machine makes, as the encoder recognises it."""

    label: str
    probability: float  # 0 to 1, in this window


class NearestCause(msgspec.Struct, frozen=True, kw_only=True):
    """The earlier alarm that deviated most alike, and what a person said of it."""

    alarm_id: str
    cause: str
    fault: bool  # marked as a fault; else as nothing
    similarity: float  # up to 1 = the same detectors in the same proportion


class TimeCourse(msgspec.Struct, frozen=True, kw_only=True):
    """How what stays, or keeps coming back, came about: one detector's z over the time that counts."""

    detector: str
    scale_s: float
    times_s: tuple[float, ...]  # UTC, when the last window of each value began
    z: tuple[float, ...]
    normal: float  # today
    limit: float  # of this detector
    typical: int  # index of the window nearest to the median of what counts


class AlarmEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One transition. `id` is unique and stable over re-delivery; `alarm_id` is the episode it belongs to."""

    id: str
    alarm_id: str
    machine: str
    kind: EventKind
    level: Level
    utc_s: float
    time_synced: bool
    reason: str
    trigger: Trigger | None = None  # of an alarm that is raised, escalated or cleared
    grounds: Grounds | None = None  # of an alarm that is raised or escalated
    deviation: Deviation | None = None  # of an alarm that is raised or escalated
    deciding_windows: tuple[int, ...] = ()  # indices
    score: float | None = None
    by: str = ""
    comment: str = ""
    until_utc_s: float = 0.0
    notify: bool = True  # False while shelved or out of service: recorded, not published as an alarm
    evidence: str = ""  # path of the clip, relative to the state directory
    baseline: str = ""  # version
    nuisances: tuple[HeardSound, ...] = ()  # the most probable ones of the window at which it happened
    nearest_cause: NearestCause | None = None
    part: PartVerdict | None = None  # of an alarm that is raised, escalated or named
    course: TimeCourse | None = None  # of an alarm that persistence raised


def rfc3339(utc_s: float) -> str:
    """1774612800.5 -> "2026-03-27T12:00:00.500Z"."""
    ms = round(utc_s * 1000)
    return f"{clock.strftime('%Y-%m-%dT%H:%M:%S', clock.gmtime(ms // 1000))}.{ms % 1000:03d}Z"


def utc_s(time: str) -> float:
    """The reverse of rfc3339. Raises ValueError, also for a time without its distance from UTC."""
    found = dt.datetime.fromisoformat(time)
    if found.tzinfo is None:
        raise ValueError(f"{time!r} does not say of which zone it is")
    return found.timestamp()
