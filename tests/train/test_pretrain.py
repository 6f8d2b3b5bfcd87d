"""EAT's pre-training: masks, targets and losses against literal ones, the teacher, the run."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_agent.config.load import read
from asd_agent.errors import UsageError
from asd_train import cli, pretrain, state
from asd_train.backbones import build, load_backbone
from asd_train.backbones.vit import Vit
from asd_train.checkpoints import save_checkpoint
from asd_train.config import Train
from asd_train.data import DataSource
from asd_train.data.dataset import Batch
from asd_train.layers.masking import inverse_blocks
from asd_train.pretrain import EatLearner, Masking, Pretrain, Teacher

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"


def small(challenge: Path, **train: object) -> Pretrain:
    config = Pretrain(name="small", data=[DataSource(path=str(challenge))], train=Train(steps=5, checkpoint_every=1))
    config = pretrain.tiny(config, steps=5)
    return msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, **train))


def learner(encoder: str = "eat", **changes: object) -> EatLearner:
    torch.manual_seed(0)
    config = msgspec.structs.replace(small(Path()), **changes)
    student = build(encoder, "tiny")
    assert isinstance(student, Vit)
    return EatLearner(student, config)


def batch(clips: int = 3, seed: int = 1) -> Batch:
    wave = 0.1 * torch.randn(clips, 16000, generator=torch.Generator().manual_seed(seed))
    return Batch(wave, torch.zeros(clips, 16000, dtype=torch.bool), torch.zeros(clips), torch.arange(clips))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999),
    times=st.integers(1, 64),
    hidden=st.floats(0.5, 0.9),
    adjust=st.floats(0, 0.2),
    block=st.sampled_from([1, 3, 5]),
)
def test_masks_keep_exactly_the_asked_share(seed: int, times: int, hidden: float, adjust: float, block: int) -> None:
    torch.manual_seed(seed)
    kept = inverse_blocks(4, (times, 8), hidden=hidden, adjust=adjust, block=block)
    assert kept.shape == (4, max(1, int(times * 8 * (1 - hidden))))
    assert (kept.diff(dim=1) > 0).all()
    assert kept.min() >= 0
    assert kept.max() < times * 8


def test_kept_patches_lie_in_blocks() -> None:
    """A kept patch has far more kept neighbours than with a mask of single patches."""
    torch.manual_seed(0)

    def neighbours(block: int) -> float:
        kept = inverse_blocks(200, (64, 8), hidden=0.8, adjust=0.07, block=block)
        grid = torch.zeros(200, 512).scatter(1, kept, 1.0).reshape(200, 64, 8)
        right, below = grid[:, :, :-1] * grid[:, :, 1:], grid[:, :-1] * grid[:, 1:]
        return float((right.sum() + below.sum()) / grid.sum())

    assert neighbours(5) > 2.5 * neighbours(1)


def test_masks_of_a_clip_differ() -> None:
    kept = inverse_blocks(16, (64, 8), hidden=0.8, adjust=0.07)
    assert len({tuple(row.tolist()) for row in kept}) == 16


def test_targets_are_the_literal_recipe() -> None:
    """Feed-forward outputs by hooks, instance norm over time per block, mean, layer norm; in plain numpy."""
    model = learner()
    outputs: list[torch.Tensor] = []
    for block in model.teacher.blocks:
        block.mlp.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    mel, _ = model.student.frontend(batch().waveform)
    model.teacher.encode(mel)
    seen = [o[:, 1:].double().numpy() for o in outputs]
    outputs.clear()
    normed = [(o - o.mean(1, keepdims=True)) / np.sqrt(o.var(1, keepdims=True) + 1e-5) for o in seen]
    mean = np.mean(normed, axis=0)
    expected = (mean - mean.mean(-1, keepdims=True)) / np.sqrt(mean.var(-1, keepdims=True) + 1e-5)
    assert np.abs(model.targets(mel).numpy() - expected).max() < 1e-4


def test_the_student_sees_only_what_is_kept() -> None:
    model = learner(masking=Masking(clones=1)).eval()
    mel, _ = model.student.frontend(batch(1).waveform)
    kept = torch.tensor([[0, 3, 9]])
    token, features = model.student_features(mel, kept)
    other = mel.clone()
    other[:, 48:] += 1.0  # time steps 3 and later, of which nothing is kept
    assert torch.equal(model.student_features(other, kept)[1], features)
    other = mel.clone()
    other[:, 16:32, 16:32] += 1.0  # the patch at time 1, frequency 1 = place 9
    assert not torch.allclose(model.student_features(other, kept)[0], token)


@pytest.mark.parametrize("encoder", ["eat", "bandsplit"])
def test_all_patches_kept_is_the_plain_encoder(encoder: str) -> None:
    model = learner(encoder, masking=Masking(clones=1)).eval()
    mel, _ = model.student.frontend(batch(2).waveform)
    (tokens,) = model.student.encode(mel)
    bands, rows = model.student.bands, model.student.rows
    everything = torch.arange(tokens.features.shape[1] * rows).expand(2 * bands, -1)
    token, features = model.student_features(mel, everything)
    assert torch.allclose(token.reshape(2, -1), tokens.cls, atol=1e-6)
    of_bands = features.reshape(2, bands, -1, rows, features.shape[2]).transpose(1, 2).flatten(2, 3)
    assert torch.allclose(of_bands, tokens.features, atol=1e-6)


def test_losses_are_the_literal_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    model = learner(masking=Masking(clones=2))
    mel, _ = model.student.frontend(batch().waveform)
    targets = model.targets(mel)
    patches = targets.shape[1]
    kept = torch.stack([torch.randperm(patches)[: patches // 5].sort().values for _ in range(6)])
    monkeypatch.setattr(pretrain, "inverse_blocks", lambda *args, **options: kept)
    estimate = torch.randn(6, patches, 32)
    token = torch.randn(6, 32)
    monkeypatch.setattr(model, "decode", lambda *args: estimate)
    monkeypatch.setattr(model, "student_features", lambda *args: (token, None))
    found = model(batch())
    frame, hidden, utterance = 0.0, 0, 0.0
    for row in range(6):
        target = targets[row // 2].double()
        for place in range(patches):
            if place not in kept[row].tolist():
                frame += float(((estimate[row, place] - target[place]) ** 2).sum()) / math.sqrt(32)
                hidden += 1
        utterance += float(((token[row] - target.mean(0)) ** 2).sum()) / math.sqrt(32)
    assert found["frame"].item() == pytest.approx(frame / hidden, rel=1e-4)
    assert found["utterance"].item() == pytest.approx(utterance, rel=1e-4)
    assert found["loss"].item() == pytest.approx(frame / hidden + utterance, rel=1e-4)


def test_decoder_sees_kept_features_at_their_places() -> None:
    model = learner()
    seen: list[torch.Tensor] = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features, kept = torch.randn(1, 2, 32), torch.tensor([[5, 17]])
    model.decode(features, kept, (4, 8))
    grid = seen[0].detach()[0]
    assert torch.equal(grid[0, 5], features[0, 0])
    assert torch.equal(grid[2, 1], features[0, 1])
    rest = grid.flatten(0, 1)[[p for p in range(32) if p not in (5, 17)]]
    assert rest.std().item() == pytest.approx(0.01, rel=0.2)


def test_the_teacher_follows_with_a_rising_decay_and_without_gradients() -> None:
    model = learner(teacher=Teacher(start=0.5, end=1.0, steps=10))
    before = {n: p.clone() for n, p in model.teacher.named_parameters()}
    with torch.no_grad():
        for p in model.student.parameters():
            p.add_(1.0)
    model.after_update(5)  # decay 0.75
    for name, p in model.teacher.named_parameters():
        assert torch.allclose(p, before[name] + 0.25, atol=1e-5), name
    model.after_update(10)
    model.after_update(20)
    assert torch.allclose(dict(model.teacher.named_parameters())["extra_tokens"], before["extra_tokens"] + 0.25)
    model(batch())["loss"].backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    assert model.student.local_encoder["proj"].weight.grad is not None


@pytest.mark.parametrize("encoder", ["eat", "bandsplit"])
def test_training_lowers_the_loss(encoder: str) -> None:
    model = learner(encoder, teacher=Teacher(start=0.99, end=0.99))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)

    def loss() -> torch.Tensor:
        torch.manual_seed(3)
        return model(batch())["loss"]

    first = loss().item()
    for step in range(30):
        value = loss()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        model.after_update(step)
    assert loss().item() < 0.8 * first


def test_a_run_resumes_exactly_and_its_encoder_loads(tiny_challenge: Path, tmp_path: Path) -> None:
    config = small(tiny_challenge)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "KEPT", 100)
        result = pretrain.pretrain(config, tmp_path / "whole")
    assert result == tmp_path / "whole" / "encoder"
    shutil.copytree(tmp_path / "whole", tmp_path / "part", ignore=shutil.ignore_patterns("encoder"))
    for step in (3, 4, 5):
        shutil.rmtree(tmp_path / "part" / "checkpoints" / f"step-{step:08d}")
    pretrain.pretrain(config, tmp_path / "part", resume=True)
    ours, theirs = (load_backbone(tmp_path / run / "encoder").state_dict() for run in ("part", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    rows = [[json.loads(line)["loss"] for line in (tmp_path / run / "log.jsonl").open()] for run in ("part", "whole")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 5


def test_it_continues_from_a_checkpoint(tiny_challenge: Path, tmp_path: Path) -> None:
    start = build("eat", "tiny")
    save_checkpoint(tmp_path / "start", start)
    config = msgspec.structs.replace(small(tiny_challenge, lr=1e-9), checkpoint=str(tmp_path / "start"))
    end = load_backbone(pretrain.pretrain(config, tmp_path / "run"))
    wave = batch().waveform
    assert torch.allclose(end(wave)[0].features, start(wave)[0].features, atol=1e-3)
    save_checkpoint(tmp_path / "other", build("beats", "tiny"))
    with pytest.raises(UsageError, match="only EAT and bandsplit"):
        pretrain.student_of(msgspec.structs.replace(config, checkpoint=str(tmp_path / "other")))


def test_a_long_recording_is_seen_once_per_clip_length(tmp_path: Path) -> None:
    import soundfile

    from asd_train.data import load_clips
    from asd_train.data.dataset import Batches
    from asd_train.feed import Endless

    (tmp_path / "pump").mkdir()
    for name, seconds in (("long", 9.5), ("short", 1.0)):
        soundfile.write(
            tmp_path / "pump" / f"{name}.wav", np.random.default_rng(0).normal(size=int(seconds * 16000)), 16000
        )
    config = small(tmp_path)
    dataset, places = pretrain.material_of(config, load_clips(config.data), 16_000, 0.0)
    assert places.tolist() == [0, 0, 0, 0, 0, 1]
    stream = iter(Endless(Batches(dataset.lengths[places], 6), 0, 0, 1, places))
    cuts = [dataset[key].waveform[:4].tolist() for key in next(stream) if key[0] == 0]
    assert len({tuple(cut) for cut in cuts}) == 5


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*_pretrain.yaml")), ids=lambda path: path.stem)
def test_every_pretraining_config_runs_in_its_tiny_form(config: Path, tiny_challenge: Path, tmp_path: Path) -> None:
    assert read(config, Pretrain).train.steps >= 10_000
    run = tmp_path / "run"
    arguments = ["pretrain", str(config), "--data", str(tiny_challenge), "--tiny", "-o", str(run)]
    assert cli.main([*arguments, "--dry-run"]) == 0
    assert cli.main(arguments) == 0
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").open()]
    assert losses[-1] < losses[0]
    assert load_backbone(run / "encoder").name == read(config, Pretrain).encoder
