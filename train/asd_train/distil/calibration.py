"""From logits to probabilities of everyday sound that may be believed beside a fault.

Windows of several seconds are made of sound that training did not hear: with a fault and no nuisance, with nuisance,
and clean. Logistic regression turns each family's mean odds into a probability; then each is shifted, so that no more
than the allowed share of windows without nuisance has a probability beyond 0.5 in any family, and no more than three
times that with any kind of fault.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from asd_train.distil import faults
from asd_train.distil.learner import AUDIBLE_DB, StudentLearner
from asd_train.distil.mixtures import NONE, Mixer
from asd_train.distil.recipe import FAMILIES, Calibration
from asd_train.distil.student import Student

SECONDS = (2, 4, 10)  # of the windows, by turns
PER_KIND = 3.0  # times the allowed share, for one kind of fault
BATCH = 64


@dataclass(frozen=True)
class Windows:
    odds: npt.NDArray[np.float64]  # [windows, families]: log of the mean odds over the seconds
    family: npt.NDArray[np.int64]  # [windows], NONE without nuisance
    fault: npt.NDArray[np.int64]  # [windows], NONE without a fault
    ratio_db: npt.NDArray[np.float64]  # [windows] of the nuisance, where it is loudest


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What calibration saw of its own windows; shares of them with a probability of 0.5 or more."""

    faults_called: dict[str, float]  # by kind
    clean_called: float
    recognised: dict[str, float]  # by family, where the nuisance can be heard


def calibrate(learner: StudentLearner, mixer: Mixer, settings: Calibration) -> Figures:
    """Sets `scale` and `offset` of the student."""
    windows = [
        hear(learner, mixer, settings.windows, nuisance=nuisance, fault=fault, first=first * 10 * settings.windows)
        for first, (nuisance, fault) in enumerate(((False, True), (True, False), (False, False)))
    ]
    joined = Windows(*(np.concatenate(column) for column in zip(*(w.__dict__.values() for w in windows), strict=True)))
    scale, offset = zip(*(_logistic(joined, family) for family in range(len(FAMILIES))), strict=True)
    student = learner.student
    student.scale.copy_(torch.tensor(scale))
    student.offset.copy_(torch.tensor(offset))
    none = joined.family == NONE
    limits = limits_of(_logits(student, joined)[none], joined.fault[none], settings.called)
    student.offset.sub_(torch.from_numpy(limits))
    return _figures(joined, _logits(student, joined).max(axis=1))


def hear(learner: StudentLearner, mixer: Mixer, count: int, *, nuisance: bool, fault: bool, first: int) -> Windows:
    """`count` windows of one machine, one fault and one nuisance each, in every second or in some."""
    learner.eval()
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
            (odds.double().numpy(), int(batch.family.max()), int(batch.fault.max()), float(ratio_db[:, 0].max()))
        )
        number += 1
    return Windows(*(np.array(column) for column in zip(*rows, strict=True)))


def _logistic(windows: Windows, family: int) -> tuple[float, float]:
    """Scale and offset of Platt's regression, by Newton's method with a weak pull to (1, 0)."""
    x = np.stack([windows.odds[:, family], np.ones(len(windows.odds))], 1)
    y = (windows.family == family) & (windows.ratio_db > AUDIBLE_DB)
    w, pull = np.array([1.0, 0.0]), np.array([1.0, 0.1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (p - y) + pull * (w - [1, 0])
        step = np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + np.diag(pull), gradient)
        w = w - np.clip(step, -2, 2)
    return float(max(w[0], 0.1)), float(w[1])


def _logits(student: Student, windows: Windows) -> npt.NDArray[np.float64]:
    """Calibrated, [windows, families]."""
    return np.asarray(windows.odds * student.scale.double().numpy() + student.offset.double().numpy())


def limits_of(logits: npt.NDArray[np.float64], fault: npt.NDArray[np.int64], called: float) -> npt.NDArray[np.float64]:
    """The highest logits of each family, equally rare in all of them, that no more than `called` of the windows reach
    in any family, nor PER_KIND times as many with one kind of fault.

    logits [windows, families] and fault [windows] of windows without nuisance; returns [families].
    """
    ordered = np.sort(logits, axis=0)[::-1]
    for rank in range(len(logits) - 1, 0, -1):  # how many windows may reach the limit of a family
        above = (logits > ordered[rank]).any(axis=1)
        shares = [above[fault == kind].mean() for kind in np.unique(fault)]
        if above.mean() <= called and max(shares) <= PER_KIND * called:
            return np.asarray(ordered[rank])
    return np.asarray(ordered[0])


def _figures(windows: Windows, logits: npt.NDArray[np.float64]) -> Figures:
    called, none = logits > 0, windows.family == NONE
    audible = windows.ratio_db > AUDIBLE_DB
    return Figures(
        faults_called={
            faults.KINDS[kind]: _share(called[none & (windows.fault == kind)])
            for kind in np.unique(windows.fault[none])
            if kind != NONE
        },
        clean_called=_share(called[none & (windows.fault == NONE)]),
        recognised={name: _share(called[audible & (windows.family == family)]) for family, name in enumerate(FAMILIES)},
    )


def _share(found: npt.NDArray[np.bool_]) -> float:
    return round(float(found.mean()), 4) if len(found) else 0.0
