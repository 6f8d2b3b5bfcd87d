"""A graph written by hand, node by node, and the real DFT as two small matrix products inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from asd_agent.encode.meta import INPUT

OPSET = 17  # ReduceMean still takes its axes as an attribute
IR_VERSION = 8

Array = npt.NDArray[Any]


class Graph:
    """Collects nodes and constants; names follow from the order, so the same calls make the same bytes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the name of it."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def floats(self, values: npt.ArrayLike) -> str:
        """A float32 constant. What only rounding keeps from 0 becomes 0: no CPU may change the bytes."""
        array = np.asarray(values, np.float64)
        return self._constant(np.where(np.abs(array) < 1e-12, 0.0, array).astype(np.float32))

    def ints(self, values: npt.ArrayLike) -> str:
        return self._constant(np.asarray(values, np.int64))

    def _constant(self, array: Array) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def cut(self, x: str, axis: int, start: int | str, end: int | str, step: int = 1) -> str:
        """x[start:end:step] along one axis; a bound is a number or the name of an int64 [1] tensor."""
        bounds = [b if isinstance(b, str) else self.ints([b]) for b in (start, end)]
        return self.op("Slice", x, *bounds, self.ints([axis]), self.ints([step]))

    def batch(self, x: str) -> str:
        """Size of the first dimension, int64 [1]."""
        return self.op("Gather", self.op("Shape", x), self.ints([0]))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """0 keeps a dimension, -1 infers one."""
        return self.op("Reshape", x, self.ints(shape))

    def overlap(self, blocks: str, axis: int, count: int) -> str:
        """[..., n, b] blocks (n at `axis`) -> [..., n-count+1, count*b]: frames that hop by one block."""
        end = np.iinfo(np.int64).max
        parts = [self.cut(blocks, axis, i, i - count + 1 if i < count - 1 else end) for i in range(count)]
        return self.op("Concat", *parts, axis=axis + 1)

    def splice(self, model: onnx.ModelProto, *inputs: str) -> list[str]:
        """Another graph with its inputs in order taken from tensors of this one; the names of its outputs."""
        other, prefix = model.graph, f"spliced_{len(self.nodes)}_"
        names = {value.name: tensor for value, tensor in zip(other.input, inputs, strict=True)} | {"": ""}
        for constant in other.initializer:
            self.constants.append(copied := onnx.TensorProto.FromString(constant.SerializeToString()))
            copied.name = prefix + constant.name
        for node in other.node:
            self.nodes.append(copy := onnx.NodeProto.FromString(node.SerializeToString()))
            copy.name = prefix + node.name
            copy.input[:] = [names.get(name, prefix + name) for name in node.input]
            copy.output[:] = [name and prefix + name for name in node.output]
        return [prefix + value.name for value in other.output]

    def model(self, samples: str, outputs: Mapping[str, tuple[str, int]], doc: str) -> onnx.ModelProto:
        """waveform float32 [batch, samples] -> outputs, name -> (tensor, dim), each float32 [batch, dim]."""
        rename = {tensor: name for name, (tensor, _) in outputs.items()}
        for node in self.nodes:
            node.output[:] = [rename.get(name, name) for name in node.output]
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", samples])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", dim])
                for name, (_, dim) in outputs.items()
            ],
            initializer=self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], doc_string=doc)
        model.ir_version = IR_VERSION
        model.producer_name = "asd-export"
        onnx.checker.check_model(model)
        return model


def hann(n: int) -> Array:
    """Periodic Hann window [n]."""
    window: Array = 0.5 - 0.5 * _circle(np.arange(n), n).real
    return window


def power_spectrum(graph: Graph, frames: str, rows: int, columns: int) -> tuple[str, Array]:
    """|DFT|^2 of real frames [..., rows, columns] (row-major: sample = columns * row + column), `rows` even.

    Cooley-Tukey with N = rows * columns: a DFT over the rows of each column, twiddles, a DFT over columns.
    For N = 8000 these two products take 1/18 of the time of onnxruntime's DFT operator. Returns ([...,
    rows/2+1, columns], bins): the values in the order that the products leave, and for each (flattened) its
    bin 0..N/2; some bins come twice.
    """
    half = rows // 2 + 1
    first = _circle(-np.outer(np.arange(half), np.arange(rows)), rows)
    stage = graph.op("MatMul", graph.floats(np.concatenate([first.real, first.imag])), frames)
    re, im = graph.ops("Split", stage, outputs=2, axis=-2)
    twiddle = _circle(-np.outer(np.arange(half), np.arange(columns)), rows * columns)
    tw_re, tw_im = graph.floats(twiddle.real), graph.floats(twiddle.imag)
    turned = graph.op(
        "Concat",
        graph.op("Sub", graph.op("Mul", re, tw_re), graph.op("Mul", im, tw_im)),
        graph.op("Add", graph.op("Mul", re, tw_im), graph.op("Mul", im, tw_re)),
        axis=-1,
    )
    second = _circle(-np.outer(np.arange(columns), np.arange(columns)), columns)
    matrix = np.block([[second.real, second.imag], [-second.imag, second.real]])
    power = squared_magnitude(graph, graph.op("MatMul", turned, graph.floats(matrix)), axis=-1)
    return power, _bin_order(rows, columns)


