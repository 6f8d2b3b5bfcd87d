"""The challenge's log-mel and autoencoder."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from asd_train import autoencoder as ae
from asd_train import cli
from asd_train.data import DataSource, load_clips
from asd_train.data.audio import read_audio
from asd_train.logmel import log_mel, mel_filters


def test_log_mel_of_the_definition():
    """One frame by a literal DFT, one band by its triangle."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 4096).astype(np.float32)
    found = log_mel(samples, 16000)
    assert found.shape == (1 + 4096 // 512, 128)
    n = np.arange(1024)
    frame = samples[3 * 512 - 512 : 3 * 512 + 512] * (0.5 - 0.5 * np.cos(2 * np.pi * n / 1024))
    power = np.array([abs(np.sum(frame * np.exp(-2j * np.pi * k * n / 1024))) ** 2 for k in range(513)])
    np.testing.assert_allclose(found[3], 10 * np.log10(mel_filters(16000) @ power), atol=1e-3)
    padded = np.concatenate([np.zeros(512), samples[:512]]) * (0.5 - 0.5 * np.cos(2 * np.pi * n / 1024))
    first = np.abs(np.fft.rfft(padded)) ** 2
    np.testing.assert_allclose(found[0], 10 * np.log10(mel_filters(16000) @ first), atol=1e-3)


def test_mel_filters_are_slaneys():
    """Values of librosa.filters.mel(sr=16000, n_fft=1024, n_mels=128): linear below 1 kHz, area 1 above."""
    filters = mel_filters(16000)
    centres = np.argmax(filters, axis=1) * 16000 / 1024
    assert centres[10] == pytest.approx((10 + 1) * 45.245640471924965 / 129 * 200 / 3, abs=16)
    areas = filters.sum(1) * 16000 / 1024
    np.testing.assert_allclose(areas[60:], 1.0, atol=0.05)  # of triangles sampled at few bins
    assert (filters >= 0).all()


def test_joined_frames_hold_five_neighbours(tiny_challenge):
    path = load_clips([DataSource(path=str(tiny_challenge))])[0].path
    mel = log_mel(read_audio(path, 16000), 16000)
    joined = ae.joined_frames(path)
    assert joined.shape == (len(mel) - 4, 640)
    np.testing.assert_allclose(joined[7].numpy(), mel[7:12].reshape(-1), rtol=1e-6)


def test_network_is_the_published_one():
    widths = [m.out_features for m in ae.network() if isinstance(m, torch.nn.Linear)]
    assert widths == [128, 128, 128, 128, 8, 128, 128, 128, 128, 640]
    assert sum(isinstance(m, torch.nn.BatchNorm1d) for m in ae.network()) == 9


def test_training_lowers_the_loss_and_repeats():
    frames = torch.randn(300, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(640)
    losses = {}
    for epochs in (1, 20):
        model = ae.train(frames, ae.Autoencoder(epochs=epochs, batch_size=32), lambda _: None)
        with torch.no_grad():
            losses[epochs] = float((model(frames) - frames).square().mean())
    assert losses[20] < 0.5 * losses[1]
    again = ae.train(frames, ae.Autoencoder(epochs=1, batch_size=32), lambda _: None)
    with torch.no_grad():
        assert float((again(frames) - frames).square().mean()) == losses[1]


def literal_mahalanobis(model, frames, target, batch_size, clips):
    """The organisers' way step by step, in float32: batches of joined frames, each centred by itself; every pair of a
    clip's frames; the smaller of both domains."""
    inverses = []
    for wanted in (False, True):
        total, count = np.zeros((128, 128), np.float32), 0
        for start in range(0, len(frames), batch_size):
            x, of = frames[start : start + batch_size], target[start : start + batch_size]
            with torch.no_grad():
                error = (x - model(x)).numpy()[of.numpy() == wanted].reshape(-1, 128)
            if len(error):
                total += (error - error.mean(0)).T @ (error - error.mean(0))
                count += len(error) // 5
        inverses.append(np.linalg.inv(total / np.float32(count - 1)))
    scores = []
    for clip in clips:
        with torch.no_grad():
            error = (model(clip) - clip).numpy().reshape(-1, 128)
        scores.append(min(float((error @ inverse @ error.T).mean(1).sum() / len(error)) for inverse in inverses))
    return np.array(scores)


def test_the_mahalanobis_score_is_the_organisers(tiny_challenge):
    clips = [c for c in load_clips([DataSource(path=str(tiny_challenge))]) if c.machine == "Blower"]
    normal = [c for c in clips if c.split == "train"]
    options = ae.Autoencoder(score="mahalanobis", epochs=3, batch_size=64)
    joined = [ae.joined_frames(clip.path) for clip in normal]
    frames = torch.cat(joined)
    target = torch.tensor([c.domain == "target" for c in normal]).repeat_interleave(torch.tensor([*map(len, joined)]))
    rows = ae.training_rows(len(frames), options.seed)
    model = ae.train(frames[rows], options, lambda _: None)
    tested = [ae.joined_frames(c.path) for c in clips if c.split == "test"]
    scorer = ae.scorer_of(model, frames[rows], target[rows], options)
    ours = np.array([scorer(clip) for clip in tested])
    theirs = literal_mahalanobis(model, frames[rows], target[rows], 64, tested)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99999
    np.testing.assert_allclose(ours, theirs, rtol=0.02)
    (section,) = ae.evaluate_autoencoder(clips, options, torch.device("cpu"))
    np.testing.assert_allclose(section.scores, ours, rtol=1e-6)  # the same way through the whole evaluation


def test_a_tenth_of_the_frames_is_held_back():
    rows = ae.training_rows(1000, seed=3)
    assert len(rows) == 900
    assert len(set(rows.tolist())) == 900


def test_a_singular_domain_does_not_break_it():
    few = torch.randn(3, 640, generator=torch.Generator().manual_seed(0))
    (source,) = ae.inverse_covariances(few, torch.zeros(3, dtype=torch.bool), 256)
    assert np.isfinite(ae.mahalanobis(few, source))


@pytest.mark.parametrize("kind", ["mse", "mahalanobis"])
def test_from_the_command_line(tiny_challenge, tmp_path, kind, capsys):
    config = tmp_path / "baseline.yaml"
    config.write_text(
        f"name: baseline\ndata: [{{path: {tiny_challenge}}}]\n"
        f"autoencoder: {{score: {kind}, epochs: 2, batch_size: 512}}\n"
    )
    out = tmp_path / "out"
    arguments = [str(config), "-o", str(out), "--machine", "Blower", "--bootstrap", "5", "--device", "cpu"]
    assert cli.main(["evaluate", *arguments]) == 0
    with (out / "anomaly_score_Blower_section_00_test.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 8
    assert "| Blower |" in capsys.readouterr().out


def test_a_system_is_not_taken_for_a_baseline(tmp_path, capsys):
    config = tmp_path / "system.yaml"
    config.write_text("name: x\nmodel: {}\n")
    assert cli.main(["evaluate", str(config), "-o", str(tmp_path / "o")]) == 2
    assert "train it first (asd-train fit" in capsys.readouterr().err


def test_mechanism_analysis_alone(tiny_challenge, tmp_path, capsys):
    config = tmp_path / "mechanism.yaml"
    config.write_text(
        f"name: mechanism\ndata: [{{path: {tiny_challenge}}}]\nmechanism: {{GearPump: {{mains_hz: 50}}}}\n"
    )
    arguments = ["evaluate", str(config), "-o", str(tmp_path / "out"), "--bootstrap", "5", "--no-plots"]
    assert cli.main(arguments) == 0
    assert "| GearPump |" in capsys.readouterr().out
    scores = {}
    for kind in ("anomaly_score_{}_section_00_test", "normal_score_{}_section_00_train"):
        with (tmp_path / "out" / f"{kind.format('GearPump')}.csv").open(newline="") as file:
            scores[kind[:6]] = np.array([float(score) for _, score in csv.reader(file)])
    assert scores["anomal"].shape == (8,)
    assert scores["normal"].shape == (20,)
    assert abs(np.median(scores["normal"])) < 1.0  # standard scores of held-out normal clips
    config.write_text(
        f"name: mechanism\ndata: [{{path: {tiny_challenge}}}]\nmechanism: {{Tractor: {{mains_hz: 50}}}}\n"
    )
    assert cli.main(arguments) == 2
    assert "mechanism.Tractor: no such machine" in capsys.readouterr().err
