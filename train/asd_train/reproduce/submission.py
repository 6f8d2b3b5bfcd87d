"""The challenge's submission folder: the scores of each system, and its meta information as the organisers read it.

    OUT/submission/task2/<label>_task2_1/<label>_task2_1.meta.yaml
    OUT/submission/task2/<label>_task2_1/anomaly_score_<machine>_section_00_test.csv  decision_result_...

The fields are those of DCASE's common meta file and of Task 2's figures by machine. Years differ in details: compare
with the example in the year's own package before you submit, and add the technical report.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta as Limit

from asd_agent.config.load import read
from asd_agent.errors import UsageError
from asd_train import config as cfg
from asd_train.reproduce.plan import Content, Shelf

Text = Annotated[str, Limit(min_length=1)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Affiliation(_Section, frozen=True):
    abbreviation: Text = "INST"
    institute: Text = "Institute"
    department: str | None = None
    location: Text = "City, Country"


class Author(_Section, frozen=True):
    lastname: Text = "Lastname"
    firstname: Text = "Firstname"
    email: Text = "name@example.org"
    corresponding: bool = False
    affiliation: Affiliation = Affiliation()


class Team(_Section, frozen=True):
    """The file of `--authors`."""

    authors: Annotated[list[Author], Limit(min_length=1)] = msgspec.field(
        default_factory=lambda: [Author(corresponding=True)]
    )
    source_code: str | None = None


class Head(_Section, frozen=True):
    label: Annotated[str, Limit(pattern=r"^[A-Za-z0-9_-]+_task2_[1-9]\d*$")]
    name: Text
    abbreviation: Annotated[str, Limit(min_length=1, max_length=10)]
    authors: Annotated[list[Author], Limit(min_length=1)]


class Description(_Section, frozen=True):
    input_sampling_rate: Text
    data_augmentation: str | None
    front_end_system: str | None
    acoustic_features: Text
    machine_learning_method: Text
    ensemble_method_subsystem_count: int | None
    decision_making: Text
    external_data_usage: str | None


class Complexity(_Section, frozen=True):
    total_parameters: Annotated[int, Limit(ge=0)]  # of all subsystems, those of a shared one once


class Dataset(_Section, frozen=True):
    name: Text
    url: Text
    total_audio_length: float | None = None  # minutes


class System(_Section, frozen=True):
    description: Description
    complexity: Complexity
    external_datasets: list[Dataset] | None
    source_code: str | None


class Results(_Section, frozen=True):
    development_dataset: dict[str, dict[str, float]]  # machine -> auc_source, auc_target, pauc in %; {} without labels


class Meta(_Section, frozen=True):
    submission: Head
    system: System
    results: Results


FEATURES = {"bandsplit": "log power spectrogram", "fft": "spectrum of the whole clip"}  # the others: log-mel energies
NAMES = {"beats": "BEATs", "eat": "EAT", "efficientat": "EfficientAT", "bandsplit": "band-split transformer"}
AUDIOSET = Dataset(name="AudioSet", url="https://research.google.com/audioset/")
DECISION = "90th percentile of a gamma distribution fitted to held-out normal scores"


def read_team(path: str | None) -> Team:
    """The authors of `--authors`, or placeholders to fill in. Raises UsageError naming the key."""
    return read(Path(path), Team) if path else Team()


def write_submission(out: Path, label: str, systems: Sequence[str], shelf: Shelf, team: Team) -> Path:
    """The folder, with the scores of the first seed; raises UsageError for a label that the challenge does not take."""
    folder = out / "submission" / "task2"
    shutil.rmtree(folder, ignore_errors=True)
    for number, name in enumerate(systems, start=1):
        own = folder / f"{label}_task2_{number}"
        meta = meta_of(name, own.name, shelf, out / "seed-0", team)
        own.mkdir(parents=True)
        for path in sorted((out / "seed-0" / "results" / name).rglob("*.csv")):
            if path.name.startswith(("anomaly_score_", "decision_result_")):
                shutil.copy(path, own)
        text = yaml.safe_dump(msgspec.to_builtins(meta), sort_keys=False, allow_unicode=True)
        (own / f"{own.name}.meta.yaml").write_text(text, encoding="utf-8")
    return folder


def meta_of(name: str, label: str, shelf: Shelf, place: Path, team: Team) -> Meta:
    """What is known of one system by its configuration, its run and its results in `place`. Raises UsageError."""
    parts = [part for part in shelf.order([name]) if "masking" not in shelf.contents[part]]
    trained = [part for part in parts if "members" not in shelf.contents[part]]
    configs = [shelf.contents[part] for part in trained]
    members = shelf.contents[name].get("members")
    public = sorted({file for content in configs for file in _public(content)})
    description = Description(
        input_sampling_rate=" / ".join(dict.fromkeys(_rate(place, part) for part in trained)),
        data_augmentation=_joined(_augmentations(content) for content in configs),
        front_end_system="coherent subtraction of the far channel" if any(c.get("far") for c in configs) else None,
        acoustic_features=_joined(_features(content) for content in configs) or "none",
        machine_learning_method=_joined(_methods(content) for content in configs) or "none",
        ensemble_method_subsystem_count=len(members) if members else None,
        decision_making=DECISION,
        external_data_usage=f"pre-trained models: {', '.join(public)}" if public else None,
    )
    values = {
        "submission": {
            "label": label, "name": name, "abbreviation": name.replace("_", "")[:10],
            "authors": msgspec.to_builtins(team.authors),
        },
        "system": {
            "description": msgspec.to_builtins(description),
            "complexity": {"total_parameters": sum(_parameters(place, part, shelf.contents[part]) for part in trained)},
            "external_datasets": [msgspec.to_builtins(AUDIOSET)] if public else None,
            "source_code": team.source_code,
        },
        "results": {"development_dataset": _figures(place / "results" / name / "results.json")},
    }  # fmt: skip
    try:
        return msgspec.convert(values, Meta)
    except msgspec.ValidationError as exc:
        raise UsageError(f"submission of {name}: {exc} (--label of letters and digits, such as Wang_MYPS)") from exc


def _figures(path: Path) -> dict[str, dict[str, float]]:
    machines = json.loads(path.read_bytes())["machines"] if path.is_file() else []
    several = len({(m["year"], m["section"]) for m in machines}) > 1
    found = {}
    for m in machines:
        name = f"{m['machine']}_{m['year']}_{m['section']}" if several else m["machine"]
        found[name] = {key: round(100 * value, 2) for key, value in m["figures"].items()}
    return found


def _parameters(place: Path, name: str, content: Content) -> int:
    """Of the system as it is scored; heads that only training needs do not count."""
    if "model" in content:
        from asd_train.model import load_system

        system, _ = load_system(place / "runs" / name / "system")
        return sum(p.numel() for p in system.parameters())
    if "autoencoder" in content:
        from asd_train.autoencoder import network

        return sum(p.numel() for p in network().parameters())
    return 0


def _rate(place: Path, name: str) -> str:
    card = place / "runs" / name / "system" / "system.json"
    rate_hz = json.loads(card.read_bytes())["rate_hz"] if card.is_file() else 16_000
    return f"{rate_hz / 1000:g} kHz"


def _branches(content: Content) -> list[cfg.Branch]:
    return list(msgspec.convert(content["model"], cfg.Model).branches) if "model" in content else []


def _kind(branch: cfg.Branch) -> str:
    if isinstance(branch, cfg.SpectrumBranch):
        return "fft"
    return branch.encoder or cfg.family(branch.checkpoint or "")


def _public(content: Content) -> list[str]:
    checkpoints = [b.checkpoint or "" for b in _branches(content) if isinstance(b, cfg.EncoderBranch)]
    return [Path(path).name for path in checkpoints if path and not path.startswith("runs/")]


def _features(content: Content) -> list[str]:
    if "mechanism" in content:
        return ["indicators of the envelope, line and cepstral spectra"]
    return [FEATURES.get(_kind(branch), "log-mel energies") for branch in _branches(content)] or ["log-mel energies"]


def _methods(content: Content) -> list[str]:
    """Encoders and how they are tuned, what they are trained on, how distances become scores."""
    if "autoencoder" in content:
        return ["autoencoder", str(content["autoencoder"].get("score", "mse"))]
    if "mechanism" in content:
        return ["standard scores of mechanical indicators"]
    tuned = {"full": "fine-tuned", "lora": "LoRA", "frozen": "frozen"}
    found = [
        f"{NAMES[_kind(b)]} ({tuned[b.tuning]})" if isinstance(b, cfg.EncoderBranch) else "1-D CNN"
        for b in _branches(content)
    ]
    objective: Mapping[str, Any] = content.get("objective") or {}
    words = {"classify": "classification", "os_scl": "OS-SCL", "separate": "source separation"}
    if objective:
        found += [words[objective["kind"]], *([objective["loss"]["kind"]] if "loss" in objective else [])]
    scoring: Mapping[str, Any] = content.get("scoring") or {"kind": "cosine"}
    found.append(f"k-NN ({scoring['kind']})")
    return [*found, *(key.upper() for key in ("smote", "memmixup") if scoring.get(key))]


def _augmentations(content: Content) -> list[str]:
    objective: Mapping[str, Any] = content.get("objective") or {}
    found = ["mixup"] if objective.get("mixup") or objective.get("kind") == "os_scl" else []
    found += ["noise mixing"] if objective.get("noise") or objective.get("kind") == "separate" else []
    found += ["feature exchange"] if objective.get("exchange") else []
    return found + (["SpecAugment"] if any(getattr(b, "spec_augment", None) for b in _branches(content)) else [])


def _joined(lists: Any) -> str | None:
    """Each once, in their order; None for nothing."""
    return ", ".join(dict.fromkeys(word for words in lists for word in words)) or None
