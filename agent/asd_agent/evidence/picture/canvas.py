"""Pixels, lines, text and PNG. Coordinates are (x, y) in pixels from the upper left."""

from __future__ import annotations

import functools
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asd_agent.types import Floats

Colour = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]

BLACK, WHITE, GREY, PALE = (20, 20, 20), (255, 255, 255), (110, 110, 110), (225, 225, 225)
GLYPH_W, GLYPH_H = 8, 16
# Of matplotlib's "inferno" (CC0), eight of its 256 colours; between them they are joined by straight lines.
INFERNO = np.array([
    (0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39),
    (252, 255, 164),
])  # fmt: skip


class Canvas:
    def __init__(self, width: int, height: int) -> None:
        self.pixels: Pixels = np.full((height, width, 3), 255, np.uint8)

    def fill(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """A rectangle, as far as it lies on the canvas."""
        left, top = max(round(x), 0), max(round(y), 0)
        self.pixels[top : max(round(y + height), top), left : max(round(x + width), left)] = colour

    def frame(self, x: float, y: float, width: float, height: float, colour: Colour, line: int = 1) -> None:
        """The outline of a rectangle, inside it."""
        self.fill(x, y, width, line, colour)
        self.fill(x, y + height - line, width, line, colour)
        self.fill(x, y, line, height, colour)
        self.fill(x + width - line, y, line, height, colour)

    def dashes(self, x: float, y: float, length: float, colour: Colour, *, across: bool = False, line: int = 1) -> None:
        """A dashed line downwards, or `across` to the right."""
        for at in np.arange(0.0, length, 8.0):
            size = min(4.0, length - at)
            if across:
                self.fill(x + at, y, size, line, colour)
            else:
                self.fill(x, y + at, line, size, colour)

    def curve(self, x: Floats, y: Floats, colour: Colour, line: int = 2) -> None:
        """Straight lines through the points; [n] each."""
        way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        at = np.arange(0.0, way[-1] + 1, 0.5)
        xs = np.rint(np.interp(at, way, x)).astype(int)
        ys = np.rint(np.interp(at, way, y)).astype(int)
        height, width, _ = self.pixels.shape
        for down in range(line):
            for right in range(line):
                inside = (xs + right >= 0) & (xs + right < width) & (ys + down >= 0) & (ys + down < height)
                self.pixels[ys[inside] + down, xs[inside] + right] = colour

    def paste(self, x: int, y: int, image: Pixels) -> None:
        """[height, width, 3], which must fit."""
        height, width, _ = image.shape
        self.pixels[y : y + height, x : x + width] = image

    def text(self, x: float, y: float, words: str, colour: Colour = BLACK, align: str = "left") -> None:
        """One line; `y` is its upper edge, `x` its left or right edge or its middle, by `align`."""
        ink = text_ink(words)
        left = round(x - {"left": 0.0, "centre": ink.shape[1] / 2, "right": float(ink.shape[1])}[align])
        left, top = max(left, 0), max(round(y), 0)
        place = self.pixels[top : top + ink.shape[0], left : left + ink.shape[1]]
        ink = ink[: place.shape[0], : place.shape[1], None]
        place[:] = np.rint(place + ink * (np.array(colour) - place.astype(np.float64)))

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file (RGB, 8 bits; ISO/IEC 15948)."""
        height, width, _ = self.pixels.shape
        rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with filter type 0
        rows[:, 1:] = self.pixels.reshape(height, -1)
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def inferno(share: Floats) -> Pixels:
    """0 to 1 [...] -> colours [..., 3]."""
    at = np.clip(np.nan_to_num(share), 0, 1) * (len(INFERNO) - 1)
    channels = [np.interp(at, np.arange(len(INFERNO)), INFERNO[:, c]) for c in range(3)]
    colours: Pixels = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def text_ink(words: str) -> Floats:
    """How much ink, 0 to 1 [16, 8 a character]."""
    codes = [ord(c) - 32 if 32 <= ord(c) < 127 else ord("?") - 32 for c in words]
    return np.hstack([_font()[code] for code in codes]) / 255 if codes else np.zeros((GLYPH_H, 0))


@functools.cache
def _font() -> Pixels:
    """[95, 16, 8]: the printable ASCII characters of DejaVu Sans Mono at 13 pixels (free, Bitstream Vera licence)."""
    glyphs: Pixels = np.load(Path(__file__).with_name("font.npy"))
    return glyphs


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
