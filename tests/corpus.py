"""Image files that are broken, hostile or merely odd, each with what must become of it.

All are made here from a few small pictures, with the structure of PNG, JPEG, TIFF, WebP and BMP written by hand where
an encoder would not produce what is wanted.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyvips
from PIL import Image, ImageCms, PngImagePlugin

READ = "read"  # the picture is read, every pixel as it should be
REFUSED = "refused"  # an error
READ_OR_REFUSED = "read or refused"  # one of the two; a picture with a wrong pixel is neither
ANYTHING = "anything"  # the damage cannot be known from the file: some picture or an error


@dataclass(frozen=True)
class Case:
    """A file of the corpus.

    Attributes:
        name: file name; bytes that are not UTF-8 as surrogates.
        content: of the file.
        verdict: one of the constants above.
        pixels: (H, W, C) of the file's type, alpha last, where it is read.
    """

    name: str
    content: bytes
    verdict: str
    pixels: np.ndarray | None = None


def _random(height: int, width: int, channels: int, dtype: Any = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width * 10 + channels)
    if dtype == np.float32:
        return rng.random((height, width, channels)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), endpoint=True).astype(dtype)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _vips(pixels: np.ndarray, suffix: str, **options: Any) -> bytes:
    image = pyvips.Image.new_from_array(pixels)
    if pixels.dtype == np.uint16:
        image = image.copy(interpretation="grey16" if pixels.shape[2] < 3 else "rgb16")
    content: bytes = image.write_to_buffer(suffix, **options)
    return content


def _decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


PIXELS = _random(20, 24, 3)
GRAY = _random(20, 24, 1)
CLEAR = _random(20, 24, 4)
DEEP = _random(20, 24, 3, np.uint16)
REAL = _random(20, 24, 3, np.float32)


@cache
def whole() -> dict[str, tuple[bytes, np.ndarray]]:
    """One good file of every kind that is read, by name, with its pixels."""
    palette = _image(PIXELS).quantize(16)
    jpeg, progressive = _saved(_image(PIXELS), "JPEG"), _saved(_image(PIXELS), "JPEG", progressive=True)
    gray_jpeg = _saved(_image(GRAY), "JPEG")
    clear_palette = _saved(palette, "PNG", transparency=bytes(range(0, 256, 2)))
    bits = _image(GRAY).point(lambda value: 255 * (value > 127)).convert("1")
    return {
        "rgb.png": (_saved(_image(PIXELS), "PNG"), PIXELS),
        "gray.png": (_saved(_image(GRAY), "PNG"), GRAY),
        "gray-alpha.png": (_saved(_image(CLEAR[:, :, :2]), "PNG"), CLEAR[:, :, :2]),
        "rgba.png": (_saved(_image(CLEAR), "PNG"), CLEAR),
        "palette.png": (_saved(palette, "PNG"), np.asarray(palette.convert("RGB"))),
        "palette-alpha.png": (clear_palette, np.asarray(Image.open(io.BytesIO(clear_palette)).convert("RGBA"))),
        "bits.png": (_saved(bits, "PNG"), np.asarray(bits.convert("L"))[:, :, None]),
        "deep-gray.png": (_vips(DEEP[:, :, :1], ".png"), DEEP[:, :, :1]),
        "deep-rgb.png": (_vips(DEEP, ".png"), DEEP),
        "deep-rgba.png": (_vips(_random(20, 24, 4, np.uint16), ".png"), _random(20, 24, 4, np.uint16)),
        "interlaced.png": (_vips(PIXELS, ".png", interlace=True), PIXELS),
        "rgb.jpg": (jpeg, _decoded(jpeg)),
        "gray.jpg": (gray_jpeg, _decoded(gray_jpeg)),
        "progressive.jpg": (progressive, _decoded(progressive)),
        "rgb.webp": (_saved(_image(PIXELS), "WEBP", lossless=True), PIXELS),
        "rgba.webp": (_saved(_image(CLEAR), "WEBP", lossless=True, exact=True), CLEAR),
        "rgb.bmp": (_saved(_image(PIXELS), "BMP"), PIXELS),
        "gray.bmp": (_saved(_image(GRAY), "BMP"), GRAY),
        "palette.bmp": (_saved(palette, "BMP"), np.asarray(palette.convert("RGB"))),
        "rgb.tif": (_saved(_image(PIXELS), "TIFF"), PIXELS),
        "lzw.tif": (_vips(PIXELS, ".tif", compression="lzw"), PIXELS),
        "deflate.tif": (_vips(DEEP, ".tif", compression="deflate"), DEEP),
        "tiled.tif": (_vips(DEEP, ".tif", tile=True, tile_width=16, tile_height=16), DEEP),
        "big.tif": (_vips(PIXELS, ".tif", bigtiff=True), PIXELS),
        "real.tif": (_vips(REAL, ".tif"), REAL),
        "gray-alpha.tif": (_vips(CLEAR[:, :, :2], ".tif"), CLEAR[:, :, :2]),
        "rgba.tif": (_vips(CLEAR, ".tif"), CLEAR),
    }


def corpus() -> list[Case]:
    """Every case, names all different."""
    cases = [
        *(Case(name, content, READ, pixels) for name, (content, pixels) in whole().items()),
        *_cut(),
        *_flipped(),
        *_misnamed(),
        *_foreign(),
        *_sizes(),
        *_false_sizes(),
        *_bombs(),
        *_unhandled(),
        *_bad_values(),
        *_exif(),
        *_profiles_and_packets(),
        *_resolutions(),
        *_colors(),
        *_trailers(),
        *_odd_names(),
    ]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def _cut() -> Iterator[Case]:
    """Files that end at each boundary of their structure, one byte before and after it, and in the pixels."""
    for name, (content, pixels) in whole().items():
        ends = {0, 1, 2, 3, 4, 8, len(content) // 2, len(content) * 9 // 10, len(content) - 1}
        for boundary in _boundaries(content):
            ends |= {boundary - 1, boundary, boundary + 1}
        for end in sorted(end for end in ends if 0 <= end < len(content)):
            # Text, checksums and directories behind the pixels can be missing without loss.
            verdict = REFUSED if end < 40 else READ_OR_REFUSED
            yield Case(f"cut-{end:05d}-{name}", content[:end], verdict, pixels)


def _boundaries(content: bytes) -> list[int]:
    """Where the parts of a file begin: PNG and WebP chunks, JPEG segments, TIFF directory, BMP headers."""
    if content.startswith(b"\x89PNG"):
        return _chain(content, 8, lambda at: 12 + int.from_bytes(content[at : at + 4], "big"))
    if content.startswith(b"RIFF"):
        return _chain(content, 12, lambda at: 8 + int.from_bytes(content[at + 4 : at + 8], "little"))
    if content.startswith(b"\xff\xd8"):
        return _chain(content, 2, lambda at: 2 + int.from_bytes(content[at + 2 : at + 4], "big"))
    if content.startswith(b"BM"):
        return [14, 54, int.from_bytes(content[10:14], "little")]
    return [int.from_bytes(content[4:8], "little")]


def _chain(content: bytes, start: int, length_at: Any) -> list[int]:
    places = []
    while start < len(content) and len(places) < 12:
        places.append(start)
        start += length_at(start)
    return places


def _flipped() -> Iterator[Case]:
    """Bytes changed here and there. Only a PNG has checksums that tell."""
    for name in ("rgb.png", "deep-rgb.png", "rgb.jpg", "progressive.jpg", "rgb.webp", "rgb.bmp", "rgb.tif", "lzw.tif"):
        content, pixels = whole()[name]
        rng = np.random.default_rng(len(name))
        for k in range(8):
            changed = bytearray(content)
            for at in rng.integers(0, len(content), 1 if k < 4 else 10):
                changed[at] ^= 1 << int(rng.integers(8))
            verdict = READ_OR_REFUSED if name.endswith(".png") and k < 4 else ANYTHING
            yield Case(f"flipped-{k}-{name}", bytes(changed), verdict, pixels)


def _misnamed() -> Iterator[Case]:
    """Good files under the suffix of another format: what they are is told from their content."""
    for name in ("rgb.png", "deep-rgb.png", "rgb.jpg", "rgb.webp", "rgb.bmp", "rgb.tif"):
        content, pixels = whole()[name]
        for suffix in (".png", ".jpeg", ".TIFF", ".webp", ".bmp"):
            if not name.endswith(suffix):
                yield Case(f"{name.replace('.', '-')}-as{suffix}", content, READ, pixels)


def _foreign() -> Iterator[Case]:
    """What is no image, or one of a format that is not let in."""
    contents = {
        "text": b"hello\n",
        "html": b"<!DOCTYPE html><html><body>404</body></html>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch /tmp/x) (w) file\n",
        "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "zip": b"PK\x03\x04" + bytes(200),
        "pickle": b"\x80\x04\x95" + bytes(60),
        "gif": _saved(_image(GRAY), "GIF"),
        "ppm": _saved(_image(PIXELS), "PPM"),
        "ico": _saved(_image(PIXELS).resize((16, 16)), "ICO"),
        "tga": _saved(_image(PIXELS), "TGA"),
        "jpeg2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        "avif": b"\0\0\0\x20ftypavif" + bytes(100),
        "psd": b"8BPS\0\1" + bytes(100),
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "noise": np.random.default_rng(0).bytes(4096),
    }
    for k, (name, content) in enumerate(contents.items()):
        yield Case(f"{name}{('.png', '.jpg', '.tif', '.webp', '.bmp')[k % 5]}", content, REFUSED)
    starts = (("png", b"\x89PNG\r\n\x1a\n"), ("jpg", b"\xff\xd8\xff"), ("tif", b"II*\0"), ("tiff", b"MM\0*"))
    for suffix, start in (*starts, ("webp", b"RIFF\x10\0\0\0WEBP"), ("bmp", b"BM")):
        yield Case(f"empty.{suffix}", b"", REFUSED)
        yield Case(f"start-and-zeros.{suffix}", start + bytes(500), REFUSED)
        yield Case(f"start-and-noise.{suffix}", start + np.random.default_rng(1).bytes(500), REFUSED)


def _sizes() -> Iterator[Case]:
    """Lines, dots and the largest sides that formats have."""
    for height, width in ((1, 1), (1, 2), (2, 1), (1, 100), (100, 1), (7, 7), (8, 8), (9, 15), (3, 257)):
        pixels = _random(height, width, 3)
        for kind, suffix in (("PNG", "png"), ("TIFF", "tif"), ("BMP", "bmp")):
            yield Case(f"size-{height}x{width}.{suffix}", _saved(_image(pixels), kind), READ, pixels)
        jpeg = _saved(_image(pixels), "JPEG")
        yield Case(f"size-{height}x{width}.jpg", jpeg, READ, _decoded(jpeg))
        webp = _saved(_image(pixels), "WEBP", lossless=True)
        yield Case(f"size-{height}x{width}.webp", webp, READ, pixels)
    for height, width in ((1, 65535), (65535, 1)):
        pixels = _random(height, width, 1)
        for kind, suffix in (("PNG", "png"), ("TIFF", "tif"), ("BMP", "bmp")):
            yield Case(f"longest-{height}x{width}.{suffix}", _saved(_image(pixels), kind), READ, pixels)
    longest = _saved(_image(_random(1, 65500, 1)), "JPEG")
    yield Case("longest.jpg", longest, READ, _decoded(longest))
    webp = _saved(_image(_random(1, 16383, 3)), "WEBP", lossless=True)
    yield Case("longest.webp", webp, READ, _random(1, 16383, 3))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, their lengths and checksums right."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _header(width: int, height: int, bits: int = 8, color: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)


def _png_with(*extra: tuple[bytes, bytes]) -> bytes:
    """The RGB picture with chunks more before its pixels."""
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    return png(_header(24, 20), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def _jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    """The JPEG picture with segments more at its start."""
    content = whole()["rgb.jpg"][0]
    return content[:2] + b"".join(_segment(*segment) for segment in segments) + content[2:]


def _segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


Tag = tuple[int, int, int, bytes]
"""Number, type, count, and the value as it lies in the file."""


def tiff(tags: Sequence[Tag], pixels: bytes) -> bytes:
    """A TIFF of one strip and these tags, which may be anything; tag 273 is set to where the strip is."""
    tags = sorted(tags)
    after = 8 + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for number, kind, count, value in tags:
        if number == 273:
            field = b"STRP"
        elif len(value) <= 4:
            field = value.ljust(4, b"\0")
        else:
            field = struct.pack("<I", after + len(values))
            values += value
        entries += struct.pack("<HHI", number, kind, count) + field
    entries = entries.replace(b"STRP", struct.pack("<I", after + len(values)))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values + pixels


def _long(number: int, value: int) -> Tag:
    return number, 4, 1, struct.pack("<I", value)


def _short(number: int, *values: int) -> Tag:
    return number, 3, len(values), struct.pack(f"<{len(values)}H", *values)


def _tiff_tags(height: int, width: int, channels: int = 3, bits: int = 8, bytes_: int | None = None) -> list[Tag]:
    size = height * width * channels * bits // 8 if bytes_ is None else bytes_
    return [
        _long(256, width),
        _long(257, height),
        _short(258, *(bits,) * channels),
        _short(259, 1),
        _short(262, 2 if channels > 2 else 1),
        _long(273, 0),
        _short(277, channels),
        _long(278, height),
        _long(279, size),
    ]


def _tiff_with(*extra: Tag) -> bytes:
    """The RGB picture with tags more."""
    return tiff([*_tiff_tags(20, 24), *extra], PIXELS.tobytes())


def _bmp(width: int, height: int, bits: int = 24, compression: int = 0, data: bytes = b"") -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + header + data


def _false_sizes() -> Iterator[Case]:
    """Headers that promise more than there is, or nothing at all."""
    little = zlib.compress(bytes(1000))
    for width, height in ((0, 0), (0, 5), (5, 0), (13000, 13000), (100_000, 100_000), (2**31 - 1, 1), (2**32 - 1, 9)):
        for name, bits, color in (("rgb", 8, 2), ("deep", 16, 2), ("gray", 8, 0), ("bit", 1, 0)):
            content = png(_header(width, height, bits, color), (b"IDAT", little), (b"IEND", b""))
            yield Case(f"claims-{width}x{height}-{name}.png", content, REFUSED)
        for bits in (8, 16, 32):
            content = tiff(_tiff_tags(height, width, 1, bits, 100), bytes(100))
            yield Case(f"claims-{width}x{height}-{bits}.tif", content, REFUSED)
        clipped = min(width, 2**31 - 1)
        for bits in (1, 24, 32):
            yield Case(f"claims-{width}x{height}-{bits}.bmp", _bmp(clipped, height, bits, 0, bytes(100)), REFUSED)
        yield Case(f"claims-{width}x-{height}.bmp", _bmp(clipped, -height, 24, 0, bytes(100)), REFUSED)
    for name in ("rgb.jpg", "progressive.jpg"):
        content = whole()[name][0]
        at = content.index(b"\xff\xc0" if name == "rgb.jpg" else b"\xff\xc2") + 5
        for height, width in ((0, 0), (0, 24), (20, 0), (3000, 3000), (65535, 65535), (1, 65535)):
            changed = content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]
            yield Case(f"claims-{height}x{width}-{name}", changed, REFUSED)
    lossless = whole()["rgb.webp"][0]
    at = lossless.index(b"VP8L") + 9
    yield Case("claims-most.webp", lossless[:at] + b"\xff\xff\xff\x0f" + lossless[at + 4 :], REFUSED)
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + b"\xff" * 6
    content = b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended
    yield Case("claims-most-extended.webp", content, REFUSED)


def _bombs() -> Iterator[Case]:
    """Little that inflates to much."""
    much = zlib.compress(bytes(40_000_000), 9)
    yield Case("bomb-pixels.png", png(_header(60_000, 60_000), (b"IDAT", much), (b"IEND", b"")), REFUSED)
    # More pixels than the header promises: the rest is not inflated.
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    longer = png(_header(24, 20), (b"IDAT", zlib.compress(rows + bytes(40_000_000), 9)), (b"IEND", b""))
    yield Case("bomb-behind-the-pixels.png", longer, READ_OR_REFUSED, PIXELS)
    for kind, data in (
        ("text", (b"zTXt", b"Comment\0\0" + much)),
        ("international", (b"iTXt", b"Comment\0\1\0\0\0" + much)),
        ("profile", (b"iCCP", b"profile\0\0" + much)),
    ):
        yield Case(f"bomb-{kind}.png", _png_with(data), READ_OR_REFUSED, PIXELS)
    many = [(b"zTXt", b"k%d\0\0" % k + zlib.compress(bytes(1_000_000), 9)) for k in range(80)]
    yield Case("bomb-many-texts.png", _png_with(*many), READ_OR_REFUSED, PIXELS)
    yield Case("bomb-many-chunks.png", _png_with(*[(b"tEXt", b"k\0v")] * 20_000), READ_OR_REFUSED, PIXELS)
    tags = [tag for tag in _tiff_tags(60_000, 60_000, 3, 8, len(much)) if tag[0] != 259]
    yield Case("bomb-pixels.tif", tiff([*tags, _short(259, 8)], much), REFUSED)
    # A strip that inflates to far more than the picture has.
    tags = [tag for tag in _tiff_tags(20, 24, 3, 8, len(much)) if tag[0] != 259]
    yield Case("bomb-strip.tif", tiff([*tags, _short(259, 8)], much), ANYTHING)
    yield Case("bomb-runs.bmp", _bmp(30_000, 30_000, 8, 1, b"\xff\0" * 1000), REFUSED)


def _unhandled() -> Iterator[Case]:
    """Good files of kinds that are refused by name."""
    other = _image(PIXELS).rotate(90)
    for kind, suffix in (("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")):
        content = _saved(_image(PIXELS), kind, save_all=True, append_images=[other, other])
        yield Case(f"animated.{suffix}", content, REFUSED)
    for suffix, kind in (("jpg", "JPEG"), ("tif", "TIFF")):
        yield Case(f"cmyk.{suffix}", _saved(_image(PIXELS).convert("CMYK"), kind), REFUSED)
    yield Case("lab.tif", _saved(Image.new("LAB", (24, 20)), "TIFF"), REFUSED)
    yield Case("int32.tif", _saved(Image.new("I", (24, 20)), "TIFF"), REFUSED)
    for dtype in (np.float64, np.int16, np.uint32, np.complex64):
        content = _vips(np.ones((20, 24, 3), dtype), ".tif")
        yield Case(f"{np.dtype(dtype).name}.tif", content, REFUSED)
    for channels in (5, 9):
        yield Case(f"{channels}-channels.tif", _vips(_random(20, 24, channels), ".tif"), REFUSED)
    phone = _saved(_image(PIXELS), "MPO", save_all=True, append_images=[other])
    yield Case("phone.jpg", phone, READ, whole()["rgb.jpg"][1])
    yield Case("phone-cut.jpg", phone[: len(phone) // 2 + 100], READ_OR_REFUSED, whole()["rgb.jpg"][1])


def _bad_values() -> Iterator[Case]:
    """Floats that are no intensities."""
    for name, value in (("nan", np.nan), ("infinite", np.inf), ("minus-infinite", -np.inf)):
        pixels = REAL.copy()
        pixels[3, 4, 1] = value
        yield Case(f"{name}.tif", _vips(pixels, ".tif"), REFUSED)
        pixels[:] = value
        yield Case(f"all-{name}.tif", _vips(pixels, ".tif"), REFUSED)
    for name, value in (("tiny", 1e-30), ("beyond-one", 1.8), ("negative", -2.5)):
        pixels = (REAL * value).astype(np.float32)
        yield Case(f"{name}.tif", _vips(pixels, ".tif"), READ, pixels)


def _directory(*tags: Tag, order: str = "<") -> bytes:
    """EXIF: a TIFF directory of tags whose values fit their field."""
    entries = b"".join(struct.pack(f"{order}HHI", *tag[:3]) + tag[3].ljust(4, b"\0")[:4] for tag in tags)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4)


def bad_exif() -> dict[str, bytes]:
    """Directories as no camera should write them, by what is wrong."""
    good = Image.Exif()
    good[0x0112], good[0x010F] = 6, "a camera"
    whole_exif = good.tobytes().removeprefix(b"Exif\0\0")
    return {
        "empty": b"",
        "noise": np.random.default_rng(2).bytes(300),
        "order-only": b"II",
        "header-only": whole_exif[:8],
        "cut": whole_exif[: len(whole_exif) - 6],
        "beyond": b"II*\0" + struct.pack("<I", 10**9),
        "loop": _directory(_long(0x8769, 8), _long(0x8825, 8)),
        "camera-beyond": _directory(_long(0x8769, 2**32 - 1)),
        "count": _directory((0x010F, 2, 2**32 - 1, b"\x08\0\0\0")),
        "type": _directory((0x010F, 99, 1, b"abcd")),
        "no-tags": _directory(),
        "many-tags": b"II*\0" + struct.pack("<IH", 8, 65535),
        "turned-0": _directory(_short(0x0112, 0)),
        "turned-9": _directory(_short(0x0112, 9)),
        "turned-text": _directory((0x0112, 2, 4, b"abc\0")),
        "turned-twice": _directory(_short(0x0112, 6, 8)),
        "turned-real": _directory((0x0112, 11, 1, struct.pack("<f", 6.0))),
        "resolution-text": _directory((282, 2, 4, b"abc\0"), (283, 2, 4, b"abc\0")),
        "camera-text": _directory((0x8769, 2, 4, b"abc\0")),
        "camera-none": _directory(_long(0x8769, 0)),
        "camera-minus": _directory((0x8769, 9, 1, struct.pack("<i", -5))),
        "place-minus": _directory((0x8825, 9, 1, struct.pack("<i", -5))),
        "iptc-number": _directory(_long(33723, 50_000_000), _long(34377, 1000)),
        # A directory of one tag, its interoperability, which would be in a directory that is not there.
        "interoperability-beyond": _directory(_long(0x8769, 26))
        + struct.pack("<HHHIII", 1, 0xA005, 4, 1, 2**32 - 1, 0),
        "interoperability-loop": _directory(_long(0x8769, 26)) + struct.pack("<HHHIII", 1, 0xA005, 4, 1, 26, 0),
        "interoperability-minus": _directory(_long(0x8769, 26)) + struct.pack("<HHHIiI", 1, 0xA005, 9, 1, -1, 0),
        "too-long": _directory((0x010F, 2, 70_000, struct.pack("<I", 26)), _short(0x0112, 6)) + bytes(70_040),
    }


def _exif() -> Iterator[Case]:
    jpeg, webp = whole()["rgb.jpg"], whole()["rgb.webp"]
    for name, exif in bad_exif().items():
        if len(exif) < 65_000:
            yield Case(f"exif-{name}.jpg", _jpeg_with((0xE1, b"Exif\0\0" + exif)), READ, jpeg[1])
        yield Case(f"exif-{name}.png", _png_with((b"eXIf", exif)), READ, PIXELS)
        yield Case(f"exif-{name}.webp", _webp_with(b"EXIF", exif, 8), READ, webp[1])
    wrong: dict[str, Tag] = {
        "camera-beyond": _long(0x8769, 2**32 - 1),
        "camera-loop": _long(0x8769, 8),
        "camera-text": (0x8769, 2, 4, b"abc\0"),
        "camera-none": _long(0x8769, 0),
        "places-beyond": _long(0x8825, 10**9),
        "maker-count": (0x010F, 2, 10**9, b"\x08\0\0\0"),
        "type-unknown": (0x010F, 99, 1, b"abcd"),
        "text-not-ascii": (0x010F, 2, 8, b"caf\xe9 \xff\xfe\0"),
        "turned-text": (0x0112, 2, 4, b"abc\0"),
        "turned-9": _short(0x0112, 9),
        "rational-zero": (282, 5, 1, bytes(8)),
        "resolution-infinite": (282, 11, 1, struct.pack("<f", np.inf)),
        "packet-numbers": _short(700, 1, 2, 3),
        "packet-text": (700, 2, 8, b"\xff\xfeabcd\0\0"),
        "packet-real": (700, 12, 1, struct.pack("<d", 0.5)),
        "profile-long": _long(34675, 7),
        "profile-rational": (34675, 5, 1, struct.pack("<II", 1, 0)),
    }
    for name, tag in wrong.items():
        yield Case(f"tag-{name}.tif", _tiff_with(tag), READ_OR_REFUSED, PIXELS)
    yield Case("tag-next-loop.tif", _tiff_with()[: 10 + 9 * 12] + struct.pack("<I", 8) + _tiff_with()[14 + 9 * 12 :],
               READ_OR_REFUSED, PIXELS)  # fmt: skip


def _webp_with(kind: bytes, data: bytes, flag: int) -> bytes:
    """The RGB picture as an extended WebP with one chunk more."""
    pixels = whole()["rgb.webp"][0][12:]
    size = struct.pack("<I", 23)[:3] + struct.pack("<I", 19)[:3]
    chunk = kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    header = b"VP8X" + struct.pack("<I", 10) + bytes((flag, 0, 0, 0)) + size
    body = header + (chunk + pixels if kind == b"ICCP" else pixels + chunk)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _profiles_and_packets() -> Iterator[Case]:
    """ICC profiles and XMP packets that are broken, large or not what they say."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    jpeg = whole()["rgb.jpg"][1]
    profiles = {"noise": np.random.default_rng(3).bytes(600), "cut": srgb[:200], "zeros": bytes(128), "one": b"x"}
    for name, profile in {**profiles, "good": srgb}.items():
        inside = _jpeg_with((0xE2, b"ICC_PROFILE\0\1\1" + profile))
        yield Case(f"profile-{name}.jpg", inside, READ, jpeg)
        yield Case(f"profile-{name}.png", _png_with((b"iCCP", b"p\0\0" + zlib.compress(profile))), READ, PIXELS)
        yield Case(f"profile-{name}.webp", _webp_with(b"ICCP", profile, 32), READ, PIXELS)
        yield Case(f"profile-{name}.tif", _tiff_with((34675, 7, len(profile), profile)), READ, PIXELS)
        deep = _vips(DEEP, ".png")
        chunk = png((b"iCCP", b"p\0\0" + zlib.compress(profile)))[8:]
        yield Case(f"profile-{name}-deep.png", deep[:33] + chunk + deep[33:], READ, DEEP)
    yield Case("profile-parts.jpg", _jpeg_with((0xE2, b"ICC_PROFILE\0\3\x09abc")), READ, jpeg)
    yield Case("profile-not-deflated.png", _png_with((b"iCCP", b"p\0\0abc")), READ_OR_REFUSED, PIXELS)
    yield Case("profile-no-name.png", _png_with((b"iCCP", b"")), READ_OR_REFUSED, PIXELS)
    large = np.random.default_rng(4).bytes(17_000_000)
    yield Case("profile-large.tif", _tiff_with((34675, 7, len(large), large)), READ, PIXELS)
    packets = {
        "not-utf8": b"<x:xmpmeta>\xff\xfe\xc3(</x:xmpmeta>",
        "unclosed": b"<x:xmpmeta><rdf",
        "entities": b'<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>',
        "zeros": bytes(40),
        "large": b"<x>" + b"y" * 60_000,
    }
    for name, packet in packets.items():
        yield Case(f"packet-{name}.jpg", _jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)), READ, jpeg)
        text = b"XML:com.adobe.xmp\0\0\0\0\0" + packet
        yield Case(f"packet-{name}.png", _png_with((b"iTXt", text)), READ, PIXELS)
        yield Case(f"packet-{name}.webp", _webp_with(b"XMP ", packet, 4), READ, PIXELS)
        yield Case(f"packet-{name}.tif", _tiff_with((700, 1, len(packet), packet)), READ, PIXELS)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("a" * 79, "line\nline\0zero")
    texts.add_itxt("Title", "\u202eevil \U0001f600")
    yield Case("texts.png", _saved(_image(PIXELS), "PNG", pnginfo=texts), READ, PIXELS)
    for name, chunk in (("no-zero", b"abc"), ("no-key", b"\0abc"), ("long-key", b"k" * 300 + b"\0v"), ("none", b"")):
        deep = _vips(DEEP, ".png")
        inside = png((b"tEXt", chunk))[8:]
        yield Case(f"text-{name}.png", _png_with((b"tEXt", chunk)), READ, PIXELS)
        yield Case(f"text-{name}-deep.png", deep[:33] + inside + deep[33:], READ, DEEP)


