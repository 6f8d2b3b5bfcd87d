"""The bundle of our own student: alone, or joined with `spectral` in one graph with one front end, which is `default`.

The student hears every other of `spectral`'s segments of 1 s, so that no sound is heard twice. Its embeddings are means
over a window's seconds; the last one gives the probability of everyday sound, which is shared out among its families by
their odds.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from asd_agent import __version__
from asd_agent.encode.bundle import Bundle, BundleMeta, Output, Provenance, Variant
from asd_agent.errors import BundleError
from asd_export import parity
from asd_export.graph import Graph
from asd_export.optimise import simplify
from asd_export.rewrite import prune
from asd_export.spectral import RATE_HZ, SEGMENT, Described, describe
from asd_export.trace import OPSET
from asd_export.write import write_bundle
from asd_train.distil.recipe import FAMILIES
from asd_train.distil.student import BANDS, FRAMES, SUMMARY, WEIGHTS, MelSeconds, Student, load_student

LABELS = {
    "voices_and_animals": "Voice or animal",
    "music": "Music",
    "weather": "Weather",
    "traffic": "Traffic",
    "tools_and_impacts": "Tool or clock",
    "alarms": "Alarm or bell",
}
STAGES = ("early", "middle", "late")
OWN = "own"  # the three stages and the summary in one embedding: four views of one network are no four witnesses
EVERYDAY = "everyday"
LICENCE = "Apache-2.0; trained on the sound listed in MODEL_CARD.md"
LARGEST = 5e-3  # allowed difference of any value from torch, whose front end is another computation of the same
LEAST_COSINE = 0.9999

Tensors = dict[str, tuple[str, int]]  # output -> (tensor, dim)


def export_own(
    source: Path, folder: Path, *, joined: bool = False, include: Sequence[Path] = (), replace: bool = False
) -> BundleMeta:
    """Write the student in `source` as the bundle `own`, or joined with `spectral`; `include`: files copied beside it.

    Raises AsdError, and writes nothing, where the bundle does not say what torch says.
    """
    student, card = load_student(source)
    result = _parity(student)
    with (source / WEIGHTS).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    graph = Graph()
    described = describe(graph)
    outputs, tensors = _student(graph, student, described)
    if joined:
        outputs, tensors = [*described.outputs, *outputs], described.tensors | tensors
    meta = BundleMeta(
        name="default" if joined else "own",
        rate_hz=RATE_HZ,
        window_samples=None,
        min_samples=SEGMENT,
        outputs=outputs,
        variants={"fp32": Variant(file="encoder.onnx")},
        front_end="mean removed, divided by RMS; mel spectra of 1 s segments in dB",
        provenance=Provenance(
            tool=f"asd-export own {__version__}",
            source=f"asd-train distil, {card.training.get('steps', 0)} steps",
            source_sha256=digest,
            settings={"joined": joined},
        ),
        licence=LICENCE,
        parity=result,
    )
    return write_bundle(folder, meta, {"fp32": _bytes(graph, tensors)}, include=include, replace=replace)


class OwnEncoder(nn.Module):
    """Waveform [1, samples] -> the outputs of the bundle `own`, computed by torch."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student, self.frontend = student, MelSeconds()

    def forward(self, waveform: Tensor) -> tuple[Tensor, ...]:
        heard = self.student(self.frontend(waveform[0]))
        means = [value.mean(0, keepdim=True) for value in (*heard.stages, heard.summary)]
        return torch.cat(means, dim=1), self.student.probabilities(heard)[None]


