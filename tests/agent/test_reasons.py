"""The reasons of windows and alarms, word by word: made-up ones, and those of faults on a real compressor."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from asd_agent import config
from asd_agent.calibration.build import build
from asd_agent.calibration.gather import describe_recordings
from asd_agent.capture.simulate import fault_signal, mix_at
from asd_agent.cli.words import wrapped
from asd_agent.decide import reason
from asd_agent.reasons import Change, Deviation, Grounds, SoundKind, Trigger
from asd_agent.scoring.course import Course
from asd_agent.scoring.decision import Decision
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.types import AlarmState, EventKind, Window
from asd_agent.windowing.recordings import recorded_windows

HISS = Change(quantity="level", change_db=2.1, band_hz=(3000.0, 6000.0), z=5.0)
ROUGH = Change(quantity="modulation", change_db=8.0, band_hz=(3400.0, 8000.0), rates_hz=(91.0, 180.0), z=9.0)
TONE = Change(quantity="level", change_db=36.6, band_hz=(3310.0, 3890.0), z=40.0)
BEARING = "periodic impacts at 89.0 Hz = BPFO of DE (3.57 x shaft, shaft 24.9 Hz), 5 harmonics"
VOTES = Grounds(lasts_s=50.0, windows=7, of=9, p_value=1.2e-8)


@pytest.mark.parametrize(
    ("deviation", "trigger", "grounds", "words"),
    [
        (
            Deviation(kind=SoundKind.LEAK, changes=(HISS,), windows=84),
            Trigger.PERSISTENCE,
            Grounds(lasts_s=425.0, windows=84, p_value=1e-7),
            "leak-like: 3.0-6.0 kHz louder by 2 dB for 7 minutes, median of 84 windows; persistence, p 1e-7",
        ),
        (
            Deviation(kind=SoundKind.KNOCK, changes=(HISS, ROUGH), windows=128),
            Trigger.PERSISTENCE,
            Grounds(lasts_s=3600.0, windows=588, p_value=1e-7, returning=True),
            "knock-like: 3.0-6.0 kHz louder by 2 dB, keeps coming back for 1 hour; persistence: 588 windows, p 1e-7",
        ),
        (
            Deviation(kind=SoundKind.TONE, changes=(TONE,), nuisance="Music (z 7.1)"),
            Trigger.VOTES,
            VOTES,
            "squeal-like: 3.3-3.9 kHz louder by 37 dB for 50 s; explained by Music (z 7.1); "
            "votes: 7 of 9 windows deviate, p 1e-8",
        ),
        (
            Deviation(kind=SoundKind.RATTLE, changes=(HISS, ROUGH)),
            Trigger.VOTES,
            VOTES,
            "rattle-like: 3.0-6.0 kHz louder by 2 dB, pulsating at 91-180 Hz for 50 s; "
            "votes: 7 of 9 windows deviate, p 1e-8",
        ),
        (
            Deviation(finding=BEARING),
            Trigger.VOTES,
            VOTES,
            f"{BEARING} for 50 s; votes: 7 of 9 windows deviate, p 1e-8",
        ),
        (
            Deviation(changes=(HISS,), advice="speed known to 2 %: give speed_topic or speed_tolerance 0.005"),
            Trigger.VOTES,
            VOTES,
            "3.0-6.0 kHz louder by 2 dB for 50 s; no component is named: speed known to 2 %: give speed_topic or "
            "speed_tolerance 0.005; votes: 7 of 9 windows deviate, p 1e-8",
        ),
        (
            Deviation(detector="own", z=5.13),
            Trigger.VOTES,
            VOTES,
            "unlike calibration in no part that can be named (own z 5.1) for 50 s; "
            "votes: 7 of 9 windows deviate, p 1e-8",
        ),
        (
            None,
            Trigger.EVENT_RATE,
            Grounds(lasts_s=2400.0, windows=6, of=4),
            "6 knocks or bangs within 40 minutes; event rate: fewer than 4 an hour are expected",
        ),
        (
            None,
            Trigger.OVERLOAD,
            Grounds(lasts_s=45.0, windows=8),
            "louder than the microphone can take for 45 s: is it the machine, or was the gain turned up? overload: "
            "8 windows clip, as none did in calibration",
        ),
    ],
)
def test_the_reason_of_an_alarm(deviation: Deviation | None, trigger: Trigger, grounds: Grounds, words: str) -> None:
    assert reason.alarm(deviation, trigger, grounds) == words
    lines = wrapped(words, 80, "  ").splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(line.strip() for line in lines) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(45, "45 s"), (100, "100 s"), (425, "7 minutes"), (3600, "1 hour"), (86_400, "1 day")]
)
def test_durations(seconds: float, words: str) -> None:
    assert reason.duration(seconds) == words


# -- on a real compressor

WINDOW_S = 2.0
Sound = Callable[[Window], Window]


@pytest.fixture(scope="module")
def clips(shared_dir: Path) -> Callable[..., list[Path]]:
    folder = shared_dir / "data" / "compressor" / "rest"
    return lambda *days: sorted(path for day in days for path in folder.glob(f"{day}_*.flac"))


@pytest.fixture(scope="module")
def pipeline(clips: Callable[..., list[Path]]) -> Pipeline:
    machine = config.Machine(
        id="compressor", source=config.StdinSource(rate_hz=48_000), window_s=WINDOW_S, hop_s=WINDOW_S
    )
    learning = open_pipeline(machine, None)
    known = describe_recordings(learning, machine, clips("20260302", "20260327"))
    return Pipeline(machine, learning.encoders, build(machine, known, learning, "v"))


@pytest.fixture(scope="module")
def unseen(pipeline: Pipeline, clips: Callable[..., list[Path]]) -> list[Window]:
    return [w for path in clips("20260328") for w in recorded_windows(path, pipeline.machine, pipeline.rates)]


def changed(window: Window, samples: np.ndarray) -> Window:
    import soxr

    peak = float(np.abs(samples).max())
    samples = (samples / max(peak / 0.9, 1.0)).astype(np.float32)
    resampled = {rate: soxr.resample(samples, window.rate_hz, rate).astype(np.float32) for rate in window.resampled}
    return replace(window, samples=samples, resampled=resampled)


def with_fault(window: Window, kind: str, level_db: float) -> Window:
    fault = fault_signal(kind, len(window.samples), window.rate_hz, np.random.default_rng(7), shaft_hz=24.9)
    return changed(window, mix_at(window.samples, fault, level_db))


def quieter_above(window: Window, hz: float) -> Window:
    """Something damps the upper part of the spectrum by 14 dB."""
    spectrum = np.fft.rfft(window.samples)
    spectrum[np.fft.rfftfreq(len(window.samples), 1 / window.rate_hz) > hz] *= 0.2
    return changed(window, np.fft.irfft(spectrum, len(window.samples)))


def louder(window: Window) -> Window:
    return changed(window, window.samples * 2)


def raised(pipeline: Pipeline, windows: list[Window], sound: Sound, clean: int = 30) -> str:
    """The reason of the first alarm when the sound changes after some clean windows."""
    decision, course = Decision(pipeline.machine, pipeline.baseline.manifest, AlarmState()), Course(pipeline)
    for i, window in enumerate(windows):
        window = replace(window, index=i, utc_s=WINDOW_S * i)
        step = pipeline.step(window if i < clean else sound(window))
        course.add(step)
        for event in decision.update(step.result, True, partial(course.explain, step)):
            if event.kind is EventKind.RAISED:
                return event.reason
    return ""


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (
            partial(with_fault, kind="hiss", level_db=0.0),
            r"leak-like: 2.* kHz louder by \d\d dB for \d+ s; votes",
        ),
        (partial(with_fault, kind="hiss", level_db=-14.0), r"leak-like: .* kHz louder by \d\d dB for \d+ s"),
        (
            partial(with_fault, kind="squeal", level_db=-5.0),
            r"squeal-like: .* kHz louder by \d\d dB.* for \d+ s",
        ),
        (partial(with_fault, kind="knocks", level_db=0.0), r"knock-like: .* louder by \d+ dB for \d+ s"),
        (partial(with_fault, kind="bearing", level_db=-5.0), r"rattle-like: .*pulsating at \d+-\d+ Hz for \d+ s"),
        (partial(quieter_above, hz=1200.0), r"a part of the sound is missing: .* kHz quieter by \d+ dB"),
    ],
    ids=["leak", "faint leak", "squeal", "knock", "bearing", "damped"],
)
def test_a_fault_on_a_real_compressor(pipeline: Pipeline, unseen: list[Window], sound: Sound, words: str) -> None:
    told = raised(pipeline, unseen, sound)
    assert re.match(words, told), told
    bands = re.findall(r"[\d.]+-[\d.]+ k?Hz (?=louder|quieter|pulsates)", told)
    assert len(bands) == len(set(bands)) == len(re.findall(r" dB", told)), told  # one number a band, no band twice


def test_a_machine_that_is_louder_all_over_is_told_by_its_level_alone(pipeline: Pipeline, unseen: list[Window]) -> None:
    assert raised(pipeline, unseen, louder) == ""  # a microphone that moved is no fault of the machine
