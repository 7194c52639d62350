"""What a file carries survives; what is not handled is refused by name."""

import io
import os
import struct
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
import pyvips
import tifffile
from conftest import write_picture
from corpus import png
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mdrn_cli.content import LARGEST_CONTENT
from mdrn_cli.encoding import SaveOptions, encode_picture, format_of
from mdrn_cli.errors import InputError, UsageError
from mdrn_cli.formats import find_images
from mdrn_cli.image import read_picture, read_uint8
from mdrn_cli.jpeg import LARGEST_TRAILER, Listed, behind_picture, listed_pictures, put_right
from mdrn_cli.metadata import Metadata
from mdrn_cli.noise import find_noise
from mdrn_cli.picture import Picture
from mdrn_cli.png import with_chunks

PIXELS = np.random.default_rng(0).integers(0, 256, (13, 17, 4), np.uint8)


def make(mode: str) -> Image.Image:
    channels = {"L": PIXELS[..., 0], "LA": PIXELS[..., :2], "RGB": PIXELS[..., :3], "RGBA": PIXELS}
    return Image.fromarray(channels[mode])


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [(mode, suffix) for mode in ("L", "LA", "RGB", "RGBA") for suffix in (".png", ".tif", ".webp")]
    + [("L", ".bmp"), ("RGB", ".bmp")],  # no transparency in BMP
)
def test_lossless_formats_come_back_bit_for_bit(tmp_path, mode, suffix):
    make(mode).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.mode == mode
    assert picture.color == ("gray" if mode.startswith("L") else "color")
    write_picture(picture, tmp_path / f"b{suffix}")
    with Image.open(tmp_path / f"b{suffix}") as back:
        # WebP has no gray: it comes back as three equal channels.
        assert np.array_equal(np.asarray(back.convert(mode)), np.asarray(make(mode)))


def test_pixels_are_scaled_to_one_in_float32(tmp_path):
    make("RGB").save(tmp_path / "a.png")
    pixels = read_picture(tmp_path / "a.png").pixels
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, PIXELS[..., :3].transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def test_jpeg_is_written_at_quality_95_without_chroma_subsampling(tmp_path, photo):
    picture = Picture((photo[:64, :64] / 255).astype(np.float32).transpose(2, 0, 1))
    write_picture(picture, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as back:
        assert all(layer[1:3] == (1, 1) for layer in back.layer)
        assert np.abs(np.asarray(back).astype(int) - photo[:64, :64]).mean() < 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_profile_exif_and_resolution_are_kept_and_orientation_is_not_applied(tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    make("RGB").save(tmp_path / f"a{suffix}", icc_profile=profile, exif=exif, dpi=(300, 300))
    write_picture(read_picture(tmp_path / f"a{suffix}"), tmp_path / f"b{suffix}")
    with Image.open(tmp_path / f"b{suffix}") as back:
        assert back.size == (17, 13)
        assert back.info["icc_profile"] == profile
        assert back.getexif()[0x0112] == 6
        assert back.getexif()[0x010F] == "a camera"
        if suffix != ".webp":
            assert back.info["dpi"] == pytest.approx((300, 300), abs=0.1)


CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def deep_data(mode: str, dtype) -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.random((13, 17, CHANNELS[mode]))
    return values.astype(dtype) if dtype == np.float32 else rng.integers(0, 65536, values.shape).astype(dtype)


def write_with_libvips(path, data, **options):
    """An encoder that is not ours."""
    image = pyvips.Image.new_from_array(data)
    if data.dtype == np.uint16:
        image = image.copy(interpretation="grey16" if data.shape[2] < 3 else "rgb16")
    image.write_to_file(str(path), **options)


def read_with_libvips(path):
    pixels = pyvips.Image.new_from_file(str(path)).numpy()
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize(
    ("dtype", "suffix"), [(np.uint16, ".png"), (np.uint16, ".tif"), (np.float32, ".tif"), (np.uint8, ".tif")]
)
def test_every_depth_comes_back_bit_for_bit(tmp_path, mode, dtype, suffix):
    data = deep_data(mode, dtype)
    write_with_libvips(tmp_path / f"a{suffix}", data)
    picture = read_picture(tmp_path / f"a{suffix}")
    assert (picture.mode, picture.depth, picture.bit_depth) == (mode, np.dtype(dtype).name, data.itemsize * 8)
    assert picture.pixels.dtype == np.float32
    if mode.endswith("A"):
        assert picture.alpha.dtype == dtype
    assert write_picture(picture, tmp_path / f"b{suffix}") == ()
    back = read_with_libvips(tmp_path / f"b{suffix}")
    assert back.dtype == dtype
    assert np.array_equal(back, data)


def test_the_depth_is_the_type_not_guessed_from_values(tmp_path):
    """A dark 16-bit picture, all of whose values would fit 8 bits."""
    write_with_libvips(tmp_path / "a.png", (deep_data("RGB", np.uint16) % 200).astype(np.uint16))
    picture = read_picture(tmp_path / "a.png")
    assert picture.depth == "uint16"
    assert picture.pixels.max() < 0.004


def test_float_pixels_beyond_one_are_kept(tmp_path):
    data = deep_data("RGB", np.float32) * 3 - 1
    write_with_libvips(tmp_path / "a.tif", data)
    write_picture(read_picture(tmp_path / "a.tif"), tmp_path / "b.tif")
    assert np.array_equal(read_with_libvips(tmp_path / "b.tif"), data)


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "packbits"])
def test_tiffs_of_common_compressions_are_read(tmp_path, compression):
    data = deep_data("RGB", np.uint16)
    write_with_libvips(tmp_path / "a.tif", data, compression=compression, predictor="horizontal", tile=True)
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, (data / np.float32(65535)).transpose(2, 0, 1))


