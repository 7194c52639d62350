"""What a file carries beside its pixels comes through every format, as far as the format holds it."""

import io
import struct
import zlib

import numpy as np
import pytest
import pyvips
from conftest import write_picture
from corpus import bad_exif, png
from PIL import ExifTags, Image, ImageCms, ImageOps, IptcImagePlugin, PngImagePlugin
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from mdrn_cli import webp
from mdrn_cli.encoding import SaveOptions, encode_picture
from mdrn_cli.exif import is_readable
from mdrn_cli.image import read_picture
from mdrn_cli.metadata import Metadata
from mdrn_cli.picture import Picture
from mdrn_cli.pixels import as_depth

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
IPTC = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x05\0\x03abc"
GRADIENT = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def exif(orientation: int = 6) -> Image.Exif:
    block = Image.Exif()
    block[ExifTags.Base.Make] = "a camera"
    block[ExifTags.Base.Orientation] = orientation
    camera = block.get_ifd(ExifTags.IFD.Exif)
    camera[ExifTags.Base.ExposureTime] = IFDRational(1, 250)
    camera[ExifTags.Base.DateTimeOriginal] = "2020:01:02 03:04:05"
    camera[ExifTags.Base.MakerNote] = b"secret of the maker"
    block.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return block


@pytest.fixture
def jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    segment = b"\xff\xed" + (len(IPTC) + 2).to_bytes(2, "big") + IPTC
    Image.fromarray(GRADIENT).save(
        path, exif=exif(), icc_profile=PROFILE, xmp=XMP, dpi=(240, 240), comment=b"hello", extra=segment
    )
    return path


def camera_data(block: Image.Exif) -> tuple:
    camera = block.get_ifd(ExifTags.IFD.Exif)
    return (
        block.get(ExifTags.Base.Make),
        block.get(ExifTags.Base.Orientation),
        float(camera[ExifTags.Base.ExposureTime]),
        camera[ExifTags.Base.DateTimeOriginal],
        camera[ExifTags.Base.MakerNote],
        block.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef],
    )


def exif_of(path) -> Image.Exif:
    """Read without our code; of a TIFF, as of any TIFF directory."""
    block = Image.Exif()
    if path.suffix == ".tif":
        block.load_from_fp(io.BytesIO(path.read_bytes()))
    else:
        with Image.open(path) as file:
            block.load(file.info["exif"])
    return block


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_everything_the_format_holds_is_kept(tmp_path, jpeg, suffix):
    target = tmp_path / f"b{suffix}"
    write_picture(read_picture(jpeg), target)
    assert camera_data(exif_of(target)) == camera_data(exif())
    image = pyvips.Image.new_from_file(str(target))
    assert (image.width, image.height) == (8, 6), "orientation is kept, not applied"
    with Image.open(target) as file:
        assert file.info["icc_profile"] == PROFILE
        assert file.info["xmp"] == XMP
        if suffix != ".webp":
            assert [round(v) for v in file.info["dpi"]] == [240, 240]
        if suffix == ".jpg":
            assert file.info["comment"] == b"hello"
            assert ("APP13", IPTC) in file.applist


WHITE = (IFDRational(3127, 10000), IFDRational(3290, 10000))
PRIMARIES = tuple(IFDRational(value, 100) for value in (64, 33, 30, 60, 15, 6))
CURVE = tuple(range(0, 65536, 257))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("source", [".jpg", ".tif"])
def test_what_a_directory_says_of_colors_and_of_the_computer_is_kept(tmp_path, source, suffix):
    block = Image.Exif()
    block.update({301: CURVE, 316: "a phone", 318: WHITE, 319: PRIMARIES})
    Image.fromarray(GRADIENT).save(tmp_path / f"a{source}", exif=block)
    target = tmp_path / f"b{suffix}"
    write_picture(read_picture(tmp_path / f"a{source}"), target)
    kept = exif_of(target)
    assert (kept[301], kept[316], kept[318], kept[319]) == (CURVE, "a phone", WHITE, PRIMARIES)


@pytest.mark.parametrize("mode", ["P", "1", "L"])
def test_a_curve_for_other_intensities_than_those_written_is_left_out(tmp_path, mode):
    image = Image.fromarray(GRADIENT).convert(mode)
    image.save(tmp_path / "a.tif", tiffinfo={301: CURVE, 316: "a phone"})
    write_picture(read_picture(tmp_path / "a.tif"), tmp_path / "b.tif")
    kept = exif_of(tmp_path / "b.tif")
    assert kept[316] == "a phone"
    assert (301 in kept) == (mode == "L")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_carry_the_same(tmp_path, jpeg, suffix):
    deep = tmp_path / f"deep{suffix}"
    picture = read_picture(jpeg)
    write_picture(type(picture)(picture.pixels, None, "uint16", picture.metadata), deep)
    again = tmp_path / f"again{suffix}"
    assert write_picture(read_picture(deep), again) == ()
    for path in (deep, again):
        block = exif_of(path)
        assert camera_data(block) == camera_data(exif())
        image = pyvips.Image.new_from_file(str(path))
        assert image.format == "ushort"
        assert image.get("icc-profile-data") == PROFILE
        assert image.get("xmp-data") == XMP
        assert round(image.xres * 25.4) == 240


def test_a_tiff_keeps_its_iptc_and_text_beyond_ascii(tmp_path, jpeg):
    write_picture(read_picture(jpeg), tmp_path / "a.tif")
    block = exif_of(tmp_path / "a.tif")
    assert block[34377] == IPTC.removeprefix(b"Photoshop 3.0\0")
    plain = Image.fromarray(GRADIENT)
    plain.save(tmp_path / "b.tif", tiffinfo={ExifTags.Base.Artist: "Zoë".encode()})
    write_picture(read_picture(tmp_path / "b.tif"), tmp_path / "c.tif")
    assert "Zoë".encode() in (tmp_path / "c.tif").read_bytes()


