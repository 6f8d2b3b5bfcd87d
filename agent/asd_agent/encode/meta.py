"""`bundle.json`: what an encoder bundle says about itself. The bytes format; knows nothing of ONNX sessions.

A bundle is a folder with `bundle.json` and one ONNX file per precision variant. The graph has one input,
`waveform` float32 [batch, samples] at `rate_hz` (raw, full scale = 1.0: the front end is inside the graph),
and one output per named embedding, float32 [batch, dim]. Unknown keys are ignored, so that fields can be
added within a format version; anything that changes the meaning of a field needs a new version.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from asd_agent.reasons import Quantity

FORMAT_VERSION = 1
INPUT = "waveform"

Distance = Literal["whitened", "cosine", "euclidean", "beam"]
VariantName = Literal["fp32", "int8"]
Count = Annotated[int, Meta(ge=1)]


class Axis(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run of an embedding's values stands for, so that a reason can be given in words."""

    quantity: Quantity  # level = dB of a band; unsteadiness = its standard deviation over time; modulation = dB
    unit: Literal["Hz"] = "Hz"
    values: list[float]  # centre of each value
    band_hz: tuple[float, float] | None = None  # modulation of this part of the spectrum; None = of all of it


class BankFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Normal embeddings that come with a bundle: a bank fitted in training, of source and target domain."""

    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.npz$")]  # in the bundle's folder
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] = ""
    kind: str  # as `asd_agent.bank` knows it
    machine: str  # whose clips it was fitted on, for people


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One named embedding: a detector with its own bank and calibration."""

    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
    dim: Count
    distance: Distance
    axes: list[Axis] = []  # empty, or runs that together cover all `dim` values in their order
    # Sizes of the parts of a joined embedding (layers of a network, their bands), each of which weighs the same in the
    # whitened distance, or has a bank of its own (beam).
    blocks: list[Count] = []
    bank: BankFile | None = None  # None: calibration makes it
    # "nuisance": no detector, but how probable (0 to 1) each of `labels` is: sounds that no machine makes, such as
    # voices, animals, rain. They explain a deviation (`decide.votes`); several such outputs are families, each with
    # a measure of its own of what is usual.
    role: Literal["detector", "nuisance"] = "detector"
    labels: list[str] = []
    # Of a nuisance: by how much its log odds must exceed the usual ones to explain a deviation; None: the agent's rule.
    log_odds: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        if self.blocks and sum(self.blocks) != self.dim:
            raise ValueError(f"outputs: the blocks of {self.name!r} hold {sum(self.blocks)} values, not {self.dim}")
        if self.blocks and self.distance not in ("whitened", "beam"):
            raise ValueError(f"outputs: {self.name!r} has blocks, which only the distances whitened and beam know")
        if len(self.labels) not in (0, self.dim) or (self.role == "nuisance" and not self.labels):
            raise ValueError(f"outputs: {self.name!r} has {self.dim} values and {len(self.labels)} labels")
        covered = sum(len(axis.values) for axis in self.axes)
        if self.axes and covered != self.dim:
            raise ValueError(f"outputs: the axes of {self.name!r} label {covered} values, the embedding has {self.dim}")


class Variant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.onnx$")]  # in the bundle's folder
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] = ""
    optimised: bool = False  # saved by onnxruntime after optimisation: loaded as it is


class Provenance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the graph's numbers come from; no time stamps: the same input makes the same bundle."""

    tool: str  # e.g. "asd-export bundle"
    source: str = ""  # name or address of the checkpoint; empty = no learned weights
    source_sha256: str = ""
    settings: dict[str, Any] = {}


class BundleMeta(msgspec.Struct, frozen=True, kw_only=True):
    """All of `bundle.json`."""

    format_version: int = FORMAT_VERSION
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    rate_hz: Annotated[int, Meta(ge=1000, le=384_000)]
    lowest_rate_hz: int | None = None  # of a source that may be resampled upwards; None = rate_hz
    window_samples: Count | None  # None = any length of at least `min_samples`
    min_samples: Count
    outputs: Annotated[list[Output], Meta(min_length=1)]
    variants: Annotated[dict[VariantName, Variant], Meta(min_length=1)]
    front_end: str  # in words
    provenance: Provenance
    licence: str  # of graph and weights: an SPDX name or one line
    parity: dict[str, Any] = {}  # graph against its reference: what was compared, largest difference, cosines

    @property
    def files(self) -> list[str]:
        """Of the bundle's folder, beside bundle.json: graphs, and banks that come with it."""
        banks = {output.bank.file for output in self.outputs if output.bank is not None}
        return sorted(banks | {variant.file for variant in self.variants.values()})

    def __post_init__(self) -> None:
        names = [output.name for output in self.outputs]
        if len(set(names)) != len(names):
            raise ValueError(f"outputs: a name is used twice ({', '.join(names)})")
        if self.window_samples is not None and self.window_samples < self.min_samples:
            raise ValueError("window_samples is smaller than min_samples")
