"""TIFFs are read as what they are, or refused by name; never as something else in silence."""

import io
import struct

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from mdrn_cli import deep
from mdrn_cli.encoding import encode_picture
from mdrn_cli.errors import InputError, MdrnError
from mdrn_cli.image import is_gray, read_picture, read_size, read_uint8

PIXELS = np.random.default_rng(5).integers(0, 256, (96, 80, 3), dtype=np.uint8)
TILE = (32, 48)
TYPES = {"uint8": PIXELS, "uint16": PIXELS.astype(np.uint16) * 257, "float32": (PIXELS / 255).astype(np.float32)}


def tiff_of(data: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, data, **{"photometric": "rgb"} | options)
    return buffer.getvalue()


def with_tag(content: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF in whose first directory a tag has another value, of 16 bits."""
    changed = bytearray(content)
    (start,) = struct.unpack_from("<I", changed, 4)
    (count,) = struct.unpack_from("<H", changed, start)
    (entry,) = (
        at for at in range(start + 2, start + 2 + 12 * count, 12) if changed[at : at + 2] == tag.to_bytes(2, "little")
    )
    struct.pack_into("<H", changed, entry + 8, value)
    return bytes(changed)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_gray_and_alpha_apart_are_refused_and_read_side_by_side(photometric, dtype):
    """libvips reads other values of both."""
    both = TYPES[dtype][:, :, :2]
    how = {"photometric": photometric, "extrasamples": ["unassalpha"], "metadata": None}
    with pytest.raises(InputError, match="channels apart"):
        read_picture(tiff_of(both.transpose(2, 0, 1), planarconfig="separate", **how))
    if photometric == "minisblack":
        picture = read_picture(tiff_of(both, planarconfig="contig", **how))
        assert np.array_equal(picture.channels[0], both[:, :, 0])
        assert np.array_equal(picture.alpha, both[:, :, 1])


@pytest.mark.parametrize("bits", [1, 8])
def test_one_channel_that_is_told_to_be_apart_is_read_right_or_refused(tmp_path, bits):
    """libvips makes black of bits so."""
    data = PIXELS[:, :, 0] > 99 if bits == 1 else PIXELS[:, :, 0]
    Image.fromarray(data).save(tmp_path / "a.tif", tiffinfo={284: 2})
    if bits == 1:
        with pytest.raises(InputError, match="apart"):
            read_picture(tmp_path / "a.tif")
    else:
        assert np.array_equal(read_picture(tmp_path / "a.tif").channels[0], data)


def test_luma_and_chroma_apart_are_refused(tmp_path):
    Image.fromarray(PIXELS).convert("YCbCr").save(tmp_path / "a.tif", compression="jpeg")
    content = (tmp_path / "a.tif").read_bytes()
    assert read_picture(content).color == "color"
    with pytest.raises(InputError, match="channels apart"):
        read_picture(with_tag(content, 284, 2))


@pytest.mark.parametrize("colors", [0, 128])
def test_a_palette_that_is_not_whole_is_refused(colors):
    """Its indices were taken for gray."""
    table = np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    content = tiff_of(PIXELS[:, :, 0], photometric="palette", colormap=table)
    expected = (table >> 8).astype(np.uint8)[:, PIXELS[:, :, 0]]
    assert np.array_equal(read_picture(content).channels, expected)
    (entry,) = (struct.pack("<HHI", 320, 3, 768),)
    damaged = content.replace(entry, struct.pack("<HHI", 320 if colors else 50_000, 3, 3 * (colors or 256)))
    assert damaged != content
    with pytest.raises(InputError, match="palette is not whole"):
        read_picture(damaged)


@pytest.mark.parametrize("orientation", [1, 2, 6])
def test_benchmarks_and_training_see_the_pixels_that_restoring_sees(tmp_path, orientation):
    """Pillow turns them, and takes some for others."""
    for name, data, options in (
        ("rgb", PIXELS, {}),
        ("apart", np.concatenate([PIXELS, PIXELS[:, :, :1]], axis=2).transpose(2, 0, 1), {"planarconfig": "separate"}),
        ("white", PIXELS[:, :, 0], {"photometric": "miniswhite"}),
    ):
        path = tmp_path / f"{name}.tif"
        path.write_bytes(tiff_of(data, metadata=None, extratags=[(274, 3, 1, orientation, True)], **options))
        picture = read_picture(path)
        assert np.array_equal(read_uint8(path, picture.color), picture.channels.transpose(1, 2, 0))
        assert read_size(path) == picture.channels.shape[:0:-1]
        assert is_gray(path) == (picture.color == "gray")


def test_gray_with_alpha_is_gray(tmp_path):
    both = np.ascontiguousarray(PIXELS[:, :, :2])
    (tmp_path / "a.tif").write_bytes(
        tiff_of(both.astype(np.uint16), photometric="minisblack", extrasamples=["unassalpha"])
    )
    (tmp_path / "a.png").write_bytes(encode_picture(read_picture(tmp_path / "a.tif"), "PNG")[0])
    assert is_gray(tmp_path / "a.tif")
    for cut in (4, 8, 60):
        (tmp_path / "cut.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:cut])
        assert not is_gray(tmp_path / "cut.tif")
    assert is_gray(tmp_path / "a.png")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiles_that_cannot_be_decoded_do_not_become_black(compression, dtype):
    data = TYPES[dtype]
    content = tiff_of(data, tile=TILE, compression=compression)
    assert np.array_equal(read_picture(content).channels, data.transpose(2, 0, 1))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        start, size = file.pages[0].dataoffsets[-1], file.pages[0].databytecounts[-1]
    broken = [content[: start + 5]]
    if compression:
        broken.append(content[:start] + bytes(size) + content[start + size :])
    for damaged in broken:
        with pytest.raises(InputError, match="damaged"):
            read_picture(damaged)
    assert np.array_equal(read_picture(content).channels, data.transpose(2, 0, 1)), "that of another is forgotten"


def test_what_another_thread_has_failed_at_is_not_this_file_s_fault(monkeypatch):
    """The log of errors is one for all."""
    numpy, calls = pyvips.Image.numpy, []

    def meanwhile(image):
        calls.append(image)
        if len(calls) == 1:
            assert pyvips.vips_lib.vips_foreign_find_load(b"/no/such/file") == pyvips.ffi.NULL
        return numpy(image)

    monkeypatch.setattr(pyvips.Image, "numpy", meanwhile)
    assert np.array_equal(read_picture(tiff_of(PIXELS, tile=TILE)).channels, PIXELS.transpose(2, 0, 1))
    assert len(calls) == 2


@pytest.mark.parametrize("compression", [12345, 34712, 50002])
def test_tiles_of_an_unknown_compression_do_not_become_black(compression):
    with pytest.raises(InputError, match=f"{compression}"):
        read_picture(with_tag(tiff_of(PIXELS, tile=TILE), 259, compression))


def test_tiles_of_a_compression_that_pillow_has_are_read_by_it():
    content = tiff_of(PIXELS, tile=TILE, compression="lzma")
    assert np.array_equal(read_picture(content).channels, PIXELS.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("photometric", "told"),
    [(4, "mask"), (5, "CMYK"), (8, "CIELAB"), (32803, "sensor"), (34892, "raw"), (51177, "51177")],
)
def test_other_colors_are_refused_by_name(photometric, told):
    for data in (PIXELS, PIXELS[..., 0]):
        content = tiff_of(data, photometric="rgb" if data.ndim == 3 else "minisblack")
        with pytest.raises(InputError, match=told):
            read_picture(with_tag(content, 262, photometric))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate"])
def test_luminance_and_chrominance_are_not_taken_for_rgb(compression):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert("YCbCr").save(buffer, "TIFF", compression=compression)
    with pytest.raises(InputError, match="YCbCr"):
        read_picture(buffer.getvalue())
    buffer = io.BytesIO()
    Image.fromarray(np.full_like(PIXELS, 90)).save(buffer, "TIFF", compression="jpeg")
    assert (read_picture(buffer.getvalue()).channels == 90).all()


def test_a_result_that_a_tiff_has_no_room_for_is_refused(monkeypatch):
    picture = read_picture(tiff_of(PIXELS))
    monkeypatch.setattr("mdrn_cli.tiffwriting._LARGEST", PIXELS.size // 2)
    with pytest.raises(MdrnError, match="does not fit the 4 GiB of a TIFF"):
        encode_picture(picture, "TIFF")
    monkeypatch.setattr("mdrn_cli.tiffwriting._LARGEST", 2 * PIXELS.size)
    assert np.array_equal(read_picture(encode_picture(picture, "TIFF")[0]).channels, PIXELS.transpose(2, 0, 1))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_stack_of_imagej_is_refused_however_its_slices_lie(order):
    """ImageJ writes one directory and the slices behind one another."""
    gray = PIXELS[..., 0]
    for count in (3, 2):
        about = f"ImageJ=1.53t\nimages={count}\nslices={count}\nloop=false\n"
        one = tiff_of(gray, photometric="minisblack", description=about, metadata=None, byteorder=order)
        with pytest.raises(InputError, match=f"{count} pages"):
            read_picture(one + gray.tobytes() * (count - 1))
    assert np.array_equal(read_picture(one).channels[0], gray), "one of them, as other programs save it"
    alone = tiff_of(gray, photometric="minisblack", description="ImageJ=1.53t\nimages=1\n", metadata=None)
    assert np.array_equal(read_picture(alone + gray.tobytes()).channels[0], gray)


def test_layouts_that_would_not_be_read_as_they_are():
    apart = np.ascontiguousarray(PIXELS.transpose(2, 0, 1))
    halves = (apart / 255).astype(np.float16)
    with pytest.raises(InputError, match="16 bits with the channels apart"):
        read_picture(tiff_of(halves, planarconfig="separate"))
    with pytest.raises(InputError, match="tiles of one channel"):
        read_picture(tiff_of(apart, planarconfig="separate", tile=TILE))
    assert np.array_equal(read_picture(tiff_of(apart, planarconfig="separate")).channels, apart)
    side_by_side = read_picture(tiff_of(np.ascontiguousarray(halves.transpose(1, 2, 0))))
    assert np.array_equal(side_by_side.channels, halves.astype(np.float32))


def test_bigtiff_is_read_or_refused_by_its_order():
    assert np.array_equal(read_picture(tiff_of(PIXELS, bigtiff=True)).channels, PIXELS.transpose(2, 0, 1))
    with pytest.raises(InputError, match="highest byte first"):
        read_picture(tiff_of(PIXELS, bigtiff=True, byteorder=">"))


@pytest.mark.parametrize(("value", "unit"), [(100_000, 2), (153_846, 3), (15.3846, 1), (300, 2)])
def test_a_resolution_of_any_unit_is_kept_in_tiff(value, unit):
    picture = read_picture(tiff_of(PIXELS, resolution=(value, 2 * value), resolutionunit=unit))
    content, warnings = encode_picture(picture, "TIFF")
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = file.pages[0].tags
        kept = [tags[name].value for name in ("XResolution", "YResolution")]
        assert [top / bottom for top, bottom in kept] == pytest.approx([value, 2 * value])
        assert tags["ResolutionUnit"].value == unit
    assert warnings == ()
    lost = {1: "shape of pixels, which are not square,", 2: "resolution", 3: "resolution"}[unit]
    assert encode_picture(picture, "PNG")[1] == (() if value == 300 else (f"PNG cannot hold the input's {lost}",))


def test_a_resolution_of_any_unit_is_turned_with_the_picture():
    content = tiff_of(PIXELS, resolution=(100_000, 200_000), resolutionunit=2, extratags=[(274, "H", 1, 6, True)])
    turned = read_picture(content).upright()
    assert turned.metadata.tiff_resolution == (200_000, 100_000, 2)


@pytest.mark.parametrize(("failing", "read"), [(deep.TRIES - 1, True), (deep.TRIES, False)])
def test_errors_that_other_threads_cause_are_not_taken_for_those_of_a_tiff(tmp_path, monkeypatch, failing, read):
    """libvips keeps all in one place; as many in a row as other threads hardly cause are the file's own."""
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 24, 3), np.uint16)
    pyvips.Image.new_from_array(pixels, interpretation="rgb16").write_to_file(str(tmp_path / "a.tif"))
    opened, left = deep._open, iter(range(failing))

    class BesideAFailure:
        def __init__(self, image):
            self.image = image

        def __getattr__(self, name):
            return getattr(self.image, name)

        def numpy(self):
            pyvips.vips_lib.vips_foreign_find_load(b"no such file")
            return self.image.numpy()

    def open_beside_failures(*arguments):
        image = opened(*arguments)
        return image if next(left, None) is None else BesideAFailure(image)

    monkeypatch.setattr(deep, "_open", open_beside_failures)
    if read:
        assert np.array_equal(deep.read_deep(tmp_path / "a.tif", "a.tif")[0], pixels)
    else:
        with pytest.raises(InputError, match="damaged"):
            deep.read_deep(tmp_path / "a.tif", "a.tif")
