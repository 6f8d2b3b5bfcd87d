"""The common interface of the encoders, on tiny ones with random weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from asd_agent.errors import UsageError
from asd_train.backbones import NAMES, Backbone, build, sizes
from asd_train.embed import PooledEncoder
from asd_train.pooling import parse_layers, pool, pooled_dim


@pytest.fixture(params=NAMES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return build(request.param, "tiny").eval()


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_shapes_are_those_that_are_promised(backbone: Backbone) -> None:
    every = range(backbone.layers + 1)
    found = backbone(noise(2, backbone.rate_hz), layers=every)
    assert len(found) == len(backbone.dims) == backbone.layers + 1
    for layer, tokens in zip(every, found, strict=True):
        assert tokens.features.shape[0] == 2
        assert tokens.features.shape[2:] == (backbone.frequencies(layer), backbone.dims[layer])
        assert tokens.mask is None
        assert (tokens.cls is not None) == (backbone.class_count > 0)
        if tokens.cls is not None:
            assert tokens.cls.shape == (2, backbone.class_count * backbone.dims[layer])
    assert backbone.dim == backbone.dims[-1]


@pytest.mark.parametrize("extra", [0, 1, 159, 4321])
def test_any_length_from_the_shortest(backbone: Backbone, extra: int) -> None:
    (tokens,) = backbone(noise(1, backbone.min_samples + extra))
    assert tokens.features.shape[1] >= 1
    assert tokens.features.isfinite().all()


def test_too_short_a_clip_is_one_clear_line(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match=f"needs at least {backbone.min_samples}"):
        backbone(noise(1, backbone.min_samples - 1))


def test_wished_layers_come_in_the_wished_order(backbone: Backbone) -> None:
    wave, last = noise(1, backbone.rate_hz), backbone.layers
    first, again, final = backbone(wave, layers=(last, 1, -1))
    assert torch.equal(first.features, final.features)
    assert torch.equal(again.features, backbone(wave, layers=[1])[0].features)
    with pytest.raises(UsageError, match=f"no layer {last + 1}"):
        backbone(wave, layers=[last + 1])


def test_clips_of_a_batch_do_not_mix(backbone: Backbone) -> None:
    batch = noise(3, backbone.rate_hz)
    (together,) = backbone(batch)
    (alone,) = backbone(batch[1:2])
    assert (together.features[1:2] - alone.features).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["eat", "bandsplit"])
def test_padding_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    backbone = build(name, "tiny").eval()
    clip, batch = noise(1, 16_000), torch.zeros(2, 40_000)
    batch[0, :16_000], batch[1] = clip[0], noise(40_000)
    mask = torch.arange(40_000) >= torch.tensor([[16_000], [40_000]])
    (padded,) = backbone(batch, mask)
    (alone,) = backbone(clip)
    for how in ("mean", "cls", "time", "max", "rdp8", "rdp4gem3", "time+max"):
        assert (pool(padded, how)[:1] - pool(alone, how)).abs().max() < 1e-5


def test_padding_is_seen_by_no_other_token() -> None:
    """BEATs' mask is the authors', which is not exact to the frame; what lies behind it must not matter."""
    torch.manual_seed(0)
    backbone = build("beats", "tiny").eval()
    batch = noise(2, 40_000)
    mask = torch.arange(40_000).expand(2, -1) >= 20_000
    other = batch.clone()
    other[:, 26_000:] = noise(2, 14_000) * 3
    for how in ("mean", "time"):
        a, b = (pool(backbone(wave, mask)[0], how) for wave in (batch, other))
        assert (a - b).abs().max() < 1e-5
    assert backbone(batch, mask)[0].mask is not None


def test_gradients_reach_every_parameter_of_the_trunk(backbone: Backbone) -> None:
    backbone.train()
    (tokens,) = backbone(noise(2, backbone.rate_hz))
    tokens.features.square().sum().backward()
    missing = {n for n, p in backbone.named_parameters() if p.grad is None}
    assert all(name.startswith("classifier") for name in missing)


def test_bfloat16_autocast(backbone: Backbone) -> None:
    wave = noise(1, backbone.rate_hz)
    (plain,) = backbone(wave)
    with torch.autocast("cpu", torch.bfloat16):
        (cast,) = backbone(wave)
    a, b = plain.features.flatten(), cast.features.float().flatten()
    assert torch.cosine_similarity(a, b, 0) > 0.98


def test_adapters_find_their_layers(backbone: Backbone) -> None:
    linear = {name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)}
    for target in backbone.adapter_targets:
        assert any(name.endswith("." + target) for name in linear)


def test_lora_trains_the_adapters_alone(backbone: Backbone) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    wave = noise(1, backbone.rate_hz)
    (before,) = backbone(wave)
    inject_adapter_in_model(LoraConfig(r=4, target_modules=list(backbone.adapter_targets)), backbone)
    (after,) = backbone(wave)
    assert torch.allclose(before.features, after.features, atol=1e-6)  # B starts at zero
    after.features.square().sum().backward()
    trained = {n for n, p in backbone.named_parameters() if p.grad is not None}
    assert trained
    assert all("lora_" in name for name in trained)


def test_config_builds_the_same_architecture(backbone: Backbone) -> None:
    twin = build(backbone.name, backbone.config)
    twin.load_state_dict(backbone.state_dict())
    wave = noise(1, backbone.rate_hz)
    assert torch.equal(twin.eval()(wave)[0].features, backbone(wave)[0].features)


def test_pooling(backbone: Backbone) -> None:
    wave = noise(2, backbone.rate_hz)
    (tokens,) = backbone(wave)
    assert torch.allclose(pool(tokens, "mean"), tokens.features.mean((1, 2)))
    assert torch.allclose(pool(tokens, "time"), tokens.features.mean(1).flatten(1))
    for how in ("mean", "time", "rdp8+max"):
        encoder = PooledEncoder(backbone, (1, backbone.layers), how)
        assert encoder(wave).shape == (2, encoder.dim)
        assert encoder.dim == pooled_dim(backbone, (1, backbone.layers), how)
    if not backbone.class_count:
        with pytest.raises(UsageError, match="no class token"):
            pool(tokens, "cls")


def test_layer_names(backbone: Backbone) -> None:
    last = backbone.layers
    assert parse_layers("last", backbone) == (last,)
    assert parse_layers("all", backbone) == tuple(range(1, last + 1))
    assert parse_layers("0,-1", backbone) == (0, last)
    for wrong in ("x", "1,", str(last + 1)):
        with pytest.raises(UsageError, match="layer"):
            parse_layers(wrong, backbone)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UsageError, match="beats, eat, efficientat"):
        build("panns")
    with pytest.raises(UsageError, match="tiny"):
        build("beats", "huge")
    assert {"base", "large", "tiny"} <= set(sizes("eat"))


def test_eat_says_when_a_clip_outlasts_its_positions() -> None:
    backbone = build("eat", {"embed_dim": 32, "depth": 1, "num_heads": 2, "positions": 64})
    with pytest.raises(UsageError, match="use shorter windows"):
        backbone(noise(1, 16_000 * 5))
