"""Reasons in words, for people. Programs decide by `Cause`, `Deviation`, `Trigger` and `Grounds`, never by sentences.

What deviates comes first, then since when, then what would let a component be named, and last which rule raised the
alarm, with its numbers.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from asd_agent.reasons import Change, Deviation, Grounds, PartVerdict, SoundKind, Trigger, Unnamed
from asd_agent.types import Cause

WORDS = {
    Cause.GAP: "frames are missing",
    Cause.SHORT: "shorter than a window",
    Cause.NAN: "values that are no numbers",
    Cause.SILENCE: "silence",
    Cause.FLAT: "a flat line",
    Cause.DC: "mostly DC",
    Cause.CLIPPING: "clipping",
    Cause.RANDOM: "random bytes instead of sound (is the sample format right?)",
    Cause.BAND_LOST: "a part of the spectrum is missing",
    Cause.STATE_CHANGING: "the operating state changed meanwhile",
    Cause.STATE_UNKNOWN: "the operating state is not in the baseline",
    Cause.STATE_NOT_REPORTED: "no operating state was reported",
    Cause.NOT_RUNNING: "the machine was not running (far quieter)",
    Cause.EXCLUDED: "excluded by hand",
}
_KINDS = {
    SoundKind.LEAK: "leak-like",
    SoundKind.KNOCK: "knock-like",
    SoundKind.RATTLE: "rattle-like",
    SoundKind.PULSATION: "pulsating",
    SoundKind.LOSS: "a part of the sound is missing",
}
_UNNAMED = {
    Unnamed.NO_PART: "the impacts fit no part of the motor data",
    Unnamed.SPEED_UNKNOWN: "speed unknown: give speed_topic or speed_tolerance 0.005",
    Unnamed.SHARED: "parts of several kinds show these lines",
    Unnamed.SEVERAL: "{several} explain the lines equally well",
    Unnamed.FAINT: "the lines are as faint as in many healthy bearings",
}
SQUEAL_HZ = 1000.0  # a tone below it hums
SMALL_Z = 3.0  # a change below it is one of many


def causes(found: Iterable[Cause]) -> str:
    return ", ".join(WORDS[cause] for cause in found)


def unknown_state(name: str) -> str:
    return f"the operating state {name!r} is not in the baseline"


def not_running(quiet_db: float) -> str:
    return f"{quiet_db:.0f} dB quieter than in calibration and unlike it: the machine is not running"


def louder_room(louder_db: float) -> str:
    return f"the room ({louder_db:.0f} dB louder in the reference microphone)"


def too_coherent(coherence: float) -> str:
    return (
        f"the reference microphone hears the machine too well (it explains {coherence:.0%} of the sound there): "
        "move it away"
    )


def window(deviation: Deviation) -> str:
    """Of an anomalous window."""
    return "; ".join([what(deviation), *_asides(deviation)])


def alarm(deviation: Deviation | None, trigger: Trigger, grounds: Grounds, part: PartVerdict | None = None) -> str:
    """Of an alarm that is raised, escalated or named; `part`: what its windows, added up, say."""
    lasts = f"for {duration(grounds.lasts_s)}"
    if trigger is Trigger.OVERLOAD:
        return (
            f"louder than the microphone can take {lasts}: is it the machine, or was the gain turned up? "
            f"overload: {count(grounds.windows, 'window')} clip, as none did in calibration"
        )
    if trigger is Trigger.EVENT_RATE:
        return (
            f"{grounds.windows} knocks or bangs within {duration(grounds.lasts_s)}; event rate: fewer than "
            f"{grounds.of} an hour are expected"
        )
    deviation = _with_part(deviation or Deviation(), part)
    told = f"{what(deviation)}{', keeps coming back' if grounds.returning else ''} {lasts}"
    if deviation.windows > 1 and not grounds.returning:
        return "; ".join([f"{told}, median of {count(deviation.windows, 'window')}", *_asides(deviation),
                          f"{trigger.value}{_p(grounds)}"])  # fmt: skip
    return "; ".join([told, *_asides(deviation), _rule(trigger, grounds)])


def calmer(normal: bool, windows: int, of: int, score: float) -> str:
    """Of an alarm that is cleared or de-escalated."""
    again = "as in calibration again" if normal else "weaker again"
    return f"{again}: {windows} of {of} windows below score {score:.1f}"


def what(deviation: Deviation) -> str:
    """The component, or the bands with one number each."""
    bands = ", ".join(_changes(deviation))
    if deviation.finding:
        return f"{deviation.finding}, {bands}" if bands else deviation.finding
    if not deviation.changes and not deviation.detector:
        return "unlike calibration"
    if not deviation.changes:
        return f"unlike calibration in no part that can be named ({_plain(deviation.detector)} z {deviation.z:.1f})"
    first = deviation.changes[0]
    if abs(first.z) < SMALL_Z:
        return f"many small changes, the largest: {bands}"
    if deviation.kind is SoundKind.TONE:
        assert first.band_hz is not None
        return f"{'squeal' if first.band_hz[0] >= SQUEAL_HZ else 'hum'}-like: {bands}"
    return f"{_KINDS[deviation.kind]}: {bands}" if deviation.kind is not None else bands


def _changes(deviation: Deviation) -> Iterator[str]:
    """How a louder sound pulsates needs no band and number of its own; a knock has every rate."""
    for i, one in enumerate(deviation.changes):
        if i == 0 or one.rates_hz is None:
            yield change(one)
        elif deviation.kind is not SoundKind.KNOCK:
            yield f"pulsating at {_rates(one.rates_hz)}"


def change(one: Change) -> str:
    """ "3.0-6.0 kHz louder by 2 dB"."""
    where = band(*one.band_hz) if one.band_hz is not None else "all of the sound"
    size, more = decibels(abs(one.change_db)), one.z > 0
    if one.quantity == "level":
        return f"{where} {'louder' if more else 'quieter'} by {size}"
    if one.quantity == "unsteadiness":
        return f"{where} {'less steady' if more else 'steadier'} by {size}"
    rates = f" at {_rates(one.rates_hz)}" if one.rates_hz is not None else ""
    return f"{where} pulsates {'more' if more else 'less'}{rates} by {size}"


def band(low_hz: float, high_hz: float) -> str:
    """ "180-240 Hz", "0.6-1.9 kHz", "3.4-3.9 kHz"."""
    if high_hz < 1000:
        return f"{low_hz:.0f}-{high_hz:.0f} Hz"
    narrow = high_hz - low_hz < 200
    return f"{low_hz / 1000:.{2 if narrow else 1}f}-{high_hz / 1000:.{2 if narrow else 1}f} kHz"


def decibels(size: float) -> str:
    return f"{size:.0f} dB" if size >= 2 else f"{size:.1f} dB"


def duration(seconds: float) -> str:
    """ "45 s", "7 minutes", "3 hours", "a day"."""
    for unit, size in (("day", 86_400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= 0.95 * size * (2 if unit == "minute" else 1):
            return count(round(seconds / size), unit)
    return f"{seconds:.0f} s"


def when(utc_s: float, seconds: bool = False) -> str:
    """A time for people, in the time zone of this computer: "2026-03-02 10:42 CET"."""
    return dt.datetime.fromtimestamp(utc_s).astimezone().strftime(f"%Y-%m-%d %H:%M{':%S' if seconds else ''} %Z")


def count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _with_part(deviation: Deviation, part: PartVerdict | None) -> Deviation:
    """The part that is named takes the place of what one window shows of it; else why none is."""
    if part is not None and part.component:
        return replace(deviation, finding=part.words, component=part.component, advice="")
    if part is None or part.why_unnamed is None or deviation.advice or deviation.component:
        return deviation
    several = " or ".join(part.candidates) or "several parts"
    return replace(deviation, advice=_UNNAMED.get(part.why_unnamed, "").format(several=several))


def _asides(deviation: Deviation) -> list[str]:
    found = [f"no component is named: {deviation.advice}"] if deviation.advice else []
    return found + ([f"explained by {deviation.nuisance}"] if deviation.nuisance else [])


def _rule(trigger: Trigger, grounds: Grounds) -> str:
    of = f" of {grounds.of} windows deviate" if grounds.of is not None else " windows"
    return f"{trigger.value}: {grounds.windows}{of}{_p(grounds)}"


def _p(grounds: Grounds) -> str:
    return f", p {p_value(grounds.p_value)}" if grounds.p_value is not None else ""


def p_value(value: float) -> str:
    """ "2e-7"."""
    digits, _, power = f"{value:.0e}".partition("e")
    return f"{digits}e{int(power)}" if value < 0.01 else f"{value:.1g}"


def _rates(rates_hz: tuple[float, float]) -> str:
    low, high = rates_hz
    return f"{low:.0f} Hz" if round(low) == round(high) else f"{low:.0f}-{high:.0f} Hz"


def _plain(name: str) -> str:
    return name.replace("_", " ")