def _student(graph: Graph, student: Student, described: Described) -> tuple[list[Output], Tensors]:
    """The student's nodes behind `spectral`'s front end, and what they say of a window."""
    batch = graph.batch(described.waveform)
    all_of_them = np.iinfo(np.int64).max
    shape = graph.op("Concat", batch, graph.ints([-1, BANDS, FRAMES]), axis=0)
    segments = graph.op("Reshape", described.segments_db, shape)
    seconds = graph.reshape(graph.cut(segments, 1, 0, all_of_them, 2), [-1, BANDS, FRAMES])
    *embeddings, families = graph.splice(_traced(student), seconds)

    def by_window(tensor: str, dim: int) -> str:
        return graph.op("Reshape", tensor, graph.op("Concat", batch, graph.ints([-1, dim]), axis=0))

    dims = [*student.dims(), SUMMARY]
    means = [
        graph.op("ReduceMean", by_window(tensor, dim), axes=[1], keepdims=0)
        for tensor, dim in zip(embeddings, dims, strict=True)
    ]
    outputs = [Output(name=OWN, dim=sum(dims), distance="whitened", blocks=dims)]
    tensors = {OWN: (graph.op("Concat", *means, axis=1), sum(dims))}
    mean = graph.op("ReduceMean", by_window(graph.op("Relu", embeddings[-1]), SUMMARY), axes=[1], keepdims=0)
    odds = graph.op("MatMul", mean, graph.floats(student.evidence.double().numpy()[:, None]))
    anything = graph.op("Sigmoid", graph.op("Add", odds, graph.floats([float(student.offset)])))
    each = graph.op("ReduceMean", graph.op("Exp", by_window(families, len(FAMILIES))), axes=[1], keepdims=0)
    share = graph.op("Div", each, graph.op("ReduceSum", each, graph.ints([1]), keepdims=1))
    outputs.append(
        Output(
            name=EVERYDAY,
            dim=len(FAMILIES),
            distance="euclidean",
            role="nuisance",
            labels=[LABELS[family] for family in FAMILIES],
            log_odds=round(float(student.limit), 3),
        )
    )
    tensors[EVERYDAY] = (graph.op("Mul", anything, share), len(FAMILIES))
    return outputs, tensors


class _Flat(nn.Module):
    """The student with its outputs in a row, as an exporter wants them."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, db: Tensor) -> tuple[Tensor, ...]:
        heard = self.student(db)
        return (*heard.stages, heard.summary, heard.families)


def _traced(student: Student) -> onnx.ModelProto:
    """dB [seconds, bands, frames] -> stages, summary, families, each [seconds, dim]; batch norms folded."""
    names = [*STAGES, "summary", "families"]
    stream = io.BytesIO()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's remarks on its own successor
        torch.onnx.export(
            _Flat(student).eval(),
            (torch.zeros(2, BANDS, FRAMES),),
            stream,  # type: ignore[arg-type]  # the tracing exporter takes a stream
            dynamo=False,
            opset_version=OPSET,
            input_names=["db"],
            output_names=names,
            dynamic_axes={name: {0: "seconds"} for name in ("db", *names)},
        )
    return simplify(onnx.load_from_string(stream.getvalue()))


def _bytes(graph: Graph, tensors: Tensors) -> bytes:
    model = graph.model("samples", tensors, "asd-agent bundle: own")
    prune(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _parity(student: Student) -> dict[str, Any]:
    """The student's part against torch, over noise and a simulated machine. Raises BundleError."""
    graph = Graph()
    outputs, tensors = _student(graph, student, describe(graph))
    meta = BundleMeta(
        name="own", rate_hz=RATE_HZ, window_samples=None, min_samples=SEGMENT, outputs=outputs,
        variants={"fp32": Variant(file="encoder.onnx")}, front_end="", provenance=Provenance(tool=""), licence="",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="asd-export-") as staging:
        draft = Path(staging) / "bundle"
        write_bundle(draft, meta, {"fp32": _bytes(graph, tensors)})
        result = parity.report(Bundle.load(draft), OwnEncoder(student))
    check(result["fp32"])
    return result


def check(compared: Mapping[str, Mapping[str, float]]) -> None:
    """Raises BundleError where an output differs too much from torch's."""
    for output, row in compared.items():
        near = row["largest_difference"] <= LARGEST
        if not near or (output == OWN and row["mean_centred_cosine"] < LEAST_COSINE):
            raise BundleError(f"parity: {output} differs from torch by {row['largest_difference']:.2g}; not written")
