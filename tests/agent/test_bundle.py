"""A bundle loads when it is whole; every defect ends in one line that names the file and the remedy."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from asd_agent.encode.bundle import Bundle, resolve, shipped
from asd_agent.encode.meta import FORMAT_VERSION, BundleMeta
from asd_agent.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped bundle to be spoilt."""
    copy = tmp_path / "mine"
    shutil.copytree(resolve("default"), copy)
    return copy


def edit(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    file = folder / "bundle.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def message(folder: Path | str) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.load(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_default_is_spectral_and_an_encoder_of_our_own() -> None:
    assert shipped() == ["default", "spectral"]
    default, spectral = Bundle.load("default"), Bundle.load("spectral")
    assert default.sha256 == hashlib.sha256((default.folder / "bundle.json").read_bytes()).hexdigest()
    assert default.meta.rate_hz == spectral.meta.rate_hz == 16_000
    assert default.meta.window_samples is None
    assert [o.name for o in spectral.meta.outputs] == [
        "logmel", "logmel_stats", "background", "fine_spectrum", "modulation", "band_modulation",
    ]  # fmt: skip
    assert {o.distance for o in spectral.meta.outputs} == {"whitened"}
    assert all(sum(len(axis.values) for axis in o.axes) == o.dim for o in spectral.meta.outputs)
    assert default.meta.outputs[:6] == spectral.meta.outputs
    assert {o.role for o in default.meta.outputs[6:]} == {"detector", "nuisance"}
    assert default.graph("fp32").is_file()


def test_a_copy_is_the_same_bundle(folder: Path) -> None:
    assert Bundle.load(folder).sha256 == Bundle.load("default").sha256


def test_shipped_bundles_are_small() -> None:
    assert sum(file.stat().st_size for name in shipped() for file in resolve(name).iterdir()) < 6_000_000


def test_a_path_of_the_home_folder_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert Bundle.load("~/mine").folder == folder


def test_meta_survives_encoding() -> None:
    meta = Bundle.load("default").meta
    assert msgspec.json.decode(msgspec.json.encode(meta), type=BundleMeta) == meta


def test_unknown_name_lists_what_there_is() -> None:
    text = message("no-such-bundle")
    assert "no-such-bundle" in text
    assert "default, spectral" in text


def test_not_a_bundle_folder(tmp_path: Path) -> None:
    assert f"{tmp_path}: not a bundle folder" in message(tmp_path)


def test_a_file_instead_of_the_folder(folder: Path) -> None:
    assert "give the folder" in message(folder / "bundle.json")


def test_missing_graph(folder: Path) -> None:
    (folder / "encoder.onnx").unlink()
    assert "encoder.onnx: missing" in message(folder)


def test_tampered_graph(folder: Path) -> None:
    file = folder / "encoder.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert f"{file}: damaged or tampered with" in message(folder)


def test_truncated_graph(folder: Path) -> None:
    file = folder / "encoder.onnx"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "encoder.onnx: damaged" in message(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b"null", b'{"format_version": "1"}'])
def test_corrupt_description(folder: Path, content: bytes) -> None:
    (folder / "bundle.json").write_bytes(content)
    assert "bundle.json: not a" in message(folder)


@pytest.mark.parametrize(("version", "remedy"), [(FORMAT_VERSION + 1, "update asd-agent"), (0, "export")])
def test_other_format_version_is_told_before_anything_else(folder: Path, version: int, remedy: str) -> None:
    (folder / "bundle.json").write_text(json.dumps({"format_version": version, "embeddings": {}}))
    text = message(folder)
    assert f"bundle format {version}" in text
    assert remedy in text


def _escape(data: dict) -> None:
    data["variants"]["fp32"]["file"] = "../encoder.onnx"


def _checksum(data: dict) -> None:
    data["variants"]["fp32"]["sha256"] = "abc"


def _precision(data: dict) -> None:
    data["variants"]["fp16"] = data["variants"]["fp32"]


def _axis(data: dict) -> None:
    data["outputs"][0]["axes"][0]["values"].pop()


def _twice(data: dict) -> None:
    data["outputs"].append(data["outputs"][0])


def _window(data: dict) -> None:
    data["window_samples"] = 100


def _rate(data: dict) -> None:
    data["rate_hz"] = "16000"


def _distance(data: dict) -> None:
    data["outputs"][0]["distance"] = "manhattan"


def _missing(data: dict) -> None:
    del data["licence"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_escape, "variants"),
        (_checksum, "sha256"),
        (_precision, "fp16"),
        (_axis, "logmel"),
        (_twice, "used twice"),
        (_window, "min_samples"),
        (_rate, "rate_hz"),
        (_distance, "manhattan"),
        (_missing, "licence"),
    ],
)
def test_invalid_description_names_the_field(folder: Path, change: Callable[[dict], None], told: str) -> None:
    edit(folder, change)
    text = message(folder)
    assert "bundle.json" in text
    assert told in text


def test_a_key_of_a_later_minor_change_is_ignored(folder: Path) -> None:
    edit(folder, lambda data: data.update(colour="blue"))
    assert Bundle.load(folder).meta == Bundle.load("default").meta


def test_every_change_of_the_description_changes_the_identity(folder: Path) -> None:
    edit(folder, lambda data: data.update(licence="other"))
    assert Bundle.load(folder).sha256 != Bundle.load("default").sha256