def _resolutions() -> Iterator[Case]:
    """Pixels an inch, from none to beyond what others can hold."""
    for name, across, unit in (("none", 0, 1), ("most", 2**32 - 1, 1), ("large", 2**31 - 1, 1), ("ratio", 7, 0)):
        data = struct.pack(">IIB", across, across, unit)
        yield Case(f"resolution-{name}.png", _png_with((b"pHYs", data)), READ, PIXELS)
    yield Case("resolution-cut.png", _png_with((b"pHYs", b"abc")), READ_OR_REFUSED, PIXELS)
    content, pixels = whole()["rgb.jpg"]
    for name, density in (("none", b"\1\0\0\0\0"), ("most", b"\1\xff\xff\xff\xff"), ("odd", b"\7\0\1\0\1")):
        at = content.index(b"JFIF\0") + 7
        yield Case(f"resolution-{name}.jpg", content[:at] + density + content[at + 5 :], READ, pixels)
    for name, value in (("zero", (0, 0)), ("endless", (1, 0)), ("most", (2**32 - 1, 1)), ("least", (1, 2**32 - 1))):
        tags = [(tag, 5, 1, struct.pack("<II", *value)) for tag in (282, 283)]
        yield Case(f"resolution-{name}.tif", _tiff_with(*tags), READ, PIXELS)
    for name, real in (("infinite", np.inf), ("nan", np.nan), ("negative", -1.0), ("huge", 3e38)):
        tags = [(tag, 11, 1, struct.pack("<f", real)) for tag in (282, 283)]
        yield Case(f"resolution-{name}-real.tif", _tiff_with(*tags), READ_OR_REFUSED, PIXELS)


