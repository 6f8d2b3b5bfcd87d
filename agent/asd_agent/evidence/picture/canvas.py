"""A Pillow image with the few shapes that the pictures need. Coordinates are (x, y) in pixels from the upper left."""

from __future__ import annotations

import functools
import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from asd_agent.types import Floats

Colour = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]

BLACK, WHITE, GREY, PALE = (20, 20, 20), (255, 255, 255), (110, 110, 110), (225, 225, 225)
TEXT_SIZE = 14
ANCHORS = {"left": "la", "centre": "ma", "right": "ra"}
# Of matplotlib's "inferno" (CC0), eight of its 256 colours; between them they are joined by straight lines.
INFERNO = np.array([
    (0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39),
    (252, 255, 164),
])  # fmt: skip


class Canvas:
    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width, height), WHITE)
        self._draw = ImageDraw.Draw(self._image)

    @property
    def pixels(self) -> Pixels:
        """A copy, [height, width, 3]."""
        return np.array(self._image)

    def fill(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """A rectangle, as far as it lies on the canvas."""
        left, top, right, bottom = round(x), round(y), round(x + width), round(y + height)
        if right > left and bottom > top:
            self._draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)

    def frame(self, x: float, y: float, width: float, height: float, colour: Colour, line: int = 1) -> None:
        """The outline of a rectangle, inside it."""
        if width >= 1 and height >= 1:
            corners = (round(x), round(y), round(x + width) - 1, round(y + height) - 1)
            self._draw.rectangle(corners, outline=colour, width=line)

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
        self._draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=line, joint="curve")

    def paste(self, x: int, y: int, image: Pixels) -> None:
        """[height, width, 3]"""
        self._image.paste(Image.fromarray(image), (x, y))

    def text(self, x: float, y: float, words: str, colour: Colour = BLACK, align: str = "left") -> None:
        """One line; `y` is its upper edge, `x` its left or right edge or its middle, by `align`."""
        self._draw.text((round(x), round(y)), words, fill=colour, font=_font(), anchor=ANCHORS[align])

    def png(self) -> bytes:
        """The picture as the bytes of a PNG file."""
        data = io.BytesIO()
        self._image.save(data, "PNG")
        return data.getvalue()


def text_width(words: str) -> int:
    """Of one line, in pixels."""
    return round(_font().getlength(words))


def inferno(share: Floats) -> Pixels:
    """0 to 1 [...] -> colours [..., 3]."""
    at = np.clip(np.nan_to_num(share), 0, 1) * (len(INFERNO) - 1)
    channels = [np.interp(at, np.arange(len(INFERNO)), INFERNO[:, c]) for c in range(3)]
    colours: Pixels = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


@functools.cache
def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(TEXT_SIZE)
