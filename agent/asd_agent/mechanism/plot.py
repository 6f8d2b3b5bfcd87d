"""The picture a vibration analyst would draw: waveform, spectrum with the shaft's and the normal band levels, envelope
spectrum with the fault lines, wavelet map. matplotlib is loaded only here (the extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asd_agent.config.kinematics import Mechanism
from asd_agent.errors import UsageError
from asd_agent.mechanism import wavelet, words
from asd_agent.mechanism.analyse import Analyser, Analysis
from asd_agent.mechanism.bands import band_of
from asd_agent.mechanism.baseline import MechanismBaseline
from asd_agent.mechanism.envelope import mute
from asd_agent.mechanism.finding import Finding
from asd_agent.mechanism.gates import gates
from asd_agent.mechanism.kurtosis import kurtogram
from asd_agent.mechanism.lines import Train
from asd_agent.mechanism.spectrum import Spectrum
from asd_agent.mechanism.speed import Speed
from asd_agent.types import Samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"bpfo": "tab:red", "bpfi": "tab:purple", "bsf2": "tab:orange", "ftf": "tab:brown"}
ORDER_TEXT: dict[str, Any] = {"fontsize": 7, "color": "tab:green"}
POINTS = 4000  # drawn per curve: minima and maxima of groups keep the peaks


def plot(
    path: str | Path,
    samples: Samples,
    rate_hz: int,
    config: Mechanism,
    findings: list[Finding],
    baseline: MechanismBaseline | None = None,
    speed: Speed | None = None,
    title: str = "",
) -> None:
    """Draw one window [n] to a PNG, SVG or PDF. Raises UsageError without matplotlib, or when the window shows nothing
    that could be drawn (gates)."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise UsageError("the picture needs matplotlib: pip install 'asd-agent[plot]'") from exc
    empty = set(gates(samples, rate_hz)) & {"nan", "flat", "short"}
    if empty:
        raise UsageError(f"{title or path}: nothing to draw ({', '.join(sorted(empty))})")
    analyser = Analyser(config, rate_hz)
    whole = analyser.analyse(samples, speed)
    figure = Figure(figsize=(13, 14), layout="constrained")
    panels: Any = [["wave", "wave near"], ["spectrum", "spectrum"], ["envelope", "envelope"], ["map", "map near"]]
    axes = figure.subplot_mosaic(panels, height_ratios=(1, 1.6, 1.6, 1.4), width_ratios=(2, 1))
    named = [f for f in findings if f.hz is not None and f.domain in ("bearing", "impacts")]
    near = _near(samples, rate_hz, named[0] if named else None, whole.speed)
    _waveform(axes["wave"], axes["wave near"], samples, rate_hz, near)
    _spectrum(axes["spectrum"], analyser, whole, samples, baseline)
    _envelope(axes["envelope"], analyser, whole, named[0] if named else None)
    _wavelet_maps(figure, axes["map"], axes["map near"], whole.spectrum, near)
    figure.suptitle(_headline(title, whole.speed, findings), x=0.01, ha="left", fontsize=11)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as exc:
        raise UsageError(f"{path}: the picture cannot be written ({exc})") from exc


def _headline(title: str, speed: Speed | None, findings: list[Finding]) -> str:
    shaft = (
        f"shaft {speed.hz:.2f} Hz ({60 * speed.hz:.0f} rpm, {speed.source})" if speed is not None else "speed unknown"
    )
    said = [f"{f.rank.name.lower()}: {f.line}" for f in findings[:3]]
    return "\n".join([f"{title}   {shaft}".strip(), *(said or ["nothing to report"])])


def _near(samples: Samples, rate_hz: int, named: Finding | None, speed: Speed | None) -> tuple[float, float]:
    """A stretch to look at closely, around the highest peak: ten impacts, or six turns of the shaft, or 0.25 s."""
    hz = named.hz / 10 if named is not None and named.hz is not None else speed.hz / 6 if speed is not None else 4.0
    length = float(np.clip(1 / hz, 0.02, 0.4))
    total = len(samples) / rate_hz
    peak = float(np.argmax(np.abs(samples))) / rate_hz
    start = float(np.clip(peak - length / 4, 0.0, max(0.0, total - length)))
    return start, min(total, start + length)