def test_iptc_of_a_tiff_is_found_in_a_jpeg(tmp_path):
    """As one of Photoshop's blocks, or in a tag of its own."""
    block = IPTC.removeprefix(b"Photoshop 3.0\0")
    alone = block[12 : 12 + 8]
    for tags in ({34377: block}, {33723: alone}, {34377: block, 33723: b"other"}):
        Image.fromarray(GRADIENT).save(tmp_path / "a.tif", tiffinfo=tags)
        for suffix in (".tif", ".jpg"):
            assert write_picture(read_picture(tmp_path / "a.tif"), tmp_path / f"b{suffix}") == ()
            assert exif_of(tmp_path / f"b{suffix}").items() >= tags.items()
        with Image.open(tmp_path / "b.jpg") as file:
            assert IptcImagePlugin.getiptcinfo(file) == {(2, 5): b"abc"}


def iptc_through_jpeg(folder, tag: int, given: bytes) -> tuple[bytes, bytes, tuple[str, ...]]:
    """What Photoshop's segments of a JPEG hold, and what they should, of a TIFF with such a tag; and warnings."""
    Image.fromarray(GRADIENT).save(folder / "a.tif", tiffinfo={tag: given})
    warnings = write_picture(read_picture(folder / "a.tif"), folder / "b.jpg")
    with Image.open(folder / "b.jpg") as file:
        parts = [content for name, content in file.applist if name == "APP13"]
    assert all(part.startswith(b"Photoshop 3.0\0") for part in parts)
    block = b"8BIM\x04\x04\0\0" + len(given).to_bytes(4, "big") + given + bytes(len(given) % 2)
    written = b"".join(part.removeprefix(b"Photoshop 3.0\0") for part in parts)
    return written, block if tag == 33723 else given, warnings


@pytest.mark.parametrize("tag", [33723, 34377])
@pytest.mark.parametrize("length", [9, 60_001, 65_490, 150_000])
def test_iptc_of_a_tiff_is_whole_in_a_jpeg_whatever_its_length(tmp_path, tag, length):
    """Photoshop's blocks have an even one."""
    written, expected, warnings = iptc_through_jpeg(tmp_path, tag, bytes(k % 251 for k in range(length)))
    assert (written, warnings) == (expected, ())


@pytest.mark.parametrize("keywords", [9, 100_000])
@pytest.mark.parametrize("others", [60, 100_000])
def test_iptc_beside_blocks_of_photoshop_without_it_is_whole_in_a_jpeg(tmp_path, keywords, others):
    alone, path = bytes(k % 251 for k in range(keywords)), bytes(others)
    blocks = b"8BIM\x03\xed\0\0" + len(path).to_bytes(4, "big") + path
    Image.fromarray(GRADIENT).save(tmp_path / "a.tif", tiffinfo={33723: alone, 34377: blocks})
    warnings = write_picture(read_picture(tmp_path / "a.tif"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as file:
        parts = [content for name, content in file.applist if name == "APP13"]
    block = b"8BIM\x04\x04\0\0" + len(alone).to_bytes(4, "big") + alone + bytes(len(alone) % 2)
    assert b"".join(part.removeprefix(b"Photoshop 3.0\0") for part in parts) == blocks + block
    assert warnings == ()


def tiff_with(path, tag, value, kind, count):
    """A TIFF whose tag of bytes is said to be of another type."""
    Image.fromarray(GRADIENT).save(path, tiffinfo={tag: value})
    entry = struct.pack("<HH", tag, 1 if tag in (700, 34377) else 7)
    content = path.read_bytes()
    assert content.count(entry) == 1
    at = content.index(entry)
    path.write_bytes(content[:at] + struct.pack("<HHI", tag, kind, count) + content[at + 8 :])
    return read_picture(path)


def test_iptc_of_a_tiff_may_be_said_to_be_numbers(tmp_path):
    """As many programs write it."""
    alone = IPTC[len(b"Photoshop 3.0\0") + 12 :][:8]
    picture = tiff_with(tmp_path / "a.tif", 33723, alone, 4, 2)
    for suffix in (".tif", ".jpg"):
        assert write_picture(picture, tmp_path / f"b{suffix}") == ()
        assert exif_of(tmp_path / f"b{suffix}")[33723] == alone
    with Image.open(tmp_path / "b.jpg") as file:
        assert IptcImagePlugin.getiptcinfo(file) == {(2, 5): b"abc"}


def test_a_tiffs_profile_that_is_said_to_be_a_number_is_no_longer_than_it_is(tmp_path):
    number = struct.pack("<I", 50_000_000)
    for tag, name in ((34675, "icc_profile"), (700, "xmp")):
        picture = tiff_with(tmp_path / "a.tif", tag, bytes(4), 4, 1)
        content = (tmp_path / "a.tif").read_bytes()
        at = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
        (tmp_path / "a.tif").write_bytes(content[:at] + number + content[at + 4 :])
        picture = read_picture(tmp_path / "a.tif")
        assert getattr(picture.metadata, name) == number


@pytest.mark.parametrize(
    ("kind", "count", "value"),
    [
        (4, 1, struct.pack("<I", 1000)),
        (9, 1, struct.pack("<i", -1)),
        (11, 1, struct.pack("<f", 0.5)),
        (3, 2, b"\0\1\0\2"),
        (2, 4, b"abc\0"),
    ],
)
def test_exif_whose_iptc_is_none_is_written_without(tmp_path, kind, count, value):
    entries = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag in (33723, 34377))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=exif)
    for suffix in (".tif", ".jpg", ".png"):
        write_picture(read_picture(tmp_path / "a.jpg"), tmp_path / f"b{suffix}")
        assert (tmp_path / f"b{suffix}").stat().st_size < 20_000
    assert not {33723, 34377} & {*exif_of(tmp_path / "b.tif")}


@pytest.mark.parametrize("name", bad_exif())
def test_whatever_is_readable_of_exif_keeps_no_file_from_being_written(name):
    exif = b"Exif\0\0" + bad_exif()[name]
    picture = Picture(GRADIENT.transpose(2, 0, 1), metadata=Metadata(exif=exif if is_readable(exif) else b""))
    for kind in ("TIFF", "JPEG", "PNG", "WEBP", "BMP"):
        encode_picture(picture, kind)


