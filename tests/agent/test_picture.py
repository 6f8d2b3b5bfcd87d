"""Pictures of alarms: a valid PNG, in which band and time are where they should be."""

from __future__ import annotations

import io
import time

import msgspec
import numpy as np
import pytest
from PIL import Image

from asd_agent.evidence.clip import Band, Clip, MadeWith, ScoredWindow
from asd_agent.evidence.picture import alarm
from asd_agent.evidence.picture.alarm import MARK, draw
from asd_agent.evidence.picture.canvas import BLACK, Canvas, Colour, inferno
from asd_agent.evidence.picture.course import ALARM, HEIGHT, NORMAL
from asd_agent.evidence.picture.spectrogram import Scale, spectrogram
from asd_agent.types import Level, Quality, State, TimeCourse, WindowResult
from store_cases import UTC_S, alarm_event

RATE = 16_000


def pixels(png: bytes) -> np.ndarray:
    """[height, width, 3]; Pillow checks every chunk."""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.array(image)


def judged(index: int, at_s: float, p_value: float, band: Band | None = None) -> ScoredWindow:
    result = WindowResult(
        index=index,
        start_s=at_s,
        duration_s=2.0,
        utc_s=UTC_S,
        origin="",
        state=State.ANOMALOUS if p_value < 0.01 else State.NORMAL,
        quality=Quality((), -20.0, 0.5, 0.0, 0.0),
        p_value=p_value,
        level=Level.NORMAL,
    )
    return ScoredWindow(frame=round(at_s * RATE), skipped=0, number=index, result=result, detector="log_mel", band=band)


def clip(*windows: ScoredWindow, **more: object) -> Clip:
    made = MadeWith(
        machine={}, bundles={}, variants={}, baseline="v", baseline_sha256="", threshold=2.0, software={}
    )  # fmt: skip
    fields: dict[str, object] = {
        "event": alarm_event("e1"),
        "rate_hz": RATE,
        "start_utc_s": UTC_S,
        "before_s": 8.0,
        "after_s": 2.0,
        "windows": windows,
        "made_with": made,
    }
    return Clip(**{**fields, **more})  # type: ignore[arg-type]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.05 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def tone(hz: float, seconds: float, amplitude: float = 1.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.mark.parametrize("hz", [110.0, 1000.0, 5000.0])
def test_a_tone_is_in_its_row_and_a_full_scale_one_at_0_db(hz: float) -> None:
    scale = Scale(50.0, RATE / 2, 400)
    level = spectrogram(tone(hz, 2.0), RATE, 20, scale)
    assert level.shape == (400, 20)
    centre = np.average(np.arange(400) + 0.5, weights=10 ** (level[:, 10] / 10))
    assert centre == pytest.approx(scale.row(hz), abs=8 if hz < 500 else 3)  # a bin is 16 Hz wide
    fine = spectrogram(tone(1000.0, 2.0), RATE, 1, Scale(900.0, 1100.0, 100))
    assert fine.max() == pytest.approx(0.0, abs=0.3)


def test_time_runs_to_the_right() -> None:
    sound = np.concatenate([noise(3.0) * 1e-3, noise(1.0)])
    level = spectrogram(sound, RATE, 40, Scale(50.0, RATE / 2, 50)).mean(axis=0)
    assert level[:29].max() < level[31:].min() - 40


def test_band_and_time_are_marked_where_they_are() -> None:
    band = Band(low_hz=1000.0, high_hz=2000.0, detector="log_mel")
    windows = [judged(i, float(i), 0.3 if i < 3 else 1e-5, band) for i in range(6)]  # 3, 4, 5 voted
    image = pixels(draw(noise(10.0), clip(*windows)))
    rows, columns = np.nonzero((image == MARK).all(axis=2))
    scale = Scale(50.0, RATE / 2, alarm.ROWS)
    top = 106
    assert rows.min() == pytest.approx(top + scale.row(2000), abs=24)  # the label above it
    assert rows.max() == pytest.approx(top + scale.row(1000), abs=4)
    solid = np.flatnonzero((image[:, :, :] == MARK).all(axis=2).sum(axis=0) > 20)  # the sides of the frame
    left, width = alarm.LEFT, alarm.WIDTH - alarm.LEFT - alarm.RIGHT
    at_s = (solid[solid > left + 200] - left) / width * 10
    assert at_s.min() == pytest.approx(3.0, abs=0.05)
    assert at_s.max() == pytest.approx(7.0, abs=0.05)
    assert columns.min() >= left