def _waveform(axes: Axes, close: Axes, samples: Samples, rate_hz: int, near: tuple[float, float]) -> None:
    x = samples - samples.mean(dtype=np.float64)
    rms = float(np.sqrt(np.mean(x * x)))
    t, low, high = _extremes(x, 1 / rate_hz)
    axes.fill_between(t, low, high, linewidth=0.4, color="tab:blue", alpha=0.9)
    kurtosis = float(np.mean(x**4)) / max(rms**4, 1e-30)
    crest = float(np.abs(x).max()) / max(rms, 1e-30)
    axes.set_title(f"waveform: RMS {rms:.3g}, crest {crest:.1f}, kurtosis {kurtosis:.1f}", loc="left", fontsize=10)
    axes.set(xlabel="s", xlim=(0, len(x) / rate_hz))
    axes.axvspan(*near, color="tab:orange", alpha=0.5, linewidth=0)
    first, last = (round(edge * rate_hz) for edge in near)
    close.plot(np.arange(first, last) / rate_hz, x[first:last], linewidth=0.6)
    close.set(xlabel="s", xlim=near)
    close.set_title(f"{1000 * (near[1] - near[0]):.0f} ms of it", loc="left", fontsize=10)
    for panel in (axes, close):
        panel.grid(alpha=0.3)


