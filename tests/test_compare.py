"""`mdrn compare`, and pictures side by side."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from conftest import run_mdrn
from PIL import ExifTags, Image
from test_metadata import PROFILE, with_curve

from mdrn_cli.cli.compare import compare
from mdrn_cli.compare import LABEL, MARGIN, are_colors_alike, are_equal, compare_pictures, measure_pictures
from mdrn_cli.errors import UsageError
from mdrn_cli.icc import profile_for
from mdrn_cli.metadata import Metadata
from mdrn_cli.picture import Picture, picture_of


def test_a_picture_compared_with_itself_is_equal(noisy_file):
    refused = run_mdrn("compare", noisy_file, noisy_file, "-o", noisy_file, "--overwrite")
    assert (refused.returncode, "is one of the pictures" in refused.stderr) == (2, True)
    idle = run_mdrn("compare", noisy_file, noisy_file, "--overwrite")
    assert (idle.returncode, "goes with --output" in idle.stderr) == (2, True)
    done = run_mdrn("compare", noisy_file, noisy_file)
    assert (done.returncode, done.stdout) == (0, f"{noisy_file}: equal to {noisy_file}\n")
    (row,) = json.loads(run_mdrn("compare", noisy_file, noisy_file, "--json").stdout)["results"]
    assert (row["psnr"], row["ssim"]) == (None, 1)


def test_pictures_that_differ_in_alpha_or_below_eight_bits_are_not_called_equal(tmp_path):
    pixels = np.full((20, 20, 4), 255, np.uint8)
    Image.fromarray(pixels[:, :, :3]).save(tmp_path / "plain.png")
    Image.fromarray(pixels).save(tmp_path / "opaque.png")
    pixels[5, 5, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    for k in (0, 60):
        deep = pyvips.Image.new_from_array(np.full((20, 20, 1), 30_000 + k, np.uint16), interpretation="grey16")
        deep.write_to_file(str(tmp_path / f"{k}.png"))
    for first, second, equal in (("plain", "opaque", True), ("opaque", "clear", False), ("0", "60", False)):
        files = tmp_path / f"{first}.png", tmp_path / f"{second}.png"
        (row,) = json.loads(run_mdrn("compare", *files, "--json").stdout)["results"]
        assert (row["psnr"], row["equal"]) == (None, equal)
        told = run_mdrn("compare", *files).stdout.split(": ")[1]
        assert told.startswith("equal to" if equal else "in 8 bits equal, but")


def test_a_sheet_without_a_folder_is_refused_before_any_work(noisy_file):
    done = run_mdrn(
        "compare", noisy_file, noisy_file.with_name("text.png"), "-o", noisy_file.with_name("none") / "x.png"
    )
    assert (done.returncode, "no folder" in done.stderr) == (2, True)


def test_files_of_one_name_are_told_apart_on_the_sheet(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "mdrn_cli.cli.compare.write_sheet", lambda _, versions, _files: drawn.append([v[0] for v in versions])
    )
    monkeypatch.chdir(tmp_path)
    files = [Path(name) for name in ("in/x/a.png", "out/x/a.png", "a.png", "b.png")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(file)
    for first, second, reference, labels in (
        (files[0], files[1], files[3], ["in/x/a.png", "out/x/a.png", "b.png"]),
        (files[2], files[1], None, ["a.png", "x/a.png"]),
        (files[2], files[2], None, ["a.png", "a.png"]),
        (tmp_path / files[0], files[3], None, ["a.png", "b.png"]),
    ):
        compare(first, second, reference, Path("sheet.png"))
        assert drawn.pop() == [str(Path(label)) for label in labels]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-", "-"], "standard input can be given once"),
        (["a.png", "-", "--reference", "-"], "standard input can be given once"),
        (["a.png", "b.png", "-o", "-"], "the picture goes to a file; stdout is for the figures"),
    ],
)
def test_pipes_that_compare_has_not_are_refused(arguments, told):
    done = run_mdrn("compare", *arguments)
    assert (done.returncode, f"error: {told}\n" in done.stderr) == (2, True), done.stderr


def test_compare_measures_and_draws(noisy_file, tmp_path):
    clean, sheet = tmp_path / "clean.png", tmp_path / "sheet.png"
    done = run_mdrn("compare", noisy_file, clean, "--reference", clean, "-o", sheet, "--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["results"][0]["psnr"] == pytest.approx(22.3, abs=0.5)
    with Image.open(sheet) as image:
        assert image.width > 2 * 512
        assert image.height > 512
    for path, corner in ((noisy_file, (0, 0, 8, 8)), (clean, (1, 1, 9, 9))):
        Image.open(path).crop(corner).save(path.with_name(f"small-{path.name}"))
    small = run_mdrn(
        "compare", noisy_file.with_name(f"small-{noisy_file.name}"), clean.with_name(f"small-{clean.name}")
    )
    assert small.returncode == 0, small.stderr
    assert "dB against" in small.stdout  # SSIM needs 11 pixels
    again = run_mdrn("compare", noisy_file, clean, "-o", sheet)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    equal = run_mdrn("compare", clean, clean.with_name("noisy.png"), "--reference", noisy_file)
    assert equal.stdout.count("PSNR") == 1


def test_comparison_refuses_what_cannot_be_compared():
    small, large = (Picture(np.zeros((3, side, side), np.float32)) for side in (64, 128))
    with pytest.raises(UsageError, match="differ in size"):
        compare_pictures((("a", small), ("b", large)))
    with pytest.raises(UsageError, match="cannot be measured"):
        measure_pictures(small, large)
    assert measure_pictures(small, small)[0] == np.inf


def test_gray_is_measured_against_color_as_three_equal_channels(photo):
    color = Picture(photo[:64, :64].transpose(2, 0, 1))
    gray = Picture(photo[:64, :64, 1][None])
    measured = measure_pictures(gray, color)
    assert measured == measure_pictures(color, gray) == measure_pictures(gray.to_color("color"), color)
    assert not are_equal(gray, color)
    assert are_equal(gray, gray.to_color("color"))


def test_colors_that_nobody_sees_are_not_measured(photo):
    channels, noise = photo[:64, :64].transpose(2, 0, 1), np.random.default_rng(0).integers(0, 9, (3, 64, 64), np.uint8)
    alpha = np.full((64, 64), 255, np.uint8)
    alpha[:, 32:] = 0
    clean, other = Picture(channels, alpha), Picture(channels // 2 + noise, alpha)
    left = [Picture(picture.channels[:, :, :32]) for picture in (other, clean)]
    assert measure_pictures(other, clean) == pytest.approx(measure_pictures(*left))
    behind = Picture(np.where(alpha > 0, channels, 255 - channels), alpha)
    assert measure_pictures(behind, clean)[0] == np.inf
    assert are_equal(behind, clean)
    assert not are_equal(other, clean)
    assert measure_pictures(behind, Picture(channels))[0] < 20, "one of them is seen there"
    nothing = Picture(channels, np.zeros_like(alpha))
    psnr, ssim = measure_pictures(nothing, Picture(channels // 2, np.zeros_like(alpha)))
    assert (psnr, np.isnan(ssim)) == (np.inf, True)


def test_compare_is_told_what_is_white(noisy_file, tmp_path):
    clean = tmp_path / "clean.png"
    for path in (noisy_file, clean):
        pixels = np.asarray(Image.open(path), np.uint16)
        tifffile.imwrite(path.with_suffix(".tif"), pixels * 16 + pixels // 16, photometric="rgb")
    narrow = noisy_file.with_suffix(".tif"), clean.with_suffix(".tif")
    told = run_mdrn("compare", *narrow, "--json")
    assert "--white" in json.loads(told.stdout)["warnings"][0]
    expected = json.loads(run_mdrn("compare", noisy_file, clean, "--json").stdout)
    about = json.loads(run_mdrn("compare", *narrow, "--white", 4095, "--json").stdout)
    assert about["results"][0]["psnr"] == pytest.approx(expected["results"][0]["psnr"], abs=0.02)
    assert about["warnings"] == expected["warnings"] == []


def test_the_sheet_of_a_narrow_picture_shows_both_as_bright_as_white_makes_them(tmp_path, photo, tiny_weights):
    narrow, sheet = tmp_path / "narrow.tif", tmp_path / "sheet.png"
    tifffile.imwrite(narrow, photo[:64, :256].astype(np.uint16) * 16, photometric="rgb")
    model = tiny_weights("color")
    arguments = ["--model", model, "--sigma", 50, "--white", 4095, "--strength", 0.01, "--compare", sheet]
    done = run_mdrn("denoise", narrow, *arguments)
    assert done.returncode == 0, done.stderr
    columns = np.asarray(Image.open(sheet))[MARGIN + LABEL :][:64, MARGIN:-MARGIN]
    for shown in (columns[:, :256], columns[:, -256:]):
        assert np.abs(shown.astype(int) - photo[:64, :256]).mean() < 3


def test_a_white_that_is_told_is_of_those_that_may_have_it(noisy_file):
    """Of 12 bits in 16, not of what was made of them, in 8 bits or in floats."""
    clean = noisy_file.with_name("clean.png")
    pixels = np.asarray(Image.open(noisy_file), np.uint16)
    tifffile.imwrite(noisy_file.with_suffix(".tif"), pixels * 16 + pixels // 16, photometric="rgb")
    floats = (np.asarray(Image.open(clean)) / 255).astype(np.float32)
    tifffile.imwrite(clean.with_suffix(".tif"), floats, photometric="rgb")
    expected = json.loads(run_mdrn("compare", noisy_file, clean, "--json").stdout)["results"][0]["psnr"]
    for other in (clean, clean.with_suffix(".tif")):
        done = run_mdrn("compare", noisy_file.with_suffix(".tif"), other, "--white", 4095, "--json")
        assert json.loads(done.stdout)["results"][0]["psnr"] == pytest.approx(expected, abs=0.02)
    refused = run_mdrn("compare", noisy_file, clean, "--white", 4095)
    assert (refused.returncode, "8 bits hold 255 at most" in refused.stderr) == (4, True)


def test_the_picture_that_cannot_be_compared_is_named(noisy_file, tmp_path):
    pixels = np.asarray(Image.open(noisy_file), np.float32)
    tifffile.imwrite(tmp_path / "levels.tif", pixels, photometric="rgb")
    done = run_mdrn("compare", noisy_file, tmp_path / "levels.tif")
    assert (done.returncode, "levels.tif: floats should be from 0 to 1" in done.stderr) == (4, True)


def test_colors_are_shown_as_the_pictures_files_tell_them(noisy_file, tmp_path):
    """Those of phones and of Adobe RGB would be duller; where two differ, that is told."""
    wide = with_curve(PROFILE, 1.8)
    clean = noisy_file.with_name("clean.png")
    plain = Image.open(clean).copy()
    for path in (noisy_file, clean):
        Image.open(path).copy().save(path, icc_profile=wide)
    done = run_mdrn("compare", noisy_file, clean, "-o", tmp_path / "sheet.png", "--json")
    assert json.loads(done.stdout)["warnings"] == []
    assert Image.open(tmp_path / "sheet.png").info["icc_profile"] == wide
    plain.save(clean)
    done = run_mdrn("compare", noisy_file, clean, "-o", tmp_path / "mixed.png")
    assert (done.returncode, "its colors are not told as those of" in done.stderr) == (0, True)
    assert "icc_profile" not in Image.open(tmp_path / "mixed.png").info
    other = picture_of(np.zeros((8, 8, 3), np.uint8), False, Metadata(color_chunks=((b"gAMA", b"\0\1\x86\xa0"),)))
    assert b"gAMA" in compare_pictures([("one", other), ("other", other)])
    assert not are_colors_alike(other, replace(other, metadata=Metadata()))


def test_floats_beyond_white_are_told_of(noisy_file, tmp_path):
    pixels = np.asarray(Image.open(noisy_file), np.float32) / 255
    for factor in (0.9, 2.5):
        tifffile.imwrite(tmp_path / "floats.tif", pixels * np.float32(factor), photometric="rgb")
        done = run_mdrn("compare", tmp_path / "floats.tif", noisy_file)
        assert (done.returncode, "beyond 1" in done.stderr) == (0, factor > 1)


def test_pictures_are_measured_as_they_are_shown(photo):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = Picture(np.rot90(photo[:64, :96], 1, (0, 1)).transpose(2, 0, 1), metadata=Metadata(exif=exif.tobytes()))
    upright = Picture(photo[:64, :96].transpose(2, 0, 1))
    assert measure_pictures(turned, upright)[0] == np.inf


def sheet_of(*versions: tuple[str, Picture]) -> np.ndarray:
    """Read without our code, (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(compare_pictures(versions))))


