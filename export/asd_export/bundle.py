"""From a checkpoint to a bundle folder that the agent runs, with its proof."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnx

from asd_agent import __version__
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.meta import BankFile, BundleMeta, Provenance, Variant, VariantName
from asd_agent.errors import BundleError, UsageError
from asd_export import parity
from asd_export.optimise import fuse, simplify
from asd_export.quantise import quantise
from asd_export.rewrite import fuse_attention, split_projections
from asd_export.subject import Subject
from asd_export.trace import trace
from asd_export.write import write_bundle

WINDOW_S = 10.0


def export_bundle(
    subject: Subject,
    folder: str | Path,
    *,
    window_s: float | None = None,
    any_length: bool = False,
    variants: Sequence[VariantName] = ("fp32", "int8"),
    name: str | None = None,
    licence: str | None = None,
    sounds: Sequence[str | Path] = (),
    bank: tuple[BankFile, bytes] | None = None,
    replace: bool = False,
) -> BundleMeta:
    """Write the bundle; raises AsdError, and writes nothing, where it does not agree with torch.

    window_s: length of the windows, default what the checkpoint was trained on, else 10 s. any_length: the graph
    takes any other length too (slower to start). int8 is left out where the encoder has no large products. bank: goes
    with the first output (`machine_bank.packed`).
    """
    folder = Path(folder)
    if folder.exists() and not replace:
        raise BundleError(f"{folder}: already exists; name another folder or add --replace")
    samples = _samples(subject, window_s, any_length)
    graphs = make_graphs(subject, samples, fixed=not any_length, variants=variants)
    meta = BundleMeta(
        name=name or subject.name,
        rate_hz=subject.rate_hz,
        lowest_rate_hz=subject.lowest_rate_hz,
        window_samples=None if any_length else samples,
        min_samples=subject.min_samples,
        outputs=subject.outputs,
        variants={
            kind: Variant(file=f"encoder.{kind}.onnx", optimised=optimised) for kind, (_, optimised) in graphs.items()
        },
        front_end=subject.front_end,
        provenance=Provenance(
            tool=f"asd-export bundle {__version__}",
            source=subject.source,
            source_sha256=subject.sha256,
            settings=_settings(subject, samples, any_length),
        ),
        licence=licence or subject.licence,
    )
    if bank is not None:
        first, *others = meta.outputs
        meta = msgspec.structs.replace(meta, outputs=[msgspec.structs.replace(first, bank=bank[0]), *others])
    content = bank[1] if bank is not None else b""
    contents = {kind: model.SerializeToString(deterministic=True) for kind, (model, _) in graphs.items()}
    with tempfile.TemporaryDirectory(prefix="asd-export-") as staging:
        draft = Path(staging) / "bundle"
        write_bundle(draft, meta, contents, bank=content)
        result = parity.report(Bundle.load(draft), subject.module, sounds)
    parity.check(result)
    return write_bundle(folder, msgspec.structs.replace(meta, parity=result), contents, bank=content, replace=replace)


def make_graphs(
    subject: Subject, samples: int, *, fixed: bool, variants: Sequence[VariantName]
) -> dict[VariantName, tuple[onnx.ModelProto, bool]]:
    """(graph, whether it is to be loaded without further optimisation) of each variant."""
    model = trace(subject.module, [output.name for output in subject.outputs], samples, fixed=fixed)
    attentions = fuse_attention(model)
    model = simplify(model)
    if attentions:
        split_projections(model)
    found: dict[VariantName, tuple[onnx.ModelProto, bool]] = {}
    if "fp32" in variants:
        # Convolutions are laid out for the CPU at hand when a session starts; there nothing can be saved.
        found["fp32"] = (fuse(model), True) if attentions else (model, False)
    if "int8" in variants and attentions and (small := quantise(model)) is not None:
        found["int8"] = (fuse(small), True)
    if not found:
        raise UsageError("this encoder has no large matrix products that int8 would help: use --variants fp32")
    return found


def _samples(subject: Subject, window_s: float | None, any_length: bool) -> int:
    if subject.fixed_length and (any_length or window_s not in (None, subject.clip_s)):
        raise UsageError(f"this system takes windows of {subject.clip_s} s only")
    samples = round((window_s or subject.clip_s or WINDOW_S) * subject.rate_hz)
    if samples < subject.min_samples:
        raise UsageError(f"--window-s: this encoder needs at least {subject.min_samples / subject.rate_hz:.3g} s")
    return samples


def _settings(subject: Subject, samples: int, any_length: bool) -> dict[str, Any]:
    window = "any" if any_length else samples / subject.rate_hz
    return {**subject.settings, "window_s": window}
