"""Does a value grow, how fast, and since when? For scores and indicators over days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from asd_agent.errors import UsageError
from asd_agent.types import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DAY_S = 86_400.0
FEWEST = 8
POINTS = 200  # medians of equal stretches of time: robust, and quick for months of windows
SIGNIFICANT = 0.01
ONSET_GAIN = 0.15  # share of the error that a bend must explain to be spoken of


@dataclass(frozen=True, slots=True)
class Trend:
    name: str
    last: float  # median of the newest tenth
    change: float  # over the whole time, by the slope
    slope_per_day: float  # Theil-Sen
    p_value: float  # Mann-Kendall, two-sided; 1 when there is too little to say
    since_utc_s: float | None  # where the growth began, None = all along or no growth
    points: int
    span_s: float = 0.0  # that the windows cover

    @property
    def growing(self) -> bool:
        return self.p_value < SIGNIFICANT and self.slope_per_day > 0

    @property
    def words(self) -> str:
        """ "growing since Tuesday 14:00, +0.8 per day" """
        if self.p_value >= SIGNIFICANT:
            return "steady" if self.points >= FEWEST else "too few windows"
        verb = "growing" if self.slope_per_day > 0 else "falling"
        return f"{verb}{_since(self.since_utc_s)}, {self.speed_words}"

    @property
    def speed_words(self) -> str:
        """How much it changes a day; over less than a day, what it changed in all."""
        if self.span_s < DAY_S:
            return f"{self.change:+.2g} within {self.span_s / 3600:.1f} h"
        return f"{self.slope_per_day:+.2g} per day"


def fit(name: str, utc_s: Sequence[float] | Floats, values: Sequence[float] | Floats) -> Trend:
    """utc_s [n] in any order, values [n]; values that are not finite are left out."""
    times, levels = _medians(np.asarray(utc_s, float), np.asarray(values, float))
    last = float(np.median(levels[-max(1, len(levels) // 10) :])) if len(levels) else float("nan")
    if len(levels) < FEWEST or times[-1] <= times[0]:
        return Trend(name, last, 0.0, 0.0, 1.0, None, len(levels), float(np.ptp(times)) if len(times) else 0.0)
    onset, residual = _bend(times, levels)
    p = _mann_kendall(levels, residual)
    from_bend = times >= onset if onset is not None and p < SIGNIFICANT else np.ones(len(times), bool)
    slope = _theil_sen(times[from_bend], levels[from_bend]) * DAY_S
    change = slope * float(np.ptp(times[from_bend])) / DAY_S
    since = onset if slope > 0 and p < SIGNIFICANT else None
    return Trend(name, last, change, slope, p, since, len(levels), float(np.ptp(times)))


def _theil_sen(times: Floats, levels: Floats) -> float:
    upper = np.triu_indices(len(levels), 1)
    return float(np.median((levels[None] - levels[:, None])[upper] / (times[None] - times[:, None])[upper]))


def _medians(utc_s: Floats, values: Floats) -> tuple[Floats, Floats]:
    """(times, medians) of at most POINTS stretches of equal time that hold anything."""
    known = np.isfinite(values) & np.isfinite(utc_s)
    order = np.argsort(utc_s[known], kind="stable")
    utc_s, values = utc_s[known][order], values[known][order]
    if len(values) <= POINTS:
        return utc_s, values
    cell = np.minimum(((utc_s - utc_s[0]) / (utc_s[-1] - utc_s[0] + 1e-9) * POINTS).astype(int), POINTS - 1)
    cells = np.unique(cell)
    return (
        np.array([np.median(utc_s[cell == c]) for c in cells]),
        np.array([np.median(values[cell == c]) for c in cells]),
    )


def _mann_kendall(levels: Floats, residual: Floats) -> float:
    """Two-sided p, with the variance enlarged for the correlation of what the trend leaves (Hamed & Rao 1998)."""
    n = len(levels)
    s = float(np.sign(levels[None] - levels[:, None])[np.triu_indices(n, 1)].sum())
    variance = n * (n - 1) * (2 * n + 5) / 18
    ranks = np.argsort(np.argsort(residual)).astype(float)
    lag = max(0.0, float(np.corrcoef(ranks[1:], ranks[:-1])[0, 1])) if np.ptp(residual) > 0 else 0.0
    variance *= 1 + 2 * lag / (1 - min(lag, 0.95))
    z = (abs(s) - 1) / np.sqrt(variance) if s else 0.0
    return float(min(1.0, 2 * ndtr(-z)))


def _bend(times: Floats, levels: Floats) -> tuple[float | None, Floats]:
    """(time, residual) of the best "constant, then a straight line"; no time when a line from the start does nearly as
    well."""
    residuals = []
    for bend in range(len(levels) - 4):
        x = np.maximum(times - times[bend], 0.0)
        design = np.stack((np.ones_like(x), x / (times[-1] - times[0])), axis=1)
        residuals.append(levels - design @ np.linalg.lstsq(design, levels, rcond=None)[0])
    errors = [float(np.abs(r).sum()) for r in residuals]
    best = int(np.argmin(errors))
    bent = best > 2 and errors[best] < (1 - ONSET_GAIN) * errors[0]
    return (float(times[best]) if bent else None), residuals[best]


def _since(utc_s: float | None) -> str:
    if utc_s is None:
        return ""
    when = dt.datetime.fromtimestamp(utc_s).astimezone()
    recent = (dt.datetime.now(dt.UTC) - when).days < 7
    return " since " + when.strftime("%A %H:%M" if recent else "%Y-%m-%d")


def _local(utc_s: npt.ArrayLike) -> npt.NDArray[np.datetime64]:
    """[n] local times, as matplotlib shows times without a zone as they are."""
    local = [dt.datetime.fromtimestamp(float(t)).replace(microsecond=0) for t in np.asarray(utc_s, float)]
    return np.array(local, dtype="datetime64[s]")


def _limit_and_alarms(axes: Axes, limit: tuple[Floats, Floats] | None, alarms: Sequence[tuple[float, float]]) -> None:
    if limit is not None:
        axes.step(_local(limit[0]), limit[1], where="post", color="tab:orange", linewidth=1.2, label="limit")
    for i, (raised, cleared) in enumerate(alarms):
        label = "alarm" if i == 0 else None
        axes.axvspan(*_local([raised, cleared]), color="tab:red", alpha=0.2, linewidth=0, label=label)
    if limit is not None or alarms:
        axes.legend(loc="upper left", fontsize=8)


def trend_plot(
    path: str | Path,
    series: Sequence[tuple[str, Floats, Floats]],
    title: str = "",
    limit: tuple[Floats, Floats] | None = None,
    alarms: Sequence[tuple[float, float]] = (),
) -> None:
    """One axis a series (name, utc_s [n], values [n]), of which the first is the score.

    Its axis also shows `limit` (utc_s [m], score [m]), from which a window deviates, and `alarms` (raised and cleared,
    utc_s). Times are local ones. Raises UsageError without matplotlib.
    """
    try:
        from matplotlib.dates import ConciseDateFormatter
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise UsageError("the picture needs matplotlib: pip install 'asd-agent[plot]'") from exc
    figure = Figure(figsize=(11, 2.4 * len(series) + 0.6), layout="constrained")
    for axes, (name, utc_s, values) in zip(figure.subplots(len(series), 1, squeeze=False)[:, 0], series, strict=True):
        when = _local(utc_s)
        trend = fit(name, utc_s, values)
        axes.plot(when, values, ".", markersize=2, color="0.6")
        times, medians = _medians(np.asarray(utc_s, float), np.asarray(values, float))
        axes.plot(_local(times), medians, color="tab:red" if trend.growing else "tab:blue", linewidth=1.2)
        if trend.since_utc_s is not None and trend.growing:
            axes.axvline(_local([trend.since_utc_s])[0], color="tab:red", linestyle="--", linewidth=1)
        if name == series[0][0]:
            _limit_and_alarms(axes, limit, alarms)
        axes.set_title(f"{name}: {trend.words}", loc="left", fontsize=10)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))  # type: ignore[no-untyped-call]
        axes.grid(alpha=0.3)
    figure.suptitle(title, x=0.01, ha="left")
    figure.savefig(path, dpi=110)