BUSY = {(0, 360): 90, (180, 0): 60, (420, 240): 30}
"""Of squares of 60 pixels in one of 480: top and left, and how far they are from gray; the busiest first."""


def with_busy_places() -> Picture:
    pixels = np.full((480, 480), 128, np.uint8)
    checks = np.indices((60, 60)).sum(0) % 2 * 2 - 1
    for (top, left), spread in BUSY.items():
        pixels[top : top + 60, left : left + 60] = 128 + spread * checks
    return Picture(pixels[None])


def test_the_busiest_places_are_framed_and_enlarged_below_each_version():
    flat = Picture(np.full((1, 480, 480), 128, np.uint8))
    sheet = sheet_of(("busy", with_busy_places()), ("flat", flat))
    framed = np.all(sheet == (230, 60, 40), axis=2)
    side = (480 - 2 * MARGIN) // 3
    for column in (MARGIN, 2 * MARGIN + 480):
        for k, ((top, left), spread) in enumerate(BUSY.items()):
            y, x = MARGIN + LABEL + top, column + left
            outline = framed[y : y + 60, x : x + 60]
            assert outline[[0, -1]].all()
            assert outline[:, [0, -1]].all()
            assert not outline[1:-1, 1:-1].any()
            y, x = 2 * MARGIN + LABEL + 480, column + k * (side + MARGIN)
            crop = sheet[y : y + side, x : x + side]
            expected = {128 - spread, 128 + spread} if column == MARGIN else {128}
            assert {*crop.ravel()} == expected, "enlarged, and neither smoothed nor framed"


