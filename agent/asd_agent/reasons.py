"""Why a window or an alarm deviates, as data: `decide.reason` makes sentences of it."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

Quantity = Literal["level", "unsteadiness", "modulation"]  # dB; standard deviation over time in dB; dB


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the sound that is not as in calibration."""

    quantity: Quantity
    change_db: float  # against the median of the calibration; of levels after the median band is made equal
    band_hz: tuple[float, float] | None = None  # from and to; None = of the whole sound
    rates_hz: tuple[float, float] | None = None  # of a modulation
    z: float  # signed standard score of its strongest value


class SoundKind(enum.StrEnum):
    """What a change of the sound is like."""

    LEAK = "leak"  # wide and steady
    TONE = "tone"  # narrow and steady
    KNOCK = "knock"  # in bursts
    RATTLE = "rattle"  # pulsating many times a second
    PULSATION = "pulsation"  # pulsating slowly, no louder
    LOSS = "loss"  # less sound than normal


class Deviation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a window, or the median of many, differs from calibration. `decide.reason` makes a sentence of it."""

    finding: str = ""  # what the mechanism analysis finds: a component, a band
    component: str = ""  # of the machine, where the finding names one
    advice: str = ""  # what would let a component be named
    kind: SoundKind | None = None
    changes: tuple[Change, ...] = ()  # that the finding does not speak of, the strongest first
    detector: str = ""  # that deviates most
    z: float = 0.0  # of it
    nuisance: str = ""  # a recognised sound of no machine that explains it
    windows: int = 1  # whose median this is


class Trigger(enum.StrEnum):
    """Which evidence raised an alarm."""

    VOTES = "votes"  # so many of the last windows deviate
    PERSISTENCE = "persistence"  # a weaker deviation stays, or keeps coming back
    EVENT_RATE = "event_rate"  # transients come more often than in calibration
    OVERLOAD = "overload"  # louder than the microphone can take


class Grounds(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The numbers behind a trigger."""

    lasts_s: float  # since the first of the windows
    windows: int  # that speak for the alarm
    of: int | None = None  # votes: among so many; event rate: at most so many transients are normal
    p_value: float | None = None  # votes: of the window that is in the middle; persistence: of the whole time
    returning: bool = False  # persistence: it keeps coming back rather than stays


class Unnamed(enum.StrEnum):
    """Why the windows of an alarm, added up, name no part of the machine."""

    NOTHING = "nothing"  # neither a train of impacts nor a line stands out
    NOT_GROWN = "not_grown"  # lines of a part are there, as they were in calibration
    NO_PART = "no_part"  # a train of impacts that no configured part explains better than an unknown one
    SPEED_UNKNOWN = "speed_unknown"  # the shaft's speed is neither known nor heard
    SHARED = "shared"  # lines that several kinds of parts show
    SEVERAL = "several"  # several parts explain what is there
    FAINT = "faint"  # lines as faint as in many healthy bearings


class PartVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the deviating windows of an alarm, added up, say of the machine's parts."""

    windows: int  # added up
    looks: int = 1  # at the growing sum so far; the p-value pays for them
    component: str = ""  # empty = none may be named
    why_unnamed: Unnamed | None = None
    candidates: tuple[str, ...] = ()  # parts that explain the lines, the best first
    p_value: float | None = None  # corrected for everything that was tested
    hz: float | None = None  # of the lines
    order: float | None = None  # multiples of the reference shaft
    change_db: float | None = None  # of the lines, from the first half of the windows to the second
    levels_db: tuple[float, ...] = ()  # of the lines over their background, in the order of time
    words: str = ""  # one sentence; empty where there is nothing to say
