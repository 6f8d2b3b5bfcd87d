"""Near and far microphone: simulated rooms, the agent's subtraction in training and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_agent.errors import SourceError
from asd_agent.windowing.reference import subtract
from asd_train import cli
from asd_train.data import DataSource, load_clips
from asd_train.data.audio import AudioCache, read_audio, read_header
from asd_train.model import load_system
from asd_train.synth import Counts, draw_machines, write_challenge

CONFIG = Path(__file__).resolve().parents[2] / "configs/train/own_2026_lora.yaml"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two machines of 2026 with near and far channel."""
    root = tmp_path_factory.mktemp("pairs") / "dcase2026t2"
    machines = draw_machines(2, seed=5, seconds=2.0, channels=2)
    write_challenge(root, machines, Counts(source=16, target=4, test=8, supplemental=0), workers=1)
    return root


def test_clips_have_two_channels_of_one_room(pairs: Path) -> None:
    path = load_clips([DataSource(path=str(pairs))])[0].path
    assert read_header(path).channels == 2
    near, far = read_audio(path, 16_000, 0), read_audio(path, 16_000, 1)
    explained = subtract(near, far)
    assert 0.02 < explained.coherence < 0.95  # they share the surroundings, not all


def test_the_cache_holds_what_the_agent_would_hear(pairs: Path, tmp_path: Path) -> None:
    paths = [clip.path for clip in load_clips([DataSource(path=str(pairs))])[:3]]
    expected = subtract(read_audio(paths[1], 16_000, 0), read_audio(paths[1], 16_000, 1)).samples
    for limit_gb in (0.0, 1.0):
        cache = AudioCache(paths, 16_000, far=1, limit_gb=limit_gb)
        np.testing.assert_allclose(cache.read(1), expected, atol=1e-6)
    plain, subtracted = (AudioCache(paths, 16_000, folder=tmp_path, far=far) for far in (None, 1))
    assert not np.allclose(plain.read(1), subtracted.read(1))


def test_a_far_channel_that_is_not_there_is_named(tiny_challenge: Path) -> None:
    path = load_clips([DataSource(path=str(tiny_challenge))])[0].path
    with pytest.raises(SourceError, match="has 1 channels, channel 1 was asked for"):
        read_audio(path, 16_000, 0, 1)


def test_the_same_machines_whatever_the_channels() -> None:
    mono, pair = draw_machines(3, seed=5), draw_machines(3, seed=5, channels=2)
    assert [m.seed for m in mono] == [m.seed for m in pair]


def test_a_system_of_2026_end_to_end(pairs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli.main(["fit", str(CONFIG), "--data", str(pairs), "--tiny", "-o", str(run)]) == 0
    _, card = load_system(run / "system")
    assert (card.channel, card.far) == (0, 1)
    out = ["--bootstrap", "0", "--no-plots", "-o", str(tmp_path / "out")]
    assert cli.main(["evaluate", str(run), "--data", str(pairs), *out]) == 0
    assert len(list((tmp_path / "out").glob("anomaly_score_*.csv"))) == 2