def test_each_version_has_its_label_above_it():
    gray = Picture(np.full((1, 300, 300), 128, np.uint8))
    sheet = sheet_of(("WWWWWWWW", gray), ("i", gray), ("", gray))
    columns = (sheet[:, MARGIN + k * (300 + MARGIN) :][:, :300] for k in range(3))
    most, few, none = (int((column[MARGIN : MARGIN + LABEL] < 60).sum()) for column in columns)
    assert most > 8 * few > 0
    assert none == 0


def test_what_is_transparent_is_white_on_the_sheet():
    channels = np.full((3, 300, 300), 90, np.uint8)
    sheet = sheet_of(("a", Picture(channels, np.zeros((300, 300), np.uint8))), ("b", Picture(channels)))
    row = sheet[MARGIN + LABEL + 299]
    assert (row[MARGIN : MARGIN + 300] == 255).all()
    assert (row[2 * MARGIN + 300 :][:300] == 90).all()


@pytest.mark.parametrize("size", [(1, 1), (40, 3000), (3000, 40), (97, 101)])
def test_sheets_of_any_shape(size):
    picture = Picture(np.random.default_rng(0).random((1, *size)).astype(np.float32))
    assert compare_pictures((("a", picture), ("b", picture))).startswith(b"\x89PNG")