def test_a_tiff_of_many_strips_can_be_read_by_others(tmp_path):
    data = np.random.default_rng(0).integers(0, 65536, (700, 900, 3)).astype(np.uint16)
    picture = Picture((data / np.float32(65535)).transpose(2, 0, 1), depth="uint16")
    write_picture(picture, tmp_path / "a.tif")
    assert np.array_equal(read_with_libvips(tmp_path / "a.tif"), data)


def test_a_format_of_less_depth_is_told_of(tmp_path):
    data = deep_data("RGB", np.float32)
    write_with_libvips(tmp_path / "a.tif", data)
    picture = read_picture(tmp_path / "a.tif")
    assert write_picture(picture, tmp_path / "b.png") == ("32 bits a channel become 16",)
    assert np.abs(read_with_libvips(tmp_path / "b.png") / 65535 - data).max() < 1e-5
    assert write_picture(picture, tmp_path / "b.webp")[0] == "32 bits a channel become 8"


def test_palettes_and_single_bits_become_what_loses_nothing(tmp_path):
    gray = Image.fromarray(PIXELS[..., 0] // 16 * 16)
    gray.convert("P").save(tmp_path / "palette.png")
    bits = gray.point(lambda v: 255 * (v > 127)).convert("1")
    bits.save(tmp_path / "bits.png")
    bits.save(tmp_path / "bits.tif")
    clear = gray.convert("P")
    clear.info["transparency"] = 0
    clear.save(tmp_path / "clear.png", transparency=0)
    for name, mode, warning in (
        ("palette.png", "RGB", "palette"),
        ("clear.png", "RGBA", "palette"),
        ("bits.png", "L", "1 bit"),
        ("bits.tif", "L", "1 bit"),
    ):
        picture = read_picture(tmp_path / name)
        assert picture.mode == mode, name
        assert any(warning in text for text in picture.warnings), name
        with Image.open(tmp_path / name) as file:
            expected = np.asarray(file.convert(mode)).reshape(13, 17, -1)[..., : len(picture.pixels)]
        assert np.array_equal(np.rint(picture.pixels * 255).transpose(1, 2, 0), expected), name


def test_a_transparent_color_becomes_alpha(tmp_path):
    make("L").save(tmp_path / "a.png", transparency=int(PIXELS[0, 0, 0]))
    picture = read_picture(tmp_path / "a.png")
    assert picture.mode == "LA"
    assert picture.alpha[0, 0] == 0


def test_the_first_image_of_a_phone_s_jpeg_is_taken_with_a_warning(tmp_path):
    make("RGB").save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[make("RGB").rotate(90)])
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.mode == "RGB"
    assert picture.warnings == ("only the first of 2 images in the file is kept",)


ULTRA_HDR = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description hdrgm:Version="1.0"/></x:xmpmeta>'
"""XMP for which Pillow takes a JPEG with further images for one alone."""


@pytest.mark.parametrize("xmp", [b"", ULTRA_HDR])
def test_further_images_are_told_of_and_left_out_whatever_they_are(tmp_path, xmp):
    further = [make("RGB").rotate(90)]
    make("RGB").save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=further, xmp=xmp)
    content = (tmp_path / "a.jpg").read_bytes()
    for given, behind in ((content, b""), (content + FILM, FILM)):
        picture = read_picture(given)
        assert picture.warnings == ("only the first of 2 images in the file is kept",)
        assert picture.metadata.trailer == behind
    listed = content.index(b"MPF\0") + 4
    damaged = content[:listed] + b"\xff" * 40 + content[listed + 40 :]
    assert read_picture(damaged).mode == "RGB", "whose list means nothing"


def test_smaller_versions_of_a_picture_are_no_loss(tmp_path):
    make("RGB").save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[make("RGB").rotate(90)])
    content = (tmp_path / "a.jpg").read_bytes()
    assert read_picture(content).metadata.left_behind == ("further images, such as a map of depth or highlights",)
    with Image.open(io.BytesIO(content)) as file:
        _, further = listed_pictures(file.applist)
    entry = struct.pack("<LLL", 0, further.size, further.start)
    assert content.count(entry) == 1
    preview = content.replace(entry, struct.pack("<LLL", 0x010002, further.size, further.start))
    assert read_picture(preview).metadata.left_behind == ()
    assert read_picture(preview).warnings == ("only the first of 2 images in the file is kept",)


