"""A bundle whose graph loops for as long as anybody waits: a pipeline that hangs, without a hook in the product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from asd_agent.encode.meta import BundleMeta, Output, Provenance, Variant
from asd_export.write import write_bundle

DIM = 4


def write(folder: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("MatMul", ["square", "eye"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("square", TensorProto.FLOAT, [64, 64]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [64, 64]),
        ],
    )
    constants = {
        "often": np.array(1 << 60, np.int64), "yes": np.array(True), "eye": np.eye(64, dtype=np.float32),
        "rows": np.array([0], np.int64), "shape": np.array([1, -1], np.int64), "columns": np.arange(DIM),
    }  # fmt: skip
    nodes = [
        helper.make_node("ReduceMean", ["waveform"], ["mean"], keepdims=1),
        helper.make_node("Add", ["eye", "mean"], ["start"]),
        helper.make_node("Loop", ["often", "yes", "start"], ["end"], body=body),
        helper.make_node("Reshape", ["end", "shape"], ["flat"]),
        helper.make_node("Gather", ["flat", "columns"], ["embedding"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "endless",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, "samples"])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, DIM])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    meta = BundleMeta(
        name="endless", rate_hz=16_000, window_samples=None, min_samples=1600,
        outputs=[Output(name="embedding", dim=DIM, distance="euclidean")],
        variants={"fp32": Variant(file="encoder.onnx")}, front_end="none", licence="none",
        provenance=Provenance(tool="tests"),
    )  # fmt: skip
    write_bundle(folder, meta, {"fp32": model.SerializeToString()})
