"""Surgery on a traced graph: what lets onnxruntime run it fast. None of it changes what is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from asd_agent.errors import BundleError
from asd_export.trace import DOMAIN, OPSET

CONTRIB = "com.microsoft"
_HEADS_FIRST = [0, 2, 1, 3]


class Links:
    """Who makes and who uses each tensor of a graph, and what shall stand in place of some nodes."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph, self.nodes = graph, list(graph.node)
        self.replaced: dict[int, list[onnx.NodeProto]] = {}  # by position
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.constants = {constant.name: constant for constant in graph.initializer}

    def apply(self) -> None:
        """Put the replacements in; the links are stale afterwards."""
        nodes = [new for i, node in enumerate(self.nodes) for new in self.replaced.get(i, [node])]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)


def fuse_attention(model: onnx.ModelProto) -> int:
    """Every attention becomes one com.microsoft.MultiHeadAttention on [batch, time, dim]; returns how many.

    The reshapes and transposes around it, which the fused operator does itself, are dropped.
    """
    links = Links(model.graph)
    for position, node in enumerate(links.nodes):
        if node.domain != DOMAIN:
            continue
        splits = [_split(links, name) for name in node.input[:3]]
        inputs = [split.input[0] for split in splits]
        mask = ["", "", node.input[3]] if len(node.input) > 3 else []
        merged = _after_merge(links, node.output[0])
        fused = helper.make_node(
            "MultiHeadAttention",
            [*inputs, *mask],
            [merged.output[0]],
            name=f"{node.name}_fused",
            domain=CONTRIB,
            num_heads=_heads(links, splits[0]),
        )
        merged.output[0] = f"{merged.output[0]}_unused"
        links.replaced[position] = [fused]
    links.apply()
    prune(model)
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)])
    return len(links.replaced)


def split_projections(model: onnx.ModelProto) -> None:
    """A product with a packed weight (query, key and value) whose result is only cut apart becomes several.

    Saves the copies, and dynamic quantisation is faster on several narrow products than on one wide one.
    """
    links = Links(model.graph)
    for position, node in enumerate(links.nodes):
        if node.op_type != "MatMul" or node.input[1] not in links.constants:
            continue
        made: list[onnx.NodeProto] = []
        for start, end, add, cut in _cuts(links, node):
            weight = _columns(links, node.input[1], start, end)
            result = cut.output[0]
            product = result if add is None else f"{result}_product"
            made.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=f"{product}_matmul"))
            if add is not None:
                (bias,) = [name for name in add.input if name in links.constants]
                inputs = [product, _columns(links, bias, start, end)]
                made.append(helper.make_node("Add", inputs, [result], name=f"{result}_add"))
            cut.output[0] = f"{result}_unused"
        if made:
            links.replaced[position] = [*made, node]
    links.apply()
    prune(model)


def prune(model: onnx.ModelProto) -> None:
    """Drop nodes and constants that no output needs."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    for node in reversed(graph.node):  # in topological order
        if needed.intersection(node.output):
            needed.update(node.input)
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    constants = [constant for constant in graph.initializer if constant.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _split(links: Links, name: str) -> onnx.NodeProto:
    """The reshape of [batch, time, dim] before the transpose to [batch, heads, time, head dim]."""
    transpose = links.maker.get(name)
    if transpose is not None and _is_head_transpose(transpose):
        reshape: onnx.NodeProto | None = links.maker.get(transpose.input[0])
        if reshape is not None and reshape.op_type == "Reshape":
            return reshape
    raise BundleError(f"the graph's attention has an unknown shape at {name}: it cannot be fused")


def _heads(links: Links, reshape: onnx.NodeProto) -> int:
    """The third of its four sizes, which are one constant or joined from single ones."""
    sizes = links.maker[reshape.input[1]]
    if sizes.op_type == "Constant":
        return int(_value(sizes)[2])
    size = links.maker[sizes.input[2]]
    while size.op_type in ("Unsqueeze", "Cast", "Identity"):
        size = links.maker[size.input[0]]
    return int(_value(size).item())


def _value(constant: onnx.NodeProto) -> np.ndarray:
    tensor: Any = helper.get_node_attr_value(constant, "value")
    return numpy_helper.to_array(tensor)


def _after_merge(links: Links, name: str) -> onnx.NodeProto:
    """The reshape that makes [batch, time, dim] of [batch, heads, time, head dim]."""
    for transpose in filter(_is_head_transpose, links.users.get(name, [])):
        for reshape in links.users.get(transpose.output[0], []):
            if reshape.op_type == "Reshape":
                return reshape
    raise BundleError(f"the graph's attention has an unknown shape at {name}: it cannot be fused")


def _is_head_transpose(node: onnx.NodeProto) -> bool:
    return node.op_type == "Transpose" and helper.get_node_attr_value(node, "perm") == _HEADS_FIRST


def _cuts(links: Links, product: onnx.NodeProto) -> Iterator[tuple[int, int, onnx.NodeProto | None, onnx.NodeProto]]:
    """(start, end, Add of a bias or None, Slice) of each part; nothing when the product has another use."""
    users, add = links.users.get(product.output[0], []), None
    if len(users) == 1 and users[0].op_type == "Add" and any(n in links.constants for n in users[0].input):
        add = users[0]
        users = links.users.get(add.output[0], [])
    parts = []
    for cut in users:
        bounds = [links.constants[name] for name in cut.input[1:] if name in links.constants]
        if cut.op_type != "Slice" or len(bounds) != len(cut.input) - 1:
            return
        start, end, axis, step = ([*(int(numpy_helper.to_array(b)[0]) for b in bounds), 1])[:4]
        if axis not in (2, -1) or step != 1:
            return
        parts.append((start, end, add, cut))
    yield from parts


def _columns(links: Links, name: str, start: int, end: int) -> str:
    """A new constant with some of the last axis of another."""
    array = np.ascontiguousarray(numpy_helper.to_array(links.constants[name])[..., start:end])
    new = f"{name}_{start}_{end}"
    links.graph.initializer.append(numpy_helper.from_array(array, new))
    return new