def test_a_list_of_further_images_that_is_not_true_costs_nothing(tmp_path):
    """As programs leave it that change a file without a look at it."""
    make("RGB").save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[make("RGB").rotate(90)])
    content = (tmp_path / "a.jpg").read_bytes()
    with Image.open(io.BytesIO(content)) as file:
        _, further = listed_pictures(file.applist)
    entry = struct.pack("<LLL", 0, further.size, further.start)
    begins = content.index(b"MPF\0") + 4 + further.start
    assert content[begins : begins + 2] == b"\xff\xd8"
    for size in (further.size + 200, 1 << 30):  # which reach into what lies behind, and beyond it
        picture = read_picture(content.replace(entry, struct.pack("<LLL", 0, size, further.start)) + FILM)
        assert (picture.metadata.trailer, picture.warnings) == (
            FILM,
            ("only the first of 2 images in the file is kept",),
        )
    for left in (b"", FILM):
        picture = read_picture(content[:begins] + left)
        assert (picture.metadata.trailer, picture.metadata.left_behind, picture.warnings) == (left, (), ())
    cut = content[:-20]
    assert read_picture(cut).metadata.left_behind == (), "what is not whole is kept as it is"
    assert read_picture(cut).metadata.trailer == cut[begins:]
    unmarked = content[:-2] + b"\0\0" + FILM  # without an end of its own that of the list counts
    picture = read_picture(unmarked)
    assert (picture.metadata.trailer, len(picture.metadata.left_behind)) == (FILM, 1)
    unmarked = content[: begins - 2] + b"\0\0" + content[begins:] + FILM  # and of the first where the next begins
    picture = read_picture(unmarked)
    assert (picture.metadata.trailer, len(picture.metadata.left_behind)) == (FILM, 1)


def test_what_lies_between_the_images_of_a_jpeg_is_told_and_left_behind(photo):
    first, second = jpeg_of(photo[:64, :64]), jpeg_of(photo[:32, :32])
    for between, told in ((FILM, (f"{len(FILM)} bytes between its images",)), (bytes(5_000), ())):
        start = len(with_list(first, [(0x010002, len(second), 0)])) + len(between)
        content = with_list(first, [(0x010002, len(second), start - len(first[:2]) - 8)]) + between + second
        metadata = read_picture(content + FILM).metadata
        assert (metadata.left_behind, metadata.dropped, metadata.trailer) == (told, told, FILM)


def test_a_list_of_many_images_takes_no_longer_than_the_file(photo):
    """Each is sought in what the one before has left, or no further than any."""

    class Counted(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.count += len(data)
            return data

    for size in (1, 50_000, 1 << 30):
        first = with_list(jpeg_of(photo[:64, :64]), [])
        behind = b"\xff\xd8\xff\x01" * 50_000
        entries = [Listed(size, len(first) + 400 * k, False) for k in range(1, 400)]
        stream = Counted(first + behind)
        behind_picture(stream, entries)
        assert stream.count < 3 * len(behind) + len(entries) * 5_000


def with_list(content: bytes, entries: list[tuple[int, int, int]]) -> bytes:
    """A JPEG with a list of images: kind, size and start of each but the first."""
    rows = b"".join(struct.pack("<LLLHH", *entry, 0, 0) for entry in [(0x030000, len(content), 0), *entries])
    head = b"II*\0" + struct.pack("<LH", 8, 1) + struct.pack("<HHLL", 0xB002, 7, len(rows), 26) + struct.pack("<L", 0)
    segment = b"MPF\0" + head + rows
    return content[:2] + b"\xff\xe2" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:]


