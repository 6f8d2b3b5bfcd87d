"""Dynamic int8: the weights of the large matrix products as signed bytes, one scale per output channel."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx

FEWEST_VALUES = 1 << 14  # a smaller weight is not worth the rounding
# Modules whose products stay as they are: their rounding would bury weak bands under strong ones.
SPECTRA = ("/frontend/", "/spectrum/")


def quantise(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The graph with every large product outside of the front end in int8; None where there is none.

    Activations are quantised as they come, per tensor (unsigned, asymmetric). `model` is left as it is.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    chosen = _large_products(model)
    if not chosen:
        return None
    with tempfile.TemporaryDirectory(prefix="asd-export-") as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(model, before)
        logging.disable(logging.WARNING)  # it advises a preprocessing that `optimise.simplify` has done
        try:
            quantize_dynamic(
                before,
                after,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=chosen,
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(after)


def _large_products(model: onnx.ModelProto) -> list[str]:
    sizes = {constant.name: constant.dims for constant in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul"
        and not any(part in node.name for part in SPECTRA)
        and len(dims := sizes.get(node.input[1], ())) == 2
        and min(dims) >= 32
        and dims[0] * dims[1] >= FEWEST_VALUES
    ]
