"""The picture of an alarm: spectrogram with the band and the time that decided, the scores below it, and beside it the
nearest normal sound and both spectra. Times are seconds from the alarm; the alarm's own is local time."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from asd_agent.decide.reason import when
from asd_agent.evidence.clip import Band, Clip
from asd_agent.evidence.picture.canvas import BLACK, GREY, PALE, WHITE, Canvas, Colour, inferno, text_width
from asd_agent.evidence.picture.course import HEIGHT as COURSE
from asd_agent.evidence.picture.course import draw_course
from asd_agent.evidence.picture.spectrogram import LOWEST_HZ, Scale, spectrogram
from asd_agent.types import Floats, Samples

WIDTH, HEIGHT = 1280, 690
LEFT, RIGHT = 72, 84
ROWS, SCORES = 430, 90  # pixels of the spectrogram and of the scores
GAP = 28
NORMAL_COLUMNS, SPECTRA = 190, 170
RANGE_DB = 60.0
MARK: Colour = (0, 220, 255)
ALARM: Colour = (200, 30, 30)
NORMAL: Colour = (30, 130, 60)
SMOOTH = 9  # rows
CHANGE_DB = 4.0  # less is not called a change

Sound = tuple[Samples, int]  # and its rate in Hz


@dataclass(frozen=True)
class _Panel:
    """Where the spectrogram of the clip is, and what its axes mean."""

    x: int
    y: int
    columns: int
    scale: Scale
    seconds: float
    alarm_s: float  # time of the clip

    def column(self, at_s: float) -> float:
        """Of a time in the clip."""
        return self.x + self.columns * min(max(at_s / self.seconds, 0.0), 1.0)

    def row(self, hz: float) -> float:
        return self.y + self.scale.row(hz)


def draw(samples: Samples, clip: Clip, normal: Sound | None = None) -> bytes:
    """A PNG of the clip's samples [n]; `normal`: the normal sound that is nearest to the alarm."""
    course = clip.event.course
    canvas = Canvas(WIDTH, HEIGHT + (COURSE if course is not None else 0))
    top = _title(canvas, clip)
    beside = 0 if normal is None else NORMAL_COLUMNS + SPECTRA + 2 * GAP
    highest = min([clip.rate_hz / 2] + ([normal[1] / 2] if normal is not None else []))
    scale = Scale(LOWEST_HZ, highest, ROWS)
    panel = _Panel(LEFT, top, WIDTH - LEFT - RIGHT - beside, scale, max(len(samples), 1) / clip.rate_hz, clip.alarm_s)
    level = spectrogram(samples, clip.rate_hz, panel.columns, scale)
    peak = float(np.percentile(level, 99.7))
    canvas.paste(panel.x, panel.y, inferno((level - peak + RANGE_DB) / RANGE_DB))
    _frequencies(canvas, panel)
    deciding = _spectrum(samples, clip, scale)
    band, words = _band(clip, normal, deciding, scale)
    _marks(canvas, panel, clip, band, words)
    _scores(canvas, panel, clip)
    right = panel.x + panel.columns
    if normal is not None:
        right = _normal(canvas, panel, normal, peak, deciding, band)
    _colours(canvas, right + 14, panel.y, peak)
    if course is not None:
        draw_course(canvas, course, clip.event.utc_s, LEFT, HEIGHT, WIDTH - LEFT - RIGHT - 30)
    return canvas.png()


def _title(canvas: Canvas, clip: Clip) -> int:
    """Returns where the panels begin."""
    event = clip.event
    score = "" if event.score is None else f", score {event.score:.1f}"
    canvas.text(
        LEFT,
        10,
        f"{event.machine}: {event.kind.replace('_', ' ')}, {event.level}{score}   {when(event.utc_s, seconds=True)}",
    )
    characters = (WIDTH - LEFT - 20) * len(event.reason) // max(text_width(event.reason), 1)
    lines = textwrap.wrap(event.reason, max(characters - 4, 20))[:3]
    for i, line in enumerate(lines):
        canvas.text(LEFT, 30 + 18 * i, line, GREY)
    return 106


def _frequencies(canvas: Canvas, panel: _Panel) -> None:
    for hz in (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000):
        if LOWEST_HZ <= hz <= panel.scale.high_hz:
            row = panel.row(hz)
            canvas.fill(panel.x - 5, row, 5, 1, BLACK)
            canvas.text(panel.x - 8, row - 8, f"{hz / 1000:g}k" if hz >= 1000 else f"{hz}", align="right")
    canvas.text(8, panel.y - 22, "Hz")


