"""Denoising from Python: arrays and Pillow images in, the same kind out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdrn_cli.arguments import as_number, as_numbers, check_type, in_arguments, none_if_auto, told_in_arguments
from mdrn_cli.decoding import is_deep, plain_mode
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.errors import UsageError
from mdrn_cli.estimation import estimate_noise
from mdrn_cli.levels import parse_sigma
from mdrn_cli.paths import is_file, stamp_of
from mdrn_cli.picture import Picture, picture_of
from mdrn_cli.restore import DenoiseOptions, Restorer
from mdrn_cli.weights import explicit_path

ImageLike = TypeVar("ImageLike", NDArray[Any], Image.Image, NDArray[Any] | Image.Image)

_DEPTHS = {"uint8": "uint8", "uint16": "uint16", "float32": "float32", "float64": "float32", "float16": "float32"}

Number: TypeAlias = float | np.floating[Any] | np.integer[Any]


def denoise(
    image: ImageLike,
    sigma: Number | str | None = "auto",
    model: str | Path = "auto",
    *,
    ensemble: bool = False,
    coarse_sigma: Number | Sequence[Number] | NDArray[Any] | str | None = "auto",
    strength: Number = 1.0,
    white: Number | None = None,
    tile: int | str | None = "auto",
    max_memory: float | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> ImageLike:
    """Remove noise from an image, as `mdrn denoise` does. Networks are loaded once and kept, those of a
    file until it changes. torch is left with no more CPU threads than `MDRN_THREADS` says, or than there are cores,
    and glibc's allocator keeping what it has freed for the next tile.

    Args:
        image: (H, W) or (H, W, C) array, C being 1 to 4 with alpha last of 2 or 4, of uint8, uint16 or floats in
            [0, 1]; or a Pillow image of mode L, LA, RGB, RGBA or I;16, or 1, P or PA, which become L, RGB or RGBA. A
            transparent color (`info["transparency"]`) becomes alpha. Of a file in color of 16 bits a channel Pillow
            gives 8, which is warned of.
        sigma: noise level, 1 to 100 on the 0-255 scale whatever the data type; "auto" (or None) estimates it, where
            both sides are 16 pixels at least; smaller images are left as they are. "x1.3" takes 1.3 times as much.
        model: "auto", a family ("mdrn", "mdrn-2b"), the name of a checkpoint, or a path to one or to a run folder.
        ensemble: average over eight orientations (MDRN+), eight times the work.
        coarse_sigma: noise level at half the size, or those there and at a quarter, 0 for none; "auto" (or None)
            estimates them where `sigma` is estimated, in gray of smeared noise alone. They are removed before full size
            where noise is smeared and `sigma` is estimated, else after.
        strength: 1 gives the denoised image, 0 the input, between them a blend.
        white: what is white, in the values of the image, as 4095 where 12 bits are used of 16; None for the largest
            value of its data type, of floats 1.
        tile: largest side of a tile in pixels, a multiple of 8 from 192 up; 0 takes the image whole; "auto" (or
            None) lets memory decide.
        max_memory: bytes that the process may use, by which tiles are chosen, on a CPU; None for 2 GiB, or 80 % of what
            a smaller machine has.
        device: "auto", "cpu", "cuda", ...
        precision: "auto", "float32" or "bfloat16".

    Returns:
        An array or a Pillow image, as was given, of the same size, data type and alpha (see above for palettes);
        of what else NumPy reads as an array, an array. Floats are not clipped, and those of 64 bits rounded to 32. What
        the command warns of, such as that no noise was found, are warnings of Python.

    Raises:
        UsageError: an argument makes no sense.
        InputError: intensities go beyond white, of floats far beyond.
        WeightsError: no checkpoint serves the request.
        DeviceError: no such device, or it is out of memory.
        MdrnError: the network gave values that are not finite. It is the base of the others (`mdrn_cli.errors`).
    """
    with told_in_arguments():
        level, factor = parse_sigma(sigma) if isinstance(sigma, str) else (sigma, 1.0)
    coarse = none_if_auto("coarse_sigma", coarse_sigma, "numbers")
    side = none_if_auto("tile", tile, "a number of pixels")
    if side is not None and not as_number("tile", side).is_integer():
        raise UsageError(f"tile must be a whole number of pixels, not {side!r}")
    check_type("model", model, str, Path)
    check_type("device", device, str)
    check_type("ensemble", ensemble, bool, np.bool_)
    options = DenoiseOptions(
        sigma=None if level is None else as_number("sigma", level),
        model=str(model),
        ensemble=bool(ensemble),
        strength=as_number("strength", strength),
        white=None if white is None else as_number("white", white),
        tile=None if side is None else int(side),
        device=device,
        precision=precision,
        coarse=None if coarse is None else as_numbers("coarse_sigma", coarse),
        factor=factor,
    )
    if max_memory is not None:
        if not as_number("max_memory", max_memory) > 0:  # NaN is not, either
            raise UsageError(f"max_memory must be a number of bytes above 0, not {max_memory!r}")
        options = replace(options, memory=int(min(max_memory, sys.maxsize)))
    pixels = _pixels(image)
    with _as_the_command():
        result, told = _restored(pixels, Restorer(options, _denoisers(options.model, device, precision)))
    for text in told:
        warnings.warn(in_arguments(text), stacklevel=2)
    return _image_of(result, image) if isinstance(image, Image.Image) else result


def estimate_sigma(image: NDArray[Any] | Image.Image, *, white: Number | None = None) -> float:
    """Estimate the noise level of an image, as `mdrn estimate` does.

    Args:
        image, white: as for `denoise`.

    Returns:
        The level on the 0-255 scale whatever the data type; NaN when a side is below 16 pixels. What the command warns
        of are warnings of Python.

    Raises:
        UsageError: the image is of another kind, or white makes no sense.
        InputError: its intensities go beyond white, of floats far beyond.
    """
    pixels = _pixels(image)
    level = None if white is None else as_number("white", white)
    with _as_the_command():
        picture = _picture(pixels)
        estimate = estimate_noise(picture, level)
    for text in picture.warnings + estimate.warnings:
        warnings.warn(in_arguments(text), stacklevel=2)
    return estimate.noise.sigma


@contextmanager
def _as_the_command() -> Iterator[None]:
    """Work as in the command: errors name arguments, and NumPy's error settings are its defaults, not the caller's."""
    with told_in_arguments(), np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
        yield


def _pixels(image: NDArray[Any] | Image.Image) -> NDArray[Any]:
    if isinstance(image, (str, bytes, PathLike)):
        raise UsageError("arrays and Pillow images are taken, not paths", "open the file first: Image.open(path)")
    if isinstance(image, np.ma.MaskedArray):
        raise UsageError("masked arrays are not handled", "fill them first, or give the mask as alpha")
    if isinstance(image, Image.Image) and image.mode in ("RGB", "RGBA", "LA") and is_deep(image):
        warnings.warn("Pillow reads 16 bits a channel as 8; give an array of uint16 to keep them", stacklevel=3)
    if isinstance(image, Image.Image) and (mode := plain_mode(image)) and mode != image.mode:
        image = image.convert(mode)
    if isinstance(image, Image.Image) and image.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        # Pillow would clip these to 8 bits.
        deep = image.mode.startswith(("I", "F"))
        hint = "give an array of uint16, or of floats in [0, 1]" if deep else 'convert it first: image.convert("RGB")'
        raise UsageError(f"an image of mode {image.mode} is not handled", hint)
    try:
        return np.asarray(image)
    except (RuntimeError, TypeError, ValueError) as error:  # a tensor that learns, or is on a GPU, for one
        what = str(error).strip().splitlines()
        raise UsageError(f"a {type(image).__name__} cannot be made an array: {what[0] if what else ''}") from error


def _restored(data: NDArray[Any], restore: Restorer) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The restored pixels, and warnings."""
    given = _picture(data)
    picture, _ = restore(given)
    if picture.channels is given.channels:
        return data.copy(), picture.warnings  # in which there is no noise
    channels = picture.channels.transpose(1, 2, 0)
    result = data.copy()  # which has the alpha
    result.reshape(*data.shape[:2], -1)[:, :, : channels.shape[2]] = channels
    return result, picture.warnings


