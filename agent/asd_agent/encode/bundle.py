"""Finds an encoder bundle, checks that it is whole, and reads what it says about itself."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt

from asd_agent.encode.meta import (
    FORMAT_VERSION,
    INPUT,
    Axis,
    BankFile,
    BundleMeta,
    Distance,
    Output,
    Provenance,
    Variant,
    VariantName,
)
from asd_agent.errors import BundleError
from asd_agent.files import load_arrays

__all__ = [
    "FORMAT_VERSION",
    "INPUT",
    "Axis",
    "BankFile",
    "Bundle",
    "BundleMeta",
    "Distance",
    "Output",
    "Provenance",
    "Variant",
    "VariantName",
    "resolve",
    "shipped",
]

MOST_BYTES = 512 << 20  # of a bank's arrays
_SHIPPED = Path(__file__).resolve().parent.parent / "bundles"


class _Version(msgspec.Struct):
    format_version: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk whose files were whole when it was loaded."""

    folder: Path
    meta: BundleMeta
    sha256: str  # of bundle.json, which holds the checksums of all graphs: the identity of the bundle

    @classmethod
    def load(cls, name_or_path: str | Path) -> Bundle:
        """Read and verify a bundle: the name of a shipped one ("default", "spectral") or the path of a folder.

        Raises BundleError, one line with the file and the remedy. Whether the graph's input and outputs are
        those of the metadata is checked when a session is opened (`Encoder`).
        """
        folder = resolve(name_or_path)
        file = folder / "bundle.json"
        try:
            raw = file.read_bytes()
        except FileNotFoundError as exc:
            raise BundleError(f"{folder}: not a bundle folder (it has no bundle.json)") from exc
        except OSError as exc:
            raise BundleError(f"{file}: cannot be read ({exc.strerror})") from exc
        meta = _decode(file, raw)
        for variant in meta.variants.values():
            _verify(folder / variant.file, variant.sha256)
        for output in meta.outputs:
            if output.bank is not None:
                _verify(folder / output.bank.file, output.bank.sha256)
        return cls(folder, meta, hashlib.sha256(raw).hexdigest())

    def graph(self, variant: VariantName) -> Path:
        return self.folder / self.meta.variants[variant].file

    def bank_arrays(self, bank: BankFile) -> dict[str, npt.NDArray[Any]]:
        """Of a bank that comes with an output. Raises BundleError."""
        file = self.folder / bank.file
        try:
            return load_arrays(file, MOST_BYTES)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as exc:
            raise BundleError(f"{file}: cannot be read ({exc}); export the bundle anew") from exc


def shipped() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob("*/bundle.json"))


def resolve(name_or_path: str | Path) -> Path:
    """The folder that a bundle's name or path stands for; a shipped name wins over a folder in the way."""
    text = str(name_or_path)
    if text in shipped():
        return _SHIPPED / text
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise BundleError(f"{path}: not a bundle folder; give the folder that holds bundle.json")
    names = ", ".join(shipped())
    raise BundleError(f"{text}: no such bundle; give the path of a bundle folder or one of: {names}")


def _decode(file: Path, raw: bytes) -> BundleMeta:
    try:
        version = msgspec.json.decode(raw, type=_Version).format_version
    except msgspec.MsgspecError as exc:
        raise BundleError(f"{file}: not a bundle description ({exc}); export or copy the bundle anew") from exc
    if version != FORMAT_VERSION:
        remedy = "update asd-agent" if version > FORMAT_VERSION else "export the bundle anew"
        raise BundleError(f"{file}: bundle format {version}, this agent reads {FORMAT_VERSION}; {remedy}")
    try:
        return msgspec.json.decode(raw, type=BundleMeta)
    except msgspec.MsgspecError as exc:
        raise BundleError(f"{file}: not a valid bundle description ({exc}); export the bundle anew") from exc


def _verify(file: Path, sha256: str) -> None:
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as exc:
        raise BundleError(f"{file}: missing, bundle.json names it; copy the whole bundle folder anew") from exc
    except OSError as exc:
        raise BundleError(f"{file}: cannot be read ({exc.strerror})") from exc
    if found != sha256:
        raise BundleError(
            f"{file}: damaged or tampered with (its checksum is not the one in bundle.json); "
            "copy the bundle anew from a trusted source"
        )