@pytest.mark.parametrize("kind", ["JPEG", "BMP"])
def test_an_alpha_that_hides_nothing_is_no_transparency(kind):
    for depth, largest in (("uint8", 255), ("uint16", 65535), ("float32", 1)):
        channels = np.full((3, 20, 20), largest // 2, depth)
        alpha = np.full((20, 20), largest, depth)
        content, _ = encode_picture(Picture(channels, alpha, depth), kind)
        assert Image.open(io.BytesIO(content)).mode == "RGB"
        alpha[3, 4] = 0
        with pytest.raises(UsageError, match="transparency"):
            encode_picture(Picture(channels, alpha, depth), kind)


def test_more_behind_a_picture_than_memory_is_for_is_left_behind(tmp_path):
    """A hole in a file costs nothing where it lies."""
    make("RGB").save(tmp_path / "a.jpg")
    size = (tmp_path / "a.jpg").stat().st_size
    os.truncate(tmp_path / "a.jpg", size + LARGEST_TRAILER + 1)
    metadata = read_picture(tmp_path / "a.jpg").metadata
    told = f"{LARGEST_TRAILER + 1} bytes behind the picture"
    assert (metadata.trailer, metadata.left_behind, metadata.dropped) == (b"", (told,), (told,))
    os.truncate(tmp_path / "a.jpg", LARGEST_CONTENT + 1)
    with pytest.raises(InputError, match="larger than"):
        read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize(("background", "told"), [("white", False), ("#808080", False), ("red", True)])
def test_a_gray_picture_laid_on_a_color_is_told_of(background, told):
    picture = Picture(PIXELS[None, :, :, 0], PIXELS[:, :, 1])
    _, warnings = encode_picture(picture, "PNG", SaveOptions(flatten=background))
    assert any("gray" in warning for warning in warnings) == told
    assert encode_picture(replace(picture, alpha=None), "PNG", SaveOptions(flatten=background))[1] == ()


def test_the_film_behind_a_phone_s_further_images_is_kept(tmp_path):
    make("RGB").save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[make("RGB").rotate(90)])
    content = (tmp_path / "a.jpg").read_bytes()
    assert read_picture(content).metadata.trailer == b""
    assert read_picture(content + FILM).metadata.trailer == FILM


