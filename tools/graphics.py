"""Pictures that are drawn, of which is learned what has no noise: text, tables, plots, patterns, screens."""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mdrn_cli.pixels import LUMA

Color = tuple[int, ...]
LETTERS = np.array([*string.ascii_letters, *"aeinorst" * 4, *string.digits])
SMOOTH_SHARE = 0.6
"""Of the drawings that are drawn larger and made smaller, so that their edges are smooth."""
GRAY_SHARE = 0.4
"""Of the drawings in color that have black, white and grays only."""


class Drawing:
    """A picture under way, everything in it at random.

    Args:
        size: width and height in pixels.
        channels: 1 or 3.
        rng: decides.
    """

    def __init__(self, size: tuple[int, int], channels: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.scale = int(rng.choice((2, 3, 4))) if rng.random() < SMOOTH_SHARE else 1
        self.final, self.size = size, (size[0] * self.scale, size[1] * self.scale)
        self.colored = channels == 3 and rng.random() >= GRAY_SHARE
        light, dark = self._light(), tuple(int(level * rng.random() ** 3) for level in self.color())
        self.paper, self.ink = (light, dark) if rng.random() < 0.8 else (dark, light)
        self.image = Image.new("RGB", self.size, self.paper)
        self.draw = ImageDraw.Draw(self.image)

    def _light(self) -> Color:
        if self.rng.random() < 0.6:
            return (255, 255, 255)
        return tuple(255 - level // 4 for level in self.color())

    def color(self) -> Color:
        """Any color, or any gray."""
        levels = self.rng.integers(0, 256, 3)
        return tuple(int(level) for level in (levels if self.colored else levels[:1].repeat(3)))

    def inks(self) -> Color:
        """Mostly the ink of the drawing."""
        return self.ink if self.rng.random() < 0.5 else self.color()

    def length(self, low: float, high: float) -> int:
        """Pixels, each size as likely as its double."""
        return max(1, round(self.scale * float(np.exp(self.rng.uniform(np.log(low), np.log(high))))))

    def place(self) -> tuple[int, int]:
        """Any pixel, across and down."""
        return int(self.rng.integers(self.size[0])), int(self.rng.integers(self.size[1]))

    def words(self, count: int) -> str:
        """Of any letters."""
        lengths = self.rng.integers(1, 10, count)
        return " ".join("".join(self.rng.choice(LETTERS, length)) for length in lengths)

    def pixels(self) -> NDArray[np.float32]:
        """(h, w, 3) on the 0-255 scale."""
        kernels = Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS
        image = self.image.resize(self.final, kernels[self.rng.integers(3)]) if self.scale > 1 else self.image
        return np.asarray(image, np.float32)


def _text(drawing: Drawing) -> None:
    size, top = drawing.length(8, 32), drawing.length(1, 20)
    step = round(size * drawing.rng.uniform(1.1, 2.5))
    for row in range(top, drawing.size[1], step):
        line = drawing.words(2 + 2 * drawing.size[0] // (5 * size))
        drawing.draw.text((drawing.length(1, 9), row), line, fill=drawing.ink, font_size=size)


def _table(drawing: Drawing) -> None:
    size, width, ink = drawing.length(9, 20), drawing.length(0.7, 2.5), drawing.inks()
    tops = range(drawing.length(1, 20), drawing.size[1], round(size * drawing.rng.uniform(1.3, 2.2)))
    left, lefts = drawing.length(1, 20), []
    while left < drawing.size[0]:
        lefts.append(left)
        left += drawing.length(20, 140)
    ruled = drawing.rng.random(2) < 0.7
    for top in tops:
        if ruled[0]:
            drawing.draw.line((0, top, drawing.size[0], top), fill=ink, width=width)
        for left in lefts:
            text = f"{drawing.rng.integers(10**5) / 100:.2f}" if drawing.rng.random() < 0.7 else drawing.words(1)
            drawing.draw.text((left + size // 3, top + size // 6), text, fill=drawing.ink, font_size=size)
    for left in lefts if ruled[1] else ():
        drawing.draw.line((left, 0, left, drawing.size[1]), fill=ink, width=width)


def _grid(drawing: Drawing) -> None:
    ink = drawing.inks()
    for axis in range(2 if drawing.rng.random() < 0.7 else 1):
        step, width = drawing.length(3, 60), drawing.length(0.7, 3)
        for place in range(drawing.length(1, 9), drawing.size[axis], step + width):
            ends = (place, 0, place, drawing.size[1]) if axis == 0 else (0, place, drawing.size[0], place)
            drawing.draw.line(ends, fill=ink, width=width)


def _hatching(drawing: Drawing) -> None:
    span, ink = sum(drawing.size), drawing.inks()
    for _ in range(1 if drawing.rng.random() < 0.7 else 2):
        angle = drawing.rng.choice((np.pi / 4, -np.pi / 4, drawing.rng.uniform(0, np.pi)))
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        width = drawing.length(0.7, 4)
        for offset in range(-span, span, width + drawing.length(2, 20)):
            ends = (offset * across - span * along, offset * across + span * along)
            drawing.draw.line([tuple(end) for end in ends], fill=ink, width=width)


def _plot(drawing: Drawing) -> None:
    if drawing.rng.random() < 0.6:
        _grid(drawing)
    width, height = drawing.size
    for _ in range(drawing.rng.integers(1, 6)):
        across = np.arange(0, width, drawing.length(1, 8))
        down = drawing.rng.uniform(0, height) + np.cumsum(drawing.rng.normal(0, drawing.length(0.5, 8), len(across)))
        drawing.draw.line(
            list(zip(across.tolist(), down.tolist(), strict=True)), drawing.color(), drawing.length(0.8, 3)
        )


def _scatter(drawing: Drawing) -> None:
    radius, colors = drawing.length(1, 8), [drawing.inks() for _ in range(drawing.rng.integers(1, 6))]
    middle, spread = np.divide(drawing.size, 2), np.divide(drawing.size, drawing.rng.uniform(2, 8))
    count = int(min(drawing.rng.uniform(0.05, 1) * np.prod(drawing.size) / radius**2 / 4, 4000))
    shape = drawing.draw.ellipse if drawing.rng.random() < 0.7 else drawing.draw.rectangle
    for x, y in drawing.rng.normal(middle, spread, (count, 2)):
        shape((x - radius, y - radius, x + radius, y + radius), fill=colors[drawing.rng.integers(len(colors))])


def _shapes(drawing: Drawing) -> None:
    for _ in range(drawing.rng.integers(3, 40)):
        (left, right), (top, bottom) = (sorted(ends) for ends in zip(drawing.place(), drawing.place(), strict=True))
        if drawing.rng.random() < 0.5:
            right, bottom = left + drawing.length(10, 200), top + drawing.length(10, 100)
        fill = drawing.color() if drawing.rng.random() < 0.7 else None
        outline, width = drawing.inks(), drawing.length(0.7, 4)
        kind = drawing.rng.integers(4)
        if kind == 0:
            drawing.draw.ellipse((left, top, right, bottom), fill, outline, width)
        elif kind == 1:
            drawing.draw.line((left, top, right, bottom), outline, width)
        elif kind == 2:
            drawing.draw.polygon([drawing.place() for _ in range(3)], fill, outline)
        else:
            drawing.draw.rounded_rectangle((left, top, right, bottom), drawing.length(1, 12), fill, outline, width)
            drawing.draw.text((left, top), drawing.words(2), fill=drawing.ink, font_size=drawing.length(9, 20))


def _screen(drawing: Drawing) -> None:
    """A window with a bar, a list and text."""
    width, height = drawing.size
    bar, side, row = drawing.length(16, 50), drawing.length(40, 200), drawing.length(14, 40)
    drawing.draw.rectangle((0, 0, width, bar), fill=drawing.color())
    drawing.draw.text((row // 2, bar // 4), drawing.words(4), fill=drawing.color(), font_size=max(bar // 2, 6))
    panel = drawing.color()
    for top in range(bar + row // 4, height, row + row // 4):
        drawing.draw.rounded_rectangle((row // 4, top, side, top + row), row // 5, panel, drawing.ink)
        drawing.draw.ellipse((row // 2, top + row // 4, row, top + 3 * row // 4), drawing.color())
        drawing.draw.text((5 * row // 4, top + row // 4), drawing.words(2), drawing.ink, font_size=max(row // 2, 6))
    size = drawing.length(9, 18)
    if side + row < width and bar + row // 2 < height:
        drawing.draw.rectangle((side + row, bar + row // 2, width, height), fill=drawing.paper, outline=drawing.ink)
    for top in range(bar + row, height, round(1.5 * size)):
        drawing.draw.text((side + 2 * row, top), drawing.words(1 + width // (5 * size)), drawing.ink, font_size=size)


def _cells(drawing: Drawing) -> None:
    """A code of squares, or a chessboard."""
    side = drawing.length(2, 24)
    shape = [-(-length // side) for length in reversed(drawing.size)]
    board = np.indices(shape).sum(axis=0) % 2 if drawing.rng.random() < 0.4 else drawing.rng.integers(0, 2, shape)
    colors = np.array([drawing.paper, drawing.inks()], np.uint8)[board]
    large = Image.fromarray(colors).resize((shape[1] * side, shape[0] * side), Image.Resampling.NEAREST)
    drawing.image.paste(large)


def _waves(drawing: Drawing) -> None:
    """Rings, stripes or dots, smooth or cut to two levels, as screens of print have them."""
    y, x = (axis / drawing.scale for axis in np.indices(drawing.size[::-1]))
    angle, period = drawing.rng.uniform(0, np.pi), float(np.exp(drawing.rng.uniform(np.log(3), np.log(24))))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = drawing.rng.integers(4)
    if kind == 0:
        wave = np.cos(2 * np.pi / period * np.hypot(x - drawing.final[0] / 2, y - drawing.final[1] / 2))
    elif kind == 1:
        wave = np.cos(2 * np.pi / period * along)
    else:
        wave = (np.cos(2 * np.pi / period * along) + np.cos(2 * np.pi / period * across)) / 2
    if drawing.rng.random() < 0.5:
        wave = np.sign(wave - np.interp(x, (0, drawing.final[0]), drawing.rng.uniform(-0.8, 0.8, 2)))
    share = (1 + wave[:, :, None]) / 2
    colors = share * np.array(drawing.paper) + (1 - share) * np.array(drawing.inks())
    drawing.image.paste(Image.fromarray(np.rint(colors).astype(np.uint8)))


KINDS: tuple[Callable[[Drawing], None], ...] = (
    _text, _table, _grid, _hatching, _plot, _scatter, _shapes, _screen, _cells, _waves,
)  # fmt: skip


def graphic(shape: tuple[int, int], channels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A drawing of any kind, (height, width, channels) on the 0-255 scale, whole levels; one in four of two kinds."""
    drawing = Drawing((shape[1], shape[0]), channels, rng)
    for _ in range(1 if rng.random() < 0.75 else 2):
        KINDS[rng.integers(len(KINDS))](drawing)
    pixels = drawing.pixels()
    if channels == 3:
        return pixels
    luminance: NDArray[np.float32] = np.rint(pixels @ LUMA)[:, :, None]
    return luminance
