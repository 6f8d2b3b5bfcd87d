"""What travels between the rooms: blocks of sound, windows, results and alarm events.

Times: `utc_s` is seconds since the Unix epoch (may jump), `monotonic_s` is time.monotonic() (never jumps),
`start_frame` counts native samples since the stream began. Levels are dB relative to full scale (dBFS).
Scores are high = anomalous everywhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

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


@dataclass(frozen=True, slots=True)
class WindowPosition:
    """Where a window lies; all in native frames of its first sample, but for the number."""

    received: int = 0  # since the source was opened, holes not counted
    segment: int = 0  # since the segment began
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

    @property
    def start_s(self) -> float:
        return self.start_frame / self.rate_hz

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.rate_hz


@dataclass(frozen=True, slots=True)
class Quality:
    """Whether a window can be judged at all, and the levels that the health of the chain is read from."""

    reasons: tuple[str, ...]  # empty = assessable; else of: gap short nan silence flat dc clipping
    level_dbfs: float  # RMS without DC
    peak: float  # max |x|, 1.0 = full scale
    dc: float  # mean
    clipped: float  # share of samples at the rail

    @property
    def assessable(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Transient:
    """The moment of a window that stands out most from the rest of it."""

    at_s: float  # after the start of the window
    excess_db: float  # mean over octaves above their medians


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the signal chain does to any sound, seen in one window."""

    rate_hz: int  # native
    floor_db: tuple[float, ...]  # third octaves from 100 Hz (chain.CENTRES_HZ): the level in the quietest moments, dBFS
    edge_hz: float  # above it there is next to nothing; half the rate where sound reaches up to there
    dc: float  # full scale = 1


@dataclass(frozen=True, slots=True)
class Description:
    """All that the judgement needs of a window; small, so that calibration can keep thousands."""

    index: int
    start_s: float
    duration_s: float
    utc_s: float
    origin: str
    quality: Quality
    embeddings: Mapping[str, npt.NDArray[np.float32]]  # detector name -> [dim]; empty when not assessable
    indicators: Mapping[str, float] = field(default_factory=dict)  # mechanism analysis
    transient: Transient | None = None  # the most transient
    operating: str = ""  # the machine's state as told from outside; empty = to be found from the sound
    changing: bool = False  # it was told to change during the window
    chain: Fingerprint | None = None  # of a window now and then


class State(enum.StrEnum):
    """Of one window, and of the machine (not of the signal chain)."""

    NORMAL = "normal"
    ANOMALOUS = "anomalous"
    NOT_ASSESSABLE = "not_assessable"  # the sound cannot be judged: see the reason
    OFF = "off"  # far quieter than in calibration and unlike it: the machine is not running
    LEARNING = "learning"  # no active baseline yet


CHANGING = "the operating state changed meanwhile"  # the reason of a window that is not judged for it


class Level(enum.StrEnum):
    NORMAL = "normal"
    ALERT = "alert"
    DANGER = "danger"


@dataclass(frozen=True, slots=True)
class DetectorScore:
    name: str
    distance: float
    z: float  # robust standard score of the log distance on held-out normals
    p_value: float
    evidence: str = ""  # e.g. "2.0-4.1 kHz +9 dB"


@dataclass(frozen=True, slots=True)
class WindowResult:
    """The judgement on one window: a pure function of the window and the baseline."""

    index: int
    start_s: float
    duration_s: float
    utc_s: float
    origin: str
    state: State
    quality: Quality
    p_value: float | None = None  # fused
    level: Level = Level.NORMAL  # of this window alone, before votes
    detectors: tuple[DetectorScore, ...] = ()
    embedding_p: float | None = None
    embedding_distance: float | None = None
    mechanism_p: float | None = None
    reason: str = ""
    operating: str = ""  # the operating state that the sound is nearest to
    nuisance: str = ""  # a recognised sound of no machine; it explains a deviation. E.g. "Dog (z 7)"
    transient_p: float | None = None  # of the most transient, as on the days of the calibration
    transient_at_s: float | None = None  # after the start of the window
    not_running: bool = False  # off by its level, whatever the p-value says

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
    NOT_ASSESSABLE = "not_assessable"  # the signal chain or the machine's state forbids a judgement
    ASSESSABLE = "assessable"
    MARKED_FAULT = "marked_fault"  # a person says, afterwards, that the alarm was right
    MARKED_NOTHING = "marked_nothing"  # or that it was not


Vote = tuple[int, float]  # index of an assessable window, its fused p-value


class AlarmState(msgspec.Struct, frozen=True, kw_only=True):
    """The alarm of one machine as it stands; survives a restart. ISA-18.2 words."""

    level: Level = Level.NORMAL  # of the alarm, also while it is latched
    condition: State = State.LEARNING  # what the windows say just now
    event_id: str = ""  # of the alarm episode that is active or latched
    since_utc_s: float = 0.0
    latched: bool = False  # the condition has gone, nobody has acknowledged yet
    acknowledged: bool = False
    acknowledged_by: str = ""
    comment: str = ""
    shelved_until_utc_s: float = 0.0  # 0 = not shelved
    shelve_reason: str = ""
    out_of_service: bool = False
    reason: str = ""
    mode: State = State.LEARNING  # the condition without flicker; normal stands for all that can be judged
    mode_windows: int = 0  # in a row that say otherwise
    rising: tuple[Vote, ...] = ()  # the last windows since the level last fell
    falling: tuple[Vote, ...] = ()  # the last windows since the level last rose
    alert_p: float = 0.0  # the threshold that the votes were cast under
    announced_id: str = ""  # of the alarm that those outside were told of, and not that it has gone
    sequence: int = 0  # events so far

    @property
    def active(self) -> bool:
        """The condition is present."""
        return self.level is not Level.NORMAL and not self.latched

    @property
    def suppressed(self) -> bool:
        """Recorded, but not published as an alarm."""
        return self.out_of_service or self.shelved_until_utc_s > 0


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
    windows: tuple[int, ...] = ()  # indices of the windows that decided
    score: float | None = None
    by: str = ""
    comment: str = ""
    until_utc_s: float = 0.0
    notify: bool = True  # False while shelved or out of service: recorded, not published as an alarm
    evidence: str = ""  # path of the clip, relative to the state directory
    baseline: str = ""  # version
