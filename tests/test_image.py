"""What a file carries survives; what is not handled is refused by name."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from mdrn_cli.errors import InputError, UsageError
from mdrn_cli.image import Picture, encode_picture, find_images, format_of, read_picture, read_uint8


def write_picture(path, picture):
    path.write_bytes(encode_picture(picture, format_of(path)))


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
    write_picture(tmp_path / f"b{suffix}", picture)
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
    write_picture(tmp_path / "a.jpg", picture)
    with Image.open(tmp_path / "a.jpg") as back:
        assert all(layer[1:3] == (1, 1) for layer in back.layer)
        assert np.abs(np.asarray(back).astype(int) - photo[:64, :64]).mean() < 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_profile_exif_and_resolution_are_kept_and_orientation_is_not_applied(tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    make("RGB").save(tmp_path / f"a{suffix}", icc_profile=profile, exif=exif, dpi=(300, 300))
    write_picture(tmp_path / f"b{suffix}", read_picture(tmp_path / f"a{suffix}"))
    with Image.open(tmp_path / f"b{suffix}") as back:
        assert back.size == (17, 13)
        assert back.info["icc_profile"] == profile
        assert back.getexif()[0x0112] == 6
        assert back.getexif()[0x010F] == "a camera"
        if suffix != ".webp":
            assert back.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def sixteen_bit_rgb(path):
    """A 16-bit RGB PNG, written by hand: Pillow cannot."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes(6 * 4) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def kinds_not_handled(tmp_path):
    sixteen_bit_rgb(tmp_path / "rgb16.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "gray16.png")
    Image.new("P", (4, 4)).save(tmp_path / "palette.png")
    Image.new("1", (4, 4)).save(tmp_path / "bits.png")
    Image.new("CMYK", (4, 4)).save(tmp_path / "cmyk.jpg")
    Image.new("F", (4, 4)).save(tmp_path / "float.tif")
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "animated.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    return sorted(path for path in tmp_path.iterdir() if path.is_file())


def test_kinds_not_handled_are_refused_never_converted(tmp_path):
    files = kinds_not_handled(tmp_path)
    assert len(files) == 8
    for file in files:
        with pytest.raises(InputError, match=r"16-bit|of mode|frames"):
            read_picture(file)


def test_missing_foreign_truncated_and_empty_files_are_told_apart(tmp_path):
    make("RGB").resize((200, 200)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    for name, message in (("none", "no file"), ("cut", "damaged"), ("empty", "not an image"), ("text", "not an image")):
        for read in (read_picture, lambda path: read_uint8(path, "gray")):
            with pytest.raises(InputError, match=message):
                read(tmp_path / f"{name}.png")
    with pytest.raises(InputError):
        read_picture(tmp_path)


def test_an_output_format_that_will_not_do_is_refused(tmp_path):
    assert format_of(tmp_path / "a.JPG") == "JPEG"
    with pytest.raises(UsageError, match="format"):
        format_of(tmp_path / "a.xyz")
    make("RGBA").save(tmp_path / "a.png")
    for kind in ("JPEG", "BMP"):
        with pytest.raises(UsageError, match="transparency"):
            encode_picture(read_picture(tmp_path / "a.png"), kind)


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
