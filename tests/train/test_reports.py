"""The configurations hold the numbers that the five reports print."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from asd_agent.config.load import read
from asd_train import config as cfg
from asd_train.backbones import build
from asd_train.ensemble import Ensemble
from asd_train.mechanism_scores import MechanismSystem
from asd_train.model import EncoderBranch
from asd_train.pretrain import Pretrain

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "train"
MEMBERS_B = ["b_fbeats", "b_lbeats", "b_feat", "b_leat", "b_dual", "b_fusion"]
TABLE_2 = [
    (0.1, 0, 0.5, 0, 0, 0.4),
    (0, 0.3, 0.1, 0.3, 0.2, 0.1),
    (0.1, 0.2, 0.1, 0.2, 0.2, 0.2),
    (0.1, 0.2, 0.1, 0.2, 0.3, 0.1),
]


def system(name: str) -> cfg.System:
    return read(CONFIGS / f"{name}.yaml", cfg.System)


def trained_parameters(name: str) -> list[int]:
    """Of each encoder branch, without heads; counted without weights."""
    counts = []
    for branch in system(name).model.branches:
        assert isinstance(branch, cfg.EncoderBranch)
        assert branch.checkpoint
        size = "large" if "large" in branch.checkpoint else "base"
        with torch.device("meta"):
            built = EncoderBranch(branch, build(cfg.family(branch.checkpoint), size))
            built.adapt()
        counts.append(sum(p.numel() for p in built.parameters() if p.requires_grad))
    return counts


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_report_b_weights_of_the_ensembles(number: int) -> None:
    ensemble = read(CONFIGS / f"b_ensemble_{number}.yaml", Ensemble)
    wanted = {f"results/{name}": w for name, w in zip(MEMBERS_B, TABLE_2[number - 1], strict=True) if w}
    assert {m.scores: m.weight for m in ensemble.members} == wanted
    assert sum(m.weight for m in ensemble.members) == pytest.approx(1)
    assert ensemble.normalise == "test"


def test_report_b_trained_parameters() -> None:
    """Table 1, or what a comment in the configuration counts."""
    classes = 54  # with so many of a development set the class layer fills what the report prints
    assert trained_parameters("b_lbeats")[0] + 768 * classes == pytest.approx(3.58e6, rel=0.01)
    assert trained_parameters("b_fbeats") == [90_311_792]
    assert trained_parameters("b_feat") == [302_575_616]
    assert trained_parameters("b_leat") == [9_437_184]
    assert trained_parameters("b_dual") == [3_538_944, 9_437_184]
    printed = {"b_fbeats": "93.88 M", "b_feat": "321.17 M", "b_leat": "62.91 M", "b_dual": "66.49 M"}
    counted = {"b_fbeats": "90.31 M", "b_feat": "302.58 M", "b_leat": "9.44 M", "b_dual": "12.98 M"}
    for name, text in printed.items():
        header = (CONFIGS / f"{name}.yaml").read_text()
        assert text in header
        assert counted[name] in header


@pytest.mark.parametrize("name", ["b_fbeats", "b_lbeats", "b_feat", "b_leat"])
def test_report_b_single_systems(name: str) -> None:
    one = system(name)
    (branch,) = one.model.branches
    assert branch.dim is None  # pooled features go straight to the class layer
    assert one.model.output == cfg.Output(layers="all", pool="mean")
    assert (one.clip_s, one.fill, one.crop) == (10, "pad", "start")
    assert one.train is not None
    assert one.train.lr == {"b_fbeats": 1e-4, "b_lbeats": 2e-4, "b_feat": 1e-5, "b_leat": 2e-4}[name]
    assert (one.train.epochs, one.train.clip_norm) == (40, None)
    assert (one.scoring.smote, one.scoring.smote_neighbours, one.scoring.bank) == (1.0, 2, "target")


def test_report_b_dual_branch_and_fusion() -> None:
    dual, fusion = system("b_dual"), system("b_fusion")
    assert [(b.checkpoint, b.dim) for b in dual.model.branches] == [
        ("checkpoints/BEATs_iter3_plus_AS2M.pt", None),
        ("runs/b_eat_large_pretrain/encoder", None),
    ]
    assert isinstance(dual.objective, cfg.Classify)
    assert (dual.objective.mixup, dual.objective.partners) == (0.5, "flipped")
    assert isinstance(dual.objective.loss, cfg.AdaCos)
    assert dual.train is not None
    assert (dual.train.lr, dual.train.epochs) == (2e-4, 40)
    lora = {b.checkpoint: b.lora for b in dual.model.branches if isinstance(b, cfg.EncoderBranch)}
    singles = [b for name in ("b_lbeats", "b_leat") for b in system(name).model.branches]
    assert lora == {b.checkpoint: b.lora for b in singles if isinstance(b, cfg.EncoderBranch)}  # "same configuration"
    assert "415.05 M = 93.88 M + 321.17 M" in (CONFIGS / "b_dual.yaml").read_text()
    assert fusion.model.output.layers == "last"
    assert fusion.objective is None


def test_report_b_pre_training() -> None:
    pretrain = read(CONFIGS / "b_eat_large_pretrain.yaml", Pretrain)
    assert [source.year for source in pretrain.data] == [0, 2020, 2021, 2022, 2023, 2024]
    assert "audioset" in pretrain.data[0].path
    assert (pretrain.train.lr, pretrain.train.steps, pretrain.train.schedule.warmup) == (4e-4, 400_000, 53_333)
    assert (pretrain.train.clip_norm, pretrain.utterance_over) == (4.0, "sum")


def test_report_a() -> None:
    for name, base in (("a_eat_lora_ma", "a_eat_lora"), ("a_eat_full_ma", "a_eat_full")):
        ensemble = read(CONFIGS / f"{name}.yaml", Ensemble)
        assert set(ensemble.replace) == {"AutoTrash", "Polisher", "ScrewFeeder"}
        assert [m.scores for m in ensemble.members] == [f"results/{base}"]
    numbers = {"a_eat_lora": 1, "a_eat_lora_ma": 2, "a_eat_full": 3, "a_eat_full_ma": 4}
    for name, number in numbers.items():
        assert f"system {number}" in (CONFIGS / f"{name}.yaml").read_text().splitlines()[0]
    assert read(CONFIGS / "a_mechanism.yaml", MechanismSystem).rms
    for name in ("a_eat_lora", "a_eat_full"):
        train = system(name).train
        assert train is not None
        assert (train.lr, train.batch_size, train.steps) == (5e-5, 32, 20_000)


def test_report_c() -> None:
    assert [source.year for source in system("c_system3").data] == [2025, 2024, 2023, 2022]
    assert [system(f"c_system{n}").scoring.weight.supplemental for n in (1, 2)] == [False, True]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["d_beats_fft", "d_eat_fft", "d_eat_beats", "d_eat_beats_fft"])
def test_report_d(name: str) -> None:
    one = system(name)
    assert one.classes.clean == one.classes.noise == "drop"
    encoders = [b for b in one.model.branches if isinstance(b, cfg.EncoderBranch)]
    assert all(
        b.checkpoint in ("checkpoints/BEATs_iter3.pt", "checkpoints/EAT-base_epoch30_pretrain.pt") for b in encoders
    )
    assert all(b.dim == 128 for b in one.model.branches)
    for branch in one.model.branches:
        if isinstance(branch, cfg.SpectrumBranch):
            assert branch.normalise == ("features" if name == "d_eat_beats_fft" else "none")
    assert one.train is not None
    assert msgspec.structs.asdict(one.train) | {"steps": 10_000, "batch_size": 16, "accumulate": 8, "ema": 0.9995,
                                               "clip_norm": None} == msgspec.structs.asdict(one.train)  # fmt: skip


def test_no_report_states_gradient_clipping() -> None:
    for path in CONFIGS.glob("[a-e]_*.yaml"):
        assert ("clip_norm" in path.read_text()) == (path.stem == "b_eat_large_pretrain")
