"""What `calibrate` learnt about one machine: the manifest, as plain typed data, and its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt

from asd_agent import config
from asd_agent.decide.budget import Thresholds
from asd_agent.decide.fusion import Fusion
from asd_agent.decide.logscore import LogScore
from asd_agent.decide.persistence import Steadiness
from asd_agent.decide.support import Support
from asd_agent.types import Cause, WindowRef
from asd_agent.windowing.reference import RoomNormal
from asd_agent.windowing.signal_chain import SignalChain

FORMAT = 2  # 1: scores fused by Fisher's rule
Arrays = dict[str, npt.NDArray[Any]]


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A window that the calibration did not use."""

    window: WindowRef
    causes: tuple[Cause, ...]


class Outlier(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration window that exceeds the limit itself when it is held out."""

    window: WindowRef
    score: float  # in held-out units
    limit: float  # in the same units
    state: str  # the operating state
    clip: str = ""  # file to listen to, relative to the state directory; live sound only


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a calibration is worth, in numbers and in plain words."""

    windows: int
    seconds: float
    excluded: dict[Cause, int]  # why -> windows; a window with several causes counts for the first
    left_out: list[LeftOut]  # the first of them
    outliers: list[Outlier] = []  # used, but beyond the limit when held out; numbered from 1 for `calibrate --exclude`
    support: Support  # the false-alarm rate that this calibration can promise
    budget_per_month: float
    verdict: str  # the calibration in one sentence
    facts: list[str]  # the numbers behind it, a sentence each
    concerns: list[str]  # what is not good about it, and what to do

    @property
    def good(self) -> bool:
        return self.support.supported and not self.concerns

    @property
    def advice(self) -> list[str]:
        """What a person should read: the verdict, and what is not good."""
        return [self.verdict, *(f"{line[0].upper()}{line[1:]}." for line in self.concerns)]


class DetectorCalibration(msgspec.Struct, frozen=True, kw_only=True):
    kind: str  # of its bank, or "mechanism"
    log_score: LogScore | None = None  # None for the mechanism analysis, which calibrates itself


class StateCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """One operating state: its detectors, and what their scores do there."""

    name: str
    windows: int
    level_dbfs: float  # median
    detectors: dict[str, DetectorCalibration]
    fused: list[str]  # the detectors that decide
    fusion: Fusion
    embedding_fusion: Fusion | None = None  # of the embeddings alone, where other detectors decide too
    steadiness: Steadiness | None = None  # what its blocks of 45 s do
    transient: LogScore | None = None  # of the excess of the strongest transient
    transients_per_hour: float = 0.0  # transients of the calibration beyond the limit of the event rate
    room: RoomNormal | None = None  # what the reference microphone heard, where there is one
    extends: str = ""  # the state whose measure of distance it borrows, having too few windows of its own


class Nuisance(msgspec.Struct, frozen=True, kw_only=True):
    """Log odds of the summed probability of a family of nuisance sounds on normal windows."""

    median: float
    scale: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    version: str
    machine: str
    created_utc_s: float
    window_s: float
    hop_s: float
    bundles: dict[str, str]  # name -> sha256 of its bundle.json
    states: list[StateCalibration]  # by rising level, extensions last
    chain: SignalChain
    report: Report
    nuisance: dict[str, Nuisance] = {}  # by family of sounds
    states_reported: bool = False  # over MQTT by the machine's controller; else they were found in the sound

    @property
    def detectors(self) -> list[str]:
        """Names over all states."""
        return list(dict.fromkeys(name for state in self.states for name in state.detectors))

    @property
    def knows_room(self) -> bool:
        """Whether a reference microphone was there."""
        return any(state.room is not None for state in self.states)

    def thresholds(self, machine: config.Machine) -> Thresholds:
        """What the alarm settings of the machine make of what was learnt."""
        spreads = [state.fusion.spread for state in self.states]
        return Thresholds.strictest(machine.alarm, spreads, machine.window_s, machine.hop_s)


class Pointers(msgspec.Struct, frozen=True, kw_only=True):
    active: str | None = None
    previous: str | None = None
    candidate: str | None = None


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    manifest: Manifest
    arrays: Arrays  # "<state>/<detector>/<array>" -> values
    bundles: Path | None = None  # folder of the bundles that have come with baselines, by checksum

    def part(self, name: str) -> Arrays:
        """The arrays under a prefix, "<state>/<detector>", without it."""
        return {k[len(name) + 1 :]: v for k, v in self.arrays.items() if k.startswith(name + "/")}


def prefixed(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {f"{name}/{key}": value for key, value in arrays.items()}
