"""What stays: a deviation too weak for single windows to vote, which does not go away.

Per operating state and detector, the statistics of z over four time scales. A low quantile is lifted by what stays and
not by what passes; its counterpart, a low quantile of what was highest in every block, by what keeps coming back.

    45 s    windows; all of eight exceed it (of short windows, all but one of nine)
    5 min   the last seven blocks of 45 s, their medians; six of seven exceed it
    1 h     the last twelve values of 5 min, medians and highest values; nine of twelve exceed it
    1 day   the last 24 values of 1 h; 18 of 24 exceed it

A detector's limit separates two reasons for which normal sound differs from its calibration:

    limit = m + sqrt((a sd_day)^2 + (b sd_block)^2)

`sd_day` is what a whole day shifts by and is drawn once a day, `sd_block` what a block of 45 s does within a day, drawn
as often as the scale fits into a day: a and b are the normal quantiles of the same budget at these two counts. m and
sd_day begin as the calibration knows them. The blocks of the last half hour then show where today lies: with them m
moves to today's level (a normal posterior) and sd_day shrinks, so that a change during the day need not exceed what
days may differ by. Two things keep this from explaining a fault away. Nothing is learnt while the newest block comes
near the limit, nor from a block before a whole scale has passed since; what came near and has passed widens today's
variation, a step at a time. And m never moves further than two sd_day of the calibration: what creeps there is
reported. The hour and the day have no such reference.

Pure: times come in with the windows. `state` is all there is to keep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent.decide.blocks import SESSION_BREAK_S, Labels
from asd_agent.decide.tail import tail, z_of
from asd_agent.types import Floats, TimeCourse

BLOCK_S = 45.0
SCALES_S = (45.0, 300.0, 3600.0, 86_400.0)
SHARES = (0.4, 0.3, 0.2, 0.1)  # of the budget
LENGTHS = (7, 12, 24)  # values that the three longer scales hold
LOW = (1, 3, 6)  # so many of them may lie below what is reported
PATIENCE = 4.0  # a scale holds values of at most so many times its length: the machine may rest in between
MEMORY = 40  # blocks that the reference remembers: half an hour
DEPENDENCE = 2.0  # neighbouring blocks resemble each other: so many are worth one
SUSPICIOUS = 0.7  # share of the limit from which on a block is not learnt from
FARTHEST = 2.0  # standard deviations of days that the reference may move
PRIOR_BLOCKS, PRIOR_SD = 4, 0.5
FEWEST_BLOCKS = 5  # of a session, be they shorter than BLOCK_S
LARGEST_STEP = 4.0  # standard deviations that a single block may lie away when today is learnt
SMALLEST_SD = 0.15
DAY_S = 86_400.0
DAYS_PER_MONTH = 365.25 / 12


class Steadiness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What blocks of 45 s of normal sound do, in one operating state; lists by detector."""

    detectors: list[str]
    centre: list[float]  # median of a block's z
    high: list[float]  # median of a block's highest z
    day: list[float]  # standard deviation of a later day's median
    block: list[float]  # of a block's median around its day's
    high_block: list[float]  # of a block's highest z around its day's

    @classmethod
    def fit(
        cls, detectors: Sequence[str], z: npt.ArrayLike, session: Labels, drift: float, window_s: float, hop_s: float
    ) -> Self:
        """z [n, detectors] of held-out normals in order of time, the session of each [n]; `drift`: mean square of a
        day's shift beyond what the sessions show (`Spread.drift`)."""
        rows = np.asarray(z, np.float64)
        size, cut = windows_in_block(window_s, hop_s), []
        for name in np.unique(session):
            part = rows[session == name]
            count = max(len(part) // size, min(FEWEST_BLOCKS, len(part) // 2), 1)
            cut += [(name, block) for block in np.array_split(part, count)]
        of = np.array([name for name, _ in cut])
        median = np.array([np.median(block, axis=0) for _, block in cut])
        high = np.array([block.max(axis=0) for _, block in cut])
        centres = np.array([np.median(median[of == name], axis=0) for name in np.unique(of)])
        within = _within(median, of)
        between = _between(centres, within, len(median) / len(centres)) if len(centres) > 1 else np.zeros(rows.shape[1])
        return cls(
            detectors=list(detectors),
            centre=np.median(centres, axis=0).tolist(),
            high=np.median(high, axis=0).tolist(),
            day=np.sqrt(between + drift).tolist(),
            block=within.tolist(),
            high_block=_within(high, of).tolist(),
        )


def _within(values: Floats, of: Labels) -> Floats:
    """Standard deviation of blocks [n, detectors] around their session's median, with a prior of a few blocks."""
    inside = values - np.array([np.median(values[of == name], axis=0) for name in of])
    free = max(len(values) - len(np.unique(of)), 0)
    return np.asarray(np.sqrt((PRIOR_BLOCKS * PRIOR_SD**2 + (inside**2).sum(axis=0)) / (PRIOR_BLOCKS + free)))


def _between(centres: Floats, within: Floats, blocks: float) -> Floats:
    """Variance of a later session's centre [detectors], from centres [sessions, detectors], without what blocks alone
    make of it: the median of `blocks` that vary by `within` (a standard deviation) is no exact one."""
    noise = math.pi / 2 * within**2 / blocks
    seen = np.maximum(centres.var(axis=0, ddof=1) - noise, 0.0)
    return np.asarray(seen * (1 + 1 / len(centres)))


def windows_in_block(window_s: float, hop_s: float) -> int:
    """That BLOCK_S of sound has, at least three."""
    return max(math.floor((BLOCK_S - window_s) / hop_s + 1e-9) + 1, 3)


class Finding(NamedTuple):
    """The strongest evidence that something stays."""

    scale_s: float
    detector: str
    returning: bool  # it keeps coming back, rather than staying
    share: float  # of the limit; from 1 on it is reported
    z: float  # the low quantile
    normal: float  # what is normal today
    limit: float  # of this detector's z alone
    p_value: float  # of a block or longer, as the calibration and today let expect
    since_utc_s: float = 0.0  # the first window of the scale
    windows: int = 0  # of the scale


class Moments(msgspec.Struct, kw_only=True):
    """Where today's blocks lie: mean and mean square deviation [detectors], of the last MEMORY blocks."""

    blocks: int = 0
    mean: list[float] = []
    square: list[float] = []

    def add(self, median: Floats, sd: Floats) -> None:
        """`sd`: of a block, as known so far."""
        if self.blocks:
            median = np.clip(median, np.array(self.mean) - LARGEST_STEP * sd, np.array(self.mean) + LARGEST_STEP * sd)
        self.blocks = min(self.blocks + 1, MEMORY)
        mean = np.array(self.mean) if self.mean else np.zeros(len(median))
        square = np.array(self.square) if self.square else np.zeros(len(median))
        new = mean + (median - mean) / self.blocks
        self.square = (square + ((median - mean) * (median - new) - square) / self.blocks).tolist()
        self.mean = new.tolist()


class Timed(msgspec.Struct, array_like=True):
    utc_s: float
    low: list[float]  # by detector
    high: list[float]
    near: bool = False  # the limit


class Track(msgspec.Struct, kw_only=True):
    """Of one operating state; all there is to keep."""

    windows: list[tuple[float, list[float], int]] = []  # the last block's worth: when, z, index
    fresh: int = 0  # of them since the last block
    near: bool = False  # one of these came near the limit
    blocks: list[Timed] = []
    values: list[Timed] = []  # of 5 min
    hours: list[Timed] = []
    since: tuple[int, int] = (0, 0)  # blocks, and values of 5 min, since the next longer scale had one
    today: tuple[Moments, Moments] = msgspec.field(default_factory=lambda: (Moments(), Moments()))  # 45 s, 5 min
    found: dict[int, Finding] = {}  # by scale


class Persistence:
    """Not thread-safe."""

    def __init__(
        self,
        steadiness: Mapping[str, Steadiness],
        budget_per_month: float,
        window_s: float,
        hop_s: float,
        tracks: dict[str, Track] | None = None,
    ) -> None:
        """`budget_per_month`: days with a false alarm that persistence may have. `tracks`: as kept over a restart."""
        self.tracks = tracks if tracks is not None else {}
        self._size = windows_in_block(window_s, hop_s)
        self._states = {name: _State(known, budget_per_month / len(steadiness)) for name, known in steadiness.items()}

    def update(self, utc_s: float, operating: str, z: Mapping[str, float], index: int = 0) -> Finding | None:
        """One judged window and its index; what is missing is simply not told. -> the strongest evidence of all
        scales."""
        state = self._states.get(operating)
        if state is None:
            return None
        track = self.tracks.setdefault(operating, Track())
        track.windows.append((utc_s, [z[name] for name in state.detectors], index))
        del track.windows[: -self._size]
        track.fresh += 1
        self._short(track, state, utc_s)
        if track.fresh >= self._size:
            self._block(track, state, utc_s)
        return self.strongest(operating)

    def strongest(self, operating: str) -> Finding | None:
        track = self.tracks.get(operating)
        return max(track.found.values(), key=lambda f: f.share, default=None) if track is not None else None

    def course(self, operating: str, found: Finding) -> tuple[TimeCourse, tuple[int, ...]]:
        """How the finding came about, and the indices of the newest windows that count."""
        track, i = self.tracks[operating], self._states[operating].detectors.index(found.detector)
        scale = SCALES_S.index(found.scale_s)
        ring = (track.blocks, track.blocks, track.values, track.hours)[scale]
        points = [(b.utc_s, (b.high if found.returning else b.low)[i]) for b in ring]
        newest = [(utc_s, z[i]) for utc_s, z, _ in track.windows]
        if scale == 0:  # the blocks before them show where it came from
            points = [p for p in points if p[0] < newest[0][0]] + newest
        counting = newest if scale == 0 else points[-LENGTHS[scale - 1] :]
        middle = float(np.median([z for _, z in counting]))
        typical = min(track.windows, key=lambda window: abs(window[1][i] - middle))[2]
        times_s, values = zip(*points, strict=True)
        course = TimeCourse(
            detector=found.detector, scale_s=found.scale_s, times_s=times_s, z=values, normal=found.normal,
            limit=found.limit, typical=typical,
        )  # fmt: skip
        return course, tuple(index for _, _, index in track.windows)

    def _short(self, track: Track, state: _State, utc_s: float) -> None:
        track.found.pop(0, None)
        if len(track.windows) == self._size and utc_s - track.windows[0][0] <= 2 * BLOCK_S:
            rows = [z for _, z, _ in track.windows]
            found = state.judge(0, _quantile(rows, self._size // 9), track.today[0])
            found = found._replace(since_utc_s=track.windows[0][0], windows=self._size)
            track.found[0] = found
            track.near |= state.judge(0, _quantile(rows, self._size // 8), track.today[0]).share >= SUSPICIOUS

    def _block(self, track: Track, state: _State, utc_s: float) -> None:
        rows = [z for _, z, _ in track.windows]
        if track.blocks and utc_s - track.blocks[-1].utc_s > SESSION_BREAK_S:
            track.today = (Moments(), Moments())
        track.blocks.append(Timed(utc_s, _median(rows), [max(z) for z in zip(*rows, strict=True)], track.near))
        del track.blocks[: -(LENGTHS[0] + 2)]
        track.fresh, track.near = 0, False
        for scale, (moments, behind) in enumerate(zip(track.today, (2, LENGTHS[0] + 2), strict=True)):
            if len(track.blocks) >= behind and not track.blocks[-1].near:
                moments.add(np.array(track.blocks[-behind].low), state.block_sd(scale, moments))
        self._longer(track, state, utc_s)

    def _longer(self, track: Track, state: _State, utc_s: float) -> None:
        """A block ends: so may a value of the longer scales."""
        values, hours = track.since
        ring = track.blocks[-LENGTHS[0] :]
        self._keep(track, 1, state.judge_ring(1, ring, utc_s, track.today[1]), ring)
        values += 1
        if values == LENGTHS[0]:
            values, hours = 0, hours + 1
            track.values.append(_summary(ring, utc_s))
            del track.values[: -LENGTHS[1]]
            self._keep(track, 2, state.judge_ring(2, track.values, utc_s), track.values)
            if hours == LENGTHS[1]:
                hours = 0
                track.hours.append(_summary(track.values, utc_s))
                del track.hours[: -LENGTHS[2]]
                self._keep(track, 3, state.judge_ring(3, track.hours, utc_s), track.hours)
        track.since = values, hours

    def _keep(self, track: Track, scale: int, found: Finding | None, ring: Sequence[Timed]) -> None:
        """Of a scale whose values are in the ring."""
        track.found.pop(scale, None)
        if found is not None:
            since_s = ring[0].utc_s - SCALES_S[scale - 1]  # a value is as long as the scale before, and has its end
            windows = self._size * len(ring) * math.prod(LENGTHS[: scale - 1])
            track.found[scale] = found._replace(since_utc_s=since_s, windows=windows)


def _quantile(rows: Sequence[Sequence[float]], lowest: int) -> list[float]:
    """rows [n, detectors] -> [detectors], the value that so many lie below."""
    return [sorted(column)[lowest] for column in zip(*rows, strict=True)]


def _median(rows: Sequence[Sequence[float]]) -> list[float]:
    """rows [n, detectors] -> [detectors]"""
    columns = [sorted(column) for column in zip(*rows, strict=True)]
    return [(column[(len(rows) - 1) // 2] + column[len(rows) // 2]) / 2 for column in columns]


def _summary(ring: Sequence[Timed], utc_s: float) -> Timed:
    """Medians of a scale's values, as one value of the next."""
    return Timed(utc_s, _median([b.low for b in ring]), _median([b.high for b in ring]))


class _Limits(NamedTuple):
    """What a quantile is compared with; all [detectors]."""

    normal: list[float]
    reach: list[float]  # up to the limit
    sd: list[float]  # of a block or longer

    @classmethod
    def of(cls, quantiles: tuple[float, float], normal: Floats, day_var: Floats, block_var: Floats) -> Self:
        a, b = quantiles
        reach = np.sqrt(a**2 * day_var + b**2 * block_var)
        return cls(normal.tolist(), reach.tolist(), np.sqrt(day_var + block_var).tolist())


class _State:
    """An operating state's calibration as arrays [detectors], and the limits that a budget makes of it."""

    def __init__(self, known: Steadiness, budget_per_month: float) -> None:
        self.detectors = known.detectors
        self._centre, self._high = np.array(known.centre), np.array(known.high)
        self._day_var = np.array(known.day) ** 2
        self._block_var, self._high_var = np.array(known.block) ** 2, np.array(known.high_block) ** 2
        self._quantiles = [self._quantile(i, budget_per_month / DAYS_PER_MONTH) for i in range(len(SCALES_S))]
        self._high_limits = [_Limits.of(q, self._high, self._day_var, self._high_var) for q in self._quantiles]
        # scale -> the mean of today that they belong to, the limits, and the standard deviation of a block
        self._known: dict[int, tuple[list[float], _Limits, Floats]] = {}

    def _quantile(self, scale: int, budget_per_day: float) -> tuple[float, float]:
        """(a, b) of the limit."""
        chance = min(SHARES[scale] * budget_per_day / len(self.detectors) / (2 if scale >= 2 else 1), 0.4)
        return z_of(chance), z_of(chance * SCALES_S[scale] / DAY_S)

    def block_sd(self, scale: int, today: Moments) -> Floats:
        return self._follow(scale, today)[2]

    def judge(self, scale: int, low: Sequence[float], today: Moments) -> Finding:
        """low [detectors] against today."""
        return self._strongest(scale, low, self._follow(scale, today)[1], returning=False)

    def _follow(self, scale: int, today: Moments) -> tuple[list[float], _Limits, Floats]:
        """What changes with a block: then `Moments.add` makes another list of means."""
        known = self._known.get(scale)
        if known is None or known[0] is not today.mean:
            now = self._today(today)
            limits = _Limits.of(self._quantiles[scale], *now)
            known = self._known[scale] = today.mean, limits, np.asarray(np.sqrt(now[2]))
        return known

    def judge_ring(
        self, scale: int, ring: Sequence[Timed], utc_s: float, today: Moments | None = None
    ) -> Finding | None:
        """The low quantile of the last values; None until there are enough."""
        if len(ring) < LENGTHS[scale - 1] or utc_s - ring[0].utc_s > PATIENCE * SCALES_S[scale]:
            return None
        low = _quantile([b.low for b in ring], LOW[scale - 1])
        staying = self.judge(scale, low, today or Moments())
        if scale < 2:
            return staying
        high = _quantile([b.high for b in ring], LOW[scale - 1])
        returning = self._strongest(scale, high, self._high_limits[scale], returning=True)
        return max(staying, returning, key=lambda f: f.share)

    def _today(self, today: Moments) -> tuple[Floats, Floats, Floats]:
        """Normal level, variance of it, variance of a block; each [detectors]."""
        if not today.blocks:
            return self._centre, self._day_var, self._block_var
        n = today.blocks
        block_var = (PRIOR_BLOCKS * self._block_var + n * np.array(today.square)) / (PRIOR_BLOCKS + n)
        block_var = np.maximum(block_var, SMALLEST_SD**2)
        noise = block_var * DEPENDENCE / n
        trust = self._day_var / (self._day_var + noise)
        most = FARTHEST * np.sqrt(self._day_var)
        normal = self._centre + trust * np.clip(np.array(today.mean) - self._centre, -most, most)
        return normal, trust * noise, block_var

    def _strongest(self, scale: int, q: Sequence[float], limits: _Limits, returning: bool) -> Finding:
        """In plain Python: for a handful of detectors a call of numpy costs more than all of this."""
        share = [(value - n) / r for value, n, r in zip(q, limits.normal, limits.reach, strict=True)]
        i = max(range(len(share)), key=share.__getitem__)
        strongest = sorted(share)[-2:]
        normal = limits.normal[i]
        return Finding(
            scale_s=SCALES_S[scale],
            detector=self.detectors[i],
            returning=returning,
            share=sum(strongest) / len(strongest),
            z=q[i],
            normal=normal,
            limit=normal + limits.reach[i],
            p_value=tail((q[i] - normal) / limits.sd[i]),
        )