def test_what_a_tiff_has_of_the_picture_as_it_was_is_left_out(tmp_path):
    Image.fromarray(GRADIENT).save(
        tmp_path / "a.tif", tiffinfo={37724: b"Adobe Photoshop Document Data Block", 52545: b"c2"}
    )
    content, warnings = encode_picture(read_picture(tmp_path / "a.tif"), "TIFF")
    assert b"Document Data Block" not in content
    assert [warning.split()[2] for warning in warnings] == ["Photoshop", "C2PA"]


def test_chunks_of_webp_that_are_not_kept_are_told():
    buffer = io.BytesIO()
    Image.fromarray(GRADIENT).save(buffer, "WEBP", lossless=True, exif=exif(), icc_profile=PROFILE, xmp=XMP)
    assert read_picture(buffer.getvalue()).metadata.dropped == ()
    content = buffer.getvalue() + b"C2PA" + (3).to_bytes(4, "little") + b"abc\0"
    content = content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:]
    for behind in (b"", b"more" + bytes(400)):
        assert read_picture(content + behind).metadata.dropped == ("chunk C2PA",)


def test_what_lies_behind_a_webp_is_not_searched():
    """A hole of gigabytes in a file, a step for each eight bytes of which would take hours."""
    buffer = io.BytesIO()
    Image.fromarray(GRADIENT).save(buffer, "WEBP", lossless=True)
    size = len(buffer.getvalue())
    for content in (buffer.getvalue() + bytes(8000), buffer.getvalue()[:4] + b"\xff" * 4 + buffer.getvalue()[8:]):
        stream = io.BytesIO(content + bytes(8000))
        assert webp.read_unknown(stream) == ()
        assert stream.tell() <= size + 8


def test_exif_that_a_png_has_as_text_counts(tmp_path):
    """As ImageMagick wrote it before PNG had a chunk for it."""
    digits = exif(6).tobytes().hex()
    lines = "\n".join(digits[k : k + 72] for k in range(0, len(digits), 72))
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(digits) // 2:8}\n{lines}\n")
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", pnginfo=info)
    picture = read_picture(tmp_path / "a.png")
    assert (picture.metadata.orientation, picture.metadata.text) == (6, ())
    write_picture(picture, tmp_path / "b.jpg")
    assert camera_data(exif_of(tmp_path / "b.jpg")) == camera_data(exif(6))
    write_picture(picture, tmp_path / "c.png", SaveOptions(strip_metadata=True))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "c.png")), np.rot90(GRADIENT, -1))


def test_a_resolution_that_nobody_has_told_is_none(tmp_path):
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=exif())
    content = (tmp_path / "a.jpg").read_bytes()
    for given in (content, content[:2] + content[20:]):  # as cameras write it, without JFIF's segment
        assert read_picture(given).metadata.dpi is None
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=exif(), dpi=(72, 72))
    assert read_picture(tmp_path / "a.jpg").metadata.dpi == (72, 72)


@pytest.mark.parametrize("tag", [282, 283])
def test_a_resolution_that_exif_tells_for_one_side_is_for_both(tmp_path, tag):
    block = exif()
    block[tag] = 200.0
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=block)
    assert read_picture(tmp_path / "a.jpg").metadata.dpi == (200, 200)


@pytest.mark.parametrize(
    ("unit", "expected"), [(2, (200, 100, 2)), (None, (200, 100, 2)), (3, (508, 254, 2)), (1, (200, 100, 1))]
)
def test_a_resolution_that_exif_alone_tells_is_taken_as_it_tells_it(tmp_path, unit, expected):
    """Pillow takes that across for both, and any unit for inches."""
    block = exif(6)
    block[282], block[283] = 200.0, 100.0
    if unit:
        block[296] = unit
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=block)
    picture = read_picture(tmp_path / "a.jpg")
    assert write_picture(picture, tmp_path / "b.tif") == ()
    with Image.open(tmp_path / "b.tif") as file:
        assert tuple(round(file.tag_v2[tag]) for tag in (282, 283, 296)) == expected
    assert write_picture(picture, tmp_path / "c.jpg") == ()
    again = exif_of(tmp_path / "c.jpg")
    assert (again[282], again[283], again.get(296)) == (200, 100, unit)
    _, told = encode_picture(picture, "BMP")
    assert ("BMP cannot hold the input's shape of pixels, which are not square," in told) == (unit == 1)


def test_a_profile_for_gray_is_not_given_to_webp_which_has_colors_alone(tmp_path):
    Image.fromarray(GRADIENT[:, :, 0]).save(tmp_path / "a.png", icc_profile=PROFILE[:16] + b"GRAY" + PROFILE[20:])
    assert read_picture(tmp_path / "a.png").to_color("color").metadata.icc_profile == b""
    content, warnings = encode_picture(read_picture(tmp_path / "a.png"), "WEBP")
    assert "icc_profile" not in Image.open(io.BytesIO(content)).info
    assert warnings == ("WEBP cannot hold the input's ICC profile for gray",)


def test_webp_which_has_colors_alone_gets_the_profile_for_them_with_the_curve_of_one_for_gray():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    profile = with_curve(PROFILE, 1.8)
    gray = Picture(np.concatenate([ramp] * 3), metadata=Metadata(profile)).to_color("gray")
    content, warnings = encode_picture(gray, "WEBP")
    assert warnings == ()
    written_as = Image.open(io.BytesIO(content))
    expected = through(Image.fromarray(np.stack([ramp[0]] * 3, axis=2)), profile)
    assert np.abs(through(written_as, written_as.info["icc_profile"]) - expected).max() <= 1


def test_a_profile_for_colors_in_a_gray_picture_goes_where_colors_are(tmp_path):
    Image.fromarray(GRADIENT[:, :, 0]).save(tmp_path / "a.jpg", icc_profile=PROFILE)
    picture = read_picture(tmp_path / "a.jpg")
    content, warnings = encode_picture(picture, "WEBP")
    assert (Image.open(io.BytesIO(content)).info["icc_profile"], warnings) == (PROFILE, ())
    colored = picture.to_color("color")
    assert (colored.metadata.icc_profile, colored.warnings) == (PROFILE, ())


