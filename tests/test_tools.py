"""`mdrn estimate`, `mdrn doctor`."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from conftest import rounded, run_mdrn
from PIL import Image

import mdrn_cli.image
from mdrn_cli.cli import app
from mdrn_cli.cli.boundary import run
from mdrn_cli.errors import OutOfMemoryError, WeightsError
from mdrn_cli.monochrome import find_tone
from mdrn_cli.noise import add_noise, estimate_sigma
from mdrn_cli.picture import Picture


def test_estimate_prints_a_level_for_each_file(noisy_file):
    Image.new("RGB", (2, 2)).save(noisy_file.with_name("dot.png"))
    done = run_mdrn("estimate", noisy_file, noisy_file.with_name("dot.png"), noisy_file.with_name("none.png"))
    assert done.returncode == 3
    first, second = done.stdout.splitlines()
    assert float(first.split("\t")[1]) == pytest.approx(20, rel=0.1)
    assert "too small" in second
    assert "no file" in done.stderr
    about = json.loads(run_mdrn("estimate", noisy_file, "--json").stdout)
    assert (about["schema"], about["input"]) == ("mdrn.estimate/1", str(noisy_file))
    assert (about["status"], about["error"]) == ("done", None)
    assert run_mdrn("estimate", noisy_file.with_name("none.png")).returncode == 4


def test_what_cannot_be_estimated_is_told_in_json_too(noisy_file):
    none, empty, dot = (noisy_file.with_name(name) for name in ("none.png", "empty", "dot.png"))
    empty.mkdir()
    Image.new("RGB", (2, 2)).save(dot)
    done = run_mdrn("estimate", none, empty, dot, noisy_file, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert {line["schema"] for line in lines} == {"mdrn.estimate/1"}
    told = {line["input"]: (line["status"], line["error"]) for line in lines}
    assert told == {
        str(none): ("failed", f"no file {none}"),
        str(empty): ("failed", f"no images in {empty}"),
        str(dot): ("done", None),
        str(noisy_file): ("done", None),
    }
    assert [line["sigma"] for line in lines][:-1] == [None, None, None]
    assert done.stderr.count("error:") == 2
    for alone in (none, empty):
        done = run_mdrn("estimate", alone, "--json")
        assert (done.returncode, json.loads(done.stdout)["status"], done.stderr.count("error:")) == (4, "failed", 1)


def test_estimate_goes_on_whatever_befalls_a_file(noisy_file, monkeypatch, capsys):
    def fail(path):
        raise MemoryError if path.name == "clean.png" else OSError(5, "Input/output error")

    monkeypatch.setattr(mdrn_cli.image, "read_picture", fail)
    for inputs, code in (
        ([noisy_file.with_name("clean.png"), noisy_file], 4),
        ([noisy_file.with_name("clean.png")], 6),
    ):
        monkeypatch.setattr(sys, "argv", ["mdrn", "estimate", *map(str, inputs)])
        assert run(app) == code
        told = capsys.readouterr().err
        assert f"not enough memory for {inputs[0]}" in told
        assert (f"cannot read {noisy_file} (Input/output error)" in told) == (len(inputs) == 2)


def test_estimate_takes_folders(noisy_file):
    """And tells of what is named twice once."""
    done = run_mdrn("estimate", noisy_file.parent, noisy_file, noisy_file.parent / "." / "clean.png")
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        str(noisy_file.with_name("clean.png")),
        str(noisy_file),
    ]
    (noisy_file.parent / "below").mkdir()
    (noisy_file.parent / "below" / "c.heic").touch()
    noisy_file.rename(noisy_file.parent / "below" / "a.png")
    done = run_mdrn("estimate", "-r", noisy_file.parent, noisy_file.parent / "none.png")
    assert (done.returncode, len(done.stdout.splitlines())) == (3, 2)
    assert "passed over: 1 .heic" in done.stderr
    (noisy_file.parent / "clean.png").unlink()
    empty = run_mdrn("estimate", noisy_file.parent)
    assert (empty.returncode, "--recursive" in empty.stderr) == (4, True)


def test_colors_that_nobody_sees_tell_nothing_of_noise(tmp_path, photo):
    pixels = rounded(add_noise(photo, 20).transpose(1, 2, 0) * 255)
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
    noisy_file = rounded(add_noise(gray_photo, 20)[0] * 255)
    toned = np.concatenate([np.stack([noisy_file] * 3), np.full((3, *noisy_file.shape), 60, np.uint8)], axis=2)
    toned[2, :, noisy_file.shape[1] :] = 200
    seen = np.zeros(toned.shape[1:], bool)
    seen[:, : noisy_file.shape[1]] = True
    assert find_tone(toned) is None
    assert find_tone(toned, seen)
    assert estimate_sigma(toned, seen) == pytest.approx(20, rel=0.1)


def test_estimate_reads_standard_input(noisy_file):
    done = run_mdrn("estimate", "-", piped=noisy_file.read_bytes())
    assert done.stdout == run_mdrn("estimate", noisy_file).stdout.replace(str(noisy_file), "-")
    bad = run_mdrn("estimate", "-", piped=b"hello")
    assert (bad.returncode, bad.output) == (4, b"")
    assert "not an image" in bad.stderr


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


def test_doctor_names_libraries_that_are_not_installed(monkeypatch, capsys):
    installed = metadata.version

    def but_one(name):
        if name == "pyvips-binary":  # as with libvips of the system
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "version", but_one)
    monkeypatch.setattr("sys.argv", ["mdrn", "doctor", "--json"])
    assert run(app) == 0
    libraries = json.loads(capsys.readouterr().out)["libraries"]
    assert (libraries["pyvips-binary"], libraries["numpy"]) == ("absent", np.__version__)


def test_doctor_tells_all_else_where_there_is_no_such_device():
    done = run_mdrn("doctor", "--json", env={"MDRN_DEVICE": "none"})
    assert (done.returncode, "no device 'none'" in done.stderr) == (6, True)
    assert json.loads(done.stdout)["device"]


def test_doctor_tells_all_else_where_a_gpu_is_full(monkeypatch, capsys):
    full = OutOfMemoryError("cuda is out of memory")
    monkeypatch.setattr("mdrn_cli.devices.pick_device", Mock(side_effect=full))
    monkeypatch.setattr("sys.argv", ["mdrn", "doctor", "--json"])
    assert run(app) == 6
    shown = capsys.readouterr()
    assert json.loads(shown.out)["device"] == "cpu"
    assert shown.err.count("cuda is out of memory") == 1


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
    with pytest.raises(WeightsError, match="mdrn-2b-gray-25, "):
        doctor.doctor(_offline=True, as_json=True)


def test_doctor_names_all_that_is_wrong(tmp_path):
    done = run_mdrn("doctor", "--json", env={"MDRN_DEVICE": "none", "MDRN_DATA": str(tmp_path / "none")})
    assert done.returncode == 6
    assert "no device 'none'" in done.stderr
    assert f"no folder {tmp_path / 'none'}" in done.stderr
    assert json.loads(done.stdout)["data"] == str(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MDRN_HOME", "~nobody-of-this-name/x"),
        ("MDRN_THREADS", "abc"),
        ("MDRN_WEIGHTS_URL", "ftp://host/mdrn"),
        ("MDRN_WEIGHTS_URL", "http://"),
        ("MDRN_WEIGHTS_URL", "no-such-folder"),
        ("MDRN_WEIGHTS_URL", "file://host/mdrn"),
    ],
)
def test_doctor_tells_all_else_where_a_variable_makes_no_sense(name, value):
    done = run_mdrn("doctor", "--json", env={name: value})
    assert (done.returncode, f"{name} " in done.stderr, done.stderr.count("error:")) == (2, True, 1)
    about = json.loads(done.stdout)
    assert about["weights"]["damaged or missing"] == 0
    assert (about["cache"] is None) == (name == "MDRN_HOME")


def test_doctor_finds_a_file_where_the_cache_is_to_be(tmp_path):
    (tmp_path / "home").write_bytes(b"")
    done = run_mdrn("doctor", env={"MDRN_HOME": str(tmp_path / "home")})
    assert done.returncode == 2
    assert f"the cache folder {tmp_path / 'home'} is a file" in done.stderr
    for command in (("list",), ("clear", "--all")):
        done = run_mdrn("cache", *command, "--json", env={"MDRN_HOME": str(tmp_path / "home")})
        assert (done.returncode, done.stdout) == (2, "")
        assert f"the cache folder {tmp_path / 'home'} is a file" in done.stderr


def test_doctor_tells_no_password():
    done = run_mdrn("doctor", "--json", env={"MDRN_WEIGHTS_URL": "https://me:secret@host/mdrn"})
    assert json.loads(done.stdout)["mirror"] == "https://host/mdrn"


def test_a_library_that_does_not_load_is_no_damaged_picture(noisy_file, monkeypatch):
    folder = noisy_file.parent / "libraries"
    folder.mkdir()
    (folder / "pyvips.py").write_text("raise OSError('cannot load library libvips.so.42')")
    Image.open(noisy_file).save(noisy_file.with_suffix(".jpg"))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    for arguments in (["doctor"], ["estimate", noisy_file.with_suffix(".jpg")]):
        command = [sys.executable, "-m", "mdrn_cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=noisy_file.parent)
        assert done.returncode == 1, done.stderr
        assert "libvips does not load (cannot load library libvips.so.42)" in done.stderr
        assert "damaged" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [(["denoice", "a.png"], "denoise"), (["denoise", "a.png", "--sgima", "3"], "--sigma"), (["doctr"], "doctor")],
)
def test_a_typo_is_answered_by_the_right_name(arguments, suggestion):
    done = run_mdrn(*arguments)
    assert done.returncode == 2
    assert suggestion in done.stderr


def test_no_color_where_none_is_wanted(noisy_file):
    done = run_mdrn("denoise", noisy_file.with_name("none.png"), env={"NO_COLOR": "1", "FORCE_COLOR": "1"})
    assert "\x1b[3" not in done.stderr
    plain = run_mdrn("denoise", noisy_file.with_name("none.png"))
    assert plain.stderr.startswith("error: ")


def test_color_that_is_asked_for_is_no_terminal_to_draw_bars_on(noisy_file):
    """As CI has it, whose logs would be full of them."""
    done = run_mdrn("denoise", noisy_file, "--model", "mdrn-2b", env={"FORCE_COLOR": "1"})
    assert done.returncode == 0
    assert "\x1b[2K" not in done.stderr
    assert "\x1b[?25l" not in done.stderr


@pytest.mark.parametrize(("name", "begins"), [("a.gif", b"GIF89a"), ("a.NEF", b"MM\0*"), ("a.heic", b"")])
def test_a_picture_of_another_format_is_told_as_such(noisy_file, name, begins):
    (noisy_file.parent / name).write_bytes(begins + bytes(40))
    to_another = ["denoise", name, "-o", "x.png", "--dry-run"]
    for arguments in (["estimate", name], ["compare", name, "clean.png"], ["denoise", name], to_another):
        done = run_mdrn(*arguments, cwd=noisy_file.parent)
        assert done.returncode == 4
        assert f"{Path(name).suffix[1:].upper()} is not handled: '{name}'\nhint: handled are .bmp" in done.stderr
