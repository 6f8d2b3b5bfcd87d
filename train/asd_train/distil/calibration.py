"""From logits to probabilities of everyday sound that may be believed beside a fault.

Windows of several seconds are made of sound that training did not hear: with a fault and no nuisance, with nuisance,
and clean. What counts is how far the odds of a family rise above those that are usual beside the machine, as in the
agent. Logistic regression gives them their scale. Then each family has a limit, so that no more than the allowed share
of the clean windows exceeds one of them, and no more than three times that with any kind of fault. A
probability of 0.5 is the limit beside a machine with the usual odds of all machines.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

from asd_train.distil import faults
from asd_train.distil.learner import AUDIBLE_DB, StudentLearner
from asd_train.distil.mixtures import NONE, Mixer
from asd_train.distil.recipe import FAMILIES, Calibration

SECONDS = (2, 4, 10)  # of the windows, by turns
PER_KIND = 3.0  # times the allowed share, for one kind of fault
LOWEST = 1.0  # of a limit


@dataclass(frozen=True)
class Windows:
    odds: npt.NDArray[np.float64]  # [windows, families]: log of the mean odds over the seconds
    machine: npt.NDArray[np.int64]  # [windows]
    family: npt.NDArray[np.int64]  # [windows], NONE without nuisance
    fault: npt.NDArray[np.int64]  # [windows], NONE without a fault
    ratio_db: npt.NDArray[np.float64]  # [windows] of the nuisance, where it is loudest


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of calibration's own windows that exceed a limit."""

    faults_called: dict[str, float]  # by kind
    clean_called: float
    recognised: dict[str, float]  # by family, where the nuisance can be heard


def calibrate(learner: StudentLearner, mixer: Mixer, settings: Calibration) -> Figures:
    """Sets `scale`, `offset` and `limit` of the student; the same ones whatever was drawn before."""
    training = learner.training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        windows = [
            hear(
                learner.eval(), mixer, settings.windows, nuisance=nuisance, fault=fault, first=first * settings.windows
            )
            for first, (nuisance, fault) in enumerate(((False, True), (True, False), (False, False)))
        ]
    learner.train(training)
    clean = windows[-1]
    usual = {m: np.median(clean.odds[clean.machine == m], axis=0) for m in np.unique(clean.machine)}
    typical = np.median(list(usual.values()), axis=0)
    joined = Windows(*(np.concatenate(column) for column in zip(*(w.__dict__.values() for w in windows), strict=True)))
    rise = joined.odds - np.stack([usual.get(m, typical) for m in joined.machine])
    scale = np.array([_scale(rise[:, f], _audible(joined, f)) for f in range(len(FAMILIES))])
    none = joined.family == NONE
    limit = np.maximum(limits_of(scale * rise[none], joined.fault[none], settings.called), LOWEST)
    student = learner.student
    for buffer, value in ((student.scale, scale), (student.limit, limit), (student.offset, -scale * typical - limit)):
        buffer.copy_(torch.from_numpy(value))
    return _figures(joined, (scale * rise > limit).any(axis=1))


def hear(learner: StudentLearner, mixer: Mixer, count: int, *, nuisance: bool, fault: bool, first: int) -> Windows:
    """`count` windows of one machine, one fault and one nuisance each, in every second or in some."""
    rows = []
    number = first
    for window in range(count):
        seconds = SECONDS[window % len(SECONDS)]
        batch = mixer.window(number, seconds, nuisance=nuisance, fault=fault)
        with torch.inference_mode():
            db, ratio_db = learner.heard(batch)
            families = learner.student(db).families
        odds = torch.logsumexp(families, 0) - np.log(seconds)
        rows.append(
            (
                odds.double().numpy(),
                int(batch.machine[0]),
                int(batch.family.max()),
                int(batch.fault.max()),
                float(ratio_db[:, 0].max()),
            )
        )
        number += 1
    return Windows(*(np.array(column) for column in zip(*rows, strict=True)))


def _audible(windows: Windows, family: int) -> npt.NDArray[np.bool_]:
    return np.asarray((windows.family == family) & (windows.ratio_db > AUDIBLE_DB))


def _scale(rise: npt.NDArray[np.float64], present: npt.NDArray[np.bool_]) -> float:
    """The slope of Platt's logistic regression, with a weak pull to 1."""
    sign = np.where(present, -1.0, 1.0)

    def loss(w: npt.NDArray[np.float64]) -> float:
        return float(np.logaddexp(0, sign * (w[0] * rise + w[1])).sum() + (w[0] - 1) ** 2 / 2)

    return float(max(minimize(loss, np.array([1.0, 0.0])).x[0], 0.1))


def limits_of(logits: npt.NDArray[np.float64], fault: npt.NDArray[np.int64], called: float) -> npt.NDArray[np.float64]:
    """Limits of the families that no more than `called` of the clean windows exceed in any family, nor PER_KIND times
    as many of the windows with one kind of fault.

    The families' limits are lowered by turns, window by window; one that would break the rule stays where it is.
    logits [windows, families] and fault [windows] (NONE: clean) of windows without nuisance; returns [families].
    """
    order = np.argsort(-logits, axis=0)
    kind = np.unique(fault, return_inverse=True)[1]
    share = np.where(np.unique(fault) == NONE, called, PER_KIND * called)
    left = np.floor(share * np.bincount(kind) + 1e-9).astype(int)  # windows of each kind that may still be called
    exceeded = np.zeros(len(logits), bool)
    rank = np.zeros(logits.shape[1], int)  # windows that exceed each limit
    lowered = set(range(logits.shape[1]))
    while lowered:
        for family in sorted(lowered):
            window = order[rank[family], family]
            if (not exceeded[window] and left[kind[window]] == 0) or rank[family] + 1 == len(logits):
                lowered.remove(family)
                continue
            left[kind[window]] -= not exceeded[window]
            exceeded[window] = True
            rank[family] += 1
    return np.asarray(logits[order[rank, np.arange(len(rank))], np.arange(len(rank))])


def _figures(windows: Windows, called: npt.NDArray[np.bool_]) -> Figures:
    none = windows.family == NONE
    return Figures(
        faults_called={
            faults.KINDS[kind]: _share(called[none & (windows.fault == kind)])
            for kind in np.unique(windows.fault[none])
            if kind != NONE
        },
        clean_called=_share(called[none & (windows.fault == NONE)]),
        recognised={name: _share(called[_audible(windows, family)]) for family, name in enumerate(FAMILIES)},
    )


def _share(found: npt.NDArray[np.bool_]) -> float:
    return round(float(found.mean()), 4) if len(found) else 0.0
