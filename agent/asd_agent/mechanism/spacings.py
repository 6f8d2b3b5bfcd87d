"""Families of lines that grew, by their spacing, from the cepstrum: what repeats exactly has no jitter to show in the
pre-whitened envelope."""

from __future__ import annotations

import numpy as np

from asd_agent.mechanism import words
from asd_agent.mechanism.analyse import Analysis
from asd_agent.mechanism.baseline import Verdict
from asd_agent.mechanism.cepstrum import real_cepstrum
from asd_agent.mechanism.changes import significant
from asd_agent.mechanism.finding import Finding, Rank


def spacing_finding(whole: Analysis, verdict: Verdict) -> Finding | None:
    """The family whose rahmonic grew most; at the shaft's speed it is the shaft's."""
    grown = [d for d in verdict.deviations if d.family == "cepstrum" and significant(d, verdict)]
    if not grown:
        return None
    top = next((d for d in grown if d.name == "cepstrum.shaft"), grown[0])
    p = min(1.0, top.p_value * len(verdict.deviations))
    if top.name == "cepstrum.shaft" and whole.speed is not None:
        text = f"lines {words.hz(whole.speed.hz)} apart = once per turn: a damaged tooth, rub or looseness"
        return Finding(
            Rank.DOMAIN, text, domain="shaft", indicator=top.name, hz=whole.speed.hz, order=1.0, z=top.z, p_value=p
        )
    hz = _spacing_hz(whole, top.name)
    ratio = hz / whole.speed.hz if whole.speed is not None and whole.speed.reliable else None
    relation = f" = {words.order(ratio)}" if ratio is not None else ""
    text = f"a family of lines {words.hz(hz)} apart{relation}"
    return Finding(Rank.BAND, text, domain="spacing", indicator=top.name, hz=hz, order=ratio, z=top.z, p_value=p)


def _spacing_hz(whole: Analysis, name: str) -> float:
    """Of the tallest rahmonic in the octave that the indicator stands for ("cepstrum.20-40ms.peak")."""
    values, step_s = real_cepstrum(whole.angular)
    low, high = (float(v) / 1000 for v in name.split(".", 1)[1].removesuffix("ms.peak").split("-"))
    first = round(low / step_s)
    at = first + int(np.argmax(values[first : round(high / step_s)]))
    return 1 / (at * step_s)
