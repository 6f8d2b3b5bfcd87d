"""A torch module becomes an ONNX graph, with attention still as one node per layer.

torch's tracing exporter takes scaled dot product attention apart; here it stays whole, as a node of our own domain
that `rewrite.fuse_attention` turns into onnxruntime's fused operator.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import nn

from asd_agent.encode.meta import INPUT
from asd_agent.errors import BundleError

OPSET = 17
DOMAIN = "asd"  # exists only between here and `rewrite`
_SDPA = "aten::scaled_dot_product_attention"


def trace(model: nn.Module, outputs: Sequence[str], samples: int, *, fixed: bool) -> onnx.ModelProto:
    """model: waveform [1, samples] -> one tensor [1, dim] per name in `outputs` (a tuple when several).

    fixed: the graph takes exactly this many samples; else any number that the model takes. The batch is 1.
    Raises BundleError where torch cannot export the model.
    """
    example = torch.zeros(1, samples).uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(0))
    stream = io.BytesIO()
    try:
        with torch.inference_mode(), warnings.catch_warnings(), _whole_attention():
            warnings.simplefilter("ignore")  # the tracer's remarks on sizes that are fixed on purpose
            torch.onnx.export(
                model.eval(),
                (example,),
                stream,  # type: ignore[arg-type]  # the tracing exporter takes a stream
                dynamo=False,
                opset_version=OPSET,
                do_constant_folding=False,  # onnxruntime does it better
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_axes=None if fixed else {INPUT: {1: "samples"}},
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError) as error:
        raise BundleError(f"torch cannot export this model ({str(error).splitlines()[0][:200]})") from error
    return onnx.load_from_string(stream.getvalue())


@contextmanager
def _whole_attention() -> Iterator[None]:
    torch.onnx.register_custom_op_symbolic(_SDPA, _attention, OPSET)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(_SDPA, OPSET)  # type: ignore[attr-defined]


def _attention(graph: Any, query: Any, key: Any, value: Any, mask: Any, *_: Any) -> Any:
    """query, key, value [batch, heads, time, head dim], mask [batch or 1, heads, time, time] or None.

    What follows (dropout, causal, scale, grouped queries) is 0, False, default and False in our encoders.
    """
    inputs = [query, key, value] if mask.node().mustBeNone() else [query, key, value, mask]
    result = graph.op(f"{DOMAIN}::Attention", *inputs)
    result.setType(query.type())
    return result
