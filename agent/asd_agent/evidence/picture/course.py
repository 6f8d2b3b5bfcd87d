"""How an alarm came about that is no matter of single windows: a detector's z against its limit, in local time."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np

from asd_agent.evidence.picture.canvas import BLACK, GREY, PALE, Canvas, Colour, text_width
from asd_agent.types import TimeCourse

HEIGHT = 176  # with title and axis
PLOT = 96
ALARM: Colour = (200, 30, 30)
NORMAL: Colour = (30, 130, 60)
STEPS_S = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 21_600)
MOST_TICKS = 10
VALUES = {45.0: "windows, before them blocks of 45 s", 300.0: "blocks of 45 s", 3600.0: "5 minutes", 86_400.0: "hours"}


def draw_course(canvas: Canvas, course: TimeCourse, alarm_utc_s: float, x: int, y: int, width: int) -> None:
    """From (x, y) down; the dashed lines are the limit and what is normal today."""
    canvas.text(x, y, f"{course.detector.replace('_', ' ')}: z of {VALUES[course.scale_s]} against its limit")
    top, bottom = y + 24, y + 24 + PLOT
    canvas.frame(x, top, width, PLOT, PALE)
    low = min(0.0, course.normal, *course.z)
    high = 1.12 * max(course.limit, *course.z, low + 1.0)
    first_s, last_s = min(course.times_s), max(alarm_utc_s, *course.times_s)
    margin = 0.02 * width

    def column(at_s: float) -> float:
        return x + margin + (width - 2 * margin) * (at_s - first_s) / max(last_s - first_s, 1e-9)

    def row(z: float) -> float:
        return bottom - PLOT * (z - low) / (high - low)

    for z, words, colour in ((course.normal, "normal today", NORMAL), (course.limit, "limit", ALARM)):
        canvas.dashes(x, row(z), width, colour, across=True)
        canvas.text(x + width + 4, row(z) - 8, words, colour)
        canvas.text(x - 8, row(z) - 8, f"{z:.1f}", colour, "right")
    canvas.curve(np.array([column(t) for t in course.times_s]), np.array([row(z) for z in course.z]), GREY)
    for at_s, z in zip(course.times_s, course.z, strict=True):
        canvas.fill(column(at_s) - 3, row(z) - 3, 7, 7, ALARM if z >= course.limit else NORMAL)
    canvas.dashes(column(alarm_utc_s), top, PLOT, BLACK)
    canvas.text(column(alarm_utc_s) - 4, top + 2, "alarm", BLACK, "right")
    _axis(canvas, first_s, last_s, column(first_s), column(last_s), bottom)
    zone = dt.datetime.fromtimestamp(alarm_utc_s).astimezone().strftime("%Y-%m-%d, local time (%Z)")
    canvas.text(x + width - text_width(zone), y, zone, GREY)


def _axis(canvas: Canvas, first_s: float, last_s: float, left: float, right: float, y: float) -> None:
    """Round local times."""
    step = next((s for s in STEPS_S if (last_s - first_s) / s <= MOST_TICKS), STEPS_S[-1])
    local = dt.datetime.fromtimestamp(first_s).astimezone()
    offset_s = (local.utcoffset() or dt.timedelta()).total_seconds()
    for k in range(math.ceil((first_s + offset_s) / step), math.floor((last_s + offset_s) / step) + 1):
        at_s = k * step - offset_s
        at = left + (right - left) * (at_s - first_s) / max(last_s - first_s, 1e-9)
        words = dt.datetime.fromtimestamp(at_s).astimezone().strftime("%H:%M" if step >= 60 else "%H:%M:%S")
        canvas.fill(at, y, 1, 5, BLACK)
        canvas.text(at, y + 7, words, align="centre")
