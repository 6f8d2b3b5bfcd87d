"""Why a window is not judged, off, or anomalous, in words. Programs decide by `Cause`, never by these sentences."""

from __future__ import annotations

from collections.abc import Iterable

from asd_agent.scoring.operating import Judgement
from asd_agent.types import Cause, Description

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


def deviation(judgement: Judgement, description: Description, nuisance: str) -> str:
    """The detector that deviates most, and where in the spectrum."""
    state = judgement.state
    top = max((s for s in judgement.scores if s.name in state.fused), key=lambda s: s.z)
    where = state.detector(top.name).explain(description)
    words = f"{top.name.replace('_', ' ')} z {top.z:.1f}" + (f": {where}" if where else "")
    return words + (f"; explained by {nuisance}" if nuisance else "")
