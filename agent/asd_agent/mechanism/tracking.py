"""Order tracking: follow a drifting speed through the window and resample at equal angles.

A harmonic k smears over k * df: with three harmonics of a bearing line at 15 x shaft a drift of 0.2 % is already two
bins of a 10 s window. The track is the best path (Viterbi) through comb scores of short frames, smoothed by a
parabola.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from asd_agent.mechanism.spectrum import Spectrum, block_medians, fast_length, local_maximum, transform
from asd_agent.mechanism.speed import comb_near
from asd_agent.types import Samples

FRAME_S = 1.0
TEETH = 12
REACH = 0.06  # how far the speed may wander from its mean
STEP = 0.001
MAX_STEPS = 10  # per frame
LIMIT = 0.0015  # a smaller drift is left alone
PASSES = 2
SHARPER = 1.0  # standard scores that the comb must gain by following the track


@dataclass(frozen=True, slots=True)
class Track:
    times_s: npt.NDArray[np.float64]  # [frames] centres
    hz: npt.NDArray[np.float64]  # [frames] smoothed speed
    gain: float  # how much better than a constant speed, in standard deviations of the score

    @property
    def drift(self) -> float:
        """Peak to peak, relative to the mean."""
        return float(np.ptp(self.hz) / self.hz.mean())

    @property
    def worth_trying(self) -> bool:
        return self.gain > 0.15 and self.drift > LIMIT


def track(spectrum: Spectrum, hz: float) -> Track | None:
    """None when the window is too short to follow anything (less than four frames)."""
    power, df = _frames(spectrum, (TEETH + 1) * hz * (1 + REACH))
    if len(power) < 4:
        return None
    prominence = _prominence(power, df)
    grid = hz * np.exp(np.arange(-REACH, REACH + STEP / 2, STEP))
    teeth = np.rint(np.arange(1, TEETH + 1)[:, None] * grid / df).astype(int)
    between = np.rint(np.arange(0.5, TEETH)[:, None] * grid / df).astype(int)
    scores = prominence.take(teeth, axis=1, mode="clip").sum(axis=1, dtype=np.float64)
    scores -= 0.5 * prominence.take(between, axis=1, mode="clip").sum(axis=1)
    path = _best_path(scores)
    times = np.asarray((np.arange(len(power)) + 0.5) * FRAME_S, np.float64)
    smooth = np.polyval(np.polyfit(times, np.log(grid[path]), 2), times)
    constant = scores.sum(axis=0).max()
    followed = np.rint((smooth - np.log(grid[0])) / STEP).clip(0, len(grid) - 1).astype(int)
    moved = scores[np.arange(len(power)), followed].sum()
    noise = float(np.std(scores)) * np.sqrt(len(power)) + 1e-9
    return Track(times, np.asarray(np.exp(smooth), np.float64), float((moved - constant) / noise))


def _frames(spectrum: Spectrum, top_hz: float) -> tuple[Samples, float]:
    """[frames, bins] of power of the signal below `top_hz` only: a crop of the spectrum, decimated; no overlap."""
    keep = min(len(spectrum.bins) - 1, int(top_hz / spectrum.df_hz) + 1)
    keep = max(4, fast_length(keep))
    slow = scipy.fft.irfft(spectrum.bins[: keep + 1], n=2 * keep)
    rate = 2 * keep * spectrum.df_hz
    width = round(FRAME_S * rate)
    if len(slow) < width:
        return np.zeros((0, 1), np.float32), 1.0
    views = np.lib.stride_tricks.sliding_window_view(slow, width)[::width]
    bins = scipy.fft.rfft(views * np.hanning(width).astype(np.float32), n=2 * width, axis=1)
    return np.asarray(bins.real**2 + bins.imag**2), rate / (2 * width)


def _prominence(power: Samples, df_hz: float) -> Samples:
    log_power = np.log10(power + 1e-12)
    width = max(5, round(12.0 / df_hz))
    medians = block_medians(log_power, width)
    floor = np.repeat(medians, width, axis=1)
    floor = np.pad(floor, ((0, 0), (0, log_power.shape[1] - floor.shape[1])), mode="edge")
    return local_maximum(np.clip(log_power - floor, -0.3, 2.0))


def _best_path(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """[frames, states] -> [frames]; a step of s states costs 0.02 s^2 and is at most MAX_STEPS."""
    total = scores[0].copy()
    came_from = np.zeros(scores.shape, int)
    steps = np.arange(-MAX_STEPS, MAX_STEPS + 1)
    cost = 0.02 * steps**2
    for frame in range(1, len(scores)):
        padded = np.pad(total, MAX_STEPS, constant_values=-np.inf)
        options = np.lib.stride_tricks.sliding_window_view(padded, len(steps)) - cost
        best = options.argmax(axis=1)
        came_from[frame] = np.arange(len(total)) + steps[best]
        total = options[np.arange(len(total)), best] + scores[frame]
    path = np.empty(len(scores), int)
    path[-1] = int(total.argmax())
    for frame in range(len(scores) - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path


def straighten(spectrum: Spectrum, hz: float) -> tuple[Spectrum, float] | None:
    """(the window at equal shaft angles, its mean speed), where the speed drifts and following it makes the comb
    sharper; else None. A large drift is followed twice: the first track is drawn through smeared lines."""
    best: tuple[Spectrum, float] | None = None
    for _ in range(PASSES):
        angular, mean = best if best is not None else (spectrum, hz)
        path = track(angular, mean)
        if path is None or not path.worth_trying:
            break
        straight = transform(resample_to_angle(angular.samples, angular.rate_hz, path), angular.rate_hz)
        before = comb_near(angular, mean, path.drift + 0.002, TEETH)
        after = comb_near(straight, float(path.hz.mean()), 0.004, TEETH)
        if after.z < before.z + SHARPER:
            break
        best = straight, after.hz
    return best


def resample_to_angle(samples: Samples, rate_hz: int, found: Track) -> Samples:
    """[n] -> [n] at equal steps of shaft angle, so that the spectrum's axis is right for the window's mean speed.

    The signal is interpolated linearly after a fourfold band-limited upsampling.
    """
    n = 2 * fast_length(len(samples) // 2)
    fine = scipy.fft.irfft(scipy.fft.rfft(samples[:n]), n=4 * n) * np.float32(4)
    t = np.arange(n) / rate_hz
    speed = np.interp(t, found.times_s, found.hz, left=None, right=None)
    angle = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2) / rate_hz])
    even = np.linspace(0.0, angle[-1], n)
    when = np.interp(even, angle, t)
    return np.asarray(np.interp(when * 4 * rate_hz, np.arange(4 * n, dtype=np.float64), fine), np.float32)