def test_a_panorama_that_is_a_thread_on_the_sheet_can_be_compared():
    noise = np.random.default_rng(0).integers(0, 255, (100, 60000, 1), np.uint8)
    picture = picture_of(noise, has_alpha=False)
    sheet = compare_pictures((("a", picture), ("b", picture)))
    assert Image.open(io.BytesIO(sheet)).width > 900


def test_profiles_are_compared_by_what_they_mean():
    """Not by their name or date; and a linear one calls itself sRGB, too."""
    pixels = np.zeros((8, 8, 3), np.uint8)

    def alike(first: Metadata, second: Metadata) -> bool:
        return are_colors_alike(picture_of(pixels, False, first), picture_of(pixels, False, second))

    linear = with_curve(PROFILE, 1.0)
    later = linear[:24] + bytes(12) + linear[36:]
    none, srgb = Metadata(), Metadata(PROFILE)
    assert alike(none, srgb)
    assert alike(Metadata(with_curve(PROFILE, 2.2)), srgb)
    assert not alike(Metadata(linear), srgb)
    assert alike(Metadata(linear), Metadata(later))
    assert alike(Metadata(linear, color_chunks=((b"cICP", b"\x01\x0d\x00\x01"),)), none), "which comes first"
    assert not alike(Metadata(b"no profile"), none)
    assert not alike(Metadata(PROFILE.replace(b"cprt", b"A2B0", 1)), none), "tables count before curves"
    gray = picture_of(pixels[:, :, :1], False, Metadata(profile_for(PROFILE, "gray")))
    assert are_colors_alike(gray, picture_of(pixels, False, none))


def test_pictures_of_other_sizes_are_told_in_order_and_a_folder_is_no_sheet(tmp_path, photo):
    for name, side in (("a.png", 32), ("b.png", 40)):
        Image.fromarray(photo[:side, :side]).save(tmp_path / name)
    sizes = run_mdrn("compare", "a.png", "b.png", cwd=tmp_path)
    assert "pictures of 32x32 and 40x40" in sizes.stderr
    folder = run_mdrn("compare", "a.png", "a.png", "-o", tmp_path)
    assert (folder.returncode, "is a folder, and the picture needs a name" in folder.stderr) == (2, True)
