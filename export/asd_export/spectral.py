"""The bundle `spectral`: six spectral descriptions of a window as ONNX, no learned weights.

    python -m asd_export.spectral FOLDER

The recipe, for a window of any length of at least 1 s at 16 kHz: mean removed, divided by its RMS (a louder
microphone is not an anomaly); 1 s segments every 0.5 s, what is left at the end is not used; power spectra
are averaged over frames and segments, then turned to dB relative to white noise of the same RMS.

* logmel         64 mel bands (64 ms Hann, 16 ms hop), mean power
* logmel_stats   mean and standard deviation over time of every band's dB, averaged over the segments
* background     harmonic mean power of the 64 bands over the frames of a segment: what is there all the time. Louder
                 moments hardly lift it, so that a leak shows before it stands out of a fluctuating machine
* fine_spectrum  0.5 s Hann, 0.25 s hop, about 48 bands an octave from 60 Hz
                 (both less their mean over the bands: the RMS follows the strongest, and moved by them alone it would
                 move all others)
* modulation     dB envelopes of 20 mel bands (8 ms Hann, 2 ms hop), averaged over the bands; 1 s power
                 spectrum of that curve less its mean: 1..31 Hz and six wider bands up to 250 Hz
* band_modulation  the same spectrum of every band's own envelope, in seven wide bands up to 250 Hz: impacts and flutter
                 that only a part of the frequencies carries
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from asd_agent.encode.meta import INPUT, Axis, BundleMeta, Output, Provenance, Variant
from asd_agent.errors import AsdError
from asd_agent.reasons import Quantity
from asd_export.graph import Graph, direct_power_spectrum, framed_power_spectrum, hann, power_spectrum
from asd_export.write import write_bundle
from asd_train.layers.mel import Array, mel_filters, octave_bands, pooling_weights

RATE_HZ = 16_000
SEGMENT, STEP = 16_000, 8_000  # samples
LOW_HZ = 60.0
POWER_FLOOR = 1e-8  # -80 dB: lower is quantisation and codecs, not the machine
MODULATION_FLOOR = 1e-6  # dB^2
RMS_FLOOR = 1e-12

MEL_BANDS, MEL_FRAME, MEL_HOP = 64, 1024, 256
FINE_FRAME, FINE_HOP, FINE_PER_OCTAVE = 8_000, 4_000, 48
ENVELOPE_BANDS, ENVELOPE_FRAME, ENVELOPE_HOP = 20, 128, 32
CURVE = SEGMENT // ENVELOPE_HOP  # envelope values a second; the DFT of so many has 1 Hz bins
CURVE_FRAMES = (SEGMENT - ENVELOPE_FRAME) // ENVELOPE_HOP + 1  # frames that lie wholly in a segment
WIDE_FROM_HZ, WIDE_BANDS = 32, 6
BAND_RATES_HZ = (1, 5, 9, 17, 32, 65, 129, 251)  # of band_modulation: the first of each band, and the end

Embeddings = dict[str, tuple[str, list[Axis]]]  # name -> tensor [batch, dim] and its labels


@dataclass(frozen=True)
class Described:
    """What `describe` leaves in a graph."""

    outputs: list[Output]
    tensors: dict[str, tuple[str, int]]  # output -> (tensor, dim)
    waveform: str  # normalised
    segments_db: str  # [batch * segments, 64 mel bands, frames], a segment of 1 s every 0.5 s


def describe(graph: Graph) -> Described:
    """The six descriptions of the graph's waveform."""
    x = _normalised(graph)
    segments_db, mel = _mel(graph, x)
    embeddings = {**mel, **_fine(graph, x), **_modulation(graph, x)}
    outputs = [
        Output(name=name, dim=sum(len(a.values) for a in axes), distance="whitened", axes=axes)
        for name, (_, axes) in embeddings.items()
    ]
    return Described(outputs, {o.name: (embeddings[o.name][0], o.dim) for o in outputs}, x, segments_db)


def build() -> tuple[onnx.ModelProto, BundleMeta]:
    """The graph and its metadata (checksum still empty)."""
    graph = Graph()
    described = describe(graph)
    meta = BundleMeta(
        name="spectral",
        rate_hz=RATE_HZ,
        window_samples=None,
        min_samples=SEGMENT,
        outputs=described.outputs,
        variants={"fp32": Variant(file="encoder.onnx")},
        front_end="mean removed, divided by RMS; mel, fine and modulation spectra of 1 s segments in dB",
        provenance=Provenance(tool="asd_export.spectral"),
        licence="Apache-2.0",
        parity={
            "reference": "the recipe in numpy float64 (tests/export/test_spectral.py)",
            "tolerance_db": 1e-3,
        },
    )
    return graph.model("samples", described.tensors, "asd-agent bundle: spectral"), meta


def write(folder: str | Path, *, replace: bool = False) -> BundleMeta:
    """Write the bundle; the same bytes every time. Raises BundleError."""
    model, meta = build()
    return write_bundle(folder, meta, {"fp32": model.SerializeToString(deterministic=True)}, replace=replace)


