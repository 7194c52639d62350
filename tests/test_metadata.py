"""What a file carries beside its pixels comes through every format, as far as the format holds it."""

import io

import numpy as np
import pytest
import pyvips
from PIL import ExifTags, Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from mdrn_cli.encoding import SaveOptions, encode_picture, format_of
from mdrn_cli.image import read_picture

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


def written(picture, path, options=None):
    content, warnings = encode_picture(picture, format_of(path), options)
    path.write_bytes(content)
    return warnings


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
    written(read_picture(jpeg), target)
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


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_carry_the_same(tmp_path, jpeg, suffix):
    deep = tmp_path / f"deep{suffix}"
    picture = read_picture(jpeg)
    written(type(picture)(picture.pixels, None, "uint16", picture.metadata), deep)
    again = tmp_path / f"again{suffix}"
    assert written(read_picture(deep), again) == ()
    for path in (deep, again):
        block = exif_of(path)
        assert camera_data(block) == camera_data(exif())
        image = pyvips.Image.new_from_file(str(path))
        assert image.format == "ushort"
        assert image.get("icc-profile-data") == PROFILE
        assert image.get("xmp-data") == XMP
        assert round(image.xres * 25.4) == 240


def test_a_tiff_keeps_its_iptc_and_text_beyond_ascii(tmp_path, jpeg):
    written(read_picture(jpeg), tmp_path / "a.tif")
    block = exif_of(tmp_path / "a.tif")
    assert block[34377] == IPTC.removeprefix(b"Photoshop 3.0\0")
    plain = Image.fromarray(GRADIENT)
    plain.save(tmp_path / "b.tif", tiffinfo={ExifTags.Base.Artist: "Zoë".encode()})
    written(read_picture(tmp_path / "b.tif"), tmp_path / "c.tif")
    assert "Zoë".encode() in (tmp_path / "c.tif").read_bytes()


def test_text_of_a_png_is_kept(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Title", "a cat")
    info.add_itxt("Author", "Zoë")
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", pnginfo=info)
    written(read_picture(tmp_path / "a.png"), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as file:
        assert file.text == {"Title": "a cat", "Author": "Zoë"}


def test_what_a_format_cannot_hold_is_told(tmp_path, jpeg):
    warnings = written(read_picture(jpeg), tmp_path / "b.bmp")
    assert {w.split("input's ")[1] for w in warnings} == {"icc profile", "exif", "xmp", "comment", "IPTC"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_without_exif_the_picture_is_upright(tmp_path, orientation):
    """As Pillow's own transposition has it."""
    from PIL import ImageOps

    with Image.fromarray(GRADIENT) as image:
        image.save(tmp_path / "a.png", exif=exif(orientation))
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    picture = read_picture(tmp_path / "a.png")
    written(picture, tmp_path / "b.bmp")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.bmp")), expected)
    written(picture, tmp_path / "c.png", SaveOptions(strip_metadata=True))
    with Image.open(tmp_path / "c.png") as stripped:
        assert np.array_equal(np.asarray(stripped), expected)
        assert not stripped.getexif()


def test_stripping_leaves_the_profile_alone(tmp_path, jpeg):
    written(read_picture(jpeg), tmp_path / "b.jpg", SaveOptions(strip_metadata=True))
    with Image.open(tmp_path / "b.jpg") as file:
        assert file.info["icc_profile"] == PROFILE
        assert not {"exif", "xmp", "comment"} & file.info.keys()
        assert not any(name == "APP13" for name, _ in file.applist)


def test_exif_too_large_for_jpeg_is_told(tmp_path):
    block = exif()
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = bytes(70_000)
    Image.fromarray(GRADIENT).save(tmp_path / "a.png", exif=block)
    warnings = written(read_picture(tmp_path / "a.png"), tmp_path / "b.jpg")
    assert warnings == ("JPEG cannot hold the input's exif",)


def test_a_profile_of_the_other_kind_is_dropped_with_a_warning(jpeg):
    gray = read_picture(jpeg).to_color("gray")
    assert gray.metadata.icc_profile == b""
    assert gray.metadata.exif
    assert "ICC profile" in gray.warnings[0]
