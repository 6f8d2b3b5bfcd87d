"""Filterbanks: equal to Kaldi's per-frame chain done literally, and to the stored outputs of the authors' code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_train.frontend import (
    FLOOR,
    BeatsFrontend,
    EatFrontend,
    EfficientAtFrontend,
    KaldiFbank,
    frame_count,
    mel_triangles,
    shrink_mask,
)

LOG_MEL_RMS = {"beats": 2 * 6.55582, "eat": 2 * 4.569}  # what the encoders divide log-mel by


def literal_fbank(x: np.ndarray, window: np.ndarray, scale: float) -> np.ndarray:
    """[frames, 128] in float64, one step of Kaldi's after the other."""
    frames = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64) * scale, 400)[::160]
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - 0.97 * np.concatenate((frames[:, :1], frames[:, :-1]), 1)
    power = np.abs(np.fft.rfft(frames * window, 512)[:, :256]) ** 2
    return np.log(np.maximum(power @ mel_triangles(16_000, 512, 20, 8000).numpy(), FLOOR))


@pytest.mark.parametrize(("window", "exponent"), [("povey", 0.85), ("hanning", 1.0)])
def test_matrices_equal_the_chain_of_kaldi(window: str, exponent: float) -> None:
    x = 0.1 * np.random.default_rng(0).standard_normal(16_123).astype(np.float32)
    expected = literal_fbank(x, np.hanning(400) ** exponent, 2.0**15)
    found = KaldiFbank(window, scale=2.0**15)(torch.from_numpy(x)[None])[0].numpy()
    assert found.shape == expected.shape == (frame_count(16_123, 160), 128)
    assert np.abs(found - expected).max() < 2e-3  # where the only bin of a band nearly cancels
    assert np.abs(found - expected).mean() < 3e-6


def test_filter_3_is_empty_and_gives_the_floor() -> None:
    assert mel_triangles(16_000, 512, 20, 8000).sum(0).eq(0).nonzero().flatten().tolist() == [3]
    mel = KaldiFbank("povey", scale=2.0**15)(torch.randn(1, 16_000))
    assert mel[..., 3].eq(float(np.log(np.float32(FLOOR)))).all()


def test_a_constant_has_no_effect() -> None:
    x = 1e-3 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    plain, _ = BeatsFrontend()(x)
    shifted, _ = BeatsFrontend()(x + 0.1)
    assert (plain - shifted).abs().max() < 1e-3


@pytest.mark.parametrize("case", "abcd")
def test_beats_equals_reference(shared_dir: Path, case: str) -> None:
    ref = np.load(shared_dir / "reference/beats/ref.npz")
    mel, _ = BeatsFrontend()(torch.from_numpy(ref[f"{case}_wav"]))
    assert np.abs(mel.numpy() - ref[f"{case}_fbank"]).max() < 1e-4


@pytest.mark.parametrize("case", "abc")
def test_eat_equals_reference(shared_dir: Path, case: str) -> None:
    ref = np.load(shared_dir / "reference/eat/ref.npz")
    wave = torch.from_numpy(ref[f"{case}_wav"])[None]
    mel, _ = EatFrontend()(wave)
    assert np.abs(mel.numpy() - ref[f"{case}_mel_norm"][0]).max() < 1e-4
    raw = KaldiFbank("hanning")(wave - wave.mean())[0].numpy()
    assert np.abs(raw - ref[f"{case}_fbank_raw"]).max() / LOG_MEL_RMS["eat"] < 1e-4
    assert np.abs(raw - ref[f"{case}_fbank_raw"]).mean() < 1e-5


@pytest.mark.parametrize("case", "ab")
def test_efficientat_equals_reference(shared_dir: Path, case: str) -> None:
    ref = np.load(shared_dir / "reference/efficientat/ref.npz")
    mel, _ = EfficientAtFrontend()(torch.from_numpy(ref[f"{case}_wav"])[None])
    assert np.abs(mel.numpy().transpose(0, 2, 1) - ref[f"{case}_mel"]).max() < 1e-4


def test_autocast_leaves_the_filterbank_alone() -> None:
    x = torch.randn(1, 16_000)
    for frontend in (BeatsFrontend(), EatFrontend(), EfficientAtFrontend()):
        plain, _ = frontend(x)
        with torch.autocast("cpu", torch.bfloat16):
            cast, _ = frontend(x)
        assert cast.dtype == torch.float32
        assert torch.equal(plain, cast)


def test_tf32_is_off_inside_and_restored_after() -> None:
    seen = []
    fbank = KaldiFbank("hanning")
    product = fbank.log_mel._halves
    fbank.log_mel._halves = lambda x: (seen.append(torch.get_float32_matmul_precision()), product(x))[1]  # type: ignore[method-assign]
    torch.set_float32_matmul_precision("high")
    try:
        fbank(torch.randn(1, 4000))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == ["highest"]


@settings(max_examples=25, deadline=None)
@given(frames=st.integers(1, 40), extra=st.integers(0, 159))
def test_every_length_gives_the_frames_of_kaldi(frames: int, extra: int) -> None:
    samples = 400 + 160 * (frames - 1) + extra
    mel = KaldiFbank("povey")(torch.randn(2, samples))
    assert mel.shape == (2, frames, 128)


@settings(max_examples=25, deadline=None)
@given(short=st.integers(500, 9000), long=st.integers(9001, 12_000))
def test_eat_padding_changes_nothing(short: int, long: int) -> None:
    clip = torch.randn(1, short, generator=torch.Generator().manual_seed(short))
    batch = torch.zeros(2, long)
    batch[0, :short], batch[1] = clip[0], torch.randn(long)
    mask = torch.arange(long) >= torch.tensor([[short], [long]])
    mel, frame_mask = EatFrontend()(batch, mask)
    alone, none = EatFrontend()(clip)
    assert none is None
    assert frame_mask is not None
    assert int((~frame_mask[0]).sum()) == alone.shape[1]
    assert not frame_mask[1].any()
    assert (mel[0, : alone.shape[1]] - alone[0]).abs().max() < 1e-4


def test_mask_reduction_is_that_of_the_authors() -> None:
    mask = torch.arange(11) >= 5
    assert shrink_mask(mask[None], 3).tolist() == [[False, False, True]]  # groups 012 345 678, 9 and 10 dropped
