"""The band-split encoder: what a band says depends on no other band, on no sampling rate and on no other clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.errors import UsageError
from asd_train.backbones import at_rate, build, load_backbone
from asd_train.backbones.bandsplit import Bandsplit, BandsplitConfig, band_starts
from asd_train.checkpoints import save_checkpoint

RATES = st.sampled_from([8_000, 16_000, 22_100, 32_000, 44_100, 48_000, 96_000])


def encoder(rate_hz: int = 16_000, **changes: object) -> Bandsplit:
    torch.manual_seed(0)
    found = build("bandsplit", {"embed_dim": 32, "depth": 2, "num_heads": 2, "rate_hz": rate_hz, **changes}).eval()
    assert isinstance(found, Bandsplit)
    return found


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tones(rate_hz: int, seconds: float, seed: int, top_hz: float) -> torch.Tensor:
    """The same sound at any rate: 300 tones, closer than the bins, below `top_hz`."""
    rng = np.random.default_rng(seed)
    hertz, phase = rng.uniform(20, top_hz, 300), rng.uniform(0, 2 * np.pi, 300)
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    sound = (rng.uniform(0.001, 0.01, 300) @ np.sin(2 * np.pi * hertz[:, None] * times + phase[:, None]))[None]
    return torch.from_numpy(sound.astype(np.float32))


@settings(max_examples=5, deadline=None)
@given(rate=st.sampled_from([32_000, 44_100, 48_000, 96_000]), seed=st.integers(0, 999))
def test_another_rate_leaves_the_lower_bands_alone(rate: int, seed: int) -> None:
    low, high = encoder(), at_rate(encoder(), rate)
    with torch.inference_mode():
        (a,), (b,) = (e(tones(e.rate_hz, 1.0, seed, 7500)) for e in (low, high))
    assert high.bands == len(band_starts(BandsplitConfig(rate_hz=rate))) > low.bands == 2
    assert b.features.shape == (1, a.features.shape[1], 5 * high.bands, 32)
    # Values have a deviation of 1. A bin with next to nothing in it shows what the sampled window leaks.
    assert (b.features[:, :, :10] - a.features).abs().mean() < 5e-3
    assert torch.nn.functional.cosine_similarity(b.cls[:, :32], a.cls[:, :32]).min() > 0.9999


@settings(max_examples=5, deadline=None)
@given(rate=st.sampled_from([16_000, 44_100, 48_000]), band=st.integers(0, 9), seed=st.integers(0, 99))
def test_a_band_hears_no_other(rate: int, band: int, seed: int) -> None:
    model = encoder(rate)
    band %= model.bands
    mel, _ = model.frontend(noise(1, rate // 2, seed=seed))
    other = mel.clone()
    other[..., band * 100 : band * 100 + 100] += 1.0
    (a,), (b,) = model.encode(mel), model.encode(other)
    same = (a.features == b.features).all(-1).all(1)[0].reshape(model.bands, 5).all(1)
    assert same.tolist() == [k != band for k in range(model.bands)]


def test_the_same_sound_in_another_band_is_told_apart() -> None:
    """The blocks are shared: only the place code says which band it is."""
    model = encoder()
    mel = noise(1, 64, 100).repeat(1, 1, 2)
    (tokens,) = model.encode(mel)
    assert not torch.allclose(tokens.features[:, :, :5], tokens.features[:, :, 5:], atol=1e-2)
    model.place_of_patch.zero_()
    model.place_of_band.zero_()
    (tokens,) = model.encode(mel)
    assert torch.allclose(tokens.features[:, :, :5], tokens.features[:, :, 5:], atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(rate=RATES, extra=st.integers(0, 20_000), longer=st.integers(1, 20_000), seed=st.integers(0, 99))
def test_any_length_alone_as_in_a_padded_batch(rate: int, extra: int, longer: int, seed: int) -> None:
    model = encoder(rate)
    length = model.min_samples + extra
    batch = noise(2, length + longer, seed=seed)
    mask = torch.arange(length + longer) >= torch.tensor([[length], [length + longer]])
    with torch.inference_mode():
        (padded,), (alone,) = model(batch, mask), model(batch[:1, :length])
    times = alone.features.shape[1]
    assert times == (1 + (length - model.frontend.frame) // model.frontend.hop) // 16
    assert padded.mask is not None
    assert (~padded.mask[0]).sum() == times * 5 * model.bands
    assert (padded.features[:1, :times] - alone.features).abs().max() < 1e-5
    assert (padded.cls[:1] - alone.cls).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("rate", "starts"),
    [
        (8_000, [0]),
        (16_000, [0, 4000]),
        (20_000, [0, 4000, 6000]),
        (44_100, [0, 4000, 8000, 12_000, 16_000, 18_040]),
        (48_000, [0, 4000, 8000, 12_000, 16_000, 20_000]),
    ],
)
def test_more_rate_is_more_bands(rate: int, starts: list[int]) -> None:
    assert band_starts(BandsplitConfig(rate_hz=rate)) == starts
    assert encoder(rate).bands == encoder(rate).class_count == len(starts)


def test_a_tone_stands_where_it_belongs() -> None:
    for rate in (16_000, 44_100):
        model = encoder(rate)
        tone = 0.5 * torch.sin(2 * torch.pi * 6000 * torch.arange(rate) / rate)[None]
        mel, _ = model.frontend(tone)
        assert int(mel[0].mean(0).argmax()) == 100 + 2000 // 40
        level = mel[0, :, 150] * 7 - 18.5
        assert level.mean().item() == pytest.approx(np.log(0.25**2), abs=1e-3)


def test_the_base_size_has_five_million_parameters_at_any_rate() -> None:
    with torch.device("meta"):
        for rate in (16_000, 48_000):
            model = build("bandsplit", {"rate_hz": rate})
            assert sum(p.numel() for p in model.parameters()) == 5_400_576
            assert model.state_dict().keys() == dict(model.named_parameters()).keys()  # nothing that a rate changes


def test_a_checkpoint_serves_another_rate(tmp_path) -> None:
    save_checkpoint(tmp_path / "encoder", encoder())
    loaded = load_backbone(tmp_path / "encoder")
    assert loaded.rate_hz == 16_000
    wide = at_rate(loaded, 48_000)
    assert (wide.rate_hz, wide.class_count, wide.training) == (48_000, 6, False)
    assert all(torch.equal(a, b) for a, b in zip(wide.parameters(), loaded.parameters(), strict=True))


def test_what_does_not_fit_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match="beats hears at 16000 Hz: leave rate_hz out"):
        at_rate(build("beats", "tiny"), 48_000)
    with pytest.raises(UsageError, match=r"rate_hz 4000: .* holds no band of 4000 Hz: at least 8000"):
        at_rate(encoder(), 4000)
    with pytest.raises(UsageError, match=r"rate_hz 22050: .*multiple of 100"):
        at_rate(encoder(), 22_050)
    for wrong in ({"patch_hz": 1200}, {"num_heads": 5}, {"band_hz": 4010}):
        with pytest.raises(ValueError, match="multiple"):
            encoder(**wrong)
    assert encoder(patch_hz=1000).rows == 4