def kinds_not_handled(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "cmyk.jpg")
    Image.new("CMYK", (4, 4)).save(tmp_path / "cmyk.tif")
    Image.new("LAB", (4, 4)).save(tmp_path / "lab.tif")
    Image.new("I", (4, 4)).save(tmp_path / "int32.tif")
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for name in ("animated.webp", "animated.png", "pages.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    return sorted(path for path in tmp_path.iterdir() if path.is_file())


def test_kinds_not_handled_are_refused_never_converted(tmp_path):
    files = kinds_not_handled(tmp_path)
    assert len(files) == 7
    for file in files:
        for read in (read_picture, lambda path: read_uint8(path, "gray"), lambda path: read_uint8(path, "color")):
            with pytest.raises(InputError, match=r"cmyk|CMYK|CIELAB|type|frames|pages") as caught:
                read(file)
            assert str(file) in caught.value.message


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_tiffs_of_compressions_that_libvips_lacks_are_read_with_eight_bits(tmp_path, compression, mode):
    path = tmp_path / "a.tif"
    make(mode).save(path, compression=compression)
    picture = read_picture(path)
    assert (picture.mode, picture.depth) == (mode, "uint8")
    write_picture(picture, tmp_path / "b.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), np.asarray(make(mode)))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError):
        read_picture(path)


def test_of_other_pixels_the_compression_is_named(tmp_path):
    make("L").convert("I;16").save(tmp_path / "deep.tif", compression="zstd")
    make("RGB").save(tmp_path / "turned.tif", compression="zstd", tiffinfo={274: 6})
    Image.new("CMYK", (4, 4)).save(tmp_path / "inks.tif", compression="zstd")
    for name, told in (("deep", "ZSTD compression"), ("turned", "ZSTD compression"), ("inks", "CMYK")):
        with pytest.raises(InputError, match=told) as caught:
            read_picture(tmp_path / f"{name}.tif")
        assert "damaged" not in caught.value.message


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_gray_of_any_depth_becomes_alpha(bits):
    values = np.random.default_rng(bits).integers(0, 1 << bits, (9, 16)).astype(">u2")
    values[0, 0] = 1
    # The lowest bits of each value, side by side, filled up to whole bytes.
    lowest = np.unpackbits(values.view(np.uint8).reshape(9, 16, 2), axis=2)[:, :, 16 - bits :]
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(lowest.reshape(9, -1), axis=1))
    header = struct.pack(">IIBBBBB", 16, 9, bits, 0, 0, 0, 0)
    content = png((b"IHDR", header), (b"tRNS", b"\0\1"), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    picture = read_picture(content)
    top = 65535 if bits == 16 else 255
    assert np.array_equal(picture.channels[0], values.astype(int) * (top // ((1 << bits) - 1)))
    assert np.array_equal(picture.alpha, np.where(values == 1, 0, top))
    assert picture.warnings == (("1 bit a pixel becomes 8",) if bits == 1 else ())


def tiff_of(data, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, data, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_channel_of_no_stated_meaning_does_not_become_transparency(mode):
    """Infrared, as scanners write it."""
    data = np.asarray(make(mode))
    kind = "minisblack" if mode == "LA" else "rgb"
    picture = read_picture(tiff_of(data, photometric=kind, extrasamples=["unspecified"]))
    for options in (SaveOptions(), SaveOptions(strip_metadata=True), SaveOptions(flatten="white")):
        with tifffile.TiffFile(io.BytesIO(encode_picture(picture, "TIFF", options)[0])) as back:
            assert back.pages[0].extrasamples == (0,)
            assert np.array_equal(back.asarray(), data)
    assert np.array_equal(picture.flattened("white").channels, picture.channels)
    for kind in ("PNG", "WEBP", "JPEG", "BMP"):
        with pytest.raises(UsageError, match="transparency"):
            encode_picture(picture, kind, SaveOptions(flatten="white"))


def test_gray_with_several_more_channels_is_refused_not_taken_for_rgb():
    with pytest.raises(InputError, match="4 channels"):
        read_picture(tiff_of(PIXELS, photometric="minisblack", planarconfig="contig"))


def test_of_white_that_is_zero_integers_are_turned_round_and_floats_refused():
    gray = PIXELS[..., 0]
    for data in (gray, gray.astype(np.uint16) * 257):
        picture = read_picture(tiff_of(data, photometric="miniswhite"))
        assert np.array_equal(picture.channels[0], np.iinfo(data.dtype).max - data)
    with pytest.raises(InputError, match="white"):
        read_picture(tiff_of((gray / 255).astype(np.float32), photometric="miniswhite"))


def test_a_palette_of_a_tiff_is_told(tmp_path):
    make("RGB").quantize(16).save(tmp_path / "color.tif")
    make("L").convert("P").save(tmp_path / "gray.tif")
    for name, mode in (("color", "RGB"), ("gray", "L")):
        picture = read_picture(tmp_path / f"{name}.tif")
        assert (picture.mode, picture.warnings) == (mode, (f"the palette becomes {mode}",))
        with Image.open(tmp_path / f"{name}.tif") as file:
            expected = np.asarray(file.convert(mode)).reshape(13, 17, -1)
        assert np.array_equal(picture.channels.transpose(1, 2, 0), expected)


def jpeg_of(photo, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", **options)
    return buffer.getvalue()


FILM = b"\0\0\0\x18ftypmp42" + np.random.default_rng(0).bytes(9_000)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"quality": 100}])
def test_what_lies_behind_a_jpeg_s_picture_is_kept(tmp_path, photo, options):
    """A phone's film, another picture; but no padding, nor what looks like an end inside a segment."""
    thumbnail = b"Exif\0\0" + bytes(2) + jpeg_of(photo[:32, :32])
    content = jpeg_of(photo[:150, :150], comment=thumbnail, **options)
    assert content.count(b"\xff\xd9") > 1
    for padding in (b"", bytes(5_000), b"\xff" * 5_000, b"\r\n", bytes(4095) + b"\xff\0"):
        assert read_picture(content + padding).metadata.trailer == b""
    for left in (FILM, content, bytes(100) + FILM):
        (tmp_path / "a.jpg").write_bytes(content + left)
        for source in (tmp_path / "a.jpg", content + left):
            picture = read_picture(source)
            assert picture.metadata.trailer == left
            assert encode_picture(picture, "JPEG")[0].endswith(b"\xff\xd9" + left)
            assert not encode_picture(picture, "JPEG", SaveOptions(strip_metadata=True))[0].endswith(left)
            for kind in ("PNG", "TIFF"):
                lost = f"{kind} cannot hold the input's {len(left)} bytes behind the picture"
                assert lost in encode_picture(picture, kind)[1]
            assert np.array_equal(picture.channels, read_picture(content).channels)


def test_a_jpeg_that_ends_early_is_told_though_bytes_lie_between_its_segments(photo):
    content = jpeg_of(photo[:150, :150])
    tables = content.index(b"\xff\xdb")
    strays = content[:tables] + b"\x12\x34\x56 strays" + content[tables:]
    assert np.array_equal(read_picture(strays).channels, read_picture(content).channels)
    with pytest.raises(InputError, match="damaged"):
        read_picture(strays[: len(strays) // 2] + b"\xff\xd9")


SCAN = b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11"
ADOBE = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0"


@pytest.mark.parametrize(
    "warned_of",
    [
        lambda jpeg: jpeg.replace(b"JFIF\0\x01", b"JFIF\0\x03"),  # a version that there is not
        lambda jpeg: jpeg[:2] + ADOBE + b"\x07" + jpeg[20:],  # a color transform that there is not
        lambda jpeg: jpeg.replace(SCAN + b"\0\x3f\0", SCAN + b"\0\0\0"),  # frequencies that a scan cannot have alone
    ],
    ids=["JFIF", "Adobe", "scan"],
)
def test_a_jpeg_that_ends_early_is_told_though_libjpeg_warns_of_something_else_first(photo, warned_of):
    content = jpeg_of(photo[:150, :150])
    odd = warned_of(content)
    assert odd != content
    picture = read_picture(odd)
    assert np.array_equal(picture.channels, read_picture(content).channels)
    assert picture.warnings == ()
    with pytest.raises(InputError, match="damaged"):
        read_picture(odd[: len(odd) // 2] + b"\xff\xd9")


def test_a_jpeg_of_which_libvips_cannot_tell_is_warned_of(photo):
    content = jpeg_of(photo[:150, :150], progressive=True)
    last = content[content.rindex(b"\xff\xda") : -2]
    assert read_picture(content).warnings == ()
    assert read_picture(content[:-2] + last + b"\xff\xd9").warnings == (
        "it cannot be told whether all of the picture is there",
    )
    assert read_picture(content[:-2] + b"\x12\x34\x56\xff\xd9").warnings == ()  # all was decoded before
    restarts = jpeg_of(photo[:150, :150], restart_marker_rows=1)
    assert read_picture(restarts).warnings == ()
    filled = restarts[: len(restarts) // 2] + bytes(len(restarts) // 2) + b"\xff\xd9"
    assert read_picture(filled).warnings == ("it cannot be told whether all of the picture is there",)


def test_a_jpeg_is_put_right_in_little_memory_and_once_is_enough(photo):
    content = jpeg_of(photo[:150, :150])
    short = content[:2] + b"\xff\xee\0\x09Adobexy" + b"\xff\xe0\0\x07JFIF\0" + content[20:]
    assert put_right(short) == short  # segments that are too short for what might be wrong in them
    many = content[:-2] + b"\xff\x01" * (1 << 20) + content[-2:]
    tracemalloc.start()
    try:
        assert put_right(many) == many  # no picture has so many
        assert tracemalloc.get_traced_memory()[1] < 2 * len(many)
    finally:
        tracemalloc.stop()
    rng = np.random.default_rng(0)
    for _ in range(300):
        odd = bytearray(content[:20] + b"stray" + content[20:])
        for place in rng.integers(2, 700, 4):
            odd[place] = rng.integers(256)
        once = put_right(bytes(odd))
        assert put_right(once) == once


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("packed", "kept"),
    [(zlib.compress(SRGB), SRGB), (zlib.compress(SRGB)[:-30], b""), (b"junkjunk", b""), (zlib.compress(b""), b"")],
    ids=["whole", "cut", "not packed", "empty"],
)
def test_a_profile_of_a_png_that_is_damaged_is_told_of(packed, kept):
    file = io.BytesIO()
    make("RGB").save(file, "PNG")
    picture = read_picture(with_chunks(file.getvalue(), [(b"iCCP", b"x\0\0" + packed)]))
    assert picture.metadata.icc_profile == kept
    assert picture.warnings == (() if kept else ("the ICC profile is damaged and left out",))


@pytest.mark.parametrize("header", [12, 40, 64, 108, 124])
@pytest.mark.parametrize(
    ("bits", "palette", "refused"),
    [
        (1, [0, 255], False),
        (4, [0, 255], True),
        (4, range(16), True),
        (4, [9, 200, 30], False),
        (8, [0, 255], True),
        (8, range(256), False),
    ],
)
def test_a_bmp_with_a_palette_of_grays_is_read_right_or_refused(tmp_path, header, bits, palette, refused):
    """Pillow takes the number of colors for that of bits."""
    width, height = 37, 24
    indices = np.random.default_rng(0).integers(0, len(palette), (height, width), dtype=np.uint8)
    unpacked = np.unpackbits(indices[:, :, None], axis=2)[:, :, 8 - bits :].reshape(height, -1)
    rows = np.packbits(np.pad(unpacked, ((0, 0), (0, -unpacked.shape[1] % 32))), axis=1)[::-1].tobytes()
    if header == 12:
        entries, colors = 1 << bits, 3
        head = struct.pack("<IHHHH", header, width, height, 1, bits)
    else:
        entries, colors = len(palette), 4
        head = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, 0, len(rows), 0, 0, entries, 0)
    table = b"".join(bytes([value] * 3 + [0] * (colors - 3)) for value in palette).ljust(entries * colors, b"\xff")
    start = 14 + header + len(table)
    head = b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head.ljust(header, b"\0")
    (tmp_path / "a.bmp").write_bytes(head + table + rows)
    expected = np.asarray(palette, np.uint8)[indices]
    if refused and len(table) == len(palette) * colors:  # a longer one is no row of grays
        for read in (read_picture, lambda path: read_uint8(path, "gray")):
            with pytest.raises(InputError, match="palette of grays"):
                read(tmp_path / "a.bmp")
        return
    assert all(np.array_equal(channel, expected) for channel in read_picture(tmp_path / "a.bmp").channels)
    assert np.array_equal(read_uint8(tmp_path / "a.bmp", "gray")[:, :, 0], expected)


@pytest.mark.parametrize("alpha", [0, 0x8000])
def test_an_alpha_within_16_bits_of_a_bmp_is_not_dropped(alpha):
    pixels = np.arange(64, dtype="<u2").reshape(8, 8) << 8
    head = struct.pack("<IiiHHIIiiII4I", 56, 8, 8, 1, 16, 3, 128, 0, 0, 0, 0, 0x7C00, 0x3E0, 0x1F, alpha)
    content = b"BM" + struct.pack("<IHHI", 70 + 128, 0, 0, 70) + head + pixels.tobytes()
    if not alpha:
        assert read_picture(content).mode == "RGB"
        return
    with pytest.raises(InputError, match="alpha among them"):
        read_picture(content)


@pytest.mark.parametrize("length", range(4085, 4100))
def test_the_end_of_a_jpeg_is_found_wherever_blocks_that_are_read_end(photo, length):
    content = jpeg_of(photo[:150, :150], comment=bytes(length))
    assert read_picture(content + FILM).metadata.trailer == FILM


def test_what_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path):
    """A TIFF of a few bytes whose header promises 10^10 pixels."""
    tags = [(256, 100_000), (257, 100_000), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 100_000), (279, 8)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 16) + bytes(8) + directory + bytes(4))
    with pytest.raises(InputError, match=r"too large|damaged"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.filterwarnings("error")
def test_large_photographs_are_read_without_a_warning(tmp_path, monkeypatch):
    make("RGB").save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 13 * 17 * 2 // 3)
    monkeypatch.setattr("mdrn_cli.decoding._STRIP", 4)  # Pillow before 13 looks at these, too
    assert read_picture(tmp_path / "a.png").channels.shape == (3, 13, 17)


@pytest.mark.parametrize(("reduced", "nested", "refused"), [(1, True, True), (1, False, False), (0, True, False)])
def test_the_preview_of_a_camera_raw_is_not_taken_for_the_picture(tmp_path, reduced, nested, refused):
    """DNG and its like: the first directory holds a thumbnail, the picture of the sensor lies in one below it."""
    tags = ImageFileDirectory_v2()
    tags[254] = reduced
    if nested:
        tags.tagtype[330] = 4
        tags[330] = 8
    Image.new("RGB", (16, 16)).save(tmp_path / "a.tif", tiffinfo=tags)
    if refused:
        with pytest.raises(InputError, match="preview"):
            read_picture(tmp_path / "a.tif")
    else:
        assert read_picture(tmp_path / "a.tif").mode == "RGB"


def test_colors_multiplied_by_alpha_are_refused(tmp_path):
    content = bytearray()
    picture = Picture(np.zeros((3, 4, 4), np.float32), np.zeros((4, 4), np.uint8))
    write_picture(picture, tmp_path / "a.tif")
    content += (tmp_path / "a.tif").read_bytes()
    at = content.index((338).to_bytes(2, "little"))
    content[at + 8] = 1
    (tmp_path / "a.tif").write_bytes(bytes(content))
    with pytest.raises(InputError, match="multiplied by alpha"):
        read_picture(tmp_path / "a.tif")


def test_missing_foreign_truncated_and_empty_files_are_told_apart(tmp_path):
    make("RGB").resize((200, 200)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "head.png").write_bytes(whole[:8] + b"hello")
    for name, message in (
        *(("none", "no file"), ("cut", "damaged"), ("empty", "not an image"), ("text", "not an image")),
        ("head", "damaged, or a kind of PNG that is not handled"),
    ):
        for read in (read_picture, lambda path: read_uint8(path, "gray")):
            with pytest.raises(InputError, match=message):
                read(tmp_path / f"{name}.png")
    with pytest.raises(InputError):
        read_picture(tmp_path)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_s_pixels_are_those_that_pillow_decodes(tmp_path, photo, mode, subsampling, progressive):
    file = tmp_path / "a.jpg"
    image = Image.fromarray(photo[:99, :143]).convert(mode)
    image.save(file, quality=80, subsampling=subsampling, progressive=progressive)
    with Image.open(file) as decoded:
        expected = np.asarray(decoded).reshape(99, 143, -1)
        gray, color = np.asarray(decoded.convert("L"))[:, :, None], np.asarray(decoded.convert("RGB"))
    for source in (file, file.read_bytes()):
        assert np.array_equal(read_picture(source).channels.transpose(1, 2, 0), expected)
    assert np.array_equal(read_uint8(file, "gray"), gray)
    assert np.array_equal(read_uint8(file, "color"), color)


def test_a_jpeg_with_bytes_between_its_segments_is_read_one_that_ends_early_is_not(tmp_path, photo):
    file = tmp_path / "a.jpg"
    Image.fromarray(photo).save(file)
    whole, content = read_picture(file), file.read_bytes()
    second = content.index(b"\xff\xdb")
    odd = content[:second] + b"\0\0\0" + content[second:]
    assert np.array_equal(read_picture(odd).channels, whole.channels)
    file.write_bytes(odd)
    assert np.array_equal(read_uint8(file, "color").transpose(2, 0, 1), whole.channels)
    # With the mark of an end, Pillow takes what is left for the whole and fills up with gray.
    for end in (b"", b"\xff\xd9"):
        file.write_bytes(content[: len(content) // 2] + end)
        for read in (lambda path: read_picture(path.read_bytes()), lambda path: read_uint8(path, "color")):
            with pytest.raises(InputError, match="damaged"):
                read(file)


def test_an_output_format_that_will_not_do_is_refused(tmp_path):
    assert format_of(tmp_path / "a.JPG") == "JPEG"
    with pytest.raises(UsageError, match="format"):
        format_of(tmp_path / "a.xyz")
    make("RGBA").save(tmp_path / "a.png")
    for kind in ("JPEG", "BMP"):
        with pytest.raises(UsageError, match="transparency"):
            encode_picture(read_picture(tmp_path / "a.png"), kind)


def test_transparency_is_laid_on_a_background(tmp_path):
    data = np.full((4, 4, 4), 255, np.uint8)
    data[:, :2, 3], data[:, 2:, 3] = 0, 128
    data[..., :3] = 40
    Image.fromarray(data).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    write_picture(picture, tmp_path / "b.bmp", SaveOptions(flatten="#ff8000"))
    flat = np.asarray(Image.open(tmp_path / "b.bmp")).astype(int)
    assert flat.shape == (4, 4, 3)
    assert flat[0, 0].tolist() == [255, 128, 0]
    assert np.abs(flat[0, 3] - [147, 84, 20]).max() <= 1
    with pytest.raises(UsageError, match="no color"):
        SaveOptions(flatten="sepiaish")


@pytest.mark.parametrize(
    "convert",
    [
        lambda picture: encode_picture(replace(picture, alpha=None), "JPEG"),
        lambda picture: picture.flattened("white"),
        lambda picture: picture.to_color("gray"),
        lambda picture: find_noise(picture.channels),
    ],
    ids=["fewer bits", "flattened", "gray", "estimated"],
)
def test_a_few_rows_are_held_as_floats_while_a_picture_is_converted(convert):
    """Of one tone; a float of each channel would be 12 bytes a pixel."""
    gray = np.random.default_rng(0).normal(30000, 2000, (8000, 500)).astype(np.uint16)
    channels = np.stack([gray, gray // 8 * 7, gray // 4 * 3])
    picture = Picture(channels, alpha=gray, depth="uint16", metadata=Metadata(extra_is_alpha=True))
    tracemalloc.start()
    try:
        convert(picture)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * gray.size


def test_floats_that_are_cut_off_are_told():
    channels = np.full((1, 100, 100), 0.5, np.float32)
    channels[0, :3, :50] = 1.5
    for kind, told in (("TIFF", False), ("PNG", True), ("JPEG", True)):
        _, warnings = encode_picture(Picture(channels, depth="float32"), kind)
        assert ("1.5% of the values are beyond black or white and are cut off" in warnings) == told
    assert not any("cut off" in w for w in encode_picture(Picture(channels.clip(0, 1.01), depth="float32"), "PNG")[1])
    for few, told in ((1.2, False), (1.5, True), (-0.5, True)):
        channels[:] = 0.5
        channels[0, 0, :2] = few
        _, warnings = encode_picture(Picture(channels.copy(), depth="float32"), "PNG")
        assert ("2 values beyond black or white are cut off" in warnings) == told


@pytest.mark.parametrize("bits", [6, 12, 64])
def test_depths_that_are_not_handled_are_named(tmp_path, bits):
    pixels = np.zeros((4, 4), np.float64 if bits == 64 else np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    content = (tmp_path / "a.tif").read_bytes()
    entry = struct.pack("<HHI", 258, 3, 1)
    place = content.index(entry) + len(entry)
    (tmp_path / "a.tif").write_bytes(content[:place] + struct.pack("<H", bits) + content[place + 2 :])
    with pytest.raises(InputError, match=f"{bits} bits a channel are not handled"):
        read_picture(tmp_path / "a.tif")


def test_jpeg_quality(photo):
    picture = Picture((photo / 255).astype(np.float32).transpose(2, 0, 1))
    sizes = [len(encode_picture(picture, "JPEG", SaveOptions(quality))[0]) for quality in (50, 95)]
    assert sizes[0] < sizes[1] / 3
    for quality in (0, 101):
        with pytest.raises(UsageError, match="quality"):
            SaveOptions(quality)


def test_gray_is_itu_601_luma():
    picture = Picture(np.array([1, 0, 0], np.float32).reshape(3, 1, 1))
    assert picture.to_color("gray").pixels.item() == pytest.approx(0.299)
    assert picture.to_color("color") is picture
    assert picture.to_color("gray").to_color("color").pixels.shape == (3, 1, 1)


def test_images_are_found_at_any_depth_and_hidden_ones_are_not(tmp_path):
    for name in ("b.PNG", "a.jpeg", "sub/c.tif", ".hidden.png", ".cache/d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [p.relative_to(tmp_path).as_posix() for p in find_images(tmp_path)] == ["a.jpeg", "b.PNG", "sub/c.tif"]


def test_floats_of_half_the_bits_are_told_of(tmp_path):
    half = np.random.default_rng(0).random((9, 16, 3)).astype(np.float16)
    for pixels in (half, half.astype(np.float32)):
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
        picture = read_picture(tmp_path / "a.tif")
        np.testing.assert_array_equal(picture.channels.transpose(1, 2, 0), half.astype(np.float32))
        told = ("floats of 16 bits become floats of 32",) if pixels is half else ()
        assert picture.warnings == told