def _colors() -> Iterator[Case]:
    """What PNG says of colors, too short, too long, where it must not be and with values that make no sense."""
    deep = _vips(DEEP, ".png")
    for kind, length in ((b"gAMA", 4), (b"cHRM", 32), (b"sRGB", 1), (b"cICP", 4), (b"mDCV", 24), (b"cLLI", 8)):
        for name, data in (
            ("none", b""),
            ("short", b"\1" * (length - 1)),
            ("odd", b"\1" * (length + 9)),
            ("long", b"\1" * (length + 8)),
            ("zeros", bytes(length)),
            ("ones", b"\xff" * length),
        ):
            # Pillow opens nothing where one that it knows is too short, before 13 a cHRM not of whole numbers neither.
            short = len(data) < length and kind in (b"gAMA", b"cHRM", b"sRGB")
            verdict = READ_OR_REFUSED if short or (name, kind) == ("odd", b"cHRM") else READ
            yield Case(f"color-{kind.decode()}-{name}.png", _png_with((kind, data)), verdict, PIXELS)
            chunk = png((kind, data))[8:]
            yield Case(f"color-{kind.decode()}-{name}-deep.png", deep[:33] + chunk + deep[33:], verdict, DEEP)


def _trailers() -> Iterator[Case]:
    """What lies behind the picture in a JPEG."""
    content, pixels = whole()["rgb.jpg"]
    for name, trailer in (
        ("film", b"\0\0\0\x18ftypmp42" * 900),
        ("padding", bytes(9_000)),
        ("markers", b"\xff\xe0" * 9_000),
    ):
        yield Case(f"trailer-{name}.jpg", content + trailer, READ, pixels)


