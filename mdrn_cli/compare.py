"""Two versions of a picture side by side, with the places enlarged where most is to be seen."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mdrn_cli.errors import UsageError
from mdrn_cli.exif import is_adobe_rgb
from mdrn_cli.icc import colors_told
from mdrn_cli.metadata import Metadata
from mdrn_cli.metrics import psnr, ssim
from mdrn_cli.picture import Picture
from mdrn_cli.pixels import as_depth, to_unit
from mdrn_cli.png import unlike_srgb, with_chunks

WIDEST = 900
"""Width of a whole picture on the sheet, in pixels, at most."""
CROPS = 3
FINEST = 1e-6
"""Difference of intensities too small for any file but one of floats."""
MARGIN = 12
LABEL = 28
_PAPER, _INK, _FRAME = (250, 250, 250), (20, 20, 20), (230, 60, 40)


def compare_pictures(versions: Sequence[tuple[str, Picture]]) -> bytes:
    """A PNG: the versions beside one another as whole pictures, and below each the same crops, enlarged; with what
    tells the colors of all versions.

    Args:
        versions: label and picture; all of one size.

    Raises:
        UsageError: sizes differ.
    """
    shown = [(label, _viewable(picture)) for label, picture in versions]
    size = shown[0][1].size
    if any(image.size != size for _, image in shown):
        raise UsageError(
            "the pictures differ in size: " + ", ".join(f"{label} {i.width}x{i.height}" for label, i in shown)
        )
    boxes = _interesting([image for _, image in shown])
    columns = [_column(label, image, boxes) for label, image in shown]
    width = sum(column.width for column in columns) + MARGIN * (len(columns) + 1)
    sheet = Image.new("RGB", (width, columns[0].height + 2 * MARGIN), _PAPER)
    left = MARGIN
    for column in columns:
        sheet.paste(column, (left, MARGIN))
        left += column.width + MARGIN
    metadata = _shared_colors([picture for _, picture in versions])
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", icc_profile=metadata.icc_profile or None)
    return with_chunks(buffer.getvalue(), metadata.png_chunks)


def are_colors_alike(picture: Picture, other: Picture) -> bool:
    """Whether equal values are equal colors in both, as far as their files tell: where nothing does, those of sRGB."""
    return _colors_told(picture) == _colors_told(other)


def _colors_told(picture: Picture) -> tuple[object, ...]:
    """The parts of the metadata that define colors other than sRGB."""
    metadata = picture.to_color("color").metadata
    chunks = dict(metadata.color_chunks)
    told = [chunks[name.encode()] for name in unlike_srgb(metadata.color_chunks, bool(metadata.icc_profile))]
    profile = b"" if b"cICP" in chunks else metadata.icc_profile
    by_exif = picture.color == "color" and not profile and not told and is_adobe_rgb(metadata.exif)
    return (*colors_told(profile), *told, by_exif)


def _shared_colors(pictures: Sequence[Picture]) -> Metadata:
    """The metadata that define the colors of all pictures; none where they differ."""
    first, *others = pictures
    if not all(are_colors_alike(first, other) for other in others):
        return Metadata()
    return first.to_color("color").metadata.appearance


def are_equal(picture: Picture, other: Picture) -> bool:
    """Whether two pictures of the same size are the same as shown, to the last bit of either and with their alpha; no
    alpha is the same as an opaque one, and what is transparent in both has no color."""
    picture, other = _alike(picture, other)
    alpha, others = (to_unit(np.ones((1, 1), np.float32) if p.alpha is None else p.alpha) for p in (picture, other))
    close = np.isclose(picture.pixels, other.pixels, rtol=0, atol=FINEST)
    seen = _seen_in_either(picture, other)
    return bool(np.all(close if seen is None else close | ~seen)) and np.allclose(alpha, others, rtol=0, atol=FINEST)


def measure_pictures(picture: Picture, reference: Picture) -> tuple[float, float]:
    """PSNR in dB and SSIM of a picture against a reference of the same size, both rounded to 8 bits, where either can
    be seen; of one in gray and one in color, the former has three equal channels.

    Raises:
        UsageError: size differs, as both are shown.
    """
    picture, reference = _alike(picture, reference)
    if picture.channels.shape != reference.channels.shape:
        sizes = (f"{width}x{height}" for _, height, width in (reference.channels.shape, picture.channels.shape))
        raise UsageError(f"pictures of {' and '.join(sizes)} cannot be measured against one another")
    a, b = (as_depth(p.channels, "uint8").transpose(1, 2, 0) for p in (picture, reference))
    seen = _seen_in_either(picture, reference)
    return psnr(a, b, seen), ssim(a, b, seen)


def _alike(picture: Picture, other: Picture) -> tuple[Picture, Picture]:
    """Both upright, and in color if one of them is."""
    if picture.color != other.color:
        picture, other = picture.to_color("color"), other.to_color("color")
    return picture.upright(), other.upright()


def _seen_in_either(picture: Picture, other: Picture) -> NDArray[np.bool_] | None:
    """Where anything can be seen in one of two pictures of one size, (H, W); None for everywhere."""
    if picture.seen is None or other.seen is None:
        return None
    seen: NDArray[np.bool_] = picture.seen | other.seen
    return seen


def _viewable(picture: Picture) -> Image.Image:
    """As a viewer shows it: upright, 8-bit RGB, transparency on white."""
    upright = picture.at_full_scale().upright().flattened("white").to_color("color")
    return Image.fromarray(np.ascontiguousarray(as_depth(upright.channels, "uint8").transpose(1, 2, 0)))


def _column(label: str, image: Image.Image, boxes: Sequence[tuple[int, int, int, int]]) -> Image.Image:
    scale = min(1.0, WIDEST / image.width)
    whole = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX
    )
    width = max(whole.width, 240)
    side = (width - MARGIN * (len(boxes) - 1)) // max(1, len(boxes))
    column = Image.new("RGB", (width, LABEL + whole.height + (MARGIN + side if boxes else 0)), _PAPER)
    draw = ImageDraw.Draw(column)
    draw.text((2, 2), label, fill=_INK, font=ImageFont.load_default(20))
    column.paste(whole, (0, LABEL))
    for k, box in enumerate(boxes):
        crop = image.crop(box).resize((side, side), Image.Resampling.NEAREST)
        column.paste(crop, (k * (side + MARGIN), LABEL + whole.height + MARGIN))
        left, top, right, bottom = (round(edge * scale) for edge in box)
        right, bottom = max(left, right - 1), max(top, bottom - 1)  # of a long panorama a line is left
        draw.rectangle((left, LABEL + top, right, LABEL + bottom), outline=_FRAME)
    return column


def _interesting(images: Sequence[Image.Image]) -> list[tuple[int, int, int, int]]:
    """Squares, apart from one another, where the versions are busiest; none if the picture is small itself."""
    width, height = images[0].size
    side = max(48, min(width, height) // 8)
    if min(width, height) < 2 * side:
        return []
    detail = np.mean([_activity(np.asarray(image.convert("L"), np.float32), side) for image in images], axis=0)
    boxes: list[tuple[int, int, int, int]] = []
    for place in np.argsort(detail, axis=None)[::-1]:
        row, column = divmod(int(place), detail.shape[1])
        box = (column * side, row * side, column * side + side, row * side + side)
        if all(abs(box[0] - other[0]) > 2 * side or abs(box[1] - other[1]) > 2 * side for other in boxes):
            boxes.append(box)
        if len(boxes) == CROPS:
            break
    return boxes


def _activity(gray: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Spread of intensities in each whole square of the image."""
    rows, columns = gray.shape[0] // side, gray.shape[1] // side
    blocks = gray[: rows * side, : columns * side].reshape(rows, side, columns, side)
    spread: NDArray[np.float32] = blocks.std(axis=(1, 3))
    return spread
