"""Surgery on graphs, on attention modules of their own."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asd_agent.errors import BundleError
from asd_export.optimise import simplify
from asd_export.rewrite import fuse_attention, split_projections
from asd_export.trace import trace


class Packed(nn.Module):
    """Attention over [1, 8 samples as 8 steps of 16] with one packed projection, then its mean."""

    def __init__(self, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads, self.widen, self.qkv = heads, nn.Linear(1, 16), nn.Linear(16, 48, bias=bias)

    def forward(self, waveform: Tensor) -> Tensor:
        x = self.widen(waveform[..., None])
        q, k, v = (p.reshape(1, 8, self.heads, -1).transpose(1, 2) for p in self.qkv(x).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1)


class Unknown(Packed):
    """Its attention is not preceded by a split into heads."""

    def forward(self, waveform: Tensor) -> Tensor:
        q, k, v = self.qkv(self.widen(waveform[..., None])).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v).mean(1)


def run(model: onnx.ModelProto, x: Tensor) -> np.ndarray:
    found: np.ndarray = ort.InferenceSession(model.SerializeToString()).run(None, {"waveform": x.numpy()})[0]
    return found


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_fused_and_split_attention_says_the_same(heads: int, bias: bool) -> None:
    torch.manual_seed(0)
    module, x = Packed(heads, bias).eval(), torch.randn(1, 8)
    graph = trace(module, ["embedding"], 8, fixed=True)
    assert fuse_attention(graph) == 1
    fused = [node for node in graph.graph.node if node.op_type == "MultiHeadAttention"]
    assert [onnx.helper.get_node_attr_value(node, "num_heads") for node in fused] == [heads]
    whole = simplify(graph)
    split = simplify(graph)
    split_projections(split)
    kinds = [[node.op_type for node in model.graph.node] for model in (whole, split)]
    assert [kind.count("MatMul") for kind in kinds] == [2, 4]
    assert "Slice" not in kinds[1]
    with torch.inference_mode():
        expected = module(x).numpy()
    assert np.abs(run(whole, x) - expected).max() < 1e-6
    assert np.abs(run(split, x) - expected).max() < 1e-6


def test_a_result_that_is_used_whole_is_not_split() -> None:
    class Both(Packed):
        def forward(self, waveform: Tensor) -> Tensor:
            packed = self.qkv(self.widen(waveform[..., None]))
            return packed.mean(1) + packed[..., :16].mean((1, 2))[:, None]

    graph = simplify(trace(Both(1, True), ["embedding"], 8, fixed=True))
    before = len(graph.graph.node)
    split_projections(graph)
    assert len(graph.graph.node) == before


def test_unknown_attention_is_refused() -> None:
    with pytest.raises(BundleError, match="cannot be fused"):
        fuse_attention(trace(Unknown(1, True), ["embedding"], 8, fixed=True))