def _odd_names() -> Iterator[Case]:
    """Good files under names that programs stumble over, as an 8-bit PNG and as what libvips reads."""
    names = (
        "with  spaces ",
        " leading",
        "new\nline",
        "tab\t",
        "carriage\rreturn",
        "escape\x1b[31mred",
        "-dash",
        "--sigma",
        "-o",
        "quote'\"`$(touch x);&|",
        "back\\slash",
        "percent%s%n",
        "star*?",
        "[bold]markup[red]",
        "page[page=1]",
        ":warning:",
        "\U0001f600\U0001f469\u200d\U0001f680",
        "\u202eright-to-left",
        "e\u0301 not composed",
        "\u00e9 composed",
        "not-utf8-\udcff\udcfe",
        "UPPER",
        "many.dots...png",
        "~",
        "#",
        "CON",
        "n" * 240,
        "\U0001f600" * 60,
        "\udcff" * 240,
    )
    for name in names:
        yield Case(f"{name}.png", whole()["rgb.png"][0], READ, PIXELS)
        yield Case(f"{name}.tif", whole()["deflate.tif"][0], READ, DEEP)
    yield Case("page.tif[page=0].tif", whole()["deflate.tif"][0], READ, DEEP)


def write(cases: Sequence[Case], folder: bytes) -> None:
    """The files of the cases, in a folder that is there."""
    for case in cases:
        with open(os.path.join(folder, os.fsencode(case.name)), "wb") as file:  # noqa: PTH118, PTH123 (bytes)
            file.write(case.content)
