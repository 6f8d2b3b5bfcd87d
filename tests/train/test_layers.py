"""Layers: augmentations, poolings, branches, LoRA, EMA, schedules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asd_agent.errors import ConfigError
from asd_train.layers import augment, lora, schedule
from asd_train.layers.attentive import AttentiveStatistics
from asd_train.layers.decoder import ConvDecoder
from asd_train.layers.ema import Ema
from asd_train.layers.perturb import FeaturePerturbation
from asd_train.layers.spectrum import MagnitudeSpectrum, SpectrumNet


def one_hot(labels: list[int], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(labels), classes).float()


def test_mix_is_the_weighted_sum_with_the_partner() -> None:
    x, partner = torch.randn(3, 4, 5), torch.tensor([2, 0, 1])
    mixed = augment.mix(x, partner, torch.tensor([1.0, 0.25, 0.0]))
    assert torch.equal(mixed[0], x[0])
    assert torch.allclose(mixed[1], 0.25 * x[1] + 0.75 * x[0])
    assert torch.equal(mixed[2], x[1])


def test_mixup_shares_touch_the_asked_part_of_the_batch() -> None:
    torch.manual_seed(0)
    shares = augment.mixup_shares(4000, torch.empty(0), probability=0.3)
    assert (shares < 1).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert shares[shares < 1].mean().item() == pytest.approx(0.5, abs=0.03)
    beta = augment.mixup_shares(8, torch.empty(0), beta=0.5)
    assert beta.unique().numel() == 1
    assert 0 <= beta[0] <= 1


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), n=st.integers(1, 3), probability=st.floats(0, 1))
def test_feature_exchange_labels_say_where_each_branch_came_from(seed: int, n: int, probability: float) -> None:
    torch.manual_seed(seed)
    labels = [0, 1, 2, 0, 1]
    # The features carry their clip's number, so that the origin can be read off.
    branches = [torch.arange(5.0)[:, None] * 10 + b for b in range(n)]
    mixed, targets = augment.exchange_features(branches, one_hot(labels, 3), probability)
    assert targets.shape == (5, (n + 1) * 3)
    assert torch.allclose(targets.sum(1), torch.ones(5))
    assert torch.equal(mixed[0], branches[0])
    for i in range(5):
        blocks = targets[i].reshape(n + 1, 3)
        if blocks[0].any():
            assert torch.equal(blocks[0], one_hot(labels, 3)[i])
            assert all(torch.equal(mixed[b][i], branches[b][i]) for b in range(n))
        else:
            for b in range(n):
                origin = int(mixed[b][i].item() // 10)
                assert torch.allclose(blocks[b + 1], one_hot(labels, 3)[origin] / n)


def test_spec_augment_masks_one_stripe_per_axis_with_the_probability() -> None:
    torch.manual_seed(0)
    features = torch.ones(2000, 100, 30)
    masked = augment.mask_spectrogram(features, width=20, probability=0.5)
    times, mels = (masked == 0).all(2), (masked == 0).all(1)
    # A width below one row masks nothing: 19/20 of the draws are at least one row wide.
    assert times.any(1).float().mean().item() == pytest.approx(0.5 * 0.95, abs=0.04)
    assert times.sum(1).max() <= 20
    assert mels.sum(1).max() <= 20
    for stripe in (times, mels):
        starts = (stripe.int().diff(dim=1) == 1).sum(1) + stripe[:, 0].int()
        assert starts.max() == 1
    assert torch.equal(features, torch.ones_like(features))
    assert torch.equal(augment.mask_spectrogram(features, width=20, probability=0.0), features)


def test_noise_is_added_at_the_asked_ratio() -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(3, 16000), 7 * torch.randn(3, 16000)
    noise[2] = 0
    added = augment.add_noise(clean, noise, torch.tensor([10.0, -5.0, 0.0])) - clean
    for i, snr_db in enumerate([10.0, -5.0]):
        ratio = clean[i].square().mean() / added[i].square().mean()
        assert 10 * math.log10(ratio) == pytest.approx(snr_db, abs=1e-3)
    assert not added[2].any()


def test_attentive_statistics_do_not_see_padding() -> None:
    torch.manual_seed(0)
    pool = AttentiveStatistics(12).eval()
    tokens = torch.randn(2, 7, 12)
    longer = torch.cat([tokens, 100 * torch.randn(2, 3, 12)], 1)
    padding = torch.arange(10).expand(2, 10) >= 7
    assert torch.allclose(pool(longer, padding), pool(tokens), atol=1e-5)
    assert not torch.allclose(pool(longer), pool(tokens), atol=1e-2)
    assert pool(tokens.flip(1)).allclose(pool(tokens), atol=1e-5)


@pytest.mark.parametrize("samples", [16000, 160000, 1200, 96 * 125, 31 * 37])
def test_magnitude_spectrum_is_the_fft(samples: int) -> None:
    x = torch.randn(2, samples, generator=torch.Generator().manual_seed(1))
    expected = np.abs(np.fft.rfft(x.double().numpy()))[:, : samples // 2]
    assert np.abs(MagnitudeSpectrum(samples)(x).numpy() - expected).max() < 2e-5 * math.sqrt(samples)


def test_magnitude_spectrum_refuses_a_prime_length() -> None:
    with pytest.raises(ValueError, match="no two factors"):
        MagnitudeSpectrum(16001)


def test_spectrum_net_normalises_its_features() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16000)
    unit, plain = SpectrumNet(16000, 8, 8, "features").eval(), SpectrumNet(16000, 8, 8).eval()
    plain.load_state_dict(unit.state_dict())
    assert torch.allclose(unit(x).norm(dim=-1), torch.ones(2), atol=1e-5)
    assert torch.allclose(unit(x), F.normalize(plain(x), dim=-1), atol=1e-5)


@pytest.mark.parametrize("level", [1e-3, 1e-2, 0.3])
@pytest.mark.parametrize("seconds", [2, 10])
def test_the_first_batch_norm_of_the_spectrum_net_is_well_conditioned(level: float, seconds: int) -> None:
    """Its variances are far above its epsilon, for quiet clips too."""
    torch.manual_seed(0)
    net = SpectrumNet(16000 * seconds, 32, 64).train()
    gains = torch.linspace(0.5, 2, 8)[:, None]
    dense = net.head[0](net.cnn(net.scale(net.spectrum(level * gains * torch.randn(8, 16000 * seconds))[:, None])))
    assert dense.var(0).median() > 100 * net.head[1].eps


def test_spectrum_net_has_the_published_shape() -> None:
    net = SpectrumNet(160000)
    lengths = [m.weight.shape for m in net.cnn if isinstance(m, nn.Conv1d)]
    assert lengths == [(128, 1, 256), (128, 128, 64), (128, 128, 16)]
    # 80000 bins -> 1250 -> 40 -> 10
    assert net.head[0].weight.shape == (128, 10 * 128)
    assert all(m.bias is None for m in net.modules() if isinstance(m, (nn.Conv1d, nn.Linear)))


def test_conv_decoder_keeps_the_grid_and_uses_its_neighbours() -> None:
    torch.manual_seed(0)
    decoder = ConvDecoder(32, 10, blocks=2)
    tokens = torch.randn(1, 6, 4, 32)
    out = decoder(tokens)
    assert out.shape == (1, 6, 4, 10)
    moved = tokens.clone()
    moved[0, 0, 0] += 1
    changed = (decoder(moved) - out).abs().amax(-1)[0] > 1e-6
    assert changed[:3, :3].all()  # two 3 x 3 blocks reach two cells
    assert not changed[3:].any()


def test_feature_perturbation_keeps_the_size() -> None:
    assert FeaturePerturbation(128)(torch.randn(4, 128)).shape == (4, 128)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(6, 6), "fc": nn.Linear(6, 6)}) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer["fc"](torch.relu(layer["q"](x)))
        return x


def test_lora_trains_only_its_factors_and_merges_into_the_plain_model() -> None:
    torch.manual_seed(0)
    model, x = Tiny(), torch.randn(5, 6)
    names, before = list(model.state_dict()), model(x)
    lora.adapt(model, targets=["q"], rank=2, alpha=4)
    assert torch.equal(model(x), before)  # B starts at zero
    trainable = [n for n, p in model.named_parameters() if p.requires_grad]
    assert len(trainable) == 4
    assert all("lora_" in n and ".q." in n for n in trainable)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_B" in n:
                p.normal_()
    adapted = model(x)
    assert not torch.allclose(adapted, before)
    lora.merge(model)
    assert list(model.state_dict()) == names
    assert torch.allclose(model(x), adapted, atol=1e-5)


def test_lora_names_a_target_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="'key_proj'"):
        lora.adapt(Tiny(), targets=["key_proj"], rank=2, alpha=4)


@pytest.mark.parametrize("updates", [1, 5, 60])
def test_ema_of_weights_that_stand_still_is_those_weights(updates: int) -> None:
    """From the first step on, without a correction; what it began with weighs decay^n."""
    model = nn.Linear(3, 2)
    still, moved = Ema(model, 0.9), Ema(model, 0.9)
    start = model.weight.detach().clone()
    for _ in range(updates):
        still.update(model)
    assert torch.allclose(still.average["weight"], start, atol=1e-6)
    with torch.no_grad():
        model.weight.add_(1.0)
    for _ in range(updates):
        moved.update(model)
    assert torch.allclose(moved.average["weight"], start + 1 - 0.9**updates, atol=1e-5)


def test_ema_follows_the_decay_and_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[2].requires_grad_(False)
    with torch.no_grad():
        model[0].weight.fill_(0.0)
        model[1].running_mean.fill_(0.0)
    ema = Ema(model, 0.9)
    assert not any(name.startswith("2.") for name in ema.average)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].running_mean.fill_(2.0)
    for _ in range(3):
        ema.update(model)
    with ema.applied(model):
        assert model[0].weight[0, 0].item() == pytest.approx(1 - 0.9**3)
        assert model[1].running_mean[0].item() == pytest.approx(2 * (1 - 0.9**3), rel=1e-5)
    assert model[0].weight[0, 0] == 1


def test_schedules_rise_linearly_and_fall_as_their_formulas() -> None:
    cosine, inverse, flat = (
        schedule.warmup_cosine(110, 10, 0.1),
        schedule.inverse_sqrt(100),
        schedule.constant(4),
    )
    assert [cosine(i) for i in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert cosine(60) == pytest.approx(0.55)
    assert cosine(110) == cosine(500) == pytest.approx(0.1)
    assert [inverse(i) for i in (0, 49, 99, 399)] == pytest.approx([0.01, 0.5, 1.0, 0.5])
    assert [flat(i) for i in (0, 3, 100)] == pytest.approx([0.25, 1.0, 1.0])
