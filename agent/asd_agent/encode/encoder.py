"""Runs a bundle's graph with onnxruntime: one window in, its named embeddings out."""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from asd_agent.encode.bundle import Bundle
from asd_agent.encode.cpu import cpu_flags, preferred_variant
from asd_agent.encode.meta import INPUT, VariantName
from asd_agent.errors import BundleError
from asd_agent.types import Samples

Device = Literal["cpu", "cuda"]


class Encoder:
    """A session on one variant of a bundle. Any thread may call `embed`, several at once too."""

    def __init__(
        self, bundle: Bundle, variant: VariantName | Literal["auto"] = "auto", threads: int = 1, device: Device = "cpu"
    ) -> None:
        """Open the graph; raises BundleError when it cannot be run or is not what the metadata says."""
        self.bundle = bundle
        self.variant = choose_variant(bundle, variant)
        self._dims = {output.name: output.dim for output in bundle.meta.outputs}
        self._names = list(self._dims)
        self._session = _open(bundle, self.variant, threads, device)
        _check_signature(bundle, self.variant, self._session)

    def embed(self, samples: Samples) -> dict[str, npt.NDArray[np.float32]]:
        """Raw waveform [n] at the bundle's rate -> embedding [dim] by name.

        Raises BundleError for a length that the bundle does not take, for samples that are not finite, and
        for an embedding that is not finite: such a window must never get a score.
        """
        waveform = np.ascontiguousarray(samples, dtype=np.float32)
        self._check_input(waveform)
        try:
            values = self._session.run(self._names, {INPUT: waveform[None, :]})
        except Exception as exc:
            raise BundleError(f"{self._where()}: onnxruntime cannot run it ({_line(exc)}); export it anew") from exc
        embeddings = {}
        for name, value in zip(self._names, values, strict=True):
            if value.shape != (1, self._dims[name]):
                raise BundleError(
                    f"{self._where()}: output {name!r} is {list(value.shape)}, bundle.json says "
                    f"{[1, self._dims[name]]}; export the bundle anew"
                )
            if not math.isfinite(np.vdot(value, value)):  # cheaper than a sum
                raise BundleError(f"{self._where()}: output {name!r} is not finite for finite samples")
            embeddings[name] = value[0]
        return embeddings

    def _check_input(self, waveform: Samples) -> None:
        meta = self.bundle.meta
        n = waveform.size
        if waveform.ndim != 1 or n < meta.min_samples or meta.window_samples not in (None, n):
            least = f"at least {meta.min_samples}" if meta.window_samples is None else f"{meta.window_samples}"
            raise BundleError(
                f"bundle {meta.name!r} takes {least} samples of one channel at {meta.rate_hz} Hz, "
                f"got {list(waveform.shape)}; change window_s"
            )
        if not math.isfinite(np.dot(waveform, waveform)):  # also what is far beyond any sound
            raise BundleError(f"bundle {meta.name!r}: the samples are not finite (NaN or infinity); check the source")

    def _where(self) -> str:
        return str(self.bundle.graph(self.variant))


_shared: weakref.WeakValueDictionary[tuple[str, VariantName, int, Device], Encoder] = weakref.WeakValueDictionary()
_shared_lock = threading.Lock()


def shared_encoder(
    bundle: Bundle, variant: VariantName | Literal["auto"] = "auto", threads: int = 1, device: Device = "cpu"
) -> Encoder:
    """The one encoder of this process for a bundle (by checksum), variant, thread count and device.

    It lives as long as someone holds it. Raises BundleError as `Encoder`.
    """
    key = (bundle.sha256, choose_variant(bundle, variant), threads, device)
    with _shared_lock:
        encoder = _shared.get(key)
        if encoder is None:
            encoder = _shared[key] = Encoder(bundle, key[1], threads, device)
        return encoder


def choose_variant(bundle: Bundle, variant: VariantName | Literal["auto"] = "auto") -> VariantName:
    """The variant that "auto" means on this CPU, or the asked one; raises BundleError where it is missing."""
    variants = bundle.meta.variants
    if variant == "auto":
        return preferred_variant(variants, cpu_flags())
    if variant not in variants:
        raise BundleError(f"{bundle.folder}: has no {variant} variant; it has {', '.join(sorted(variants))}")
    return variant


_PROVIDERS: dict[Device, tuple[str, ...]] = {"cpu": (), "cuda": ("CUDAExecutionProvider",)}


def has_cuda() -> bool:
    """Whether the installed onnxruntime was built for an NVIDIA GPU."""
    return "CUDAExecutionProvider" in ort.get_available_providers()


def _open(bundle: Bundle, variant: VariantName, threads: int, device: Device) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The arena holds the scratch memory of a run for the next one, of whatever thread: without it a window of a base
    # model costs 27,000 page faults, a fifth of its time. Weights stay outside, and it grows as needed, not as planned
    # ahead; it ends up as large as the peak of a run is in any case.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.log_severity_level = 3  # errors come as exceptions; warnings are for the graph's author
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if bundle.meta.variants[variant].optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    file = bundle.graph(variant)
    try:
        return ort.InferenceSession(str(file), options, providers=[*_PROVIDERS[device], "CPUExecutionProvider"])
    except Exception as exc:
        raise BundleError(f"{file}: onnxruntime cannot load it ({_line(exc)}); export the bundle anew") from exc


def _check_signature(bundle: Bundle, variant: VariantName, session: Any) -> None:
    meta = bundle.meta
    inputs = {node.name: (node.type, node.shape) for node in session.get_inputs()}
    outputs = {node.name: (node.type, node.shape) for node in session.get_outputs()}
    wanted = {output.name: output.dim for output in meta.outputs}
    problem = ""
    if list(inputs) != [INPUT] or not _fits(inputs[INPUT], meta.window_samples):
        problem = f"its input is {inputs}, not {INPUT} float32 [batch, {meta.window_samples or 'any'}]"
    elif set(outputs) != set(wanted):
        problem = f"its outputs are {', '.join(sorted(outputs))}, bundle.json says {', '.join(sorted(wanted))}"
    else:
        for name, dim in wanted.items():
            if not _fits(outputs[name], dim):
                problem = f"its output {name!r} is {outputs[name]}, bundle.json says float32 [batch, {dim}]"
    if problem:
        raise BundleError(f"{bundle.graph(variant)}: does not fit bundle.json: {problem}; export the bundle anew")


def _fits(node: tuple[str, list[Any]], size: int | None) -> bool:
    """Whether a tensor may be float32 [1, size]; names stand for sizes that only a run shows."""
    kind, shape = node
    if kind != "tensor(float)" or len(shape) != 2 or (isinstance(shape[0], int) and shape[0] != 1):
        return False
    return not isinstance(shape[1], int) or shape[1] == size


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300]
