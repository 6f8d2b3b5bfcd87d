"""Writes a bundle folder: graphs first, `bundle.json` with their checksums last, all in one rename."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from asd_agent.encode.meta import BundleMeta, VariantName
from asd_agent.errors import BundleError


def write_bundle(
    folder: str | Path,
    meta: BundleMeta,
    graphs: Mapping[VariantName, bytes | Path],
    *,
    bank: bytes = b"",
    include: Sequence[Path] = (),
    replace: bool = False,
) -> BundleMeta:
    """Write `meta` and the graphs (bytes, or a file to copy; one per entry of `meta.variants`) as a bundle.

    `bank`: the file of the one output whose `bank` is set. `include`: files that are copied beside them (a model card,
    the weights). The checksums in `meta` are computed here, whatever they were. Returns the meta that was written.
    Raises BundleError when the folder exists (unless `replace`) or cannot be written; nothing half-written stays.
    """
    folder = Path(folder)
    if set(graphs) != set(meta.variants):
        raise ValueError(f"graphs for {sorted(graphs)}, variants {sorted(meta.variants)}")
    if folder.exists() and not replace:
        raise BundleError(f"{folder}: already exists; name another folder or ask for it to be replaced")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            written = _fill(staged, _with_bank(staged, meta, bank), graphs)
            for file in include:
                shutil.copyfile(file, staged / file.name)
            _publish(staged, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as exc:
        raise BundleError(f"{folder}: cannot be written ({exc.strerror or exc})") from exc
    return written


def _fill(staged: Path, meta: BundleMeta, graphs: Mapping[VariantName, bytes | Path]) -> BundleMeta:
    variants = {}
    for name, graph in graphs.items():
        target = staged / meta.variants[name].file
        if isinstance(graph, bytes):
            target.write_bytes(graph)
        else:
            shutil.copyfile(graph, target)
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        variants[name] = msgspec.structs.replace(meta.variants[name], sha256=digest)
    written = msgspec.structs.replace(meta, variants=variants)
    with (staged / "bundle.json").open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(written), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    staged.chmod(0o755)
    return written


def _with_bank(staged: Path, meta: BundleMeta, bank: bytes) -> BundleMeta:
    """The meta with the checksum of the bank, which lies in the folder afterwards."""
    outputs = []
    for output in meta.outputs:
        if output.bank is not None:
            (staged / output.bank.file).write_bytes(bank)
            summed = msgspec.structs.replace(output.bank, sha256=hashlib.sha256(bank).hexdigest())
            output = msgspec.structs.replace(output, bank=summed)
        outputs.append(output)
    return msgspec.structs.replace(meta, outputs=outputs)


def _publish(staged: Path, folder: Path) -> None:
    """Rename into place; a folder cannot be renamed over a full one, so an old one steps aside first."""
    if not folder.exists():
        staged.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(aside / folder.name)
    try:
        staged.rename(folder)
    except OSError:
        (aside / folder.name).rename(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
