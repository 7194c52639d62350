"""The installed command on a file of every mode, in a shell; what comes out is read by others than ourselves.

With --strength 0 the result is the input, so any loss on the way is seen to the bit.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

HEIGHT, WIDTH = 26, 34
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
BANDS = {"gray": 1, "gray-alpha": 2, "rgb": 3, "rgba": 4}
SHELL_COMMAND = "{mdrn} denoise -r in -o out --sigma 25 --strength 0 --json > results.ndjson"


def pixels(kind: str, dtype: str) -> np.ndarray:
    values = np.random.default_rng(len(kind)).random((HEIGHT, WIDTH, BANDS[kind]))
    return values.astype(dtype) if dtype == "float32" else (values * np.iinfo(dtype).max).astype(dtype)


def with_metadata(image: pyvips.Image, kind: str) -> pyvips.Image:
    """Profile, camera, orientation, XMP and 240 dots an inch."""
    image = image.copy(xres=240 / 25.4, yres=240 / 25.4)
    if kind.startswith("rgb"):
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", ICC)
    image.set_type(pyvips.GValue.blob_type, "xmp-data", XMP)
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Make", "a camera (a camera, ASCII, 9 components, 9 bytes)")
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    return image


ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def make_inputs(folder: Path) -> None:
    """Files of every depth and channels, written by libvips; palettes and single bits by Pillow."""
    folder.mkdir()
    for kind in BANDS:
        for dtype, suffixes in (("uint8", (".png", ".tif")), ("uint16", (".png", ".tif")), ("float32", (".tif",))):
            image = pyvips.Image.new_from_array(pixels(kind, dtype))
            if dtype == "uint16":
                image = image.copy(interpretation="rgb16" if kind.startswith("rgb") else "grey16")
            for suffix in suffixes:
                with_metadata(image, kind).write_to_file(str(folder / f"{kind}-{dtype}{suffix}"))
    for kind in ("rgb", "rgba"):
        image = pyvips.Image.new_from_array(pixels(kind, "uint8"))
        with_metadata(image, kind).write_to_file(str(folder / f"{kind}-uint8.webp"), lossless=True)
    Image.fromarray(pixels("rgb", "uint8")).save(folder / "rgb-uint8.bmp")
    smooth = pyvips.Image.new_from_array(pixels("rgb", "uint8")).gaussblur(2)
    with_metadata(smooth, "rgb").write_to_file(str(folder / "photo.jpg"), Q=95)
    Image.fromarray(pixels("rgb", "uint8")).quantize(16).save(folder / "palette.png")
    Image.fromarray(pixels("gray", "uint8")[..., 0]).convert("1").save(folder / "bits.png")


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """(inputs, outputs, what was said of each, by name)."""
    root = tmp_path_factory.mktemp("modes")
    make_inputs(root / "in")
    mdrn = shutil.which("mdrn", path=str(Path(sys.executable).parent)) or f"{sys.executable} -m mdrn_cli"
    done = subprocess.run(
        SHELL_COMMAND.format(mdrn=mdrn), shell=True, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in (root / "results.ndjson").read_text().splitlines()]
    return root / "in", root / "out", {Path(row["input"]).name: row for row in said if "input" in row}


def read(file: Path) -> np.ndarray:
    if file.suffix == ".bmp":  # which libvips may lack
        return np.asarray(Image.open(file))
    return pyvips.Image.new_from_file(str(file)).numpy()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", list(BANDS))
def test_pixels_depth_and_alpha_come_back_to_the_bit(shell, kind, dtype):
    before, after, said = shell
    files = list(before.glob(f"{kind}-{dtype}.*"))
    assert len(files) >= (1 if dtype == "float32" else 2)
    for file in files:
        pixel = read(after / file.name).reshape(HEIGHT, WIDTH, -1)
        assert pixel.dtype == dtype, file.name
        # WebP as libvips writes it forgets the color of clear pixels.
        expected = read(file) if file.suffix == ".webp" else pixels(kind, dtype)
        assert np.array_equal(pixel, expected), file.name
        assert said[file.name]["bit_depth"] == np.dtype(dtype).itemsize * 8
        assert said[file.name]["warnings"] == [], file.name
        if file.suffix == ".tif":
            other = tifffile.imread(after / file.name).reshape(HEIGHT, WIDTH, -1)
            assert np.array_equal(other, pixels(kind, dtype)), file.name


def test_metadata_come_back(shell):
    before, after, _ = shell
    checked = 0
    for file in (file for file in before.iterdir() if file.suffix != ".bmp"):
        old, new = (pyvips.Image.new_from_file(str(folder / file.name)) for folder in (before, after))
        for field in ("icc-profile-data", "xmp-data", "orientation"):
            if field in old.get_fields():
                assert new.get(field) == old.get(field), (file.name, field)
                checked += 1
        if "exif-ifd0-Make" in old.get_fields():
            assert new.get("exif-ifd0-Make").startswith("a camera"), file.name
        if file.suffix in (".png", ".tif", ".jpg") and file.stem not in ("palette", "bits"):
            assert new.xres * 25.4 == pytest.approx(240, abs=0.5), file.name
    assert checked > 40


def test_a_jpeg_changes_no_more_than_its_coding(shell):
    before, after, _ = shell
    old, new = (pyvips.Image.new_from_file(str(folder / "photo.jpg")).numpy().astype(int) for folder in (before, after))
    assert np.abs(old - new).mean() < 1
    with Image.open(after / "photo.jpg") as image:
        assert image.layer[0][1:3] == (1, 1)
        assert image.layer == [(layer[0], 1, 1, layer[3]) for layer in image.layer], "4:4:4"


def test_palettes_and_single_bits_keep_their_colors_and_say_so(shell):
    before, after, said = shell
    for name, mode in (("palette.png", "RGB"), ("bits.png", "L")):
        with Image.open(before / name) as old, Image.open(after / name) as new:
            assert np.array_equal(np.asarray(new), np.asarray(old.convert(mode))), name
        assert said[name]["warnings"]