def framed_power_spectrum(graph: Graph, x: str, window: Array, hop: int, rows: int) -> tuple[str, Array]:
    """|DFT|^2 of overlapping windowed frames of x [signals, samples], `rows` even.

    As `power_spectrum`, but framing, window, first DFT and twiddles are one grouped convolution over the
    polyphase components of x, which saves copies (N = 1024: a quarter of the time of a direct product or of
    the DFT operator). The columns (N / rows) must divide hop and samples. Returns ([signals, (rows/2+1) *
    columns, frames], bins).
    """
    columns, half = len(window) // rows, rows // 2 + 1
    sample = columns * np.arange(rows)[None, :] + np.arange(columns)[:, None]
    kernel = window[sample] * _circle(-np.arange(half)[:, None, None] * sample, len(window))  # [half, columns, rows]
    taps = np.stack([kernel.real, kernel.imag], axis=1).transpose(2, 0, 1, 3)  # [columns, half, 2, rows]
    phases = graph.op("Transpose", graph.reshape(x, [0, -1, columns]), perm=[0, 2, 1])
    weights = graph.floats(taps.reshape(-1, 1, rows))
    stage = graph.op("Conv", phases, weights, group=columns, strides=[hop // columns])
    grouped = graph.op("Reshape", stage, graph.ints([0, columns, half, -1]))
    turned = graph.op("Transpose", grouped, perm=[0, 2, 1, 3])  # [signals, half, columns, 2 * frames]
    second = _circle(-np.outer(np.arange(columns), np.arange(columns)), columns)
    matrix = np.empty((2 * columns, columns, 2))
    matrix[:columns, :, 0], matrix[:columns, :, 1] = second.real, -second.imag
    matrix[columns:, :, 0], matrix[columns:, :, 1] = second.imag, second.real
    parts = graph.reshape(turned, [0, half, 2 * columns, -1])
    spectrum = graph.op("MatMul", graph.floats(matrix.reshape(2 * columns, -1)), parts)
    power = squared_magnitude(graph, spectrum, axis=2)
    return graph.reshape(power, [0, half * columns, -1]), _bin_order(rows, columns)


def direct_power_spectrum(graph: Graph, x: str, window: Array, hop: int) -> str:
    """|DFT|^2 of short windowed frames of x [signals, samples], one convolution: [signals, n/2+1, frames]."""
    n = len(window)
    matrix = window * _circle(-np.outer(np.arange(n // 2 + 1), np.arange(n)), n)
    taps = graph.floats(np.concatenate([matrix.real, matrix.imag])[:, None, :])
    signals = graph.op("Unsqueeze", x, graph.ints([1]))
    return squared_magnitude(graph, graph.op("Conv", signals, taps, strides=[hop]), axis=1)


def squared_magnitude(graph: Graph, x: str, axis: int) -> str:
    """Real parts then imaginary parts along `axis` -> re^2 + im^2, half as many."""
    re, im = graph.ops("Split", graph.op("Mul", x, x), outputs=2, axis=axis)
    return graph.op("Add", re, im)


def _bin_order(rows: int, columns: int) -> Array:
    """Bin of each value that the two-stage DFT leaves; of a pair k, N - k the lower."""
    index = np.arange(rows // 2 + 1)[:, None] + rows * np.arange(columns)[None, :]
    bins: Array = np.minimum(index, rows * columns - index).ravel()
    return bins


def _circle(steps: Array, n: int) -> Array:
    """exp(2 pi i steps / n), the angle reduced as an integer."""
    angle: Array = 2.0 * np.pi * (steps % n) / n
    points: Array = np.cos(angle) + 1j * np.sin(angle)
    return points
