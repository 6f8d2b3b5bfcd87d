"""The Python interface, and the example package that extends the agent, installed as users install it."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_agent import config
from asd_agent.api import Detector, Source
from asd_agent.capture import open_source
from asd_agent.capture.simulate import machine_blocks
from asd_agent.cli import main
from asd_agent.errors import AsdError, BaselineError, CalibrationError, SourceError, UsageError
from asd_agent.publish import Messages
from asd_agent.publish.notify import Hooks
from asd_agent.store import Store
from asd_agent.types import AlarmEvent, EventKind, Level

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RATE = 16_000


def sound(seconds: float, seed: int, *faults: config.Fault) -> np.ndarray:
    source = config.SimulatedSource(seed=seed, duration_s=seconds, pace="fast", faults=list(faults))
    return np.concatenate([block.samples for block in machine_blocks(source)])[:, 0]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.calibrate([sound(20, 1), sound(20, 2)], RATE, occasions=["mon", "tue"], window_s=2, hop_s=1)


def test_arrays_are_calibrated_and_scored(detector):
    normal = detector.score(sound(10, 3), RATE)
    faulty = detector.score(sound(10, 4, config.Fault(kind="bearing", level_db=0)), RATE)
    assert [s.start_s for s in normal[:3]] == [0.0, 1.0, 2.0]
    assert {s.state for s in normal} == {"normal"}
    assert {s.state for s in faulty} == {"anomalous"}
    assert all(s.score > detector.limit for s in faulty)
    assert faulty[0].reason
    assert set(faulty[0].z) == set(faulty[0].distances)
    assert detector.verdict.endswith(".")
    assert any("usable" in fact for fact in detector.facts)


def test_what_cannot_be_judged_has_no_score(detector):
    (score, *_) = detector.score(np.zeros(4 * RATE), RATE)
    assert (score.state, score.score) == ("not_assessable", None)
    assert score.quality


def test_saved_and_loaded_it_says_the_same(detector, tmp_path):
    later = sound(6, 5)
    detector.save(tmp_path)
    detector.save(tmp_path)  # once more changes nothing
    assert Detector.load(tmp_path).score(later, RATE) == detector.score(later, RATE)
    (tmp_path / "machines" / "machine" / "baselines" / "1" / "arrays.npz").write_bytes(b"x")
    with pytest.raises(BaselineError, match="checksum"):
        Detector.load(tmp_path)
    with pytest.raises(BaselineError, match="cannot be read"):
        Detector.load(tmp_path / "nowhere")


def test_a_daemons_baseline_gives_the_scores_of_the_command(tmp_path, capsys):
    soundfile.write(tmp_path / "normal.wav", sound(20, 1), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "later.wav", sound(6, 2), RATE, subtype="FLOAT")
    path = tmp_path / "agent.yaml"
    path.write_text(
        f"agent: {{id: a, state_dir: {tmp_path}/state}}\n"
        "machines: [{id: m, source: {kind: stdin, rate_hz: 16000}, window_s: 2, hop_s: 1}]\n"
    )
    calibrate = ["calibrate", "-c", str(path), "m", "--from", str(tmp_path / "normal.wav")]
    assert main([*calibrate, "--promote"]) == 0
    capsys.readouterr()
    assert main(["score", "-c", str(path), "m", str(tmp_path / "later.wav")]) == 0
    head, *rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    column = head.index("score")
    scores = Detector.from_baseline(path, "m").score(soundfile.read(tmp_path / "later.wav")[0], RATE)
    assert [f"{s.score:.6g}" for s in scores] == [row[column] for row in rows]
    with pytest.raises(UsageError, match="there are: m"):
        Detector.from_baseline(path, "other")


def test_live_sources_are_iterators(detector):
    listened = list(detector.listen({"kind": "simulated", "pace": "fast", "duration_s": 6.0, "seed": 7}))
    assert [round(s.start_s) for s in listened] == [0, 1, 2, 3, 4]
    assert {s.state for s in listened} == {"normal"}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"x": np.zeros((100, 2))}, UsageError, "one channel"),
        ({"x": np.zeros(100, np.int16)}, UsageError, "full scale"),
        ({"x": np.zeros(RATE)}, CalibrationError, "usable windows"),
        ({"window_s": 0.1}, UsageError, "window_s"),
        ({"occasions": [1, 2, 3]}, UsageError, "3 for 1"),
        ({"mechanism": {"shaft": 5}}, UsageError, "shaft"),
        ({"rate_hz": 8000}, SourceError, "rate"),
        ({"distance": "nonsense"}, CalibrationError, "unknown distance 'nonsense'"),
    ],
)
def test_mistakes_are_one_line(arguments, error, words):
    keys = {"x": sound(12, 1), "rate_hz": RATE, "window_s": 1.0, "hop_s": 1.0} | arguments
    with pytest.raises(error, match=words) as caught:
        Detector.calibrate(keys.pop("x"), keys.pop("rate_hz"), **keys)
    assert "\n" not in str(caught.value)


def test_the_example_of_the_interface_runs():
    done = subprocess.run([sys.executable, EXAMPLES / "score_arrays.py"], capture_output=True, text=True, check=True)
    assert "normal: normal" in done.stdout
    assert "whistling: anomalous" in done.stdout


# -- plug-ins


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example package, installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLES / "asd-agent-example", folder / "source")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder / "site", folder / "source"],
        check=True,
        timeout=240,
    )
    sys.path.append(str(folder / "site"))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder / "site"))


def test_a_source_of_another_package_is_heard(example, detector):
    source = config.PluginSource(name="tone", options={"hz": 440, "seconds": 3})
    with open_source(source) as opened:
        assert isinstance(opened, Source)
        heard = np.concatenate([block.samples[:, 0] for block in opened])
    assert len(heard) == 3 * RATE
    assert np.abs(np.fft.rfft(heard)).argmax() == 440 * 3
    scores = list(detector.listen({"kind": "plugin", "name": "tone", "options": {"seconds": 4}}))
    assert {s.state for s in scores} == {"anomalous"}


def test_a_detector_of_another_package_judges_and_is_kept(example, tmp_path):
    mine = Detector.calibrate(sound(30, 1), RATE, window_s=2, hop_s=1, distance="centroid")
    later, faulty = sound(6, 2), sound(6, 3, config.Fault(kind="bearing", level_db=0))
    assert max(s.score for s in mine.score(later, RATE)) < mine.limit
    assert min(s.score for s in mine.score(faulty, RATE)) > mine.limit
    mine.save(tmp_path)
    assert Detector.load(tmp_path).score(faulty, RATE) == mine.score(faulty, RATE)


def event(number: int) -> AlarmEvent:
    return AlarmEvent(
        id=f"e{number}", alarm_id="a", machine="motor", kind=EventKind.RAISED, level=Level.ALERT, utc_s=0.0,
        time_synced=True, reason=f"whistling {number}",
    )  # fmt: skip


def test_a_notifier_of_another_package_is_told(example, tmp_path):
    path = tmp_path / "alarms.txt"
    hook = config.Hook(plugin="file", options={"path": str(path)}, on=("raised", "chain_failure"))
    messages = Messages("hall-1", "asd", lambda: True)
    with Store(tmp_path / "state") as store:
        hooks = Hooks([hook], store.hook_queue)
        said = [messages.event(event(number)) for number in range(2)]
        said.append(messages.health("motor", status="failure", reasons=("silence",), source_available=True))
        for payload in said:
            store.outbox.put(hooks.notices(payload))
        hooks.start()
        deadline = time.monotonic() + 20
        while not (path.exists() and len(path.read_text().splitlines()) == 3) and time.monotonic() < deadline:
            time.sleep(0.01)
        hooks.stop()
    assert path.read_text().splitlines() == [
        "motor: raised alert: whistling 0", "motor: raised alert: whistling 1", "motor: signal chain failure: silence"
    ]  # fmt: skip


def test_a_plug_in_that_is_missing_or_misused_is_one_line(example):
    for misuse in (
        lambda: Hooks([config.Hook(plugin="nobody")], lambda topic: None),
        lambda: Hooks([config.Hook(plugin="file", options={"colour": "red"})], lambda topic: None),
        lambda: open_source(config.PluginSource(name="nobody")),
    ):
        with pytest.raises(AsdError) as caught:
            misuse()
        assert "\n" not in str(caught.value)