def test_the_time_of_the_alarm_is_local_and_names_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Noted(Canvas):
        def text(self, x: float, y: float, words: str, colour: Colour = BLACK, align: str = "left") -> None:
            written.append(words)
            super().text(x, y, words, colour, align)

    monkeypatch.setattr(alarm, "Canvas", Noted)
    event = msgspec.structs.replace(alarm_event("e1"), utc_s=1_774_612_800.0)  # 12:00 UTC
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        draw(noise(10.0), clip(event=event))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert next(words for words in written if "2026-" in words).endswith("2026-03-27 17:30:00 IST")
    assert not any("UTC" in words for words in written)


def test_without_a_band_of_the_detector_the_difference_from_normal_is_marked() -> None:
    windows = [judged(i, float(i), 0.3 if i < 3 else 1e-5) for i in range(6)]
    sound = noise(10.0) + tone(3000.0, 10.0, 0.05)
    plain = pixels(draw(sound, clip(*windows)))
    assert (plain == MARK).all(axis=2).any(axis=1).sum() > alarm.ROWS * 0.9  # the time alone, over all frequencies
    told = pixels(draw(sound, clip(*windows), (noise(2.0, 1), RATE)))
    (rows,) = np.nonzero((told == MARK).all(axis=2).any(axis=1))
    middle = 106 + Scale(50.0, RATE / 2, alarm.ROWS).row(3000.0)
    assert abs(np.percentile(rows, 90) - middle) < 20
    assert np.ptp(rows) < 60
    same = pixels(draw(noise(10.0), clip(*windows), (noise(2.0, 1), RATE)))
    assert (same == MARK).all(axis=2).any(axis=1).sum() > alarm.ROWS * 0.9  # nothing to name


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.5, 150.0])
@pytest.mark.parametrize("rate_hz", [8000, 192_000])
def test_any_clip_can_be_drawn(seconds: float, rate_hz: int) -> None:
    if seconds * rate_hz > 2e6:
        seconds = 5.0
    sound = np.zeros(round(seconds * rate_hz), np.float32)
    event = alarm_event("e1", reason="ä" * 50 + " very long words" * 60, score=None, deciding_windows=(99,))
    made = msgspec.structs.replace(clip(), rate_hz=rate_hz, event=event, made_with=None, gaps_s=(0.1,), after_s=0.0)
    assert pixels(draw(sound, made)).shape == (alarm.HEIGHT, alarm.WIDTH, 3)
    assert pixels(draw(sound, made, (sound[:100], rate_hz))).shape == (alarm.HEIGHT, alarm.WIDTH, 3)


def test_text_stays_on_the_canvas_and_can_be_read() -> None:
    canvas = Canvas(100, 20)
    canvas.text(-10, -4, "left")
    canvas.text(99, 10, "right of everything")
    canvas.fill(-5, -5, 300, 3, BLACK)
    assert canvas.pixels.shape == (20, 100, 3)
    inks = set()
    for code in range(33, 127):
        canvas = Canvas(16, 20)
        canvas.text(0, 0, chr(code))
        inks.add(canvas.pixels.tobytes())
    assert len(inks) == 94  # no two alike


def test_colours_rise_in_lightness() -> None:
    grey = inferno(np.linspace(-0.2, 1.2, 50)).astype(int) @ [2126, 7152, 722]
    assert (np.diff(grey) >= 0).all()
    assert grey[-1] > 15 * max(grey[0], 1)


@pytest.mark.parametrize(("scale_s", "step_s"), [(45.0, 5.0), (300.0, 45.0), (3600.0, 300.0), (86_400.0, 3600.0)])
def test_a_slow_alarm_shows_its_course_and_a_typical_window(scale_s: float, step_s: float) -> None:
    """One square a value, red from the limit on; the window that is nearest to the median has a frame."""
    z = (0.1, 0.4, 0.2, 2.5, 2.9, 2.7)
    times = tuple(UTC_S - step_s * (len(z) - i) for i in range(len(z)))
    course = TimeCourse(detector="log_mel", scale_s=scale_s, times_s=times, z=z, normal=0.2, limit=2.0, typical=1)
    windows = [judged(i, 2.0 * i, 0.03) for i in range(4)]
    event = msgspec.structs.replace(alarm_event("e1"), utc_s=UTC_S, deciding_windows=(0, 1, 2), course=course)
    slow = clip(*windows, event=event)
    assert slow.typical is windows[1]
    assert slow.alarm_s == 6.0
    image, plain = pixels(draw(noise(10), slow)), pixels(draw(noise(10), clip(*windows)))
    assert image.shape[0] == plain.shape[0] + HEIGHT
    below = image[plain.shape[0] :, 80:1150]  # without the labels
    squares = {colour: (below == colour).all(axis=2).sum() / 49 for colour in (ALARM, NORMAL)}
    assert all(squares[colour] >= 2.5 for colour in squares)
    edge = alarm.LEFT + round((1280 - alarm.LEFT - alarm.RIGHT) * 0.2)
    assert (image[300, edge - 2 : edge + 3] == 255).all(axis=1).any()
