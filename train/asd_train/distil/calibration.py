"""From what the student hears to a probability of everyday sound that may be believed beside a fault.

Windows of several seconds are made: with a fault and no nuisance, with nuisance, and clean. What counts is how far the
evidence rises above what is usual beside the machine, as in the agent. Logistic regression over the summary and the
logits of families and faults tells windows with everyday sound from the others, on the sound of training. Then, on
sound that training did not hear, a limit is set so that no more than the allowed share of the clean windows exceeds it,
and no more than three times that of those with a fault. A probability of 0.5 is the limit beside a machine with the
usual odds of all machines.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from asd_agent.calibration.build import SMALLEST_NUISANCE
from asd_agent.scoring.nuisance import LIMITED_Z
from asd_train.distil import faults
from asd_train.distil.learner import AUDIBLE_DB, StudentLearner
from asd_train.distil.mixtures import NONE, Mixer
from asd_train.distil.recipe import FAMILIES, Calibration
from asd_train.distil.student import SUMMARY, Heard

SECONDS = (2, 2, 4, 10)  # of the windows, by turns
FAULTS = 3.0  # times the allowed share, of windows with a fault
LOWEST = 1.0  # of the limit
PULL = 0.1  # of the regression's weights to 0, a window

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Windows:
    heard: Floats  # [windows, SUMMARY + families + kinds of faults]: means over the seconds
    machine: npt.NDArray[np.int64]  # [windows]
    family: npt.NDArray[np.int64]  # [windows], NONE without nuisance
    fault: npt.NDArray[np.int64]  # [windows], NONE without a fault
    ratio_db: Floats  # [windows] of the nuisance, where it is loudest


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of calibration's own windows that exceed the limit."""

    faults_called: dict[str, float]  # by kind
    clean_called: float
    recognised: dict[str, float]  # by family, where the nuisance can be heard


def calibrate(learner: StudentLearner, known: Mixer, aside: Mixer, settings: Calibration) -> Figures:
    """Sets `evidence`, `offset` and `limit` of the student; the same ones whatever was drawn before."""
    training, student = learner.training, learner.student
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fitted, windows = (_all_kinds(learner.eval(), mixer, settings.windows) for mixer in (known, aside))
    learner.train(training)
    rise = over_usual(fitted.heard, fitted)[0]
    clear = (fitted.family == NONE) | (fitted.ratio_db > AUDIBLE_DB)
    weights = _regression(rise[clear], fitted.family[clear] != NONE)
    heads = torch.cat((student.families.weight, student.faults.weight)).detach().double().numpy()
    weights = weights[:SUMMARY] + weights[SUMMARY:] @ heads  # the logits are linear in the summary
    odds, spread, typical = over_usual(windows.heard[:, :SUMMARY] @ weights, windows)
    odds[odds < LIMITED_Z * np.maximum(spread, SMALLEST_NUISANCE)] = 0.0  # the agent would not count it
    none = windows.family == NONE
    limit = max(limit_of(odds[none], windows.fault[none] != NONE, settings.called), LOWEST)
    for buffer, value in ((student.evidence, weights), (student.limit, limit), (student.offset, -typical - limit)):
        buffer.copy_(torch.as_tensor(value))
    return _figures(windows, odds > limit)


def _all_kinds(learner: StudentLearner, mixer: Mixer, count: int) -> Windows:
    """`count` windows with a fault, as many with nuisance, as many clean."""
    found = [
        hear(learner, mixer, count, nuisance=nuisance, fault=fault, first=first * count)
        for first, (nuisance, fault) in enumerate(((False, True), (True, False), (False, False)))
    ]
    return Windows(*(np.concatenate(column) for column in zip(*(w.__dict__.values() for w in found), strict=True)))


def over_usual(values: Floats, windows: Windows) -> tuple[Floats, Floats, Floats]:
    """Values [windows, ...] less the median of the machine when it is clean, the standard deviation of the machine's
    clean values, and the median of a typical machine."""
    clean = (windows.family == NONE) & (windows.fault == NONE)
    usual = {}
    for machine in np.unique(windows.machine[clean]):
        own = values[clean & (windows.machine == machine)]
        usual[machine] = np.median(own, axis=0), 1.4826 * np.median(np.abs(own - np.median(own, axis=0)), axis=0)
    typical, usual_spread = (np.median(column, axis=0) for column in zip(*usual.values(), strict=True))
    centre, spread = (
        np.stack(column)
        for column in zip(*(usual.get(m, (typical, usual_spread)) for m in windows.machine), strict=True)
    )
    return values - centre, spread, typical


def hear(learner: StudentLearner, mixer: Mixer, count: int, *, nuisance: bool, fault: bool, first: int) -> Windows:
    """`count` windows of one machine, one fault and one nuisance each, in every second or in some."""
    rows = []
    number = first
    for window in range(count):
        seconds = SECONDS[window % len(SECONDS)]
        batch = mixer.window(number, seconds, nuisance=nuisance, fault=fault)
        with torch.inference_mode():
            db, ratio_db = learner.heard(batch)
            seconds_heard = learner.student(db)
        rows.append(
            (
                _means(seconds_heard).double().numpy(),
                int(batch.machine[0]),
                int(batch.family.max()),
                int(batch.fault.max()),
                float(ratio_db[:, 0].max()),
            )
        )
        number += 1
    return Windows(*(np.array(column) for column in zip(*rows, strict=True)))


def _means(heard: Heard) -> Tensor:
    """Summary and logits over the seconds. [SUMMARY + families + kinds of faults]"""
    return torch.cat((torch.relu(heard.summary), heard.families, heard.faults), 1).mean(0)


def _regression(rise: Floats, present: Bools) -> Floats:
    """Weights of a logistic regression with a pull to 0, the constant left out. [features]"""
    spread = np.maximum(rise.std(axis=0), 1e-3)
    x, sign, pull = rise / spread, np.where(present, -1.0, 1.0), PULL * len(rise)

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = sign * (x @ w[1:] + w[0])
        slope = sign * np.exp(-np.logaddexp(0, -margin))
        gradient = np.concatenate([[slope.sum()], x.T @ slope + pull * w[1:]])
        return float(np.logaddexp(0, margin).sum() + pull / 2 * (w[1:] ** 2).sum()), gradient

    found = minimize(loss, np.zeros(rise.shape[1] + 1), jac=True, method="L-BFGS-B").x[1:]
    return np.asarray(found / spread)


def limit_of(odds: Floats, faulty: Bools, called: float) -> float:
    """The lowest limit that no more than `called` of the clean windows exceed, nor FAULTS times as many of those with a
    fault. odds [windows] and faulty [windows] of windows without nuisance."""
    limits = []
    for some, share in ((odds[~faulty], called), (odds[faulty], FAULTS * called)):
        above = np.sort(some)[::-1]
        limits.append(float(above[min(int(share * len(above) + 1e-9), len(above) - 1)]))
    return max(limits)


def _figures(windows: Windows, called: Bools) -> Figures:
    none, audible = windows.family == NONE, windows.ratio_db > AUDIBLE_DB
    return Figures(
        faults_called={
            faults.KINDS[kind]: _share(called[none & (windows.fault == kind)])
            for kind in np.unique(windows.fault[none])
            if kind != NONE
        },
        clean_called=_share(called[none & (windows.fault == NONE)]),
        recognised={name: _share(called[audible & (windows.family == f)]) for f, name in enumerate(FAMILIES)},
    )


def _share(found: Bools) -> float:
    return round(float(found.mean()), 4) if len(found) else 0.0