def _image_of(pixels: NDArray[Any], given: Image.Image) -> Image.Image:
    """Pixels as an image, with what the one that was given carries."""
    image = Image.fromarray(pixels)
    # A transparent color is alpha now, where there is such a mode.
    same = image.mode == given.mode
    image.info = {key: value for key, value in given.info.items() if same or key != "transparency"}
    return image


def _picture(data: NDArray[Any]) -> Picture:
    depth = _DEPTHS.get(data.dtype.name)  # in whatever order of bytes
    if depth is None:
        raise UsageError(f"pixels of type {data.dtype} are not handled", "use uint8, uint16 or floats in [0, 1]")
    if data.ndim not in (2, 3) or data.size == 0 or (data.ndim == 3 and data.shape[2] > 4):
        raise UsageError(f"an array of shape {data.shape} is no image", "use (H, W) or (H, W, C) with C from 1 to 4")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise UsageError("the image has values that are not finite")
    with np.errstate(over="ignore"):
        plain = data.astype(depth, copy=False)
    if depth == "float32" and not np.isfinite(plain).all():
        raise UsageError("the image has values beyond those of floats of 32 bits", "scale it to [0, 1]")
    has_alpha = data.ndim == 3 and data.shape[2] in (2, 4)
    return picture_of(plain, has_alpha)


def _denoisers(model: str, device: str, precision: str) -> Denoisers:
    """The networks of a model, cached; those of a file or run folder until it changes."""
    file = explicit_path(model)
    key = (file.absolute(), *stamp_of(file)) if file and is_file(file) else ()
    return _kept(model, device, precision, key)


@lru_cache(maxsize=4)
def _kept(model: str, device: str, precision: str, _key: tuple[object, ...]) -> Denoisers:
    return Denoisers(model, device, precision)
