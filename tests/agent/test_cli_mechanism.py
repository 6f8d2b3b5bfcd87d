"""`asd-agent mechanism` and `trend` as an engineer runs them."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import soundfile
import yaml

from asd_agent import config
from asd_agent.capture.simulate import machine_blocks
from asd_agent.cli import main
from asd_agent.store import Store
from asd_agent.types import Quality, State, WindowResult

RATE = 16_000


def machine_sound(seconds: float, seed: int, *faults: config.Fault) -> np.ndarray:
    source = config.SimulatedSource(seed=seed, duration_s=seconds, pace="fast", faults=list(faults))
    return np.concatenate([block.samples for block in machine_blocks(source)])[:, 0]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mechanism")
    for i in range(3):
        soundfile.write(folder / f"normal-{i}.wav", machine_sound(24, i), RATE)
    soundfile.write(folder / "faulty.wav", machine_sound(8, 9, config.Fault(kind="bearing", level_db=-3)), RATE)
    machine = {
        "id": "m",
        "source": {"kind": "stdin", "rate_hz": RATE},
        "window_s": 4,
        "hop_s": 2,
        "mechanism": {"shaft_hz": 24.9, "bearings": [{"name": "DE", "type": "6205"}]},
    }
    settings = {"agent": {"id": "t", "state_dir": str(folder / "state")}, "machines": [machine]}
    (folder / "agent.yaml").write_text(yaml.safe_dump(settings))
    normal = [str(folder / f"normal-{i}.wav") for i in range(3)]
    assert main(["calibrate", "-c", str(folder / "agent.yaml"), "m", "--from", *normal, "--promote"]) == 0
    return folder


def run(site, capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert main([arguments[0], "-c", str(site / "agent.yaml"), "m", *arguments[1:]]) == 0
    return capsys.readouterr().out


def test_the_simulated_outer_race_fault_is_named(site, capsys):
    """The simulator strikes 3.585 times a turn: BPFO of a 6205."""
    out = run(site, capsys, "mechanism", str(site / "faulty.wav"))
    assert out.splitlines()[1].startswith("  Component: ")  # what it means comes before the numbers
    assert "BPFO of DE" in out


def test_json_and_picture(site, capsys, tmp_path):
    picture = tmp_path / "out.png"
    out = run(site, capsys, "mechanism", str(site / "faulty.wav"), "--json", "--plot", str(picture))
    report = json.loads(out)
    assert report["findings"][0]["component"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_normal_recording_blames_nothing(site, capsys):
    out = run(site, capsys, "mechanism", str(site / "normal-0.wav"))
    assert "Component" not in out


def test_score_has_the_mechanism_p_value(site, capsys):
    out = run(site, capsys, "score", str(site / "faulty.wav")).splitlines()
    assert float(out[1].split(",")[out[0].split(",").index("mechanism_p")]) < 0.01
    assert "BPFO of DE" in out[1]


def test_trend_says_that_a_score_grows(site, capsys):
    now = time.time()
    rng = np.random.default_rng(0)
    with Store(site / "state") as store:
        for i in range(400):
            p = 10 ** -(0.5 + i / 100 + 0.2 * rng.standard_normal())
            quality = Quality((), -20.0, 0.5, 0.0, 0.0)
            result = WindowResult(i, 0.0, 4.0, now - (400 - i) * 3600, "", State.NORMAL, quality, p_value=min(p, 1.0))
            store.add_score("m", result)
    assert "growing" in run(site, capsys, "trend", "--since", "30d")
    trends = {t["name"]: t for t in json.loads(run(site, capsys, "trend", "--json"))}
    assert trends["score"]["slope_per_day"] == pytest.approx(0.24, rel=0.2)


def test_trend_without_scores_is_one_line(site, capsys, tmp_path):
    (tmp_path / "agent.yaml").write_text((site / "agent.yaml").read_text().replace("id: m", "id: other"))
    assert main(["trend", "-c", str(tmp_path / "agent.yaml"), "other"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
