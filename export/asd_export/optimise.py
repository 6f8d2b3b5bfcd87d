"""onnxruntime's own graph optimisation, run at export and saved."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime as ort

from asd_agent.errors import BundleError

# Fused into SkipLayerNormalization, Add and LayerNormalization run five times slower on a CPU than apart.
SLOWER = ("SkipLayerNormFusion",)
# Gemm has no dynamically quantised form; MatMul has.
BEFORE_QUANTISATION = ("MatMulAddFusion",)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants folded, shapes resolved, nothing fused that quantisation must see."""
    return _optimised(model, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, BEFORE_QUANTISATION)


def fuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """All fusions that do not depend on the CPU at hand; to be loaded as it is."""
    return _optimised(model, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, SLOWER)


def _optimised(model: onnx.ModelProto, level: ort.GraphOptimizationLevel, without: Sequence[str]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="asd-export-") as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(model, before)
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(after)
        options.log_severity_level = 3
        try:
            ort.InferenceSession(
                str(before), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
            )
        except Exception as error:
            raise BundleError(
                f"onnxruntime refuses the exported graph ({' '.join(str(error).split())[:200]})"
            ) from error
        return onnx.load(after)