def _marks(canvas: Canvas, panel: _Panel, clip: Clip, band: Band | None, words: str) -> None:
    """The band over the whole width, a frame around the windows that voted, the alarm, holes."""
    low, high = (panel.y + ROWS, panel.y) if band is None else (panel.row(band.low_hz), panel.row(band.high_hz))
    if low - high < 6:
        low, high = (low + high) / 2 + 3, (low + high) / 2 - 3
    for first_s, last_s in _voted(clip):
        x, end = panel.column(first_s), panel.column(last_s)
        canvas.frame(x, high - 2, end - x, low - high + 4, MARK, line=2)
    if band is not None:
        for row in (low, high):
            canvas.dashes(panel.x, row, panel.columns, MARK, across=True)
    typical = clip.typical if clip.event.course is not None else None
    if typical is not None:
        x = panel.column(typical.frame / clip.rate_hz)
        end = panel.column(typical.frame / clip.rate_hz + typical.result.duration_s)
        canvas.frame(x, panel.y, end - x, ROWS, WHITE, line=2)
        canvas.fill(x + 4, panel.y + 4, text_width("typical window") + 8, 18, BLACK)
        canvas.text(x + 8, panel.y + 5, "typical window", WHITE)
    if words:
        y = high - 22 if high - 22 > panel.y else low + 6
        canvas.fill(panel.x + 6, y, text_width(words) + 8, 18, BLACK)
        canvas.text(panel.x + 10, y + 1, words, MARK)
    canvas.dashes(panel.column(panel.alarm_s), panel.y, ROWS, WHITE, line=2)
    for at_s in clip.gaps_s:
        canvas.dashes(panel.column(at_s), panel.y, ROWS, ALARM, line=2)


def _voted(clip: Clip) -> list[tuple[float, float]]:
    """Times of the clip that the windows which voted cover."""
    spans: list[tuple[float, float]] = []
    for row in clip.deciding:
        first_s = row.frame / clip.rate_hz
        last_s = first_s + row.result.duration_s
        if spans and first_s <= spans[-1][1]:
            spans[-1] = spans[-1][0], last_s
        else:
            spans.append((first_s, last_s))
    return spans


