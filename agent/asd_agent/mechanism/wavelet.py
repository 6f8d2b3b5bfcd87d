"""Wavelet packets: energy of each leaf, its entropy over time (a burst makes it fall) and the entropy over the leaves.

Natural order of the filter bank is not the order of frequency: every high-pass reverses the band below it, so leaf i
of the tree holds the band gray(i). All nodes of one level are split by one call.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asd_agent.mechanism.bands import band_name
from asd_agent.mechanism.spectrum import Spectrum
from asd_agent.types import Floats, Samples

# Daubechies' wavelet with four vanishing moments: its scaling filter (Ten Lectures on Wavelets, 1992, table 6.1).
LOW = np.array(
    [
        0.2303778133088965, 0.7148465705529157, 0.6308807679298589, -0.027983769416859854, -0.18703481171909309,
        0.030841381835560764, 0.0328830116668852, -0.010597401785069032,
    ],
    np.float32,
)  # fmt: skip
HIGH = LOW[::-1] * np.array([1, -1] * 4, np.float32)  # the quadrature mirror filter
WAVELET = "db4"  # its name in the literature
LEAF_HZ = 750.0  # not narrower: an impact must fit
MAX_LEVEL = 4
FRAME_S = 0.05


def leaves(spectrum: Spectrum) -> Samples:
    """[leaves, samples / leaves] in the order of frequency, each leaf rate / 2 / leaves wide."""
    nodes = _nodes(spectrum)
    return np.asarray(nodes[_order(len(nodes))])


def _nodes(spectrum: Spectrum) -> Samples:
    """In the natural order of the filter bank."""
    level = _level(spectrum.rate_hz)
    length = len(spectrum.samples) // 2**level * 2**level
    nodes = spectrum.samples[None, :length]
    for _ in range(level):
        low, high = split(nodes)
        nodes = np.stack((low, high), axis=1).reshape(-1, low.shape[1])
    return nodes


def split(nodes: Samples) -> tuple[Samples, Samples]:
    """One level of the orthogonal transform, periodic: [nodes, n], n even -> low and high, [nodes, n / 2]."""
    taps = len(LOW)
    wrapped = np.pad(nodes, ((0, 0), (taps // 2 - 1, taps // 2 - 1)), mode="wrap")
    parts = [wrapped[:, k : k + nodes.shape[1] : 2] for k in range(taps)]
    low, high = LOW[0] * parts[0], HIGH[0] * parts[0]
    for k in range(1, taps):
        low += LOW[k] * parts[k]
        high += HIGH[k] * parts[k]
    return low, high


def _order(count: int) -> npt.NDArray[np.intp]:
    """Place of each band, low to high, in the natural order."""
    order = np.arange(count)
    return np.asarray(order ^ (order >> 1))


def wavelet(spectrum: Spectrum) -> dict[str, float]:
    nodes = _nodes(spectrum)
    width = spectrum.rate_hz / 2 / len(nodes)
    per_frame = max(4, round(FRAME_S * 2 * width))
    frames = max(1, nodes.shape[1] // per_frame)
    cut = nodes[:, : frames * per_frame].reshape(len(nodes), frames, -1)
    energy = np.einsum("lfs,lfs->lf", cut, cut).astype(np.float64)[_order(len(nodes))] + 1e-12
    total = energy.sum(axis=1)
    level = 10 * np.log10(total + 1e-9 * total.max())
    level -= np.median(level)
    spread = 1 - _entropy(energy / total[:, None])  # 0 = even over time, 1 = all in one frame
    out: dict[str, float] = {"wavelet.entropy": float(np.log(1.0001 - _entropy(total / total.sum())))}
    for i, (lev, burst) in enumerate(zip(level, spread, strict=True)):
        name = band_name(i * width, (i + 1) * width)
        out[f"wavelet.{name}.energy"] = float(lev)
        out[f"wavelet.{name}.burst"] = float(np.log(burst + 1e-4))
    return out


def _level(rate_hz: int) -> int:
    return int(np.clip(np.floor(np.log2(rate_hz / 2 / LEAF_HZ)), 1, MAX_LEVEL))


def _entropy(share: Floats) -> Floats:
    """Of shares along the last axis, 1 = even."""
    count = share.shape[-1]
    if count < 2:
        return np.ones(share.shape[:-1])
    return np.asarray(-(share * np.log(share)).sum(axis=-1) / np.log(count))
