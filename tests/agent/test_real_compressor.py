"""The agent's promise on a real compressor: quiet on an unseen day, loud on faults, silent about a stopped machine."""

from __future__ import annotations

import time

import numpy as np
import pytest

from asd_agent import config
from asd_agent.calibration.build import build
from asd_agent.calibration.gather import describe_recordings
from asd_agent.capture import read_file
from asd_agent.capture.simulate import fault_signal, mix_at
from asd_agent.scoring.decision import Decision
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.types import AlarmState, EventKind, State, Window
from asd_agent.windowing.recordings import recorded_windows
from asd_agent.windowing.windower import Windower

DAYS, UNSEEN = ("20260302", "20260327"), "20260328"
FAULTS = ("bearing", "hiss", "squeal")
FAULT_DB = -5.0


@pytest.fixture(scope="module")
def clips(shared_dir):
    def find(state: str, *days: str):
        folder = shared_dir / "data" / "compressor" / state
        return sorted(p for day in days for p in folder.glob(f"{day}_*.flac"))

    return find


@pytest.fixture(scope="module")
def machine():
    return config.Machine(id="compressor", source=config.StdinSource(rate_hz=48_000), window_s=2.0, hop_s=2.0)


@pytest.fixture(scope="module")
def pipeline(clips, machine) -> Pipeline:
    learning = open_pipeline(machine, None)
    baseline = build(machine, describe_recordings(learning, machine, clips("rest", *DAYS)), learning, "v")
    return Pipeline(machine, learning.encoders, baseline)


def steps(pipeline, machine, paths):
    return [pipeline.step(w).result for path in paths for w in recorded_windows(path, machine, pipeline.rates)]


def events(pipeline, machine, results):
    decision = Decision(machine, pipeline.baseline.manifest, AlarmState())
    return [event for result in results for event in decision.update(result, True)]


def with_fault(path, kind: str, seed: int, rates) -> Window:
    block = next(iter(read_file(path)))
    samples = np.concatenate([b.samples for b in read_file(path)])[:, 0]
    fault = fault_signal(kind, len(samples), block.rate_hz, np.random.default_rng(seed))
    mixed = mix_at(samples, fault, FAULT_DB).astype(np.float32)
    peak = float(np.abs(mixed).max())
    mixed /= max(peak / 0.9, 1.0)  # a louder machine does not clip a well-set microphone
    block = type(block)(mixed[:, None], block.rate_hz, 0, time.time(), time.monotonic(), last=True)
    return Windower(block.rate_hz, 2.0, 2.0, rates).push(block, 0)[0]


def test_an_unseen_day_raises_no_alarm(pipeline, machine, clips):
    results = steps(pipeline, machine, clips("rest", UNSEEN))
    assert len(results) == 70
    raised = [e for e in events(pipeline, machine, results) if e.kind is EventKind.RAISED]
    assert raised == []


@pytest.mark.parametrize("kind", FAULTS)
def test_an_injected_fault_raises_an_alarm_within_four_windows(pipeline, machine, clips, kind):
    normal, faulty = clips("rest", UNSEEN)[:5], clips("rest", UNSEEN)[5:9]
    results = steps(pipeline, machine, normal)
    results += [pipeline.step(with_fault(p, kind, i, pipeline.rates)).result for i, p in enumerate(faulty)]
    raised = [e for e in events(pipeline, machine, results) if e.kind is EventKind.RAISED]
    assert len(raised) == 1
    assert raised[0].reason


def test_a_stopped_machine_is_off_and_no_anomaly(pipeline, machine, clips):
    results = steps(pipeline, machine, clips("off", UNSEEN))
    assert {r.state for r in results} == {State.OFF}
    assert not any(e.kind is EventKind.RAISED for e in events(pipeline, machine, results))


def test_a_clipped_microphone_is_not_assessable(pipeline, machine, clips):
    results = steps(pipeline, machine, clips("run_clipped", *DAYS))
    assert {r.state for r in results} == {State.NOT_ASSESSABLE}
    assert all("clipping" in r.reason for r in results)


@pytest.mark.parametrize("gain_db", [-12.0, 12.0])
def test_gain_and_polarity_leave_the_score_as_it_was(pipeline, machine, clips, gain_db):
    (window,) = recorded_windows(clips("rest", UNSEEN)[0], machine, pipeline.rates)
    plain = pipeline.step(window).result
    factor = np.float32(-(10 ** (gain_db / 20)) * min(1.0, 0.9 / (window.samples.max() * 10 ** (gain_db / 20))))
    louder = Window(
        window.samples * factor, window.rate_hz, {k: v * factor for k, v in window.resampled.items()},
        window.index, window.start_frame, window.utc_s, window.monotonic_s,
    )  # fmt: skip
    assert pipeline.step(louder).result.score == pytest.approx(plain.score, abs=1e-3)
