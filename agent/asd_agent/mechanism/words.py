"""Frequencies, bands and changes as a maintenance engineer would write them."""

from __future__ import annotations


def hz(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:.2f} kHz"
    return f"{value:.1f} Hz"


def band(low_hz: float, high_hz: float) -> str:
    if high_hz >= 1000:
        return f"{low_hz / 1000:.1f}-{high_hz / 1000:.1f} kHz"
    return f"{low_hz:.0f}-{high_hz:.0f} Hz"


def order(value: float) -> str:
    nearest = round(value)
    return f"{nearest} x shaft" if nearest and abs(value - nearest) < 0.005 * nearest else f"{value:.2f} x shaft"


def decibels(change: float) -> str:
    return f"{change:+.0f} dB" if abs(change) >= 3 else f"{change:+.1f} dB"


def count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
