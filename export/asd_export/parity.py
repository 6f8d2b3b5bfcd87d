"""Does the bundle say what torch says? Compared with the encoder that ships, over sounds of many kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from asd_agent import config
from asd_agent.capture.files import recordings
from asd_agent.capture.simulate import FAULTS, fault_signal, machine_blocks, mix_at
from asd_agent.encode.bundle import Bundle
from asd_agent.encode.encoder import Encoder
from asd_agent.encode.meta import VariantName
from asd_agent.errors import BundleError, UsageError
from asd_agent.types import Samples
from asd_train.data.audio import read_audio

FP32_LARGEST = 1e-4  # allowed difference of any value
INT8_COSINE = 0.98  # asked of the mean centred cosine
MOST_RECORDED = 16

Embeddings = dict[str, npt.NDArray[np.float32]]  # [windows, dim] by output
Windows = dict[str, list[Samples]]  # by kind


def windows(samples: int, rate_hz: int, sounds: Sequence[str | Path] = ()) -> Windows:
    """Noise, a simulated machine whole and faulty, and up to 16 windows from recordings."""
    rng = np.random.default_rng(0)
    found: Windows = {"noise": [_noise(samples, slope, rng) for slope in (0.0, 0.5, 1.0, 2.0)]}
    found["machine"] = _machine(samples, rate_hz, rng)
    if sounds:
        found["recorded"] = _recorded(samples, rate_hz, sounds)
    return found


def torch_embeddings(module: nn.Module, names: Sequence[str], sounds: Sequence[Samples]) -> Embeddings:
    with torch.inference_mode():
        rows = [module(torch.from_numpy(sound)[None]) for sound in sounds]
    return {name: np.concatenate([row[i].numpy() for row in rows]) for i, name in enumerate(names)}


def bundle_embeddings(bundle: Bundle, variant: VariantName, sounds: Sequence[Samples]) -> Embeddings:
    encoder = Encoder(bundle, variant)
    rows = [encoder.embed(sound) for sound in sounds]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def compare(reference: Embeddings, found: Embeddings) -> dict[str, dict[str, float]]:
    """Per output: largest difference, smallest cosine, mean and smallest centred cosine.

    Centred: less the mean embedding of the reference. That is what detectors live on; embeddings of one encoder
    resemble each other so much that their plain cosine is close to 1 whatever happens.
    """
    return {name: _compare(reference[name], found[name]) for name in reference}


def _compare(reference: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> dict[str, float]:
    a, b = reference.astype(np.float64), found.astype(np.float64)
    centre = a.mean(0)
    centred = _cosine(a - centre, b - centre)
    return {
        "largest_difference": float(np.abs(a - b).max()),
        "smallest_cosine": float(_cosine(a, b).min()),
        "mean_centred_cosine": float(centred.mean()),
        "smallest_centred_cosine": float(centred.min()),
    }


def _cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine: npt.NDArray[np.float64] = (a * b).sum(1) / np.maximum(norms, 1e-30)
    return cosine


def report(bundle: Bundle, module: nn.Module | None, sounds: Sequence[str | Path] = ()) -> dict[str, Any]:
    """All variants against torch, or against fp32 where there is no checkpoint at hand."""
    meta = bundle.meta
    samples = meta.window_samples or max(meta.min_samples, 10 * meta.rate_hz)
    kinds = windows(samples, meta.rate_hz, sounds)
    flat = [sound for group in kinds.values() for sound in group]
    found = {name: bundle_embeddings(bundle, name, flat) for name in meta.variants}
    names = [output.name for output in meta.outputs]
    reference = found["fp32"] if module is None else torch_embeddings(module, names, flat)
    compared = [name for name in meta.variants if module is not None or name != "fp32"]
    return {
        "reference": "fp32 variant" if module is None else f"torch {torch.__version__}",
        "windows": {kind: len(group) for kind, group in kinds.items()},
        **{name: compare(reference, found[name]) for name in compared},
    }


def check(result: Mapping[str, Any]) -> None:
    """Raises BundleError where a variant differs too much from its reference."""
    for output, row in result.get("fp32", {}).items():
        if not row["largest_difference"] <= FP32_LARGEST:
            raise BundleError(
                f"parity: fp32 {output} differs from torch by {row['largest_difference']:.2g}, "
                f"more than {FP32_LARGEST:g}: the exported graph is not the checkpoint"
            )
    for output, row in result.get("int8", {}).items():
        if not row["mean_centred_cosine"] >= INT8_COSINE:
            raise BundleError(
                f"parity: int8 {output} has a centred cosine of {row['mean_centred_cosine']:.4f}, "
                f"less than {INT8_COSINE}: export with --variants fp32"
            )


def _noise(samples: int, slope: float, rng: np.random.Generator) -> Samples:
    """Noise of power 1/f^slope, RMS 0.05."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), 1) ** (-slope / 2)
    noise = np.fft.irfft(spectrum, samples)
    return np.asarray(0.05 * noise / noise.std(), np.float32)


def _machine(samples: int, rate_hz: int, rng: np.random.Generator) -> list[Samples]:
    source = config.SimulatedSource(rate_hz=rate_hz, duration_s=samples / rate_hz + 1)
    blocks = np.concatenate([block.samples[:, 0] for block in machine_blocks(source)])
    healthy = np.ascontiguousarray(blocks[:samples])
    return [healthy, *(mix_at(healthy, fault_signal(kind, samples, rate_hz, rng), 0) for kind in FAULTS)]


def _recorded(samples: int, rate_hz: int, sounds: Sequence[str | Path]) -> list[Samples]:
    """Windows spread over the recordings; short ones are repeated to the length."""
    files = recordings(sounds)
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, MOST_RECORDED).round().astype(int))]
    found = [np.resize(read_audio(str(path), rate_hz), samples) for path in chosen]
    if not found:
        raise UsageError("--sound: no recordings there")
    return found