@pytest.mark.parametrize("bits", [8, 16])
def test_exif_behind_the_pixels_of_a_png_is_found(tmp_path, bits):
    write_picture(Picture(GRADIENT[None, :, :, 0].astype(f"uint{bits}"), None, f"uint{bits}"), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    block = exif().tobytes().removeprefix(b"Exif\0\0")
    end = content.index(b"IEND") - 4
    content = content[:end] + png((b"eXIf", block))[8:] + content[end:]
    picture = read_picture(content)
    assert picture.metadata.orientation == 6
    assert picture.warnings == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_xmp_of_any_encoding_is_text_in_png(tmp_path, encoding):
    packet = XMP.decode()
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    write_picture(
        Picture(GRADIENT.transpose(2, 0, 1), metadata=Metadata(xmp=(mark + packet).encode(encoding))),
        tmp_path / "a.png",
    )
    assert read_picture(tmp_path / "a.png").metadata.xmp.decode("utf-8-sig") == packet


def test_the_profile_within_a_bmp_is_kept(tmp_path):
    pixels = GRADIENT[::-1, :, ::-1].tobytes()
    start = 124 + len(pixels)
    header = struct.pack("<IiiHHIIiiII", 124, 8, 6, 1, 24, 0, len(pixels), 2835, 2835, 0, 0) + bytes(16) + b"DEBM"
    header += bytes(48) + struct.pack("<IIII", 4, start, len(PROFILE), 0)
    whole = struct.pack("<IHHI", 14 + start + len(PROFILE), 0, 0, 14 + 124) + header + pixels + PROFILE
    picture = read_picture(b"BM" + whole)
    assert np.array_equal(picture.channels, GRADIENT.transpose(2, 0, 1))
    assert picture.metadata.icc_profile == PROFILE
    assert write_picture(picture, tmp_path / "a.png") == ()
    assert write_picture(picture, tmp_path / "a.bmp") == ("BMP cannot hold the input's icc profile",)
    assert read_picture(b"BM" + whole[:-1]).metadata.icc_profile == b"", "of which a part is missing"
    assert read_picture(tmp_path / "a.bmp").metadata.icc_profile == b""


def test_bmp_tells_of_no_resolution_that_nobody_has_told(tmp_path):
    write_picture(Picture(GRADIENT.transpose(2, 0, 1)), tmp_path / "a.bmp")
    assert read_picture(tmp_path / "a.bmp").metadata.dpi is None


@pytest.mark.parametrize(("orientation", "expected"), [(1, (300, 150)), (3, (300, 150)), (6, (150, 300))])
def test_the_resolution_is_turned_with_the_picture(tmp_path, orientation, expected):
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=exif(orientation), dpi=(300, 150))
    write_picture(read_picture(tmp_path / "a.jpg"), tmp_path / "a.bmp")
    assert read_picture(tmp_path / "a.bmp").metadata.dpi == pytest.approx(expected, rel=0.01)


def test_exif_in_a_tiff_has_the_types_that_exif_says(tmp_path):
    """Pillow gives a tag that it does not know the type of its value."""
    block = exif()
    camera = block.get_ifd(ExifTags.IFD.Exif)
    camera[ExifTags.Base.UserComment] = b"ASCII\0\0\0hello"
    camera[ExifTags.Base.ExposureBiasValue] = IFDRational(1, 3)
    camera[ExifTags.Base.DeviceSettingDescription] = b"\0\1\0\1\xfe\xffA\0"
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=block)
    write_picture(read_picture(tmp_path / "a.jpg"), tmp_path / "b.tif")
    write_picture(read_picture(tmp_path / "b.tif"), tmp_path / "c.jpg")
    with Image.open(tmp_path / "c.jpg") as file:
        inside = file.info["exif"].removeprefix(b"Exif\0\0")
    for content in ((tmp_path / "b.tif").read_bytes(), inside):
        expected = {"MakerNote": 7, "UserComment": 7, "ExposureBiasValue": 10, "ExposureTime": 5}
        assert types_of_exif(content) == expected | {"DeviceSettingDescription": 7}
    assert camera_data(exif_of(tmp_path / "b.tif")) == camera_data(exif())


def types_of_exif(content: bytes) -> dict[str, int]:
    """Of some tags in the camera's directory of a TIFF, little-endian or not."""
    order = "<" if content.startswith(b"II") else ">"

    def entries(at: int):
        (count,) = struct.unpack_from(f"{order}H", content, at)
        return [struct.unpack_from(f"{order}HHLL", content, at + 2 + 12 * n) for n in range(count)]

    (first,) = struct.unpack_from(f"{order}L", content, 4)
    (camera,) = [value for tag, _, _, value in entries(first) if tag == ExifTags.IFD.Exif]
    names = ("MakerNote", "UserComment", "ExposureBiasValue", "ExposureTime", "DeviceSettingDescription")
    known = {name: ExifTags.Base[name] for name in names}
    types = {tag: kind for tag, kind, _, _ in entries(camera)}
    return {name: types[tag] for name, tag in known.items()}


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_a_thumbnail_that_tiff_does_not_take_is_told(kind):
    first = exif().tobytes().removeprefix(b"Exif\0\0")
    link = 10 + 12 * int.from_bytes(first[8:10], "big")  # where it says where the next directory is
    second = struct.pack(">HHHLHHL", 1, ExifTags.Base.Compression, 3, 1, 6, 0, 0)
    with_second = b"Exif\0\0" + first[:link] + len(first).to_bytes(4, "big") + first[link + 4 :] + second
    picture = Picture(GRADIENT.transpose(2, 0, 1), metadata=Metadata(exif=with_second))
    _, warnings = encode_picture(picture, kind)
    assert ("TIFF cannot hold the input's EXIF thumbnail" in warnings) == (kind == "TIFF")