def _extremes(values: Any, step: float) -> tuple[Any, Any, Any]:
    """(x, minima, maxima) of at most POINTS groups."""
    group = max(1, len(values) // POINTS)
    blocks = values[: len(values) // group * group].reshape(-1, group)
    return np.arange(len(blocks)) * group * step, blocks.min(axis=1), blocks.max(axis=1)


def _log_peaks(values: Any, step: float) -> tuple[Any, Any]:
    """(x, maxima): every bin at the low end, the maximum of each thousandth of the log axis at the high end."""
    edges = np.unique(np.geomspace(max(1, 4 / step), len(values), POINTS // 2).astype(int))
    return edges[:-1] * step, np.maximum.reduceat(values, edges[:-1])


def _spectrum(
    axes: Axes, analyser: Analyser, whole: Analysis, samples: Samples, baseline: MechanismBaseline | None
) -> None:
    spectrum = whole.angular
    level = 10 / np.log(10) * spectrum.log_power
    level = level - np.median(level)
    hz, high = _log_peaks(level, spectrum.df_hz)
    axes.plot(hz, high, linewidth=0.6, color="tab:blue")
    axes.set(xscale="log", xlim=(8, analyser.rate_hz / 2), ylabel="dB over the median", xlabel="Hz")
    axes.set_ylim(np.percentile(high, 1) - 10, high.max() + 12)
    if baseline is not None:
        _normal_bands(axes, analyser, whole, samples, baseline, level, spectrum)
    if whole.speed is not None:
        for k in range(1, 11):
            axes.axvline(k * whole.speed.hz, color="tab:green", linewidth=0.6, linestyle=":", zorder=0)
            if k in (1, 2, 3, 5, 10):
                at_top = axes.get_xaxis_transform()
                axes.text(k * whole.speed.hz, 1.0, f"{k}x", transform=at_top, ha="center", va="bottom", **ORDER_TEXT)
    if analyser.config.mains_hz is not None:
        axes.axvline(2 * analyser.config.mains_hz, color="tab:gray", linewidth=1, linestyle="--", label="2 x mains")
    if whole.speed is not None:
        for gear in analyser.config.gears:
            mesh = gear.teeth * analyser.config.ratio(gear.shaft) * whole.speed.hz
            axes.axvline(mesh, color="tab:pink", linewidth=1, linestyle="--", label=f"mesh of {gear.name}")
    drifting = ", order-tracked" if whole.drifting else ""
    orders = "; dotted: shaft orders" if whole.speed is not None else ""
    axes.set_title(f"spectrum (Hann, {spectrum.df_hz:.2f} Hz{drifting}){orders}", loc="left", fontsize=10, pad=14)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", fontsize=8)
    axes.grid(alpha=0.3, which="both")


def _normal_bands(
    axes: Axes,
    analyser: Analyser,
    whole: Analysis,
    samples: Samples,
    baseline: MechanismBaseline,
    level: Any,
    spectrum: Spectrum,
) -> None:
    """The calibrated band levels as a step line with three scales either side, hung at this window's median band."""
    indicators = analyser.describe(samples, whole).values
    regime = baseline.judge(indicators).regime
    names = [n for n in baseline.names if n.endswith(".level") and n.startswith("bands.")]
    means = []
    for name in names:
        low, high = band_of(name) or (0.0, 1.0)
        part = spectrum.power[int(low / spectrum.df_hz) : int(high / spectrum.df_hz) + 1]
        means.append(10 * np.log10(part.mean()) - indicators[name])
    shift = float(np.median(means)) - float(np.median(10 / np.log(10) * spectrum.log_power))
    for i, name in enumerate(names):
        at = baseline.names.index(name)
        low, high = band_of(name) or (0.0, 1.0)
        centre, scale = baseline.centre[regime, at] + shift, baseline.scale[regime, at]
        label = "normal band level, 3 scales" if i == 0 else None
        below, above = centre - 3 * scale, centre + 3 * scale
        axes.fill_between([low, high], below, above, color="tab:olive", alpha=0.35, linewidth=0, label=label)
        now = indicators[name] + shift
        axes.plot([low, high], [now, now], color="black", linewidth=1.6, label="band level now" if i == 0 else None)


def _envelope(axes: Axes, analyser: Analyser, whole: Analysis, named: Finding | None) -> None:
    env, speed = whole.envelope, whole.speed
    known = analyser.known_lines_hz(speed.hz, env.top_hz) if speed is not None else np.zeros(0)
    amplitude = np.sqrt(env.full)
    muted = np.sqrt(mute(env.full, env.df_hz, known))
    top = min(
        env.top_hz, 3.3 * max([t.order for t in analyser.trains], default=0.0) * (speed.hz if speed else 0.0) or 500.0
    )
    if len(known):
        hz, _, high = _extremes(amplitude[: int(top / env.df_hz)], env.df_hz)
        axes.plot(hz, high, color="0.75", linewidth=0.7, label="shaft and mains lines")
    hz, _, high = _extremes(muted[: int(top / env.df_hz)], env.df_hz)
    axes.plot(hz, high, color="tab:blue", linewidth=0.7)
    ceiling = max(6.0, 1.35 * float(muted[: int(top / env.df_hz)].max()))
    axes.set(xlim=(0, top), ylim=(0, ceiling), xlabel="Hz", ylabel="amplitude over background")
    if speed is not None:
        for train in analyser.trains:
            _fault_lines(axes, train, speed.hz, named, top, ceiling)
    if named is not None and named.hz is not None:
        _mark_comb(axes, named, muted, env.df_hz, (top, ceiling))
    _order_axis(axes, named, speed)
    heading = "pre-whitened squared envelope spectrum; shaded: where each part's lines lie, with slip"
    axes.set_title(heading, loc="left", fontsize=10)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", fontsize=8, ncols=2)
    axes.grid(alpha=0.3)


def _order_axis(axes: Axes, named: Finding | None, speed: Speed | None) -> None:
    """A second axis in multiples of the shaft's speed, as the finding has it."""
    base = speed.hz if speed is not None else 0.0
    if named is not None and named.hz and named.order:
        base = named.hz / named.order
    if base <= 0:
        return

    def to_orders(hz: Any) -> Any:
        return hz / base

    def to_hz(order: Any) -> Any:
        return order * base

    orders = axes.secondary_xaxis(-0.16, functions=(to_orders, to_hz))
    orders.set_xlabel(f"orders of the shaft ({base:.2f} Hz)", fontsize=8)
    orders.tick_params(labelsize=7)


def _mark_comb(axes: Axes, named: Finding, amplitude: Any, df_hz: float, limits: tuple[float, float]) -> None:
    """Harmonics of the train that was found, in Hz and orders, and the sidebands that were found beside them."""
    top_hz, ceiling = limits
    rate, step = named.hz or 0.0, named.sidebands_hz or 0.0
    for k in (1, 2, 3, 4):
        for side in (-2, -1, 0, 1, 2) if step else (0,):
            hz = k * rate + side * step
            at = round(hz / df_hz)
            if not (2 <= at < len(amplitude) - 2 and 0 < hz < top_hz):
                continue
            peak = min(float(amplitude[at - 2 : at + 3].max()), ceiling)
            colour = "black" if side == 0 else "tab:blue"
            axes.plot(hz, peak, marker="v" if side == 0 else "o", color=colour, markersize=7 if side == 0 else 4)
            if side == 0:
                order = f" = {k * named.order:.2f}x" if named.order else ""
                axes.annotate(f"{hz:.1f} Hz{order}", (hz, peak), textcoords="offset points", xytext=(4, 5), fontsize=8)
    axes.plot([], [], "v", color="black", label="the comb that was found")
    if step:
        axes.plot([], [], "o", color="tab:blue", markersize=4, label=f"its sidebands, {step:.1f} Hz apart")


def _fault_lines(
    axes: Axes, train: Train, shaft_hz: float, named: Finding | None, top_hz: float, ceiling: float
) -> None:
    """Bands of slip at the harmonics; the blamed train stands out, the others are faint."""
    blamed = named is not None and named.indicator == f"envelope.{train.name}"
    colour = COLOURS[train.kind]
    for k in (1, 2, 3):
        centre = k * train.order * shaft_hz
        if centre > top_hz:
            break
        low, high = centre * (1 + train.slip[0]), centre * (1 + train.slip[1])
        label = f"{train.label} {train.order * shaft_hz:.1f} Hz" if k == 1 else None
        axes.axvspan(low, high, color=colour, alpha=0.35 if blamed else 0.13, linewidth=0, label=label)
        text = f"{k}" if k > 1 else train.label.partition(" ")[0]
        height, weight = (0.97, "bold") if blamed else (0.9, "normal")
        axes.text(
            (low + high) / 2, ceiling * height, text, ha="center", va="top", fontsize=7, color=colour, weight=weight
        )
        if train.spacing is not None and blamed:
            for side in (-1, 1):
                axes.axvline(centre + side * train.spacing * shaft_hz, color=colour, linewidth=0.6, linestyle=":")


def _wavelet_maps(figure: Any, axes: Axes, close: Axes, spectrum: Spectrum, near: tuple[float, float]) -> None:
    """Energy of each wavelet-packet leaf over time, against the leaf's own median: impacts are vertical strokes."""
    nodes = wavelet.leaves(spectrum)
    energy = nodes.astype(float) ** 2 + 1e-12
    usual = np.median(energy, axis=1, keepdims=True) / 0.455  # median of a squared Gaussian
    leaf_hz = nodes.shape[1] / spectrum.duration_s
    frames = max(1, min(400, nodes.shape[1] // 4))
    per_frame = nodes.shape[1] // frames
    coarse = energy[:, : frames * per_frame].reshape(len(nodes), frames, per_frame).mean(axis=2)
    first, last = (int(edge * leaf_hz) for edge in near)
    _map(figure, axes, 10 * np.log10(coarse / np.median(coarse, axis=1, keepdims=True)), (0.0, spectrum.duration_s))
    _map(figure, close, 10 * np.log10(energy[:, first:last] / usual), near)
    for panel in (axes, close):
        _bands_axis(panel, len(nodes), spectrum.rate_hz)
    low, high = kurtogram(spectrum).best_hz
    heading = f"wavelet packets ({wavelet.WAVELET}, {len(nodes)} bands) over their usual energy"
    if high - low < 0.49 * spectrum.rate_hz:
        heading += f"; dashed: most impulsive band {words.band(low, high)} (kurtogram)"
        for edge in (low, high):
            axes.axhline(2 * edge / spectrum.rate_hz * len(nodes), color="white", linewidth=1.0, linestyle="--")
    axes.set_title(heading, loc="left", fontsize=10)


def _map(figure: Any, axes: Axes, level_db: Any, span_s: tuple[float, float]) -> None:
    """Bands upwards, time to the right; the scale holds what is there, so that quiet maps are not black."""
    low, high = np.percentile(level_db, [20, 99.7])
    picture = axes.imshow(level_db, origin="lower", aspect="auto", extent=(*span_s, 0.0, float(len(level_db))),
                          cmap="viridis", vmin=low, vmax=max(high, low + 6.0), interpolation="nearest")  # fmt: skip
    figure.colorbar(picture, ax=axes, label="dB", pad=0.01)
    axes.set_xlabel("s")


def _bands_axis(axes: Axes, bands: int, rate_hz: int) -> None:
    """Whole bands as rows, with their edges in kHz."""
    step = max(1, bands // 8)
    edges = np.arange(0, bands + 1, step)
    axes.set_yticks(edges, [f"{edge / bands * rate_hz / 2000:.3g}" for edge in edges])
    axes.set_ylabel("kHz")
