"""TIFF files read: the pixels by libvips or, of compressions that it lacks, by Pillow, and what lies beside them."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any
from warnings import catch_warnings, simplefilter

from numpy.typing import NDArray
from PIL import TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mdrn_cli.content import name_of, open_file, open_source
from mdrn_cli.decoding import ONE_BIT, array_of, checked, opened
from mdrn_cli.deep import CompressionError, read_deep
from mdrn_cli.errors import InputError
from mdrn_cli.exif import IPTC, PHOTOSHOP, TRANSFER_FUNCTION, exif_written, is_writable, tag_values
from mdrn_cli.metadata import Metadata, resolution_of
from mdrn_cli.picture import Picture, picture_of
from mdrn_cli.tiff import (
    APART,
    BITS,
    BLACK_IS_ZERO,
    EXTRA_SAMPLES,
    ICC,
    INCH,
    ORIENTATION,
    PALETTE,
    PHOTOMETRIC,
    PLANES,
    RESOLUTION,
    RESOLUTION_UNIT,
    RGB,
    STRUCTURE,
    UNSPECIFIED,
    WHITE_IS_ZERO,
    XMP,
    YCBCR,
    bits_of,
    tiff_directory,
)

_OF_BYTES = (XMP, ICC, IPTC, PHOTOSHOP)
_LAYERS = 37724
_LEFT_OUT = {_LAYERS: "Photoshop document, with its layers,", 52545: "C2PA"}
"""Names, for warnings, of tags that are left out because they would still describe the picture before restoring."""
_SAME_INTENSITIES = (BLACK_IS_ZERO, RGB, YCBCR)
"""Photometric interpretations whose intensities are not turned round or looked up in a palette."""


def is_gray_tiff(path: Path) -> bool:
    """Whether a TIFF has one channel, as its directory tells; of what is broken, no."""
    with open_file(path) as stream, catch_warnings():
        simplefilter("ignore")
        try:
            return tiff_directory(stream)[0].get(PHOTOMETRIC) in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        except MemoryError:
            raise
        except Exception:  # of the many kinds that a broken directory makes Pillow raise
            return False


def read_tiff(source: Path | bytes) -> Picture:
    """Read a TIFF, or the content of one, for restoring.

    Raises:
        InputError: missing, damaged, or of a kind that is not handled.
    """
    try:
        with open_source(source) as stream:
            metadata, photometric = _read_metadata(stream)
    except InputError as error:
        raise InputError(f"{name_of(source)}: {error.message}", error.hint) from error
    except MemoryError:
        raise
    except Exception as error:  # of the many kinds that a broken directory makes Pillow raise
        raise InputError(f"{name_of(source)} is damaged or cannot be read ({error})") from error
    data, has_alpha, bits = _decoded_tiff(source, photometric in (BLACK_IS_ZERO, RGB))
    if photometric == WHITE_IS_ZERO and data.dtype.kind == "f":  # integers libvips turns round
        raise InputError(f"{name_of(source)} has floats of which zero is white", "save it with zero as black")
    picture = picture_of(data, has_alpha, metadata, () if photometric == PALETTE else _more_bits(bits, data))
    return picture.warned(f"the palette becomes {picture.mode}") if photometric == PALETTE else picture


def _decoded_tiff(source: Path | bytes, is_plain: bool) -> tuple[NDArray[Any], bool, int]:
    """As `read_deep` has it; where libvips lacks the compression (ZSTD, LZMA), plain pixels of 8 bits by Pillow, which
    brings a libtiff of its own."""
    try:
        return read_deep(source, name_of(source))
    except CompressionError:
        with open_source(source) as stream:
            bits = bits_of(tiff_directory(stream)[0])
        if not is_plain or bits != {8}:
            raise
        with opened(source) as file:
            checked(file, name_of(source))
            tags = getattr(file, "tag_v2", {})
            channels = len(tags.get(BITS, (1,)))
            # Pillow drops channels that have no meaning, and turns pixels as the orientation says.
            told = channels < 4 or tags.get(PLANES) != APART or EXTRA_SAMPLES in tags  # else it takes other bytes
            whole = told and channels == len(file.getbands()) and file.getexif().get(ORIENTATION, 1) == 1
            if not whole or file.mode not in ("L", "LA", "RGB", "RGBA"):
                raise
            file.load()
            data = array_of(file)
            return data.reshape(*data.shape[:2], -1), file.mode in ("LA", "RGBA"), 8


def _more_bits(bits: int, data: NDArray[Any]) -> tuple[str, ...]:
    """A warning if the result has another number of bits a channel than the file."""
    if data.dtype.kind == "f" and bits < 32:
        return (f"floats of {bits} bits become floats of 32",)
    return (ONE_BIT,) if bits == 1 else ()


def _read_metadata(stream: IO[bytes]) -> tuple[Metadata, int | None]:
    """Of a TIFF file of any kind of pixels, also those that Pillow cannot decode.

    Returns:
        The metadata, and the photometric interpretation: 0 white is zero, 1 black is zero, 2 RGB, 3 a palette, ...

    Raises:
        InputError, or Exception of many kinds: as `tiff_directory` does.
    """
    directory, entries = tiff_directory(stream)
    values = tag_values(directory, STRUCTURE.union((*RESOLUTION, *_OF_BYTES, *_LEFT_OUT)))
    if directory.get(PHOTOMETRIC) not in _SAME_INTENSITIES or not bits_of(directory) <= {8, 16}:
        values.pop(TRANSFER_FUNCTION, None)
    values |= {tag: _raw(entries, tag) for tag in (IPTC, PHOTOSHOP) if tag in entries}
    damaged = [tag for tag, value in values.items() if not is_writable(tag, value)]
    for tag in damaged:
        del values[tag]
    resolution, unit = tuple(map(directory.get, RESOLUTION)), directory.get(RESOLUTION_UNIT, INCH)
    dpi, alone = resolution_of(resolution, unit)
    metadata = Metadata(
        icc_profile=_raw(entries, ICC),
        exif=exif_written(values, directory.endian) if values else b"",
        xmp=_raw(entries, XMP),
        dpi=dpi,
        tiff_resolution=alone,
        extra_is_alpha=directory.get(EXTRA_SAMPLES) != UNSPECIFIED,
        dropped=(
            *(name for tag, name in _LEFT_OUT.items() if tag in directory),
            *(f"EXIF tag {tag}" for tag in damaged),
        ),
        left_behind=("a Photoshop document, with its layers",) if _LAYERS in directory else (),
    )
    return metadata, directory.get(PHOTOMETRIC)


def _raw(entries: ImageFileDirectory_v2, tag: int) -> bytes:
    """The bytes of a tag, of whatever type it is said to be: many programs write IPTC as numbers of 32 bits."""
    if tag not in entries:
        return b""
    entries.tagtype[tag] = TiffTags.BYTE
    return bytes(entries[tag])