def test_text_of_a_png_is_kept(tmp_path):
    info = PngInfo()
    info.add_text("Title", "a cat")
    info.add_itxt("Author", "Zoë", lang="nl", tkey="Auteur")
    info.add_text("Comment", "déjà vu")
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", pnginfo=info)
    write_picture(read_picture(tmp_path / "a.png"), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as file:
        assert file.text == {"Title": "a cat", "Author": "Zoë", "Comment": "déjà vu"}
        assert (file.text["Author"].lang, file.text["Author"].tkey) == ("nl", "Auteur")


def test_what_a_format_cannot_hold_is_told(tmp_path, jpeg):
    warnings = write_picture(read_picture(jpeg), tmp_path / "b.bmp")
    assert {w.split("input's ")[1] for w in warnings} == {"icc profile", "exif", "xmp", "comment", "IPTC"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_without_exif_the_picture_is_upright(tmp_path, orientation):
    """As Pillow's own transposition has it."""
    with Image.fromarray(GRADIENT) as image:
        image.save(tmp_path / "a.png", exif=exif(orientation))
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    picture = read_picture(tmp_path / "a.png")
    write_picture(picture, tmp_path / "b.bmp")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.bmp")), expected)
    write_picture(picture, tmp_path / "c.png", SaveOptions(strip_metadata=True))
    with Image.open(tmp_path / "c.png") as stripped:
        assert np.array_equal(np.asarray(stripped), expected)
        assert not stripped.getexif()


def test_stripping_leaves_the_profile_alone(tmp_path, jpeg):
    write_picture(read_picture(jpeg), tmp_path / "b.jpg", SaveOptions(strip_metadata=True))
    with Image.open(tmp_path / "b.jpg") as file:
        assert file.info["icc_profile"] == PROFILE
        assert not {"exif", "xmp", "comment"} & file.info.keys()
        assert not any(name == "APP13" for name, _ in file.applist)


@pytest.mark.parametrize("start", [b"", b"Exif\0\0", b"Exif\0\0Exif\0\0"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_of_webp_is_kept_however_it_starts(tmp_path, suffix, start):
    raw = exif().tobytes().removeprefix(b"Exif\0\0")
    plain = Image.fromarray(GRADIENT)
    plain.save(tmp_path / "a.webp", lossless=True, exif=b"Exif\0\0" + start + raw)  # Pillow takes one off
    assert start + raw in (tmp_path / "a.webp").read_bytes()
    assert write_picture(read_picture(tmp_path / "a.webp"), tmp_path / f"b{suffix}") == ()
    assert camera_data(exif_of(tmp_path / f"b{suffix}")) == camera_data(exif())


def test_exif_too_large_for_jpeg_loses_what_is_largest(tmp_path):
    block = exif()
    block[ExifTags.Base.Artist] = "Zo\xeb"  # beyond ASCII
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = bytes(70_000)
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.SpectralSensitivity] = b"x" * 5_000
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", exif=block)
    picture = read_picture(tmp_path / "a.png")
    assert write_picture(picture, tmp_path / "b.jpg") == ("JPEG cannot hold the input's EXIF tag 37510",)
    assert camera_data(exif_of(tmp_path / "b.jpg")) == camera_data(exif())
    assert len(exif_of(tmp_path / "b.jpg").get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.SpectralSensitivity]) == 5_000
    with Image.open(tmp_path / "b.jpg") as turned:
        assert turned.size == (8, 6), "orientation is kept, not applied"


def test_photoshop_s_block_in_a_tiff_makes_way_for_the_camera_s(tmp_path):
    tags = ImageFileDirectory_v2()
    tags[271], tags[274], tags[34377], tags[50_000] = "a camera", 6, bytes(50_000), bytes(60_000)
    Image.fromarray(GRADIENT).save(tmp_path / "a.tif", tiffinfo=tags)
    warnings = write_picture(read_picture(tmp_path / "a.tif"), tmp_path / "b.jpg")
    assert warnings == ()
    with Image.open(tmp_path / "b.jpg") as file:
        assert file.applist[-1] == ("APP13", b"Photoshop 3.0\0" + bytes(50_000))
    kept = exif_of(tmp_path / "b.jpg")
    assert 34377 not in kept
    assert (kept[271], kept[274], len(kept[50_000])) == ("a camera", 6, 60_000)


def test_where_exif_cannot_be_kept_at_all_the_picture_is_upright(tmp_path):
    block = exif(6)
    for tag in range(50_000, 50_060):
        block[tag] = bytes(3_000)
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", exif=block)
    assert write_picture(read_picture(tmp_path / "a.png"), tmp_path / "b.jpg") == ("JPEG cannot hold the input's exif",)
    with Image.open(tmp_path / "b.jpg") as upright:
        assert upright.size == (6, 8)
        assert not upright.getexif()


def chunks_of(content: bytes) -> list[tuple[bytes, bytes]]:
    """Type and content of a PNG's chunks, checksums looked at."""
    found, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert content[at + 8 + length : at + 12 + length] == struct.pack(">I", zlib.crc32(kind + data))
        found.append((kind, data))
        at += 12 + length
    return found


def carried(content: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks beside the pixels, all of which must lie before them."""
    chunks = chunks_of(content)
    kinds = [kind for kind, _ in chunks]
    assert (kinds[0], kinds[-1]) == (b"IHDR", b"IEND")
    assert set(kinds[kinds.index(b"IDAT") : -1]) == {b"IDAT"}
    return [chunk for chunk in chunks if chunk[0] not in (b"IHDR", b"IDAT", b"IEND")]


def camera_exif() -> bytes:
    """As libexif, which libvips has, would change it: a rating, an unknown tag, a maker note of a known maker."""
    block = exif()
    block[ExifTags.Base.Make], block[18246], block[50_000] = "Canon", 4, 7
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"MAKERNOTE" * 50
    return block.tobytes()


PROFILED = Metadata(PROFILE, camera_exif(), XMP, (240.0, 240.0), (("Title", "a cat"), ("Author", "Bj\xf6rk \u2603")))


@pytest.mark.parametrize("metadata", [Metadata(), PROFILED], ids=["bare", "full"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_of_sixteen_bits_carries_exactly_what_one_of_eight_does(metadata, channels):
    contents = []
    for depth in ("uint8", "uint16"):
        content, warnings = encode_picture(Picture(np.ones((channels, 9, 7), depth), None, depth, metadata), "PNG")
        assert warnings == ()
        contents.append(carried(content))
        assert read_picture(content).depth == depth
        assert read_picture(content).metadata.exif == metadata.exif
    assert contents[0] == contents[1]
    assert [kind for kind, _ in contents[0]] == (
        [b"iCCP", b"tEXt", b"iTXt", b"iTXt", b"pHYs", b"eXIf"] if metadata.exif else []
    )


COLORS = {
    b"gAMA": struct.pack(">I", 100_000),
    b"cHRM": struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),
    b"sRGB": b"\0",
    b"cICP": bytes((9, 16, 0, 1)),
    b"mDCV": bytes(range(24)),
    b"cLLI": bytes(range(8)),
}


def colored(bits: int, *chunks: tuple[bytes, bytes], behind: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PNG of 4x3 pixels of 8 or 16 bits with these chunks before its pixels, and others behind them."""
    header = struct.pack(">IIBBBBB", 4, 3, bits, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(4 * 3 * bits // 8)) * 3)
    return png((b"IHDR", header), *chunks, (b"IDAT", rows), *behind, (b"IEND", b""))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_keeps_what_says_how_its_colors_are_meant(bits):
    picture = read_picture(colored(bits, *COLORS.items()))
    for options in (SaveOptions(), SaveOptions(strip_metadata=True)):
        content, warnings = encode_picture(picture, "PNG", options)
        assert warnings == ()
        assert carried(content) == [*COLORS.items()]


@pytest.mark.parametrize("bits", [8, 16])
def test_beside_a_profile_there_is_no_srgb_chunk(bits):
    profile = (b"iCCP", b"p\0\0" + zlib.compress(PROFILE))
    picture = read_picture(colored(bits, (b"sRGB", b"\0"), profile, (b"gAMA", COLORS[b"gAMA"])))
    kept = carried(encode_picture(picture, "PNG")[0])
    assert [kind for kind, _ in kept] == [b"gAMA", b"iCCP"]


@pytest.mark.parametrize("bits", [8, 16])
def test_color_chunks_out_of_order_are_passed_over(bits):
    for kind, data in COLORS.items():
        # Pillow before 13 opens nothing with a cHRM that is not of whole numbers.
        content = encode_picture(read_picture(colored(bits, (kind, data + b"more"))), "PNG")[0]
        assert carried(content) == [], kind
    for kind in (b"cICP", b"mDCV", b"cLLI"):
        assert carried(encode_picture(read_picture(colored(bits, (kind, b""))), "PNG")[0]) == []
    late = colored(bits, behind=((b"cICP", COLORS[b"cICP"]),))
    assert carried(encode_picture(read_picture(late), "PNG")[0]) == []
    twice = colored(bits, (b"cICP", bytes((1, 13, 0, 1))), (b"cICP", COLORS[b"cICP"]))
    assert carried(encode_picture(read_picture(twice), "PNG")[0]) == [(b"cICP", bytes((1, 13, 0, 1)))]


SRGB_PRIMARIES = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


@pytest.mark.parametrize(
    ("chunks", "told"),
    [
        ({}, []),
        ({b"gAMA": COLORS[b"gAMA"]}, ["gAMA"]),
        ({b"cHRM": COLORS[b"cHRM"]}, ["cHRM"]),
        ({b"gAMA": COLORS[b"gAMA"], b"cHRM": COLORS[b"cHRM"]}, ["gAMA", "cHRM"]),
        ({b"gAMA": struct.pack(">I", 45_455), b"cHRM": SRGB_PRIMARIES}, []),
        ({b"gAMA": COLORS[b"gAMA"], b"sRGB": b"\0"}, []),
        ({b"gAMA": COLORS[b"gAMA"], b"sRGB": b"\x09"}, ["gAMA"]),  # no intent there is
        ({b"cICP": COLORS[b"cICP"]}, ["cICP"]),
        ({b"cICP": bytes((1, 13, 0, 1)), b"gAMA": COLORS[b"gAMA"]}, []),
        ({b"gAMA": COLORS[b"gAMA"], b"iCCP": b"p\0\0" + zlib.compress(PROFILE)}, []),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
def test_colors_that_another_format_would_change_are_told(kind, chunks, told):
    warnings = encode_picture(read_picture(colored(8, *chunks.items())), kind)[1]
    assert warnings == tuple(f"{kind} cannot hold the input's {name}, without which colors change" for name in told)


def test_a_bmp_loses_what_stands_behind_a_profile_with_the_profile():
    """Which it cannot hold either."""
    chunks = {b"gAMA": COLORS[b"gAMA"], b"iCCP": b"p\0\0" + zlib.compress(PROFILE)}
    warnings = encode_picture(read_picture(colored(8, *chunks.items())), "BMP")[1]
    assert warnings == tuple(
        f"BMP cannot hold the input's {name}" for name in ("icc profile", "gAMA, without which colors change")
    )


def exif_with_interoperability(offset: int | None = None) -> bytes:
    """By hand: Pillow would not write what is where."""
    camera = 8 + 2 + 12 + 4
    inner = camera + 2 + 24 + 4
    first = struct.pack("<HHHIII", 1, ExifTags.IFD.Exif, 4, 1, camera, 0)
    second = struct.pack("<HHHIHHHHIII", 2, 0xA001, 3, 1, 1, 0, 0xA005, 4, 1, inner if offset is None else offset, 0)
    third = struct.pack("<HHHI4sHHI4sI", 2, 1, 2, 4, b"R98\0", 2, 7, 4, b"0100", 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + third


@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png", ".webp"])
def test_the_directory_of_interoperability_comes_along(tmp_path, suffix):
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=exif_with_interoperability())
    assert write_picture(read_picture(tmp_path / "a.jpg"), tmp_path / "b.tif") == ()
    target = tmp_path / f"c{suffix}"
    write_picture(read_picture(tmp_path / "b.tif"), target)
    for path in (tmp_path / "b.tif", target):
        block = exif_of(path)
        assert block.get_ifd(ExifTags.IFD.Interop) == {1: "R98", 2: b"0100"}
        assert block.get_ifd(ExifTags.IFD.Exif)[0xA001] == 1


@pytest.mark.parametrize("offset", [0, 2**31, 100])
def test_one_that_is_nowhere_is_left_out(tmp_path, offset):
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=exif_with_interoperability(offset))
    write_picture(read_picture(tmp_path / "a.jpg"), tmp_path / "b.tif")
    camera = exif_of(tmp_path / "b.tif").get_ifd(ExifTags.IFD.Exif)
    assert camera[0xA001] == 1
    assert 0xA005 not in camera or camera[0xA005] < (tmp_path / "b.tif").stat().st_size


def test_a_resolution_that_webp_cannot_hold_is_told(tmp_path):
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", dpi=(240, 240))
    told = write_picture(read_picture(tmp_path / "a.png"), tmp_path / "b.webp")
    assert told == ("WEBP cannot hold the input's resolution",)
    block = exif()
    block[282], block[283], block[296] = 240.0, 240.0, 2
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", dpi=(240, 240), exif=block)
    assert write_picture(read_picture(tmp_path / "a.png"), tmp_path / "b.webp") == (), "EXIF has it"


def through(image: Image.Image, profile: bytes) -> np.ndarray:
    """As LittleCMS shows it on a screen of sRGB."""
    screen = ImageCms.createProfile("sRGB")
    flags = ImageCms.Flags.NOOPTIMIZE  # which is far off in the dark of linear curves
    shown = ImageCms.profileToProfile(image, io.BytesIO(profile), screen, outputMode="RGB", flags=flags)
    assert shown is not None
    return np.asarray(shown).astype(int)


def with_curve(profile: bytes, gamma: float) -> bytes:
    """The same with another curve in the place of its own."""
    curve = b"curv" + bytes(4) + (1).to_bytes(4, "big") + round(gamma * 256).to_bytes(2, "big")
    count = int.from_bytes(profile[128:132], "big")
    for at in range(132, 132 + 12 * count, 12):
        if profile[at : at + 4].endswith(b"TRC"):
            profile = profile[: at + 4] + struct.pack(">II", len(profile), len(curve)) + profile[at + 12 :]
    whole = profile + curve + bytes(-len(curve) % 4)
    return len(whole).to_bytes(4, "big") + whole[4:]


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_a_picture_made_gray_or_color_is_as_bright_as_its_profile_says(gamma):
    """Linear intensities without a profile would be shown far too dark."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    profile = with_curve(PROFILE, gamma)
    gray = Picture(np.stack([ramp] * 3), metadata=Metadata(profile, exif=exif().tobytes())).to_color("gray")
    assert gray.warnings == ()
    assert gray.metadata.exif
    assert gray.metadata.profile_color == "gray"
    expected = through(Image.fromarray(np.stack([ramp] * 3, axis=2)), profile)
    shown = through(Image.fromarray(as_depth(gray.channels[0], "uint8")), gray.metadata.icc_profile)
    assert np.abs(shown - expected).max() <= 1
    color = gray.to_color("color")
    assert color.warnings == ()
    again = through(Image.fromarray(as_depth(color.channels, "uint8").transpose(1, 2, 0)), color.metadata.icc_profile)
    assert np.abs(again - expected).max() <= 1


@pytest.mark.parametrize("profile", [PROFILE[:20] + b"Lab " + PROFILE[24:], PROFILE[:140], b"no profile at all"])
def test_a_profile_of_the_other_kind_that_has_no_one_curve_is_dropped_with_a_warning(profile):
    gray = Picture(GRADIENT.transpose(2, 0, 1), metadata=Metadata(profile)).to_color("gray")
    assert gray.metadata.icc_profile == b""
    assert "ICC profile" in gray.warnings[0]


@pytest.mark.parametrize("table", [b"A2B0", b"A2B1", b"D2B3"])
def test_tables_of_a_profile_count_before_its_curves(table):
    profile = PROFILE.replace(b"cprt", table, 1)
    gray = Picture(GRADIENT.transpose(2, 0, 1), metadata=Metadata(profile)).to_color("gray")
    assert (gray.metadata.icc_profile, len(gray.warnings)) == (b"", 1)
    at = profile.index(table) + 4  # and one that is large is a table, too
    large = profile[:at] + struct.pack(">II", len(profile), 2 << 20) + profile[at + 8 :] + bytes(2 << 20)
    assert Picture(GRADIENT.transpose(2, 0, 1), metadata=Metadata(large)).to_color("gray").metadata.icc_profile == b""


def test_a_profile_as_large_as_those_of_printers_stays_in_a_png(tmp_path):
    """Pillow alone takes no more than a mebibyte."""
    profile = PROFILE + np.random.default_rng(0).bytes(2_000_000)
    metadata = Metadata(profile, text=(("Comment", "x" * 2_000_000),))
    (told,) = write_picture(Picture(GRADIENT.transpose(2, 0, 1), metadata=metadata), tmp_path / "a.png")
    assert "may refuse" in told
    limit = PngImagePlugin.MAX_TEXT_CHUNK
    read = read_picture(tmp_path / "a.png").metadata
    assert (read.icc_profile, read.text) == (profile, metadata.text)
    assert limit == PngImagePlugin.MAX_TEXT_CHUNK < len(profile)


def test_a_profile_of_which_a_part_is_missing_is_told(tmp_path):
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", icc_profile=PROFILE)
    content = (tmp_path / "a.jpg").read_bytes()
    cut = content.replace(b"ICC_PROFILE\0\x01\x01", b"ICC_PROFILE\0\x01\x02")
    picture = read_picture(cut)
    assert (picture.metadata.icc_profile, picture.warnings) == (b"", ("the ICC profile is damaged and left out",))


def test_adobe_rgb_that_exif_alone_tells_does_not_go_in_silence(tmp_path):
    block = exif(1)
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 65535
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03"}
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=block)
    picture = read_picture(tmp_path / "a.jpg")
    for kind, options, expected in (("JPEG", {}, 0), ("JPEG", {"strip_metadata": True}, 1), ("BMP", {}, 1)):
        _, warnings = encode_picture(picture, kind, SaveOptions(**options))
        assert sum("Adobe RGB" in warning for warning in warnings) == expected
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 1
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=block)
    assert not encode_picture(read_picture(tmp_path / "a.jpg"), "JPEG", SaveOptions(strip_metadata=True))[1]


def test_pixels_that_are_not_square_are_told_of():
    jpeg = io.BytesIO()
    Image.new("RGB", (20, 20)).save(jpeg, "JPEG")
    content = jpeg.getvalue()
    density = content.index(b"JFIF\0") + 7
    wide = content[:density] + b"\0\0\2\0\1" + content[density + 5 :]
    png = io.BytesIO()
    Image.new("RGB", (20, 20)).save(png, "PNG")
    after_header = 33
    chunk = b"pHYs" + bytes((0, 0, 0, 3, 0, 0, 0, 2, 0))
    framed = b"\0\0\0\x09" + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    tall = png.getvalue()[:after_header] + framed + png.getvalue()[after_header:]
    for odd, even in ((wide, content), (tall, png.getvalue())):
        assert read_picture(odd).warnings == ("pixels that are not square are not kept as such",)
        assert read_picture(even).warnings == ()


def test_text_and_comments_that_a_tiff_cannot_hold_are_told(tmp_path, jpeg):
    info = PngInfo()
    info.add_text("Title", "a cat")
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", pnginfo=info)
    assert write_picture(read_picture(tmp_path / "a.png"), tmp_path / "b.tif") == ("TIFF cannot hold the input's text",)
    assert write_picture(read_picture(jpeg), tmp_path / "c.tif") == ("TIFF cannot hold the input's comment",)


@pytest.mark.parametrize("bits", [8, 16])
def test_texts_of_one_key_are_all_kept(bits):
    languages = [
        (b"iTXt", b"Title\0\0\0" + tag + b"\0" + tag + b"\0" + text)
        for tag, text in ((b"en", b"a cat"), (b"nl", b"een kat"))
    ]
    titles = [(b"tEXt", b"Title\0first"), (b"zTXt", b"Title\0\0" + zlib.compress(b"second")), *languages]
    late, odd = (b"tEXt", b"Author\0one"), [(b"tEXt", b"\0no key"), (b"tEXt", b"no text")]
    content = colored(bits, *titles, late, *odd, behind=((b"tEXt", b"Author\0two"),))
    picture = read_picture(content)
    assert len(picture.metadata.repeated_texts) == 4
    result, warnings = encode_picture(picture, "PNG")
    assert warnings == ()
    kept = [chunk for chunk in carried(result) if chunk[0].endswith(b"Xt")]
    assert [content.split(b"\0")[0] for _, content in kept].count(b"Title") == 4
    assert kept[:4] == [*titles[:3], late], "in their order, as they were"
    assert (b"tEXt", b"Author\0two") in kept
    assert languages[1] in kept, "Pillow has the last"
    stripped, _ = encode_picture(picture, "PNG", SaveOptions(strip_metadata=True))
    assert carried(stripped) == []


def test_chunks_that_are_not_kept_are_told():
    private = [(b"prVt", b"x"), (b"caBX", b"y"), (b"prVt", b"z")]
    silent = [(b"tIME", bytes(7)), (b"bKGD", bytes(6))]
    picture = read_picture(colored(8, *private, *silent, behind=((b"laTe", b""),)))
    told = tuple(f"the input's chunk {kind} is not kept" for kind in ("prVt", "caBX", "laTe"))
    for kind in ("PNG", "TIFF", "JPEG"):
        assert encode_picture(picture, kind)[1] == told
    assert encode_picture(picture, "PNG", SaveOptions(strip_metadata=True))[1] == ()
    many = [(bytes((112, 114, 86, 97 + k)), b"") for k in range(20)]
    assert len(read_picture(colored(8, *many)).metadata.dropped) == 8


EXTENDED = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40 + b"<x/>"


def with_segments(tmp_path, *segments: tuple[int, bytes]) -> Picture:
    """A JPEG with these segments (marker, content)."""
    extra = b"".join(bytes((0xFF, kind)) + (len(data) + 2).to_bytes(2, "big") + data for kind, data in segments)
    Image.fromarray(GRADIENT).save(tmp_path / "s.jpg", extra=extra)
    return read_picture(tmp_path / "s.jpg")


def test_a_jpeg_keeps_all_its_comments_and_app12(tmp_path):
    picture = with_segments(tmp_path, (0xFE, b"one"), (0xEC, b"a camera of 1998"), (0xFE, b"two"), (0xFE, b"three"))
    assert write_picture(picture, tmp_path / "b.jpg") == ()
    with Image.open(tmp_path / "b.jpg") as file:
        assert [content for kind, content in file.applist if kind == "COM"] == [b"one", b"two", b"three"]
        assert ("APP12", b"a camera of 1998") in file.applist
    told = encode_picture(picture, "PNG")[1]
    assert told == ("PNG cannot hold the input's comment", "PNG cannot hold the input's segment APP12")


def test_segments_that_are_not_kept_are_told(tmp_path):
    picture = with_segments(
        tmp_path, (0xEB, b"JP\0\x01"), (0xE5, b"?"), (0xEC, b"Ducky\0"), (0xEE, b"Adobe\0d" + bytes(5))
    )
    told = ("the input's segment APP11 (C2PA or another JUMBF) is not kept", "the input's segment APP5 is not kept")
    for kind in ("JPEG", "PNG", "TIFF"):
        assert encode_picture(picture, kind)[1] == told
    assert encode_picture(picture, "JPEG", SaveOptions(strip_metadata=True))[1] == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_extended_xmp_is_lost_by_other_formats_and_told(tmp_path, kind):
    picture = with_segments(tmp_path, (0xE1, EXTENDED))
    assert encode_picture(picture, kind)[1] == (f"{kind} cannot hold the input's extended XMP",)
    assert EXTENDED in encode_picture(picture, "JPEG")[0]


def test_iptc_in_several_segments_is_one_in_tiff(tmp_path):
    more = b"Photoshop 3.0\x00" + b"8BIM\x04\x05\0\0\0\0\0\0"
    write_picture(with_segments(tmp_path, (0xED, IPTC), (0xED, more)), tmp_path / "b.tif")
    assert exif_of(tmp_path / "b.tif")[34377] == IPTC.removeprefix(b"Photoshop 3.0\0") + more.removeprefix(
        b"Photoshop 3.0\0"
    )