def _normalised(graph: Graph) -> str:
    """waveform [batch, samples] -> [batch, halves * 8000], mean 0 and RMS 1 (over the whole window)."""
    centred = graph.op("Sub", INPUT, graph.op("ReduceMean", INPUT, axes=[1]))
    rms = graph.op("Sqrt", graph.op("ReduceMean", graph.op("Mul", centred, centred), axes=[1]))
    unit = graph.op("Div", centred, graph.op("Max", rms, graph.floats(RMS_FLOOR)))
    samples = graph.op("Gather", graph.op("Shape", INPUT), graph.ints([1]))
    step = graph.ints([STEP])
    return graph.cut(unit, 1, 0, graph.op("Mul", graph.op("Div", samples, step), step))


def _mel(graph: Graph, x: str) -> tuple[str, Embeddings]:
    """dB of the bands of every segment [batch * segments, bands, frames], and what is made of them."""
    segments = graph.overlap(graph.reshape(x, [0, -1, STEP]), 1, SEGMENT // STEP)
    window = _unit(hann(MEL_FRAME))
    power, bins = framed_power_spectrum(graph, graph.reshape(segments, [-1, SEGMENT]), window, MEL_HOP, 32)
    filters, centres = mel_filters(MEL_BANDS, MEL_FRAME // 2 + 1, RATE_HZ / MEL_FRAME, LOW_HZ, RATE_HZ / 2)
    spread = filters[bins] / np.bincount(bins)[bins][:, None]
    bands = graph.op("MatMul", graph.floats(spread.T), power)  # [batch * segments, bands, frames]
    db = _decibel(graph, bands, POWER_FLOOR)
    mean = graph.op("ReduceMean", db, axes=[2])
    off = graph.op("Sub", db, mean)
    deviation = graph.op("Sqrt", graph.op("ReduceMean", graph.op("Mul", off, off), axes=[2]))
    levels = graph.op("ReduceMean", bands, axes=[2])
    inverse = graph.op("Reciprocal", graph.op("Add", bands, graph.floats(POWER_FLOOR)))
    background = graph.op("Reciprocal", graph.op("ReduceMean", inverse, axes=[2]))
    joined = graph.op("Concat", levels, mean, deviation, background, axis=1)
    shape = graph.op("Concat", graph.batch(x), graph.ints([-1, 4 * MEL_BANDS]), axis=0)
    means = graph.op("ReduceMean", graph.op("Reshape", joined, shape), axes=[1], keepdims=0)
    mean_power = graph.cut(means, 1, 0, MEL_BANDS)
    always = graph.cut(means, 1, 3 * MEL_BANDS, 4 * MEL_BANDS)
    return db, {
        "logmel": (_decibel(graph, mean_power, POWER_FLOOR), [_axis("level", centres)]),
        "logmel_stats": (
            graph.cut(means, 1, MEL_BANDS, 3 * MEL_BANDS),
            [_axis("level", centres), _axis("unsteadiness", centres)],
        ),
        "background": (_shape(graph, _decibel(graph, always, POWER_FLOOR)), [_axis("level", centres)]),
    }


def _fine(graph: Graph, x: str) -> Embeddings:
    frames = graph.overlap(graph.reshape(x, [0, -1, FINE_HOP]), 1, FINE_FRAME // FINE_HOP)
    windowed = graph.op("Mul", frames, graph.floats(_unit(hann(FINE_FRAME))))
    power, bins = power_spectrum(graph, graph.reshape(windowed, [0, 0, 80, 100]), 80, 100)
    first, centres = octave_bands(FINE_PER_OCTAVE, LOW_HZ, FINE_FRAME // 2 + 1, RATE_HZ / FINE_FRAME)
    band, weight = pooling_weights(bins, first)
    # A segment holds three frames and shares its last with the next: frames 0, 1, 2 | 2, 3, 4 | ...
    pairs = graph.op("ReduceMean", graph.cut(power, 1, 0, -1), axes=[1], keepdims=0)
    lasts = graph.op("ReduceMean", graph.cut(power, 1, 2, np.iinfo(np.int64).max, 2), axes=[1], keepdims=0)
    mean = graph.op("Add", graph.op("Mul", pairs, graph.floats(2 / 3)), graph.op("Mul", lasts, graph.floats(1 / 3)))
    parts = graph.op("Mul", graph.reshape(mean, [0, len(bins)]), graph.floats(weight))
    # A dense pooling matrix would weigh 5 MB: add the bins into their bands instead, bands first, batch last.
    shape = graph.op("Concat", graph.ints([len(centres)]), graph.batch(x), axis=0)
    bands = graph.op(
        "ScatterND",
        graph.op("Expand", graph.floats(0.0), shape),
        graph.ints(band[:, None]),
        graph.op("Transpose", parts, perm=[1, 0]),
        reduction="add",
    )
    db = _decibel(graph, graph.op("Transpose", bands, perm=[1, 0]), POWER_FLOOR)
    return {"fine_spectrum": (_shape(graph, db), [_axis("level", centres)])}


def _modulation(graph: Graph, x: str) -> Embeddings:
    power = direct_power_spectrum(graph, x, _unit(hann(ENVELOPE_FRAME)), ENVELOPE_HOP)
    bin_hz = RATE_HZ / ENVELOPE_FRAME
    filters, carriers = mel_filters(ENVELOPE_BANDS, ENVELOPE_FRAME // 2 + 1, bin_hz, LOW_HZ, RATE_HZ / 2)
    envelopes = _decibel(graph, graph.op("MatMul", graph.floats(filters.T), power), POWER_FLOOR)
    curves = graph.op("Concat", graph.op("ReduceMean", envelopes, axes=[1]), envelopes, axis=1)
    # Frames that reach beyond their segment are left out; those at the very end must be filled in first.
    whole = graph.op("Pad", curves, graph.ints([0, 0, 0, 0, 0, CURVE - CURVE_FRAMES]))
    segments = graph.overlap(graph.reshape(whole, [0, 0, -1, CURVE // 2]), 2, 2)
    inside = graph.cut(segments, 3, 0, CURVE_FRAMES)
    swing = graph.op("Sub", inside, graph.op("ReduceMean", inside, axes=[3]))
    scaled = graph.op("Mul", swing, graph.floats(CURVE_FRAMES**-0.5))
    padded = graph.op("Pad", scaled, graph.ints([0, 0, 0, 0, 0, 0, 0, CURVE - CURVE_FRAMES]))
    spectrum, bins = power_spectrum(graph, graph.reshape(padded, [0, 1 + ENVELOPE_BANDS, -1, 20, 25]), 20, 25)
    mean = graph.reshape(graph.op("ReduceMean", spectrum, axes=[2], keepdims=0), [0, 1 + ENVELOPE_BANDS, len(bins)])
    first, centres = _modulation_bands()
    joint = graph.reshape(graph.cut(mean, 1, 0, 1), [0, len(bins)])
    rates, rate_centres = np.array(BAND_RATES_HZ), _middle(np.array(BAND_RATES_HZ))
    each = _pooled(graph, graph.cut(mean, 1, 1, 1 + ENVELOPE_BANDS), bins, rates)
    flat = graph.reshape(each, [0, ENVELOPE_BANDS * len(rate_centres)])
    return {
        "modulation": (
            _decibel(graph, _pooled(graph, joint, bins, first), MODULATION_FLOOR),
            [_axis("modulation", centres)],
        ),
        "band_modulation": (
            _decibel(graph, flat, MODULATION_FLOOR),
            [_axis("modulation", rate_centres, band_hz) for band_hz in _between(carriers)],
        ),
    }


def _pooled(graph: Graph, values: str, bins: Array, first: Array) -> str:
    """values [..., in the order of `bins`] -> means over the bands of `first` [..., bands]."""
    band, weight = pooling_weights(bins, first)
    return graph.op("MatMul", values, graph.floats(np.eye(len(first) - 1)[band] * weight[:, None]))


def _middle(first: Array) -> Array:
    """Centres in Hz of bands of whole bins, 1 Hz each."""
    centres: Array = np.sqrt(first[:-1] * (first[1:] - 1.0))
    return centres


def _between(centres: Array) -> list[tuple[float, float]]:
    """From where to where each centre is the nearest."""
    edges = [LOW_HZ, *(centres[:-1] + centres[1:]) / 2, RATE_HZ / 2]
    return list(itertools.pairwise(round(float(hz), 1) for hz in edges))


def _modulation_bands() -> tuple[Array, Array]:
    """First bins (1 Hz each) and centres: one bin a band up to 31 Hz, then six of equal ratio to 250 Hz."""
    top = CURVE // 2 + 1
    wide = np.round(np.geomspace(WIDE_FROM_HZ, top, WIDE_BANDS + 1)).astype(int)
    first = np.append(np.arange(1, WIDE_FROM_HZ), wide)
    return first, _middle(first)


def _decibel(graph: Graph, power: str, floor: float) -> str:
    """10 log10(power + floor): a sum, not a maximum, so that NaN stays NaN."""
    raised = graph.op("Add", power, graph.floats(floor))
    return graph.op("Mul", graph.op("Log", raised), graph.floats(10 / np.log(10)))


def _shape(graph: Graph, db: str) -> str:
    """Levels [batch, bands] less their mean."""
    return graph.op("Sub", db, graph.op("ReduceMean", db, axes=[1]))


def _unit(window: Array) -> Array:
    """Scaled so that white noise of RMS 1 has a power of 1 in every bin."""
    scaled: Array = window / np.sqrt(np.sum(window**2))
    return scaled


def _axis(quantity: Quantity, centres_hz: Array, band_hz: tuple[float, float] | None = None) -> Axis:
    return Axis(quantity=quantity, values=[round(float(hz), 2) for hz in centres_hz], band_hz=band_hz)


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print("usage: python -m asd_export.spectral FOLDER", file=sys.stderr)
        return 2
    try:
        meta = write(argv[0], replace=True)
    except AsdError as exc:
        print(exc, file=sys.stderr)
        return exc.exit_code
    print(f"{argv[0]}: " + ", ".join(f"{o.name} {o.dim}" for o in meta.outputs))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
