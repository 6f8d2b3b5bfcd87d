"""A real compressor through other gains, polarities, sample rates and microphones: the judgement stays, or is refused.

Calibrated 12 dB below the recordings, so that 12 dB more does not clip. The clips of a state are joined: they are not
adjacent in time, which makes everything a little harder.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import soundfile
import soxr

from asd_agent import config
from asd_agent.calibration.build import build
from asd_agent.capture import SourceStatus
from asd_agent.reasons import Trigger
from asd_agent.scoring.decision import Decision
from asd_agent.scoring.pipeline import Pipeline, open_pipeline
from asd_agent.service.health import ChainHealth
from asd_agent.types import AlarmState, Block, ChainStatus, Description, EventKind, State
from asd_agent.windowing.signal_chain import Sampler, compare, fingerprint
from asd_agent.windowing.windower import Windower

RATE = 48_000
MACHINE = config.Machine(id="compressor", source=config.StdinSource(rate_hz=RATE), window_s=2.0, hop_s=2.0)
DELIVERING = SourceStatus(available=True, detail="delivering")
HEADROOM = np.float32(10 ** (-12 / 20))
FOLDER = {"off": "off", "idle": "rest", "loaded": "run"}
LEARNT = {"off": ("20260302", "20260326"), "rest": ("20260302", "20260327"), "run": ("20260329",)}
UNSEEN = "20260328"


@pytest.fixture(scope="module")
def clips(shared_dir):
    def read(state: str, day: str) -> list[np.ndarray]:
        folder = shared_dir / "data" / "compressor" / state
        return [HEADROOM * soundfile.read(p, dtype="float32")[0] for p in sorted(folder.glob(f"{day}_*.flac"))]

    return read


def windows(pipeline: Pipeline, sound: np.ndarray, rate_hz: int = RATE, origin: str = ""):
    block = Block(sound.astype(np.float32)[:, None], rate_hz, 0, 1e9, 0.0, origin=origin, last=True)
    return Windower(rate_hz, MACHINE.window_s, MACHINE.hop_s, pipeline.rates).push(block, 0)


@pytest.fixture(scope="module")
def pipeline(clips) -> Pipeline:
    bare, sampler, found = open_pipeline(MACHINE, None), Sampler(15.0), []
    for state, days in LEARNT.items():
        for day in days:
            some = clips(state, day)[: 12 if state == "run" else None]  # the rest of the loaded ones for the test
            cut = windows(bare, np.concatenate(some), origin=f"{state}/{day}.flac")
            found += [sampler.add(window, bare.describe(window)) for window in cut]
    return Pipeline(MACHINE, bare.encoders, build(MACHINE, found, bare, "v"))


@pytest.fixture(scope="module")
def changing(clips) -> tuple[np.ndarray, list[str]]:
    """A day that the calibration does not know, with changes of state, and the folder of each window."""
    off, rest, run = clips("off", UNSEEN), clips("rest", UNSEEN), clips("run", "20260329")[12:]
    plan = [
        ("off", off[:20]), ("rest", rest[:20]), ("run", run[:4]), ("rest", rest[20:40]), ("run", run[4:]),
        ("rest", rest[40:]), ("off", off[20:40]),
    ]  # fmt: skip
    return np.concatenate([x for _, some in plan for x in some]), [name for name, some in plan for _ in some]


@pytest.fixture(scope="module")
def plain(pipeline, changing):
    return [pipeline.step(window).result for window in windows(pipeline, changing[0])]


def raised(pipeline: Pipeline, results) -> list[str]:
    decision = Decision(MACHINE, pipeline.baseline.manifest, AlarmState())
    return [e.reason for r in results for e in decision.update(r, True) if e.kind is EventKind.RAISED]


def pairs(some, others):
    return list(zip(some, others, strict=True))


def health(pipeline: Pipeline, results, found) -> list[tuple[ChainStatus, str]]:
    chain = ChainHealth()
    for result, window in pairs(results, found):
        taken = fingerprint(window.samples, window.rate_hz)
        place = (result.index, result.start_s, result.duration_s, result.utc_s, result.origin)
        chain.see(result, Description(*place, result.quality, embeddings={}, fingerprint=taken))
    return chain.findings(DELIVERING, pipeline.baseline.manifest.chain)


def test_states_are_found_without_labels_and_their_changes_raise_no_alarm(pipeline, changing, plain):
    assert [s.name for s in pipeline.states] == ["off", "idle", "loaded"]
    agreement = np.mean([FOLDER[r.operating] == folder for r, folder in pairs(plain, changing[1])])
    assert agreement >= 0.98
    assert raised(pipeline, plain) == []


@pytest.mark.parametrize(("gain_db", "polarity"), [(-12.0, -1.0), (-6.0, 1.0), (6.0, -1.0), (12.0, 1.0)])
def test_gain_and_polarity_leave_the_decision_and_gain_is_told(pipeline, changing, plain, gain_db, polarity):
    found = windows(pipeline, changing[0] * np.float32(polarity * 10 ** (gain_db / 20)))
    results = [pipeline.step(window).result for window in found]
    same = np.array(
        [(r.state, r.level, r.operating) == (p.state, p.level, p.operating) for r, p in pairs(results, plain)]
    )
    running = np.array([p.state is State.NORMAL for p in plain])
    assert same[running].all()
    assert (
        same.mean() >= 0.99
    )  # "far quieter: not running" goes by the level: what it excused may deviate with 12 dB more
    assert raised(pipeline, results) == []
    idle = [i for i, r in enumerate(results) if r.operating == "idle"][:12]
    findings = health(pipeline, [results[i] for i in idle], [found[i] for i in idle])
    told = [words for state, words in findings if state is ChainStatus.OUT_OF_SPECIFICATION]
    if abs(gain_db) > 6:
        assert len(told) == 1
        assert f"dB {'above' if gain_db > 0 else 'below'} calibration" in told[0]
    else:
        assert not [words for words in told if "nothing above" in words]


@pytest.mark.parametrize("rate_hz", [44_100, 96_000])
def test_another_sample_rate_of_the_device_leaves_the_decision(pipeline, changing, plain, rate_hz):
    found = windows(pipeline, soxr.resample(changing[0], RATE, rate_hz), rate_hz)
    results = [pipeline.step(window).result for window in found]
    assert all((r.state, r.level, r.operating) == (p.state, p.level, p.operating) for r, p in pairs(results, plain))
    assert raised(pipeline, results) == []
    told = [words for _, words in health(pipeline, results[20:40], found[20:40])]
    assert told == [f"the sound comes at {rate_hz} Hz, in calibration at 48000 Hz"]


def through(sound: np.ndarray, rate_hz: int) -> np.ndarray:
    """As a card that delivers 48 kHz, 16 bit, of sound that came at another rate."""
    limited = soxr.resample(soxr.resample(sound, RATE, rate_hz), rate_hz, RATE)[: len(sound)]
    return (np.rint(limited * 32768) / 32768).astype(np.float32)


def test_half_the_band_gone_is_the_chain_and_never_the_machine(pipeline, clips):
    found = windows(pipeline, through(np.concatenate(clips("rest", UNSEEN)[:20]), 8000))
    results = [pipeline.step(window).result for window in found]
    assert raised(pipeline, results) == []
    spoilt = [r for r in results if r.state is State.NOT_ASSESSABLE]
    assert len(spoilt) >= 18
    assert "in calibration up to 24 kHz: another microphone or sample rate" in spoilt[0].reason
    told = health(pipeline, results, found)
    assert [state for state, _ in told] == [ChainStatus.OUT_OF_SPECIFICATION]
    assert "nothing above 3." in told[0][1]


def test_what_the_encoder_does_not_hear_is_told_but_does_not_stop_the_judgement(pipeline, clips):
    sound = np.concatenate(clips("rest", UNSEEN)[:20])
    as_it_was = [pipeline.step(window).result for window in windows(pipeline, sound)]
    found = windows(pipeline, through(sound, 18_000))
    results = [pipeline.step(window).result for window in found]
    assert [(r.state, r.operating) for r in results] == [(r.state, r.operating) for r in as_it_was]
    edges = [compare(fingerprint(w.samples, RATE), floors(pipeline, r), 24_000.0) for w, r in pairs(found, results)]
    assert all(edge.lost_hz is None or edge.lost_hz > 8000 for edge in edges)


def floors(pipeline: Pipeline, result):
    return pipeline.baseline.manifest.chain.floors[result.operating]


def test_a_clipped_microphone_is_a_broken_chain_and_an_overload_that_asks_for_the_gain(pipeline, clips):
    """Clipping that calibration did not have is an alarm of its own kind: a machine so loud, or a gain turned up."""
    found = windows(pipeline, np.concatenate(clips("run_clipped", "20260302")))
    results = [pipeline.step(window).result for window in found]
    assert {r.state for r in results} == {State.NOT_ASSESSABLE}
    decision = Decision(MACHINE, pipeline.baseline.manifest, AlarmState())
    events = [e for r in results for e in decision.update(r, True) if e.kind is EventKind.RAISED]
    assert [e.trigger for e in events] == [Trigger.OVERLOAD]
    assert "was the gain turned up" in events[0].reason
    told = health(pipeline, results, found)
    assert (ChainStatus.OUT_OF_SPECIFICATION, "clipping in 12 of the last 12 windows") in told


def test_an_unknown_loud_state_is_not_taken_for_a_lost_edge(pipeline, clips):
    """The quiet machine's floor says nothing of what a loud one lacks."""
    off = pipeline.baseline.manifest.chain.floors["off"]
    for sound in clips("rest", UNSEEN)[:10]:
        assert compare(fingerprint(sound, RATE), off, 24_000.0).lost_hz is None


def test_a_told_state_that_the_baseline_does_not_know_is_not_judged(pipeline, clips):
    description = pipeline.describe(windows(pipeline, clips("rest", UNSEEN)[0])[0])
    baseline = pipeline.baseline
    manifest = msgspec.structs.replace(baseline.manifest, states_reported=True)
    other = Pipeline(MACHINE, pipeline.encoders, msgspec.structs.replace(baseline, manifest=manifest))
    told = other.judge(replace(description, operating="regeneration"))
    assert (told.state, told.p_value) == (State.NOT_ASSESSABLE, None)
    assert "'regeneration' is not in the baseline" in told.reason
    assert pipeline.judge(replace(description, operating="idle")).operating == "idle"
    assert pipeline.judge(replace(description, changing=True)).state is State.NOT_ASSESSABLE
