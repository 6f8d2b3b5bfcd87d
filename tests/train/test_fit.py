"""The loop: resuming after a kill at any step, what is written, and what a person is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from asd_agent.config.load import read
from asd_agent.errors import AsdError, ConfigError, UsageError
from asd_export.subject import read_subject
from asd_train import cli, state
from asd_train import config as cfg
from asd_train.data import DataSource
from asd_train.data.dataset import Batches
from asd_train.feed import Endless
from asd_train.fit import fit
from asd_train.model import load_system
from asd_train.pooling import pool

STEPS = 6


def small(challenge: Path, **changes: Any) -> cfg.System:
    """Everything that draws random numbers: noise, mixup, SpecAug, feature exchange, LoRA dropout."""
    lora = cfg.Lora(rank=2, dropout=0.2)
    encoder = cfg.EncoderBranch(encoder="eat", size="tiny", tuning="lora", lora=lora, dim=8)
    branches = [
        msgspec.structs.replace(encoder, spec_augment=cfg.SpecAugment(width=8)),
        cfg.SpectrumBranch(dim=8, width=8),
    ]
    train = cfg.Train(
        steps=STEPS,
        batch_size=4,
        accumulate=2,
        lr=1e-3,
        ema=0.5,
        precision="fp32",
        workers=0,
        checkpoint_every=1,
    )
    system = cfg.System(
        name="small",
        data=[DataSource(path=str(challenge))],
        model=cfg.Model(branches=branches),
        clip_s=1.0,
        objective=cfg.Classify(loss=cfg.AdaCos(centres=2, dynamic=True), mixup=0.5, exchange=0.5, noise=cfg.NoiseMix()),
        train=train,
    )
    return msgspec.structs.replace(system, **changes)


def retrain(system: cfg.System, **changes: Any) -> cfg.System:
    return msgspec.structs.replace(system, train=msgspec.structs.replace(system.train, **changes))


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[tuple[float, ...]]:
    """(step, loss, lr, ...) without what depends on the clock."""
    return [tuple(v for k, v in line.items() if k not in ("clips_per_s", "loader_wait")) for line in log(run)]


@pytest.fixture(scope="module")
def unbroken(tiny_challenge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that kept the checkpoint of every step."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "KEPT", 100)
        fit(small(tiny_challenge), run)
    return run


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_run_killed_after_any_step_goes_on_with_the_same_losses(
    step: int, unbroken: Path, tiny_challenge: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken, run, ignore=shutil.ignore_patterns("system"))
    for folder in (run / "checkpoints").iterdir():
        if int(folder.name[-8:]) > step:
            shutil.rmtree(folder)
    (run / "checkpoints" / "step-00009999.part").mkdir()  # killed while writing
    torch.rand(step)  # whatever else the process drew
    fit(small(tiny_challenge), run, resume=True)
    assert losses(run) == losses(unbroken)
    ours, theirs = (
        load_system(run / "system")[0].state_dict(),
        load_system(unbroken / "system")[0].state_dict(),
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_sigkill_and_resume(unbroken: Path, tiny_challenge: Path, tmp_path: Path) -> None:
    """The real thing: a process is shot, another one goes on."""
    run, config = tmp_path / "run", tmp_path / "small.json"
    config.write_bytes(msgspec.json.encode(small(tiny_challenge)))  # JSON is YAML
    command = [sys.executable, "-m", "asd_train", "fit", str(config), "-o", str(run), "--resume"]
    alike = {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }  # sums round by the number of threads
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=alike)
    deadline = time.monotonic() + 120
    while state.newest(run) is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = state.newest(run)
    assert stopped is not None, "the process died before its first checkpoint"
    fit(small(tiny_challenge), run, resume=True)
    assert losses(run) == losses(unbroken)


def test_a_signal_ends_the_run_after_saving(tiny_challenge: Path, tmp_path: Path) -> None:
    system = retrain(small(tiny_challenge), steps=500, checkpoint_every=500)
    with pytest.MonkeyPatch.context() as patch:
        before = cfg.Classify, os.getpid()
        from asd_train import objectives

        patch.setattr(
            objectives.Classify,
            "after_update",
            lambda self, step: step == 3 and os.kill(before[1], signal.SIGTERM),
        )
        with pytest.raises(KeyboardInterrupt):
            fit(system, tmp_path / "run")
    folder = state.newest(tmp_path / "run")
    assert folder is not None
    assert state.read_manifest(folder).step == 3
    assert [line["step"] for line in log(tmp_path / "run")] == [1, 2, 3]


def test_the_result_carries_its_origin_and_is_plain(unbroken: Path, tiny_challenge: Path) -> None:
    system, card = load_system(unbroken / "system")
    assert not [name for name in system.state_dict() if "lora" in name or "base_layer" in name]
    assert card.training["steps"] == STEPS
    assert card.training["config"]["train"]["lr"] == 1e-3
    assert len(card.training["data"]) == 32
    assert len(card.classes) > 4
    assert all(len(name.split("/")) >= 3 for name in card.classes)
    assert system(torch.randn(2, 16000)).shape == (2, card.dim) == (2, 16)
    assert read(unbroken / "config.yaml", cfg.System) == small(tiny_challenge)


def test_a_trained_system_is_a_checkpoint_of_its_encoder(unbroken: Path) -> None:
    from asd_train.backbones import load_backbone

    system, _ = load_system(unbroken / "system")
    wave = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    (own,), (loaded,) = system.encoders[0].backbone(wave), load_backbone(unbroken / "system")(wave)
    assert torch.equal(pool(own, "mean"), pool(loaded, "mean"))


def test_embed_uses_the_whole_system(unbroken: Path, tiny_challenge: Path, tmp_path: Path) -> None:
    import numpy as np

    files = [str(path) for path in sorted(tiny_challenge.rglob("test/*.wav"))[:3]]
    assert cli.main(["embed", str(unbroken), *files, "--device", "cpu", "-o", str(tmp_path / "e.npz")]) == 0
    found = np.load(tmp_path / "e.npz")
    assert found["file"].tolist() == files
    system, card = load_system(unbroken / "system")
    from asd_train.data.audio import read_audio

    for row, file in enumerate(files):
        wave = torch.from_numpy(read_audio(file, card.rate_hz))[None, : card.rate_hz]  # clip_s is 1
        assert np.abs(found["embedding"][row] - system(wave)[0].numpy()).max() < 1e-5
    assert cli.main(["embed", str(unbroken), *files, "--pool", "cls", "-o", str(tmp_path / "e.npz")]) == 2


def test_snapshots_are_averaged_systems(tiny_challenge: Path, tmp_path: Path) -> None:
    fit(retrain(small(tiny_challenge), steps=3, snapshots=[2, 3]), tmp_path / "run")
    snapshots = sorted(p.name for p in (tmp_path / "run" / "snapshots").iterdir())
    assert snapshots == ["step-00000002", "step-00000003"]
    last, _ = load_system(tmp_path / "run" / "snapshots" / "step-00000003")
    final, _ = load_system(tmp_path / "run" / "system")
    earlier, _ = load_system(tmp_path / "run" / "snapshots" / "step-00000002")
    wave = torch.randn(1, 16000)
    assert torch.equal(last(wave), final(wave))
    assert not torch.equal(earlier(wave), final(wave))


def test_only_two_checkpoints_are_kept(tiny_challenge: Path, tmp_path: Path) -> None:
    fit(retrain(small(tiny_challenge), steps=4), tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_processes_share_an_epoch_without_overlap(count: int) -> None:
    import numpy as np

    def batches() -> Batches:
        return Batches(np.full(23, 100), 3, seed=5, drop_last=True)

    places = np.arange(23)
    streams = [iter(Endless(batches(), 0, rank, count, places)) for rank in range(count)]
    whole = [[next(stream) for stream in streams] for _ in range(20)]
    per_epoch = len(batches()) // count
    for epoch in range(20 // per_epoch):
        keys = [key for row in whole[epoch * per_epoch : (epoch + 1) * per_epoch] for batch in row for key in batch]
        assert {e for _, e in keys} == {epoch}
        assert len({c for c, _ in keys}) == len(keys)
    for start in (1, per_epoch - 1, per_epoch, per_epoch + 1):
        late = [iter(Endless(batches(), start, rank, count, places)) for rank in range(count)]
        assert [[next(stream) for stream in late] for _ in range(4)] == whole[start : start + 4]


def test_a_run_is_not_overwritten_and_not_resumed_as_another(tiny_challenge: Path, tmp_path: Path) -> None:
    system = retrain(small(tiny_challenge), steps=1)
    fit(system, tmp_path)
    with pytest.raises(UsageError, match="--resume"):
        fit(system, tmp_path)
    with pytest.raises(UsageError, match=r"configuration has changed \(train.lr\)"):
        fit(retrain(system, lr=2e-3), tmp_path, resume=True)


def test_changed_data_is_noticed(tiny_challenge: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tiny_challenge, copy)
    system = retrain(small(copy), steps=1)
    fit(system, tmp_path / "run")
    next(copy.rglob("train/*.wav")).unlink()
    with pytest.raises(UsageError, match="data has changed"):
        fit(system, tmp_path / "run", resume=True)


def test_a_loss_that_is_no_number_ends_with_advice(tiny_challenge: Path, tmp_path: Path) -> None:
    with pytest.raises(AsdError, match=r"lower train\.lr"):
        fit(retrain(small(tiny_challenge), lr=1e30, clip_norm=None), tmp_path)


def test_memory_advice_names_settings() -> None:
    from asd_train.loop import _memory_advice

    with (
        pytest.raises(AsdError, match=r"train.batch_size=16 --set train.accumulate=4"),
        _memory_advice(cfg.Train(steps=1, batch_size=32, accumulate=2)),
    ):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def test_early_errors(tiny_challenge: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        fit(small(tmp_path / "nowhere"), tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no WAV or FLAC"):
        fit(small(tmp_path / "empty"), tmp_path / "run")
    lonely = tmp_path / "lonely" / "fan"
    lonely.mkdir(parents=True)
    shutil.copy(next(tiny_challenge.rglob("train/*.wav")), lonely / "a.wav")
    with pytest.raises(UsageError, match="only 1 class"):
        fit(small(tmp_path / "lonely"), tmp_path / "run")


def test_command_line(tiny_challenge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "small.yaml"
    config.write_bytes(msgspec.json.encode(small(Path("nowhere"))))
    arguments = ["fit", str(config), "--data", str(tiny_challenge)]
    assert cli.main([*arguments, "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "2025 Blower    16      4       0 + 4 noise" in plan
    assert f"{STEPS} steps of 8 clips" in plan
    assert "memory" in plan
    assert cli.main([*arguments, "--set", "train.steps=2", "--tensorboard", "-o", str(tmp_path / "run")]) == 0
    assert len(log(tmp_path / "run")) == 2
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "system")
    assert cli.main([*arguments, "--set", "train.stepz=2"]) == 2
    assert f"{config}: train.stepz: unknown key (did you mean 'steps'?)" in capsys.readouterr().err


def test_changes_from_the_command_line(tmp_path: Path, tiny_challenge: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_bytes(msgspec.json.encode(small(tiny_challenge)))
    changed = read(
        config,
        cfg.System,
        ["train.lr=1e-5", "model.branches.0.lora.rank=3", "clip_s=null", "model.branches.1=null"][:2],
    )
    assert changed.train is not None
    assert changed.train.lr == 1e-5
    assert isinstance(changed.model.branches[0], cfg.EncoderBranch)
    assert changed.model.branches[0].lora.rank == 3
    for wrong, message in [
        ("train", "not of the form"),
        ("model.branches.9.dim=3", "no such place"),
        ("train.lr=[", "YAML"),
    ]:
        with pytest.raises(ConfigError, match=message):
            read(config, cfg.System, [wrong])
    with pytest.raises(ConfigError, match="fft branch needs clip_s"):
        read(config, cfg.System, ["clip_s=null"])


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates(tiny_challenge: Path, tmp_path: Path) -> None:
    """Gradients are averaged over processes, and no clip is seen twice. One epoch: 11 batches, 5 for each process."""
    plain = msgspec.structs.replace(
        retrain(small(tiny_challenge), steps=5),
        model=cfg.Model(branches=[cfg.EncoderBranch(encoder="eat", size="tiny")]),
        objective=cfg.Classify(loss=cfg.ArcFace(scale=10, margin=0.1)),
        clip_s=2.0,
    )
    fit(plain, tmp_path / "one")
    config = tmp_path / "two.yaml"
    config.write_bytes(msgspec.json.encode(retrain(plain, accumulate=1)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "asd_train", "fit", str(config), "-o", str(tmp_path / "two")]
    alike = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=alike, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (one, _), (two, card) = load_system(tmp_path / "one" / "system"), load_system(tmp_path / "two" / "system")
    assert card.training["processes"] == 2
    for a, b in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    wave = 0.1 * torch.randn(2, 32000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(one(wave), two(wave), atol=1e-3)


def test_a_step_is_chosen_only_where_asked_and_then_it_is_said_everywhere(
    tiny_challenge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = retrain(small(tiny_challenge), steps=3, snapshots=[1, 2])
    run, out = tmp_path / "run", tmp_path / "out"
    fit(msgspec.structs.replace(config, select="dev_score"), run)
    told = json.loads((run / "selection.json").read_text())
    scores = {int(step): score for step, score in told["scores"].items()}
    assert sorted(scores) == [1, 2, 3]
    best = max(scores, key=scores.__getitem__)
    assert told["kept"] == best
    kept, card = load_system(run / "system")
    snapshot, plain = load_system(run / "snapshots" / f"step-{best:08d}")
    wave = torch.randn(1, 16000)
    assert torch.equal(kept(wave), snapshot(wave))
    note = f"step {best} of 3 was chosen by the official score of labelled test clips (select: dev_score)"
    assert card.training["selected"] == note
    assert "selected" not in plain.training
    assert f"kept step {best}: official score {100 * scores[best]:.2f}" in capsys.readouterr().err
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert last == {"step": 3, "selected_step": best, "dev_score": scores[best]}
    assert cli.main(["evaluate", str(run), "--bootstrap", "0", "--no-plots", "-o", str(out)]) == 0
    assert json.loads((out / "results.json").read_text())["score"] == pytest.approx(scores[best])
    assert f"Selected on test labels: {note}" in (out / "results.md").read_text()
    assert cli.main(["ensemble", str(out), str(out), "--bootstrap", "0", "-o", str(tmp_path / "both")]) == 0
    assert note in (tmp_path / "both" / "results.md").read_text()
    assert read_subject(run).settings["selected"] == note
    assert cli.main(["evaluate", str(run / "snapshots/step-00000002"), "--bootstrap", "0", "-o", str(out)]) == 0
    assert "Selected" not in (out / "results.md").read_text()


def test_a_choice_needs_snapshots_and_labels(tiny_challenge: Path, tmp_path: Path) -> None:
    config = retrain(small(tiny_challenge), snapshots=[1])
    with pytest.raises(ValueError, match="name their steps"):
        msgspec.convert({**msgspec.to_builtins(retrain(config, snapshots=[])), "select": "dev_score"}, cfg.System)
    shutil.copytree(tiny_challenge, tmp_path / "2025")
    for path in (tmp_path / "2025").rglob("test/*.wav"):
        path.rename(path.with_name(f"section_00_{int(path.stem.split('_')[5]):04d}_{path.stem.split('_')[2]}.wav"))
    blind = msgspec.structs.replace(config, select="dev_score", data=[DataSource(path=str(tmp_path / "2025"))])
    with pytest.raises(UsageError, match="select: dev_score needs the labels"):
        fit(blind, tmp_path / "run")
