"""`mdrn estimate`, `mdrn compare`, `mdrn doctor`."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
from conftest import run_mdrn
from PIL import ExifTags, Image

import mdrn_cli.image
from mdrn_cli.cli import app
from mdrn_cli.cli.boundary import run
from mdrn_cli.cli.compare import compare
from mdrn_cli.compare import compare_pictures, measure_pictures
from mdrn_cli.errors import UsageError
from mdrn_cli.image import picture_of
from mdrn_cli.metadata import Metadata
from mdrn_cli.monochrome import find_tone
from mdrn_cli.noise import add_noise, estimate_sigma
from mdrn_cli.picture import Picture


@pytest.fixture
def noisy(tmp_path, photo):
    pixels = np.clip(np.rint(add_noise(photo, 20).transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "clean.png")
    Image.fromarray(pixels).save(tmp_path / "noisy.png")
    return tmp_path / "noisy.png"


def test_estimate_prints_a_level_for_each_file(noisy):
    Image.new("RGB", (2, 2)).save(noisy.with_name("dot.png"))
    done = run_mdrn("estimate", noisy, noisy.with_name("dot.png"), noisy.with_name("none.png"))
    assert done.returncode == 3
    first, second = done.stdout.splitlines()
    assert float(first.split("\t")[1]) == pytest.approx(20, rel=0.1)
    assert "too small" in second
    assert "no file" in done.stderr
    about = json.loads(run_mdrn("estimate", noisy, "--json").stdout)
    assert (about["schema"], about["input"]) == ("mdrn.estimate/1", str(noisy))
    assert (about["status"], about["error"]) == ("done", None)
    assert run_mdrn("estimate", noisy.with_name("none.png")).returncode == 4


def test_what_cannot_be_estimated_is_told_in_json_too(noisy):
    none, empty, dot = (noisy.with_name(name) for name in ("none.png", "empty", "dot.png"))
    empty.mkdir()
    Image.new("RGB", (2, 2)).save(dot)
    done = run_mdrn("estimate", none, empty, dot, noisy, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert {line["schema"] for line in lines} == {"mdrn.estimate/1"}
    told = {line["input"]: (line["status"], line["error"]) for line in lines}
    assert told == {
        str(none): ("failed", f"no file {none}"),
        str(empty): ("failed", f"no images in {empty}"),
        str(dot): ("done", None),
        str(noisy): ("done", None),
    }
    assert [line["sigma"] for line in lines][:-1] == [None, None, None]
    assert done.stderr.count("error:") == 2
    for alone in (none, empty):
        done = run_mdrn("estimate", alone, "--json")
        assert (done.returncode, json.loads(done.stdout)["status"], done.stderr.count("error:")) == (4, "failed", 1)


def test_estimate_goes_on_whatever_befalls_a_file(noisy, monkeypatch, capsys):
    def fail(path):
        raise MemoryError if path.name == "clean.png" else OSError(5, "Input/output error")

    monkeypatch.setattr(mdrn_cli.image, "read_picture", fail)
    for inputs, code in (([noisy.with_name("clean.png"), noisy], 4), ([noisy.with_name("clean.png")], 6)):
        monkeypatch.setattr(sys, "argv", ["mdrn", "estimate", *map(str, inputs)])
        assert run(app) == code
        told = capsys.readouterr().err
        assert f"not enough memory for {inputs[0]}" in told
        assert (f"cannot read {noisy} (Input/output error)" in told) == (len(inputs) == 2)


def test_estimate_takes_folders(noisy):
    """And tells of what is named twice once."""
    done = run_mdrn("estimate", noisy.parent, noisy, noisy.parent / "." / "clean.png")
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [str(noisy.with_name("clean.png")), str(noisy)]
    (noisy.parent / "below").mkdir()
    (noisy.parent / "below" / "c.heic").touch()
    noisy.rename(noisy.parent / "below" / "a.png")
    done = run_mdrn("estimate", "-r", noisy.parent, noisy.parent / "none.png")
    assert (done.returncode, len(done.stdout.splitlines())) == (3, 2)
    assert "passed over: 1 .heic" in done.stderr
    (noisy.parent / "clean.png").unlink()
    empty = run_mdrn("estimate", noisy.parent)
    assert (empty.returncode, "--recursive" in empty.stderr) == (4, True)


def test_colors_that_nobody_sees_tell_nothing_of_noise(tmp_path, photo):
    pixels = np.clip(np.rint(add_noise(photo, 20).transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)
    alpha = np.zeros(photo.shape[:2], np.uint8)
    alpha[:150, :200] = 255
    pixels[alpha == 0] = photo[alpha == 0]
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "cut.png")
    done = run_mdrn("estimate", tmp_path / "cut.png")
    assert float(done.stdout.split("\t")[1]) == pytest.approx(20, rel=0.1)
    assert estimate_sigma(pixels.transpose(2, 0, 1)) < 10
    canvas = np.zeros((1500, 1800, 4), np.uint8)
    canvas[-150:, -200:, :3], canvas[-150:, -200:, 3] = pixels[:150, :200], 255
    level = estimate_sigma(canvas[:, :, :3].transpose(2, 0, 1), canvas[:, :, 3] > 0)
    assert level == pytest.approx(20, rel=0.1), "however little of the whole it is"


def test_an_opaque_picture_is_seen_everywhere():
    alpha = np.full((20, 30), 255, np.uint8)
    picture = Picture(np.zeros((3, 20, 30), np.uint8), alpha)
    assert picture.seen is None
    alpha[3, 4] = 0
    assert np.argwhere(~picture.seen).tolist() == [[3, 4]]


def test_colors_that_nobody_sees_hide_no_tone(gray_photo):
    noisy = np.clip(np.rint(add_noise(gray_photo, 20)[0] * 255), 0, 255).astype(np.uint8)
    toned = np.concatenate([np.stack([noisy] * 3), np.full((3, *noisy.shape), 60, np.uint8)], axis=2)
    toned[2, :, noisy.shape[1] :] = 200
    seen = np.zeros(toned.shape[1:], bool)
    seen[:, : noisy.shape[1]] = True
    assert find_tone(toned) is None
    assert find_tone(toned, seen)
    assert estimate_sigma(toned, seen) == pytest.approx(20, rel=0.1)


def test_estimate_reads_standard_input(noisy):
    done = run_mdrn("estimate", "-", piped=noisy.read_bytes())
    assert done.stdout == run_mdrn("estimate", noisy).stdout.replace(str(noisy), "-")
    bad = run_mdrn("estimate", "-", piped=b"hello")
    assert (bad.returncode, bad.output) == (4, b"")
    assert "not an image" in bad.stderr


def test_a_picture_compared_with_itself_is_equal(noisy):
    refused = run_mdrn("compare", noisy, noisy, "-o", noisy, "--overwrite")
    assert (refused.returncode, "is one of the pictures" in refused.stderr) == (2, True)
    idle = run_mdrn("compare", noisy, noisy, "--overwrite")
    assert (idle.returncode, "goes with --output" in idle.stderr) == (2, True)
    done = run_mdrn("compare", noisy, noisy)
    assert (done.returncode, done.stdout) == (0, f"{noisy}: equal against {noisy}\n")
    (row,) = json.loads(run_mdrn("compare", noisy, noisy, "--json").stdout)["results"]
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
        assert told.startswith("equal against" if equal else "equal in 8 bits")


def test_a_sheet_without_a_folder_is_refused_before_any_work(noisy):
    done = run_mdrn("compare", noisy, noisy.with_name("text.png"), "-o", noisy.with_name("none") / "x.png")
    assert (done.returncode, "no folder" in done.stderr) == (2, True)


def test_files_of_one_name_are_told_apart_on_the_sheet(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("mdrn_cli.cli.compare.write_sheet", lambda _, versions: drawn.append([v[0] for v in versions]))
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


def test_compare_measures_and_draws(noisy, tmp_path):
    clean, sheet = tmp_path / "clean.png", tmp_path / "sheet.png"
    done = run_mdrn("compare", noisy, clean, "--reference", clean, "-o", sheet, "--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["results"][0]["psnr"] == pytest.approx(22.3, abs=0.5)
    with Image.open(sheet) as image:
        assert image.width > 2 * 512
        assert image.height > 512
    for path, corner in ((noisy, (0, 0, 8, 8)), (clean, (1, 1, 9, 9))):
        Image.open(path).crop(corner).save(path.with_name(f"small-{path.name}"))
    small = run_mdrn("compare", noisy.with_name(f"small-{noisy.name}"), clean.with_name(f"small-{clean.name}"))
    assert small.returncode == 0, small.stderr
    assert "dB against" in small.stdout  # SSIM needs 11 pixels
    again = run_mdrn("compare", noisy, clean, "-o", sheet)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    equal = run_mdrn("compare", clean, clean.with_name("noisy.png"), "--reference", noisy)
    assert equal.stdout.count("PSNR") == 1


def test_comparison_refuses_what_cannot_be_compared():
    small, large = (Picture(np.zeros((3, side, side), np.float32)) for side in (64, 128))
    gray = Picture(np.zeros((1, 64, 64), np.float32))
    with pytest.raises(UsageError, match="differ in size"):
        compare_pictures((("a", small), ("b", large)))
    for other in (large, gray):
        with pytest.raises(UsageError, match="cannot be measured") as told:
            measure_pictures(small, other)
        assert bool(told.value.hint) == (other is gray)
    assert measure_pictures(small, small)[0] == np.inf


def test_pictures_are_measured_as_they_are_shown(photo):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    turned = Picture(np.rot90(photo[:64, :96], 1, (0, 1)).transpose(2, 0, 1), metadata=Metadata(exif=exif.tobytes()))
    upright = Picture(photo[:64, :96].transpose(2, 0, 1))
    assert measure_pictures(turned, upright)[0] == np.inf


@pytest.mark.parametrize("size", [(1, 1), (40, 3000), (3000, 40), (97, 101)])
def test_sheets_of_any_shape(size):
    picture = Picture(np.random.default_rng(0).random((1, *size)).astype(np.float32))
    assert compare_pictures((("a", picture), ("b", picture))).startswith(b"\x89PNG")


def test_doctor_says_what_there_is():
    done = run_mdrn("doctor", "--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["schema"] == "mdrn.doctor/1"
    assert about["weights"]["damaged or missing"] == 0
    assert about["weights"]["intact"] >= 3
    assert {"torch", "pyvips"} <= about["libraries"].keys()
    assert about["network"].startswith("off")
    text = run_mdrn("doctor", env={"MDRN_THREADS": "1"}).stdout
    assert "threads      1" in text


def test_doctor_tells_all_else_where_there_is_no_such_device():
    done = run_mdrn("doctor", "--json", env={"MDRN_DEVICE": "none"})
    assert (done.returncode, "no device 'none'" in done.stderr) == (6, True)
    assert json.loads(done.stdout)["device"]


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    from mdrn_cli.cache import cache_root
    from mdrn_cli.manifest import load_manifest
    from mdrn_cli.weights import item_of

    for name in ("MDRN_DEVICE", "MDRN_THREADS", "MDRN_DATA", "MDRN_WEIGHTS_URL"):
        monkeypatch.setenv(name, "")
    assert run_mdrn("doctor").returncode == 0
    assert "missing" in run_mdrn("data", "verify", "Set12").stdout
    record = load_manifest()[0]
    assert item_of(record).sources == record.urls
    monkeypatch.setenv("MDRN_HOME", "")
    empty = cache_root()
    monkeypatch.delenv("MDRN_HOME")
    assert empty == cache_root()


def test_doctor_finds_a_damaged_checkpoint(monkeypatch, tmp_path):
    from mdrn_cli import weights
    from mdrn_cli.cli import doctor

    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    assert doctor.doctor(_offline=True, as_json=True) == 5


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [(["denoice", "a.png"], "denoise"), (["denoise", "a.png", "--sgima", "3"], "--sigma"), (["doctr"], "doctor")],
)
def test_a_typo_is_answered_by_the_right_name(arguments, suggestion):
    done = run_mdrn(*arguments)
    assert done.returncode == 2
    assert suggestion in done.stderr


def test_no_color_where_none_is_wanted(noisy):
    done = run_mdrn("denoise", noisy.with_name("none.png"), env={"NO_COLOR": "1", "FORCE_COLOR": "1"})
    assert "\x1b[3" not in done.stderr
    plain = run_mdrn("denoise", noisy.with_name("none.png"))
    assert plain.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("denoise --model mdrn-2b-g", "mdrn-2b-gray-50"),
        ("denoise --format w", "webp"),
        ("bench --precision f", "float32"),
        ("bench Kod", "Kodak24"),
        ("weights verify mdrn-color-7", "mdrn-color-70"),
    ],
)
def test_the_shell_is_offered_names(line, name):
    env = {"_MDRN_COMPLETE": "complete_bash", "COMP_WORDS": f"mdrn {line}", "COMP_CWORD": str(len(line.split()))}
    command = Path(sys.executable).with_name("mdrn")
    done = subprocess.run([command], env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert name in done.stdout.split()


def test_a_panorama_that_is_a_thread_on_the_sheet_can_be_compared():
    noise = np.random.default_rng(0).integers(0, 255, (100, 60000, 1), np.uint8)
    picture = picture_of(noise, has_alpha=False)
    sheet = compare_pictures((("a", picture), ("b", picture)))
    assert Image.open(io.BytesIO(sheet)).width > 900
