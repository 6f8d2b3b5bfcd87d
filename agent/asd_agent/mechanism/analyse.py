"""From a window to named indicators. Pure: the same samples give the same numbers, live, replayed or calibrating."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from asd_agent.config.kinematics import Mechanism
from asd_agent.mechanism import lines, tracking
from asd_agent.mechanism.bands import bands
from asd_agent.mechanism.cepstrum import cepstrum
from asd_agent.mechanism.envelope import Envelope, envelope, gain, mute, periods, train_strength
from asd_agent.mechanism.gates import gates
from asd_agent.mechanism.kurtosis import kurtosis
from asd_agent.mechanism.orders import orders
from asd_agent.mechanism.shaft_speed import SpeedRange
from asd_agent.mechanism.shape import level, shape
from asd_agent.mechanism.spectrum import Spectrum, transform
from asd_agent.mechanism.speed import DEFAULT_RANGE_HZ, WIDEST_RANGE_HZ, Speed, find, refine
from asd_agent.mechanism.wavelet import wavelet
from asd_agent.types import Floats, Samples

ENVELOPE_TOP_HZ = 700.0
VANES_FROM_HZ = 1500.0
TOP_TILES = 3  # of the tiles, those that show a train best


@dataclass(frozen=True, slots=True)
class Indicators:
    """`values` is all that calibration and judgement need: about 150 to 250 floats named "family.what"."""

    values: Mapping[str, float]
    speed: Speed | None = None
    gates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Analysis:
    """A window taken apart: what localisation and pictures look at."""

    spectrum: Spectrum  # as recorded
    speed: Speed | None
    angular: Spectrum  # at equal shaft angles when the speed drifts, else the same object
    envelope: Envelope  # of `angular`
    drifting: bool = False  # `angular` differs from `spectrum`


@dataclass(frozen=True)
class Analyser:
    """One per machine and rate; holds nothing that changes."""

    config: Mechanism
    rate_hz: int
    groups: list[lines.LineGroup] = field(init=False)
    trains: list[lines.Train] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", lines.groups(self.config))
        object.__setattr__(self, "trains", lines.trains(self.config))

    def indicators(self, samples: Samples, speed: Speed | None = None) -> Indicators:
        """samples [n] at `rate_hz`. `speed`: given by a topic or a person; None = configured or estimated.

        A window that cannot be judged gives its gates (also as values "gate.<reason>") and, if finite, its level.
        """
        reasons = gates(samples, self.rate_hz) + (("stopped",) if speed is not None and not speed.running else ())
        if reasons:
            known = level(samples) if not set(reasons) & {"nan", "short"} else {}
            return Indicators(known | {f"gate.{r}": 1.0 for r in reasons}, speed, reasons)
        return self.describe(samples, self.analyse(samples, speed))

    def describe(self, samples: Samples, whole: Analysis) -> Indicators:
        """The indicators of a window that has been taken apart already."""
        return Indicators(level(samples) | self._families(whole), whole.speed)

    def analyse(self, samples: Samples, speed: Speed | None = None) -> Analysis:
        """samples [n] that pass the gates."""
        spectrum = transform(samples, self.rate_hz)
        found = self.find_speed(spectrum, speed)
        high_orders = bool(self.trains or self.config.gears or self.config.blades)
        straight = tracking.straighten(spectrum, found.hz) if found is not None and high_orders else None
        if found is None or straight is None:
            return Analysis(spectrum, found, spectrum, envelope(spectrum, self.envelope_top_hz(found)))
        angular, mean_hz = straight
        found = Speed(mean_hz, found.source, found.confidence, tolerance=0.002)
        return Analysis(spectrum, found, angular, envelope(angular, self.envelope_top_hz(found)), drifting=True)

    def find_speed(self, spectrum: Spectrum, given: Speed | None) -> Speed | None:
        """Given by a topic or configured, then sharpened by the sound; else estimated, or None when unsure."""
        if given is not None:
            return refine(spectrum, given)
        if self.config.shaft_hz is not None:
            nominal = Speed(self.config.shaft_hz, "configured", tolerance=max(self.config.speed_tolerance, 0.001))
            return refine(spectrum, nominal)
        return find(spectrum, *(self.config.shaft_range_hz or DEFAULT_RANGE_HZ))

    def speed_range(self, given: Speed | None) -> SpeedRange:
        """Where the reference shaft's speed may lie by what was given or configured, before anything is heard."""
        if given is not None:
            return SpeedRange.around(given.hz, given.tolerance + 0.001)
        if self.config.shaft_hz is not None:
            return SpeedRange.around(self.config.shaft_hz, self.config.speed_tolerance + 0.001)
        return SpeedRange(*(self.config.shaft_range_hz or WIDEST_RANGE_HZ))

    def envelope_top_hz(self, speed: Speed | None) -> float:
        """High enough for three harmonics of every bearing line with its sidebands."""
        highest = max((3 * t.order + (t.spacing or 0.0) for t in self.trains), default=0.0)
        fastest = self.config.shaft_hz or (self.config.shaft_range_hz or (0.0, 0.0))[1] or (speed.hz if speed else 0.0)
        return float(np.clip(1.05 * highest * fastest, ENVELOPE_TOP_HZ, 0.2 * self.rate_hz))

    def _families(self, whole: Analysis) -> dict[str, float]:
        speed = whole.speed
        shaft_hz = speed.hz if speed is not None else None
        values = shape(whole.spectrum) | bands(whole.spectrum) | wavelet(whole.spectrum) | kurtosis(whole.spectrum)
        values |= cepstrum(whole.angular, shaft_hz) | periods(whole.envelope)
        values |= orders(whole.angular, self.groups, shaft_hz, speed.tolerance if speed else 0.001)
        if speed is not None:
            values |= self._train_strengths(whole.envelope, speed) | self._vane_lines(whole.envelope, speed)
            values["context.speed_hz"] = speed.hz
        return values

    def _train_strengths(self, env: Envelope, speed: Speed) -> dict[str, float]:
        if not self.trains:
            return {}
        muted = self.known_lines_hz(speed.hz, env.top_hz)
        gains = gain(mute(np.concatenate([env.full[None], env.tiles]), env.df_hz, muted))
        out: dict[str, float] = {}
        for train in self.trains:
            bases = train_bases_hz(train, speed, env.df_hz)
            spacing = None if train.spacing is None else train.spacing * speed.hz
            best = train_strength(gains, env.df_hz, bases, spacing).max(axis=1)
            out[f"envelope.{train.name}.full"] = float(best[0])
            out[f"envelope.{train.name}.tiles"] = float(np.sort(best[1:])[-TOP_TILES:].mean())
        return out

    def _vane_lines(self, env: Envelope, speed: Speed) -> dict[str, float]:
        """How strongly the noise of the bands above VANES_FROM_HZ swells at the rate of blades or vanes, in the half of
        the bands that show it most."""
        out = {}
        bands = env.tiles[[i for i in range(len(env.tiles)) if env.tile_band(i)[1] > VANES_FROM_HZ]]
        for part in self.config.blades:
            at = round(part.count * self.config.ratio(part.shaft) * speed.hz / env.df_hz)
            if 2 <= at < bands.shape[1] - 2:
                power = np.sort(bands[:, at - 1 : at + 2].max(axis=1))
                out[f"envelope.{part.name}.vanes"] = float(np.log(power[len(power) // 2 :].mean() + 0.1))
        return out

    def known_lines_hz(self, shaft_hz: float | None, top_hz: float) -> Floats:
        """Harmonics of every shaft and of the mains: in the envelope they are no evidence of a bearing."""
        ratios = [1.0, *(s.ratio for s in self.config.shafts)] if shaft_hz is not None else []
        bases = [ratio * (shaft_hz or 0.0) for ratio in ratios]
        bases += [self.config.mains_hz] if self.config.mains_hz is not None else []
        return np.concatenate([np.zeros(0), *(np.arange(1, int(top_hz / base) + 1) * base for base in bases)])


def train_bases_hz(train: lines.Train, speed: Speed, df_hz: float) -> Floats:
    """Where the first line of a train may lie: the slip of the cage and the uncertainty of the speed, in steps that do
    not miss the third harmonic."""
    centre = train.order * speed.hz
    low = centre * (1 + train.slip[0] - speed.tolerance) - df_hz / 2
    high = centre * (1 + train.slip[1] + speed.tolerance) + df_hz / 2
    return np.arange(low, high, df_hz / 3)
