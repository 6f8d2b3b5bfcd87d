"""How far a calibration can be believed: the false-alarm rate that its threshold will have, with an interval.

The threshold follows from estimates, and few blocks estimate little. Here every quantity is drawn from what the
calibration leaves open, and each draw gives a rate by the model of `budget`:

    within, between   their estimate x dof / chi-square, with windows - blocks and blocks - 1 degrees of freedom
    centre            normal, with the standard error of the mean of the blocks
    drift             its mean square x a log-normal factor, 3.3 up or down in nine of ten cases: between the two cases
                      that DRIFT lies between (see `fusion`). Most of it lasts: a machine that is no longer as it was is
                      so on every day to come, and further off, not nearer; DAILY of it is another one every day
    tail              beyond the limit, where the calibration shows one of its own: its shape, with the standard error

Beside these, single windows may stray beyond any limit whatever the machine does: a door, a voice. No threshold keeps
them out, only votes do. Their share is what the held-out windows show beyond what the spread alone puts there, with the
90 % interval of Clopper and Pearson: minutes without a stray do not show that there are none, and with few minutes this
makes most of the upper end.

That is what votes do. Persistence and event rate add their shares of the budget to the expected rate and to the upper
end, as if they used them up.

A budget is called supported when the upper end of the interval is at most ten times the budget.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent import config
from asd_agent.decide.blocks import BLOCKS, MOST_BLOCKS
from asd_agent.decide.budget import VOTES_SHARE, Thresholds, Votes, false_alarms_per_month, limit_of
from asd_agent.decide.fusion import DRIFT, Fusion, Spread
from asd_agent.decide.tail import tail, z_of
from asd_agent.types import Floats

TOLERANCE = 10.0
DRAWS = 300
_DRIFT_SIGMA = math.log(10 / DRIFT) / 1.645
DAILY = 0.2  # share of the drift (its mean square) that is another one every day
_LEAST_PER_DAY_H = 0.25
ORDINARY_STRAYS = 0.01  # share of the windows: a door, a voice
# Hours and days of a whole calibration that may be advised; each plan has at least as much of both as the one before.
_PLANS = (
    (0.25, 1), (0.5, 1), (1.0, 1), (1.0, 2), (2.0, 2), (2.0, 3), (4.0, 3), (4.0, 5), (8.0, 5), (8.0, 7), (16.0, 10),
    (32.0, 10), (32.0, 20), (64.0, 20),
)  # fmt: skip
_ALL_HOURS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


class Support(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    per_month: float  # days with a false alarm: the median
    low: float  # 5 % and
    high: float  # 95 % of what the calibration leaves open
    strays: int  # calibration windows that exceed the limit themselves
    supported: bool  # high <= 10 x budget
    more_hours: float | None  # of normal sound that would support the budget, recorded on
    more_days: int | None  # that many other days; both None when more sound alone will not do

    @classmethod
    def of(
        cls,
        thresholds: Thresholds,
        fusion: Fusion,
        held_out: npt.ArrayLike,
        alarm: config.Alarm,
        window_s: float,
        hop_s: float,
    ) -> Self:
        """held_out [n]: fused scores of the held-out normals (`Fusion.score`)."""
        strays = sum(fusion.p_of(float(score)) <= thresholds.alert_p for score in np.asarray(held_out))
        case = _Case.of(thresholds, fusion, strays, alarm, window_s, hop_s)
        low, middle, high = case.interval()
        others = (1 - VOTES_SHARE) * alarm.false_alarms_per_month
        supported = high + others <= TOLERANCE * alarm.false_alarms_per_month
        hours, days = (0.0, 0) if supported else _more(fusion, strays, alarm, window_s, hop_s)
        return cls(
            per_month=middle + others,
            low=low,
            high=high + others,
            strays=strays,
            supported=supported,
            more_hours=hours,
            more_days=days,
        )


@dataclass(frozen=True)
class Possible:
    """What later sound may be like as far as the calibration can tell; all [draws], in held-out units."""

    fast: Floats  # standard deviation from window to window
    slow: Floats  # and from day to day
    centre: Floats  # of all days to come

    @classmethod
    def of(cls, spread: Spread, windows: int) -> Self:
        """`windows` that share no sound."""
        rng = np.random.default_rng(0)
        within = spread.within * _chi_square_factor(rng, max(windows - spread.blocks, 1))
        noise = math.pi / 2 * spread.within * spread.blocks / windows  # of a block's median
        medians = (spread.between + noise) * _chi_square_factor(rng, max(spread.blocks - 1, 1))
        between = np.maximum(medians - noise, 0.0)
        drift = spread.drift * np.exp(_DRIFT_SIGMA * rng.standard_normal(DRAWS))
        centre = np.sqrt((between + noise) / spread.blocks) * rng.standard_normal(DRAWS)
        lasting = np.sqrt((1 - DAILY) * drift) * rng.standard_normal(DRAWS)
        centre += lasting if spread.apart else np.abs(lasting)  # what no block has shown lies further off
        return cls(np.sqrt(within), np.sqrt(between + DAILY * drift), centre)


@dataclass(frozen=True)
class _Case:
    scores: Floats  # [draws] the limit, in scores that a Gaussian tail gives the p-value of the real one
    spread: Spread
    strays: float
    votes: Votes
    separate: float  # share of the windows that count as separate ones
    usual: float  # share of the held-out windows that exceed the limit by their spread: no strays

    @classmethod
    def of(
        cls, thresholds: Thresholds, fusion: Fusion, strays: float, alarm: config.Alarm, window_s: float, hop_s: float
    ) -> Self:
        return cls(
            scores=_possible_limits(thresholds, fusion),
            spread=fusion.spread,
            strays=strays,
            votes=Votes.of(alarm, window_s, hop_s),
            separate=min(hop_s / window_s, 1.0),
            usual=tail(limit_of(thresholds, fusion.spread)),
        )

    def interval(self) -> tuple[float, float, float]:
        """5 %, median and 95 % of the days with a false alarm per month."""
        windows = max(round(self.spread.windows * self.separate), 1)
        strays = math.ceil(self.strays * self.separate)
        may_be = Possible.of(self.spread, windows)
        least, most = clopper_pearson(strays, windows)
        stray = np.maximum(np.array([[least], [strays / windows], [most]]) - self.usual, 0.0)
        rates = false_alarms_per_month(self.scores - may_be.centre, may_be.fast, may_be.slow, self.votes, stray)
        low, middle, high = (float(np.quantile(rate, q)) for rate, q in zip(rates, (0.05, 0.5, 0.95), strict=True))
        return low, middle, high


def _possible_limits(thresholds: Thresholds, fusion: Fusion) -> Floats:
    """[draws] The limit as a score whose Gaussian tail is what really lies beyond it.

    The model of `budget` is Gaussian; where the calibration shows a tail of its own, that one stands in for it, with
    what its shape leaves open.
    """
    total = fusion.spread.total
    start = limit_of(thresholds, fusion.spread)
    if fusion.pareto is None or (at := fusion.score_of(thresholds.alert_p) / total) <= fusion.pareto.start:
        return np.full(DRAWS, start)
    shapes = fusion.pareto.shape + fusion.pareto.shape_sd * np.random.default_rng(1).standard_normal(DRAWS)
    beyond = [max(fusion.pareto.tail(at, float(shape)), tail(at)) for shape in shapes]
    return np.array([z_of(p) for p in beyond]) * total


def _chi_square_factor(rng: np.random.Generator, dof: float) -> Floats:
    """What a variance estimated with `dof` degrees of freedom may really be, relative to the estimate. [draws]

    Drawn by the quantile of a uniform number: the draws for other degrees of freedom are then the same ones, moved.
    """
    from scipy.special import chdtri

    return np.asarray(dof / chdtri(dof, rng.random(DRAWS)), dtype=np.float64)


def _more(
    fusion: Fusion, strays: int, alarm: config.Alarm, window_s: float, hop_s: float
) -> tuple[float | None, int | None]:
    """Further hours of sound like this, and on how many further days, until it supports the budget.

    What a whole calibration needs depends on the variances alone: single windows are taken to stray as they ordinarily
    do, whatever the strays of these recordings happen to be. What is there already is subtracted, so that more of the
    same sound never asks for more. (None, None) when no amount would do, and where strays are proven to be more than
    ordinary: their cause has to go.
    """
    spread = fusion.spread
    if clopper_pearson(strays, spread.windows)[0] > ORDINARY_STRAYS:
        return None, None
    highest = (TOLERANCE - 1 + VOTES_SHARE) * alarm.false_alarms_per_month  # what votes may have of it

    def enough(hours: float, days: int) -> bool:
        windows = max(round(hours * 3600 / hop_s), 2 * days)
        whole = msgspec.structs.replace(
            spread, windows=windows, sessions=days, blocks=min(max(BLOCKS, days), MOST_BLOCKS, windows - 1)
        )
        grown = msgspec.structs.replace(fusion, spread=whole)
        limits = Thresholds.of(alarm, whole, window_s, hop_s)
        case = _Case.of(limits, grown, ORDINARY_STRAYS * windows, alarm, window_s, hop_s)
        return case.interval()[2] <= highest

    plan = next((plan for plan in _PLANS if enough(*plan)), None)
    if plan is None:
        return None, None
    hours, days = plan
    more_days = max(days - spread.sessions, 0)
    more_hours = max(hours - spread.windows * hop_s / 3600, more_days * _LEAST_PER_DAY_H, _LEAST_PER_DAY_H)
    return _ALL_HOURS[min(bisect.bisect_left(_ALL_HOURS, more_hours), len(_ALL_HOURS) - 1)], more_days


def clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    """Exact 90 % interval of a share, `successes` of `trials` seen (Clopper and Pearson, 1934)."""
    from scipy.special import betaincinv

    least = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, 0.05))
    return least, 1.0 if successes >= trials else float(betaincinv(successes + 1, trials - successes, 0.95))