def _scores(canvas: Canvas, panel: _Panel, clip: Clip) -> None:
    """A step for each window, at its middle; the time axis."""
    y, bottom = panel.y + ROWS + 16, panel.y + ROWS + 16 + SCORES
    canvas.frame(panel.x, y, panel.columns, SCORES, PALE)
    threshold = clip.made_with.threshold if clip.made_with is not None else None
    scores = [row.result.score or 0.0 for row in clip.windows]
    most = 1.15 * max([*scores, threshold or 0.0, 1.0])
    starts = [row.frame / clip.rate_hz for row in clip.windows]
    hop_s = min((b - a for a, b in pairwise(starts) if b > a), default=1.0)
    for row, score in zip(clip.windows, scores, strict=True):
        middle = row.frame / clip.rate_hz + row.result.duration_s / 2
        x, end = panel.column(middle - hop_s / 2), panel.column(middle + hop_s / 2)
        voted = row.result.index in clip.event.deciding_windows
        colour = ALARM if voted else (235, 150, 60) if row.result.state == "anomalous" else NORMAL
        size = max(2.0, SCORES * score / most)
        canvas.fill(x + 1, bottom - size, max(min(end, panel.x + panel.columns) - x - 2, 1), size, colour)
    if threshold is not None:
        canvas.dashes(panel.x, bottom - SCORES * threshold / most, panel.columns, BLACK, across=True)
        canvas.text(panel.x - 8, bottom - SCORES * threshold / most - 8, f"{threshold:.1f}", align="right")
    canvas.text(8, y - 4, "score")
    canvas.dashes(panel.column(panel.alarm_s), y, SCORES, GREY)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200) if panel.seconds / s <= 14)
    for at_s in range(-(int(panel.alarm_s) // step) * step, int(panel.seconds - panel.alarm_s) + 1, step):
        x = panel.column(panel.alarm_s + at_s)
        canvas.fill(x, bottom, 1, 5, BLACK)
        canvas.text(x, bottom + 7, f"{at_s:+d}" if at_s else "alarm", align="centre")
    which = "voted" if clip.event.course is None else "count"
    legend = (
        f"seconds from the alarm; red: windows that {which}, orange: others beyond the limit (dashed), green: normal"
    )
    canvas.text(panel.x, bottom + 26, legend, GREY)


def _spectrum(samples: Samples, clip: Clip, scale: Scale) -> Floats:
    """dB [rows] of the window that stands for the alarm; else of what is before it."""
    typical = clip.typical
    first = typical.frame if typical is not None else 0
    end = first + round((typical.result.duration_s if typical is not None else clip.before_s) * clip.rate_hz)
    return spectrogram(samples[first : max(end, first + 1)], clip.rate_hz, 1, scale)[:, 0]


def _band(clip: Clip, normal: Sound | None, deciding: Floats, scale: Scale) -> tuple[Band | None, str]:
    """As the detector says; where it cannot, the greatest difference from the nearest normal sound."""
    typical = clip.typical
    if typical is not None and typical.band is not None:
        detector = typical.band.detector.replace("_", " ")
        return typical.band, f"{detector}: {_hz(typical.band)}"
    if typical is None or normal is None:
        return None, ""
    change = np.abs(_smooth(deciding) - _smooth(spectrogram(*normal, 1, scale)[:, 0]))
    peak = int(change.argmax())
    if change[peak] < CHANGE_DB:
        return None, ""
    below = np.flatnonzero(change < change[peak] / 2)
    first = int(max(below[below < peak], default=-1)) + 1
    last = int(min(below[below > peak], default=len(change)))
    edges = scale.edges_hz
    band = Band(low_hz=float(edges[last]), high_hz=float(edges[first]))
    return band, f"most unlike the nearest normal: {_hz(band)}"


def _smooth(level: Floats) -> Floats:
    """dB [rows] -> of the mean power over a sixth of an octave or so."""
    power = np.pad(10 ** (level / 10), SMOOTH // 2, mode="edge")
    return np.asarray(10 * np.log10(np.convolve(power, np.full(SMOOTH, 1 / SMOOTH), mode="valid")), np.float64)


def _hz(band: Band) -> str:
    if band.high_hz < 1000:
        return f"{band.low_hz:.0f}-{band.high_hz:.0f} Hz"
    return f"{band.low_hz / 1000:.3g}-{band.high_hz / 1000:.3g} kHz"


def _normal(canvas: Canvas, panel: _Panel, normal: Sound, peak: float, deciding: Floats, band: Band | None) -> int:
    """The nearest normal sound in the same colours, and both spectra; returns where they end."""
    x = panel.x + panel.columns + GAP
    level = spectrogram(*normal, NORMAL_COLUMNS, panel.scale)
    canvas.paste(x, panel.y, inferno((level - peak + RANGE_DB) / RANGE_DB))
    canvas.text(x, panel.y - 22, "nearest normal", NORMAL)
    canvas.text(x, panel.y + ROWS + 4, f"{len(normal[0]) / normal[1]:.1f} s", GREY)
    if band is not None:
        for hz in (band.low_hz, band.high_hz):
            canvas.dashes(x, panel.row(hz), NORMAL_COLUMNS, MARK, across=True)
    x += NORMAL_COLUMNS + GAP
    usual = spectrogram(*normal, 1, panel.scale)[:, 0]
    low, high = float(min(usual.min(), deciding.min())), float(max(usual.max(), deciding.max()))
    low = max(low, high - 80.0)
    if band is not None:
        top, bottom = panel.row(band.high_hz), panel.row(band.low_hz)
        canvas.fill(x, top, SPECTRA, max(bottom - top, 3), (205, 245, 255))
    canvas.frame(x, panel.y, SPECTRA, ROWS, PALE)
    rows: Floats = panel.y + np.arange(ROWS, dtype=np.float64) + 0.5
    for values, colour in ((usual, NORMAL), (deciding, ALARM)):
        across = np.asarray(x + 2 + (SPECTRA - 6) * np.clip((values - low) / max(high - low, 1.0), 0, 1), np.float64)
        canvas.curve(across, rows, colour)
    canvas.text(x, panel.y - 22, "normal", NORMAL)
    canvas.text(x + text_width("normal "), panel.y - 22, "alarm", ALARM)
    for at, words, align in ((0, f"{low:.0f}", "left"), (SPECTRA, f"{high:.0f} dB", "right")):
        canvas.text(x + at, panel.y + ROWS + 4, words, GREY, align)
    return x + SPECTRA


def _colours(canvas: Canvas, x: int, y: int, peak: float) -> None:
    """The colour scale in dBFS."""
    bar = np.repeat(np.linspace(1, 0, ROWS)[:, None], 12, axis=1)
    canvas.paste(x, y, inferno(bar))
    canvas.text(x, y - 22, "dBFS")
    for share in (0.0, 1 / 3, 2 / 3, 1.0):
        canvas.text(x + 16, y + share * (ROWS - 1) - 8, f"{peak - RANGE_DB * share:.0f}")
