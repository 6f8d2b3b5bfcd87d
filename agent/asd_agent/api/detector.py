"""`Detector`: one machine's normal sound, as an object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
import numpy as np
import numpy.typing as npt

from asd_agent import config
from asd_agent.baseline import Baseline, BaselineStore
from asd_agent.calibration.build import build
from asd_agent.capture import open_source
from asd_agent.capture.base import Source
from asd_agent.errors import BaselineError, StoreError, UsageError
from asd_agent.files import write_whole
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.types import Block, Description, Samples, Window, WindowResult
from asd_agent.windowing import signal_chain
from asd_agent.windowing.windower import Windower

MACHINE_FILE = "machine.json"


@dataclass(frozen=True, slots=True)
class Score:
    """One window. Scores are high = anomalous."""

    start_s: float  # since the beginning of the array, or of the stream
    duration_s: float
    utc_s: float  # of live sound, seconds since 1970; 0 for arrays
    state: Literal["normal", "anomalous", "not_assessable", "off"]
    score: float | None  # -log10 p_value; None where the window cannot be judged
    p_value: float | None  # that a later normal window is as far out
    quality: tuple[str, ...]  # why it cannot be judged: "gap", "clipping", "silence", ...
    reason: str  # for people: component, band
    operating: str  # the operating state that the sound belongs to
    distances: dict[str, float]  # by detector
    z: dict[str, float]  # by detector: standard score on held-out normal windows

    @classmethod
    def of(cls, result: WindowResult) -> Self:
        return cls(
            start_s=result.start_s,
            duration_s=result.duration_s,
            utc_s=result.utc_s,
            state=result.state.value,  # type: ignore[arg-type]  # there is a baseline: never "learning"
            score=result.score,
            p_value=result.p_value,
            quality=tuple(cause.value for cause in result.quality.causes),
            reason=result.reason,
            operating=result.operating,
            distances={d.name: d.distance for d in result.detectors},
            z={d.name: d.z for d in result.detectors},
        )


class Detector:
    """Judges windows of sound by a baseline. Immutable, and safe to share between threads.

    Made by `calibrate`, `load` or `from_baseline`. The computation is the daemon's: the same sound gets the same score.
    Votes over several windows, alarms and their life are the daemon's business.
    """

    def __init__(self, machine: config.Machine, baseline: Baseline) -> None:
        """Use one of the class methods. Raises BundleError, BaselineError."""
        self._machine, self._baseline = machine, baseline
        self._pipeline = open_pipeline(machine, baseline)

    @classmethod
    def calibrate(
        cls,
        x: npt.ArrayLike | Sequence[npt.ArrayLike],
        rate_hz: int,
        *,
        occasions: Sequence[object] | None = None,
        name: str = "machine",
        window_s: float = 10.0,
        hop_s: float = 5.0,
        bundle: str | Sequence[str] = "default",
        mechanism: dict[str, Any] | None = None,
        false_alarms_per_month: float = 1.0,
        distance: str | None = None,
    ) -> Self:
        """Learn what normal sounds like.

        Args:
            x: normal sound, float in [-1, 1], [samples] of one channel; or several such arrays, cut apart.
            rate_hz: sampling rate of all of them.
            occasions: for each array, what tells its occasion of recording (a day, a shift). Occasions show how much
                normal sound varies; several make a calibration worth much more.
            name: id of the machine.
            window_s: length of a window, seconds.
            hop_s: from one window to the next, seconds.
            bundle: encoder bundle, or several: shipped names, or paths of folders.
            mechanism: what turns, with the keys of `mechanism` in agent.yaml, such as `{"shaft_hz": 24.9}`.
            false_alarms_per_month: budget that the limit follows from.
            distance: kind of distance instead of the bundle's: a built-in one, or an `asd_agent.detectors` plug-in.

        Raises:
            UsageError: an argument is not valid.
            CalibrationError: there is too little usable sound.
            BundleError: the bundle cannot be used, or wants a higher rate.
        """
        recordings = _arrays(x)
        if occasions is not None and len(occasions) != len(recordings):
            raise UsageError(f"occasions: {len(occasions)} for {len(recordings)} arrays")
        machine = _machine(
            id=name,
            window_s=window_s,
            hop_s=hop_s,
            bundle=bundle if isinstance(bundle, str) else list(bundle),
            mechanism=mechanism,
            alarm={"false_alarms_per_month": false_alarms_per_month},
            distance=distance,
        )
        pipeline = open_pipeline(machine, None)
        sampler = signal_chain.Sampler(signal_chain.EVERY_WHILE_CALIBRATING_S)
        found: list[Description] = []
        for number, samples in enumerate(recordings):
            origin = f"{occasions[number] if occasions is not None else 0}/{number}"
            windows = _windows(pipeline, samples, rate_hz, origin)
            found += [sampler.add(window, pipeline.describe(window)) for window in windows]
        return cls(machine, build(machine, found, pipeline, "1"))

    def score(self, x: npt.ArrayLike, rate_hz: int) -> list[Score]:
        """The scores of all windows in x, float [samples] of one channel at `rate_hz`.

        Raises UsageError for a wrong shape, SourceError for a rate below the bundle's.
        """
        (samples,) = _arrays([x])
        return [self._score(window) for window in _windows(self._pipeline, samples, rate_hz, "")]

    def listen(self, source: str | dict[str, Any] | Source, channel: int = 0) -> Iterator[Score]:
        """Scores of live sound, one a hop, until a finite source ends.

        `source`: a sound card by stable name ("usb-id:0d8c:0014"), the keys of `source` in agent.yaml, or an open
        `Source` (which stays open). While a device delivers nothing, nothing is yielded. Raises SourceError.
        """
        if isinstance(source, Source):
            yield from self._listen(source, channel)
            return
        keys = {"kind": "microphone", "device": source} if isinstance(source, str) else source
        described = _machine(id="x", source={"channel": channel, **keys}).source
        with open_source(described, [described.channel]) as opened:
            yield from self._listen(opened, described.channel)

    @property
    def limit(self) -> float:
        """The score from which a window is anomalous."""
        limit = self._pipeline.threshold_score
        assert limit is not None  # there is a baseline
        return limit

    @property
    def verdict(self) -> str:
        """What the calibration is worth, in one sentence."""
        return self._baseline.manifest.report.verdict

    @property
    def facts(self) -> tuple[str, ...]:
        """The numbers behind the verdict, a sentence each."""
        return tuple(self._baseline.manifest.report.facts)

    def save(self, folder: str | Path) -> None:
        """Write to a folder, which `load` reads: the baseline as the daemon keeps it, with checksums. Raises
        StoreError."""
        path = Path(folder)
        store = BaselineStore(path, self._machine.id)
        if self._baseline.manifest.version not in store.versions():
            store.write(self._baseline)
        store.promote(self._baseline.manifest.version)
        try:
            write_whole(path / MACHINE_FILE, msgspec.json.format(msgspec.json.encode(self._machine)))
        except OSError as exc:
            raise StoreError(f"{path}: cannot be written ({exc.strerror or exc})") from exc

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """What `save` wrote. Raises BaselineError when it is missing or damaged."""
        path = Path(folder)
        try:
            machine = msgspec.json.decode((path / MACHINE_FILE).read_bytes(), type=config.Machine)
        except (OSError, msgspec.DecodeError) as exc:
            raise BaselineError(f"{path / MACHINE_FILE}: cannot be read ({exc})") from exc
        return cls(machine, _active(path, machine.id))

    @classmethod
    def from_baseline(cls, configuration: str | Path, machine: str, version: str | None = None) -> Self:
        """A baseline of the daemon: of `machine` in that agent.yaml, the active one or a `version`.

        Raises ConfigError, UsageError, BaselineError.
        """
        settings = config.load(configuration)
        found = settings.machine(machine)
        if found is None:
            known = ", ".join(m.id for m in settings.machines)
            raise UsageError(f"{configuration}: there is no machine {machine!r} (there are: {known})")
        store = BaselineStore(settings.state_dir, machine)
        return cls(found, store.load(version) if version is not None else _active(settings.state_dir, machine))

    def _listen(self, source: Source, channel: int) -> Iterator[Score]:
        windower: Windower | None = None
        for block in source:
            windower = windower or self._windower(block.rate_hz)
            for window in windower.push(block, channel):
                yield self._score(window)

    def _windower(self, rate_hz: int) -> Windower:
        return Windower(rate_hz, self._machine.window_s, self._machine.hop_s, self._pipeline.rates)

    def _score(self, window: Window) -> Score:
        return Score.of(self._pipeline.step(window).result)


def _active(state_dir: Path, machine: str) -> Baseline:
    baseline = BaselineStore(state_dir, machine).active()
    if baseline is None:
        raise BaselineError(f"{state_dir}: no active baseline of {machine!r}: calibrate first")
    return baseline


def _machine(**keys: Any) -> config.Machine:
    """The keys of a machine in agent.yaml, checked as there. Raises UsageError."""
    keys = {"source": {"kind": "stdin", "rate_hz": 48_000}} | keys
    try:
        return msgspec.convert({k: v for k, v in keys.items() if v is not None}, config.Machine)
    except msgspec.ValidationError as exc:
        raise UsageError(str(exc)) from exc


def _arrays(x: Any) -> list[Samples]:
    """[samples], or several of them -> float32 [samples] each. Raises UsageError."""
    several = isinstance(x, Sequence) and not isinstance(x, str) and len(x) > 0 and np.ndim(x[0]) > 0
    found = []
    for one in x if several else [x]:
        array = np.asarray(one)
        if array.ndim != 1 or not (np.issubdtype(array.dtype, np.floating)):
            raise UsageError(
                f"sound of shape {array.shape} and type {array.dtype}: floats [samples] of one channel are wanted, "
                "full scale 1.0"
            )
        found.append(np.ascontiguousarray(array, np.float32))
    return found


def _windows(pipeline: Pipeline, samples: Samples, rate_hz: int, origin: str) -> list[Window]:
    """samples [n] -> windows as live sound would make them."""
    machine = pipeline.machine
    block = Block(samples[:, None], rate_hz, 0, 0.0, 0.0, origin=origin, last=True)
    return Windower(rate_hz, machine.window_s, machine.hop_s, pipeline.rates).push(block, 0)
