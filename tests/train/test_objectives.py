"""Systems and their objectives: what is joined, frozen, adapted, mixed and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F

from asd_agent.errors import ConfigError, UsageError
from asd_train import config as cfg
from asd_train import losses
from asd_train.backbones import build
from asd_train.checkpoints import save_checkpoint
from asd_train.config import family
from asd_train.data import Clip, DataSource
from asd_train.data.dataset import Batch
from asd_train.loop import build_optimiser
from asd_train.model import System, build_system, describe, load_system, save_system
from asd_train.noise import NoisePool
from asd_train.objectives import Classify, OsScl, Separate, class_loss, patches
from asd_train.pooling import pool

ARC = cfg.ArcFace(scale=30, margin=0.3)
CLASSES = ["a", "b", "c"]


def encoder(name: str = "beats", **changes: Any) -> cfg.EncoderBranch:
    return msgspec.structs.replace(cfg.EncoderBranch(encoder=name, size="tiny"), **changes)  # type: ignore[arg-type]


def system_config(*branches: cfg.Branch, clip_s: float | None = 1.0, output: cfg.Output | None = None) -> cfg.System:
    model = cfg.Model(branches=list(branches), output=output or cfg.Output())
    return cfg.System(name="x", data=[DataSource(path="x")], model=model, clip_s=clip_s)


def system(*branches: cfg.Branch, **options: Any) -> System:
    return build_system(system_config(*branches, **options))


def waves(clips: int = 4, samples: int = 16000, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(seed))


def batch(waveform: torch.Tensor, valid: list[int] | None = None) -> Batch:
    n, samples = waveform.shape
    padding = torch.arange(samples)[None] >= torch.tensor(valid or [samples] * n)[:, None]
    return Batch(waveform.masked_fill(padding, 0), padding, torch.arange(n) % 3, torch.arange(n))


def test_embedding_joins_the_branches_in_order() -> None:
    both = system(encoder("beats", dim=8), encoder("eat", pool="cls"), cfg.SpectrumBranch(dim=4, width=8)).eval()
    parts = both.embed_branches(waves())
    assert [p.shape[1] for p in parts] == both.widths == [8, 32, 4]
    assert torch.equal(both(waves()), torch.cat(parts, 1))
    assert both.dim == 44


def test_output_of_layers_joins_all_encoders_layers() -> None:
    output = cfg.Output(layers="all", pool="mean")
    both = system(encoder("beats", dim=8), encoder("eat"), output=output).eval()
    expected = [
        pool(tokens, "mean")
        for b in both.encoders
        for tokens in b.backbone(waves(), layers=range(1, b.backbone.layers + 1))
    ]
    assert both(waves()).shape[1] == both.dim
    assert torch.allclose(both(waves()), torch.cat(expected, 1))


def test_genrep_is_time_pooling_of_one_layer() -> None:
    genrep = system(encoder("beats", layers=[1], pool="time", tuning="frozen")).eval()
    (tokens,) = genrep.encoders[0].backbone(waves(), layers=[1])
    assert genrep.dim == 8 * 32
    assert torch.allclose(genrep(waves()), tokens.features.mean(1).flatten(1), atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "attentive"])
@pytest.mark.parametrize("name", ["beats", "eat"])
def test_padding_does_not_change_an_embedding(name: str, pooling: str) -> None:
    one = system(encoder(name, pool=pooling, dim=8), clip_s=None).eval()
    wave = waves(2, 25600)
    longer = torch.cat([wave, torch.zeros(2, 9600)], 1)
    padding = (torch.arange(35200) >= 25600).expand(2, -1)
    # BEATs' reduction of a padding mask is the authors', which blurs the end by some tokens.
    assert torch.allclose(one(longer, padding), one(wave), atol=1e-5 if name == "eat" else 0.2)
    if name == "eat":
        assert not torch.allclose(one(longer), one(wave), atol=1e-4)


def test_what_tuning_trains() -> None:
    one = system(encoder("beats", tuning="frozen", dim=8), encoder("eat", tuning="lora"), encoder("eat"))
    one.adapt()
    trained = {n for n, p in one.named_parameters() if p.requires_grad}
    assert {n for n in trained if n.startswith("branches.0.")} == {"branches.0.dense.weight", "branches.0.dense.bias"}
    assert all("lora_" in n for n in trained if n.startswith("branches.1."))
    assert "branches.2.backbone.blocks.0.mlp.fc1.weight" in trained
    assert not one.train().encoders[0].backbone.training
    assert one.encoders[2].backbone.training


@pytest.mark.parametrize("how", ["train", "frozen"])
def test_batch_norm_keeps_the_statistics_of_the_checkpoint(how: Any) -> None:
    one = system(encoder("efficientat", batch_norm=how)).train()
    norm = one.encoders[0].backbone.features[0][1]  # type: ignore[index]
    before = norm.running_mean.clone()
    one(waves(samples=32_000)).sum().backward()
    assert torch.equal(norm.running_mean, before) == (how == "frozen")
    assert norm.weight.grad is not None  # which is trained all the same
    assert one.encoders[0].backbone.training
    assert not one.eval().encoders[0].backbone.training


def test_lora_takes_its_own_targets_and_merges() -> None:
    one = system(encoder("beats", tuning="lora", lora=cfg.Lora(rank=2, targets=["fc2"])))
    plain = set(one.state_dict())
    one.adapt()
    adapted = {n for n, p in one.named_parameters() if p.requires_grad}
    assert all(".fc2.lora_" in n for n in adapted)
    with torch.no_grad():
        for name, p in one.named_parameters():
            if "lora_B" in name:
                p.normal_()
    merged = one.eval().merged()
    assert set(merged.state_dict()) == plain
    assert torch.allclose(merged(waves()), one(waves()), atol=1e-5)
    wrong = system(encoder("eat", tuning="lora", lora=cfg.Lora(targets=["q_proj"])))
    with pytest.raises(ConfigError, match="'q_proj'"):
        wrong.adapt()


def test_spec_augment_works_in_training_only() -> None:
    one = system(encoder("eat", spec_augment=cfg.SpecAugment(width=80, probability=1.0)))
    assert torch.equal(one.eval()(waves()), one(waves()))
    assert not torch.equal(one.train()(waves()), one(waves()))


def test_encoders_of_two_rates_cannot_share_a_system() -> None:
    with pytest.raises(UsageError, match="different sampling rates"):
        system(encoder("beats"), encoder("efficientat"))


def test_a_branch_from_a_checkpoint_has_its_weights(tmp_path: Path) -> None:
    start = build("eat", "tiny")
    save_checkpoint(tmp_path / "eat", start)
    one = system(cfg.EncoderBranch(checkpoint=str(tmp_path / "eat")))
    ours = one.encoders[0].backbone.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in start.state_dict().items())


@pytest.mark.parametrize("damage", ["weights", "card", "missing"])
def test_saved_systems_come_back_or_say_what_is_wrong(damage: str, tmp_path: Path) -> None:
    config = system_config(encoder("eat", dim=8), cfg.SpectrumBranch(dim=4, width=8))
    one = build_system(config).eval()
    save_system(one.merged(), describe(one, config, CLASSES, {"steps": 3}), tmp_path / "s")
    back, card = load_system(tmp_path / "s")
    assert torch.equal(back(waves()), one(waves()))
    assert (card.classes, card.clip_s, card.dim) == (CLASSES, 1.0, 12)
    if damage == "weights":
        path = tmp_path / "s" / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    elif damage == "card":
        (tmp_path / "s" / "system.json").write_text("{}")
    else:
        (tmp_path / "s" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"damaged|not a system"):
        load_system(tmp_path / "s")


def test_checkpoint_names_tell_the_family() -> None:
    names = ["checkpoints/BEATs_iter3.pt", "runs/b_leat/system", "EAT-base_epoch30.pt", "mn04_as_mAP_432.pt"]
    assert [family(name) for name in names] == ["beats", "eat", "eat", "efficientat"]


def test_classify_is_the_loss_of_the_joined_branches() -> None:
    one = system(encoder("beats", dim=8), encoder("eat", dim=8))
    learner = Classify(one, cfg.Classify(loss=ARC), CLASSES).eval()
    joined = one(waves())
    expected = learner.head(joined, F.one_hot(torch.arange(4) % 3, 3).float())
    assert torch.equal(learner(batch(waves()))["loss"], expected)


def test_classify_mixes_waveforms_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    one = system(encoder("eat", dim=8))
    learner = Classify(one, cfg.Classify(loss=cfg.AdaCos(centres=2), mixup=1.0), CLASSES).eval()
    monkeypatch.setattr("asd_train.layers.augment.mixup_shares", lambda *a, **k: torch.tensor([0.3, 1.0, 0.6, 0.0]))
    monkeypatch.setattr("asd_train.layers.augment.partners", lambda *a: torch.tensor([1, 0, 3, 2]))
    x = waves()
    mixed = torch.stack([0.3 * x[0] + 0.7 * x[1], x[1], 0.6 * x[2] + 0.4 * x[3], x[2]])
    targets = torch.tensor([[0.3, 0.7, 0], [0, 1, 0], [0.4, 0, 0.6], [0, 0, 1]])
    expected = learner.head(one(mixed), targets)
    assert learner(batch(x))["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_exchange_needs_two_branches_and_adds_its_head() -> None:
    config = cfg.Classify(loss=cfg.AdaCos(centres=2), exchange=0.5)
    with pytest.raises(UsageError, match="two branches"):
        Classify(system(encoder("eat")), config, CLASSES)
    learner = Classify(system(encoder("eat", dim=8), encoder("beats", dim=8)), config, CLASSES)
    assert isinstance(learner.exchange_head, losses.AdaCos)
    assert learner.exchange_head.classes == 9
    found = learner(batch(waves()))
    assert found["loss"].item() == pytest.approx((found["class"] + found["exchange"]).item())


def test_centres_by_class_name() -> None:
    config = cfg.ArcFace(centres=2, centres_of={"/fan/": 5, "noise": 1})
    loss = class_loss(config, 4, ["2025/fan/00/a", "2025/valve/00/noise", "2025/gear/00/b"])
    assert isinstance(loss, losses.ArcFace)
    assert len(loss.weight) == 5 + 1 + 2
    assert [len(set(row.tolist())) for row in loss.index] == [5, 1, 2]


def test_os_scl_adds_contrast_behind_the_head_and_shrinks_the_weights() -> None:
    one = system(encoder("eat", dim=8), encoder("beats", dim=8, tuning="frozen"))
    one.adapt()
    learner = OsScl(one, cfg.OsScl(loss=ARC, mixup_beta=None, supcon=0.5, shrink=0.1), CLASSES).eval()
    labels = torch.arange(4) % 3
    features = learner.perturbation(one(waves()))
    arcface = learner.head(features, F.one_hot(labels, 3).float(), labels)
    contrast = losses.supcon(features, labels, 0.04)
    assert learner(batch(waves()))["loss"].item() == pytest.approx((arcface + 0.5 * contrast).item(), rel=1e-5)
    before = {n: p.clone() for n, p in learner.named_parameters()}
    learner.after_update(1)
    for name, p in learner.named_parameters():
        factor = 0.9 if p.requires_grad else 1.0
        assert torch.allclose(p, factor * before[name]), name


def test_patches_are_in_the_order_of_the_tokens() -> None:
    mel = torch.arange(40 * 128.0).reshape(1, 40, 128)
    found = patches(mel, 2, (16, 16))
    assert found.shape == (1, 2 * 8, 256)
    for time in range(2):
        for frequency in range(8):
            square = mel[0, time * 16 : time * 16 + 16, frequency * 16 : frequency * 16 + 16]
            assert torch.equal(found[0, time * 8 + frequency], square.flatten())
    assert not patches(mel, 3, (16, 16))[0, 16:, 128:].any()  # beyond the end


@pytest.mark.parametrize("name", ["beats", "eat", "efficientat"])
def test_separation_compares_with_the_clean_filterbank(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = system(encoder(name), clip_s=None)
    learner = Separate(one, cfg.Separate(), [False] * 2, padded=True).eval()
    rate = one.rate_hz
    data = batch(waves(2, 3 * rate), [3 * rate, 2 * rate])
    noisy = waves(2, 3 * rate, seed=9)
    monkeypatch.setattr(learner, "_mixture", lambda *args: noisy)
    branch = one.encoders[0]
    mel, _ = branch.backbone.frontend(data.waveform, data.padding)
    (tokens,) = branch.backbone(noisy, data.padding)
    estimate = learner.decoder(tokens.features)
    clean = patches(mel, tokens.features.shape[1], learner.patch).reshape(estimate.shape)
    assert tokens.mask is not None
    errors = [
        (estimate[b, t, f] - clean[b, t, f]).square().mean().item()
        for b in range(2) for t in range(estimate.shape[1]) for f in range(estimate.shape[2])
        if not tokens.mask[b, t, f]
    ]  # fmt: skip
    assert len(errors) < estimate[..., 0].numel()
    assert learner(data)["loss"].item() == pytest.approx(float(np.mean(errors)), rel=1e-4)


def test_separation_freezes_its_decoder_after_its_share() -> None:
    learner = Separate(system(encoder("eat")), cfg.Separate(decoder_share=0.5), [False] * 4)
    for progress, frozen in ((0.49, False), (0.5, True)):
        learner(batch(waves()))["loss"].backward()
        learner.before_update(progress)
        assert all((p.grad is None) == frozen for p in learner.decoder.parameters())
        assert learner.system.encoders[0].backbone.extra_tokens.grad is not None


def test_separation_leaves_one_copy_of_supplemental_clips_quiet() -> None:
    learner = Separate(
        system(encoder("eat")), cfg.Separate(variants=3, snr_db=(0.0, 0.0)), [True] * 200 + [False] * 200
    )
    data = Batch(waves(400, 800), torch.zeros(400, 800, dtype=torch.bool), torch.zeros(400), torch.arange(400))
    torch.manual_seed(0)
    mixture = learner._mixture(data, None)
    quiet = (mixture == data.waveform).all(1)
    assert 0.15 < quiet[:200].float().mean() < 0.35
    assert not quiet[200:].any()
    noise = (mixture - data.waveform)[200:]
    ratio = noise.square().mean(1) / data.waveform[200:].square().mean(1)
    assert torch.allclose(ratio, torch.ones(200), atol=1e-3)


@pytest.fixture
def pool_of_one(tmp_path: Path) -> NoisePool:
    """Machine a has noise (a ramp), machine b has none; clips 0 and 2 are of a."""
    soundfile.write(tmp_path / "n.wav", np.linspace(-0.5, 0.5, 1000), 16000, subtype="FLOAT")
    clips = [Clip(path=str(i), machine=machine) for i, machine in enumerate("aba")]
    noise = [
        Clip(path=str(tmp_path / "n.wav"), machine="a", kind="noise"),
        Clip(path="gone.wav", machine="z", kind="noise"),
    ]
    return NoisePool(clips, noise, 16000)


def test_noise_is_of_the_clips_own_machine(pool_of_one: NoisePool) -> None:
    rows = torch.tensor([0, 1, 2])
    drawn = pool_of_one.draw(rows, 2500)
    assert pool_of_one.has(rows).tolist() == [True, False, True]
    assert not drawn[1].any()
    assert torch.allclose(drawn[0, :1000].sort().values, torch.linspace(-0.5, 0.5, 1000), atol=1e-3)
    assert torch.equal(drawn[0, :1000], drawn[0, 1000:2000])  # repeated to the length
    assert not torch.equal(drawn[0], drawn[2])
    x = waves(3, 2500)
    noisy = pool_of_one.add_to(x, rows, 1.0, (6.0, 6.0))
    assert torch.equal(noisy[1], x[1])
    ratio = x[0].square().mean() / (noisy[0] - x[0]).square().mean()
    assert 10 * torch.log10(ratio).item() == pytest.approx(6.0, abs=0.01)
    assert torch.equal(pool_of_one.add_to(x, rows, 0.0, (6.0, 6.0)), x)


def test_new_layers_learn_at_their_own_rate_and_vectors_do_not_decay() -> None:
    one = system(encoder("eat", tuning="lora", dim=8))
    one.adapt()
    learner = Classify(one, cfg.Classify(loss=ARC), CLASSES)
    optimiser = build_optimiser(learner, cfg.Train(steps=1, lr=1e-5, head_lr=1e-3, weight_decay=0.1))
    names = {id(p): n for n, p in learner.named_parameters()}
    for group in optimiser.param_groups:
        for p in group["params"]:
            assert group["peak"] == (1e-5 if "backbone" in names[id(p)] else 1e-3), names[id(p)]
            assert group["weight_decay"] == (0.1 if p.dim() > 1 else 0.0), names[id(p)]
    assert sum(len(g["params"]) for g in optimiser.param_groups) == sum(p.requires_grad for p in learner.parameters())


def test_gradients_are_clipped_branch_by_branch() -> None:
    """The FFT branch's gradients are far larger than an encoder's: clipped together they would silence it."""
    one = system(encoder("eat", dim=8), cfg.SpectrumBranch(dim=8, width=16))
    learner = Classify(one, cfg.Classify(loss=ARC), CLASSES)
    groups = learner.clip_groups()
    assert [len(group) for group in groups[:2]] == [len(list(branch.parameters())) for branch in one]
    every = [id(p) for group in groups for p in group]
    assert sorted(every) == sorted(id(p) for p in learner.parameters())
    assert len(set(every)) == len(every)
    for group, size in zip(groups, (1e-3, 1e3, 1.0), strict=True):
        for p in group:
            p.grad = torch.full_like(p, size)
        torch.nn.utils.clip_grad_norm_(group, 1.0)
    norms = [torch.stack([p.grad.norm() for p in group if p.grad is not None]).norm().item() for group in groups]
    assert norms[1] == pytest.approx(1.0, rel=1e-3)
    assert norms[0] < 1.0  # untouched


def test_nothing_to_train_is_said(tmp_path: Path) -> None:
    one = system(encoder("eat", tuning="frozen"))
    one.adapt()
    learner = Classify(one, cfg.Classify(loss=cfg.AdaCos(trainable=False)), CLASSES)
    with pytest.raises(UsageError, match="nothing to train"):
        build_optimiser(learner, cfg.Train(steps=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"branches": [{"kind": "fft"}]}}, "at least one must be of kind encoder"),
        ({"model": {"branches": [{"kind": "encoder"}]}}, "give either checkpoint"),
        ({"train": {"steps": 1, "epochs": 1}}, "either steps or epochs"),
        ({"objective": {"kind": "separate"}}, "belong together"),
        ({"classes": {"atributes": True}}, "classes.atributes: unknown key .*attributes"),
    ],
)
def test_wrong_configurations_name_the_key(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    from asd_agent.config.load import read

    plain = {"name": "x", "data": [{"path": "x"}], "model": {"branches": [{"kind": "encoder", "encoder": "eat"}]}}
    (tmp_path / "c.yaml").write_bytes(msgspec.json.encode({**plain, **change}))
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "c.yaml", cfg.System)
