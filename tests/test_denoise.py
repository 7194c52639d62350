"""`mdrn denoise` on one file: what comes out, and what is said when it cannot."""

import inspect
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import asdict, fields
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import pyvips
import torch
from conftest import rounded, run_mdrn
from PIL import Image

import mdrn_cli.compare
from mdrn_cli.batch import run_jobs
from mdrn_cli.blocknoise import Noise
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.cli import app
from mdrn_cli.cli.boundary import run
from mdrn_cli.cli.console import parse_bytes
from mdrn_cli.cli.denoise import denoise as denoise_command
from mdrn_cli.cli.outcomes import to_json
from mdrn_cli.clipping import unclipped
from mdrn_cli.encoding import SaveOptions, encode_picture
from mdrn_cli.engine import Engine
from mdrn_cli.errors import InputError, MdrnError, OutOfMemoryError, UsageError, WeightsError
from mdrn_cli.image import read_picture, read_uint8
from mdrn_cli.jobs import plan_jobs
from mdrn_cli.metadata import Metadata
from mdrn_cli.metrics import psnr
from mdrn_cli.naming import Naming
from mdrn_cli.noise import add_noise
from mdrn_cli.passes import Passes
from mdrn_cli.picture import Picture, picture_of
from mdrn_cli.restore import CONVERTED, TOO_SMALL, DenoiseOptions, Restorer
from mdrn_cli.tilewise import denoise_pixels


def denoise_file(source, target, options, on_tile=None, existing="error"):
    """One file through the pipeline; its error is raised."""
    (outcome,) = run_jobs(plan_jobs([source], Naming(target, existing=existing)), options, on_tile=on_tile)
    if outcome.error:
        raise outcome.error
    return outcome.facts


@pytest.fixture
def noisy(tmp_path, photo):
    path = tmp_path / "noisy.png"
    Image.fromarray(photo[:150, :200]).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_format_in_gray_and_color(tmp_path, photo, tiny_weights, suffix, mode):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    Image.fromarray(photo[:40, :50]).convert(mode).save(source)
    color = "gray" if mode == "L" and suffix != ".webp" else "color"  # WebP stores gray as RGB
    weights = tiny_weights(color)
    options = DenoiseOptions(50.0, str(weights), device="cpu", precision="float32")
    result = denoise_file(source, target, options)
    with Image.open(target) as out:
        assert out.size == (50, 40)
        assert out.mode == ("L" if color == "gray" else "RGB")
        if suffix != ".jpg":
            shown = unclipped(read_picture(source).pixels, 50.0, True)
            expected = Engine(load_checkpoint(weights), "cpu", "float32")(shown)
            expected = np.rint(np.clip(expected, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0).squeeze()
            assert np.array_equal(np.asarray(out), expected)
    assert (result.width, result.height, result.network.tiles) == (50, 40, 1)


def test_alpha_is_copied_untouched(tmp_path, photo, tiny_weights):
    alpha = np.random.default_rng(0).integers(0, 256, (40, 50, 1), np.uint8)
    Image.fromarray(np.concatenate([photo[:40, :50], alpha], axis=2)).save(tmp_path / "a.png")
    denoise_file(tmp_path / "a.png", tmp_path / "b.png", DenoiseOptions(50.0, str(tiny_weights("color"))))
    with Image.open(tmp_path / "b.png") as out:
        assert out.mode == "RGBA"
        assert np.array_equal(np.asarray(out)[..., 3:], alpha)


def test_color_option_overrides_the_file(tmp_path, noisy, tiny_weights):
    denoise_file(noisy, tmp_path / "g.png", DenoiseOptions(50.0, str(tiny_weights("gray")), color="gray"))
    assert Image.open(tmp_path / "g.png").mode == "L"


def test_tiles_are_counted_and_reported(noisy, tmp_path, tiny_weights):
    ticks = []
    options = DenoiseOptions(50.0, str(tiny_weights("color")), tile=192)
    result = denoise_file(noisy, tmp_path / "out.png", options, lambda done, total: ticks.append((done, total)))
    assert result.network.tiles == 2
    assert ticks == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(("size", "expected"), [("600M", 600 * 2**20), ("1.5GiB", 3 * 2**29), ("7", 7), ("2g", 2**31)])
def test_sizes_of_memory_are_read(size, expected):
    assert parse_bytes(size) == expected


def test_the_tile_is_as_large_as_memory_allows(noisy, tmp_path, tiny_weights):
    """And the pixels do not tell."""
    done = {}
    for memory in (323_000_000, 2**31):
        options = DenoiseOptions(50.0, str(tiny_weights("color")), memory=memory, precision="float32")
        done[memory] = denoise_file(noisy, tmp_path / f"{memory}.png", options)
    small, large = done.values()
    assert 192 <= small.network.tile < 200 < large.network.tile
    assert small.network.tiles > large.network.tiles == 1
    pixels = [np.asarray(Image.open(tmp_path / f"{memory}.png")).astype(int) for memory in done]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1


@pytest.mark.parametrize(
    ("device", "hint"),
    [("cpu", "raise --max-memory, or give a --tile"), ("cuda", "free memory of the GPU, or use --device cpu")],
)
def test_memory_too_small_for_any_tile_is_that_of_the_device(device, hint):
    engine = Mock(device=torch.device(device), bytes_per_pixel=1000)
    engine.tile_memory.return_value = 1_000_000
    picture = Picture(np.zeros((1, 32, 32), np.uint8))
    passes = Passes(Mock(), picture, None, 1.0, None, tile=None, memory=2**31, ensemble=False, on_tile=None)
    with pytest.raises(OutOfMemoryError, match="MB too little memory for the smallest tile") as caught:
        passes._tile(engine, 64, 0)
    assert caught.value.hint == hint


def test_memory_is_bounded_by_the_tile():
    """The network never sees more than a tile, however large the image."""
    largest = 0

    def function(x):
        nonlocal largest
        largest = max(largest, x.shape[1] * x.shape[2])
        return x

    denoise_pixels(np.zeros((1, 1000, 1500), np.float32), function, tile=256)
    assert largest <= 256 * 256


@pytest.mark.parametrize("size", [(20000, 200), (200, 20000)])
def test_tiles_under_way_take_little_memory_of_a_long_picture(size):
    """They are put together across it, whichever way it lies; along it they would take twice what the picture does."""
    picture = np.random.default_rng(0).random((3, *size), np.float32)
    tracemalloc.start()
    restored = denoise_pixels(picture, lambda x: x, tile=192)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * restored.nbytes
    np.testing.assert_allclose(restored, picture, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (5, 3)])
def test_tiny_images(tmp_path, tiny_weights, size):
    Image.new("L", size, 100).save(tmp_path / "a.png")
    denoise_file(tmp_path / "a.png", tmp_path / "b.png", DenoiseOptions(50.0, str(tiny_weights()), ensemble=True))
    assert Image.open(tmp_path / "b.png").size == size


def test_command_line_names_the_output_and_prints_json(noisy, tiny_weights):
    weights = tiny_weights("color")
    done = run_mdrn("denoise", noisy, "--sigma", 50, "--model", weights, "--tile", 192, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    about, summary = map(json.loads, done.stdout.splitlines())
    assert (summary["done"], summary["failed"]) == (1, 0)
    target = noisy.with_name("noisy_mdrn.png")
    assert Image.open(target).size == (200, 150)
    assert about["schema"] == "mdrn.denoise/1"
    assert (about["status"], about["error"]) == ("done", None)
    assert (about["input"], about["output"]) == (str(noisy), str(target))
    assert (about["width"], about["height"], about["mode"], about["bit_depth"]) == (200, 150, "RGB", 8)
    ends = {"in_black": None, "in_white": None}
    assert about["sigma"] == {"value": 50.0, "source": "option", "factor": 1.0, "removed": 50.0, "coarse": [], **ends}
    assert about["tile"]["count"] == 2
    assert {"model", "device", "precision", "seconds", "warnings"} <= about.keys()


def test_without_json_stdout_stays_empty(noisy, tiny_weights):
    done = run_mdrn("denoise", noisy, "--sigma", 50, "--model", tiny_weights("color"))
    assert (done.returncode, done.stdout) == (0, "")
    assert "noisy_mdrn.png" in done.stderr


def broken_files(folder):
    (folder / "text.png").write_text("hello")
    (folder / "empty.png").write_bytes(b"")
    whole = (folder / "noisy.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGBA", (32, 32)).save(folder / "clear.png")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.png", "--sigma", 50], 4, "no file or folder none.png"),
        (["-r", "photoz", "-o", "restored"], 4, "no file or folder photoz"),
        (["noisy.png", "-o", "out.jpg", "-f", "png"], 2, "--format png is not the format of out.jpg"),
        (["noisy.png", "-o", "text.png/"], 2, "text.png is a file, not a folder"),
        (["noisy.png", "-o", "/dev/null", "-f", "png", "--overwrite"], 2, "/dev/null exists already and is not a file"),
        (["text.png", "--sigma", 50], 4, "not an image"),
        (["empty.png", "--sigma", 50], 4, "not an image"),
        (["cut.png", "--sigma", 50], 4, "damaged"),
        (["noisy.png", "--sigma", 50, "-o", "missing/out.png"], 2, "no folder missing"),
        (["noisy.png", "--sigma", 50, "-o", "noisy.png"], 2, "exists already"),
        (["noisy.png", "--sigma", 50, "-o", "out.xyz"], 2, "format"),
        (["noisy.png", "--sigma", 0.2], 2, "sigma 0.2 is below 1"),
        (["noisy.png", "--coarse-sigma", 0.2], 2, "coarse sigma 0.2 is below 1"),
        (["noisy.png", "--sigma", 500], 2, "from 1 to 100"),
        (["noisy.png", "--sigma", "lots"], 2, "--sigma"),
        (["noisy.png", "--sigma", 50, "--tile", 100], 2, "tile"),
        (["noisy.png", "--sigma", 50, "--tile", "large"], 2, "tile"),
        (["noisy.png", "--sigma", 50, "--max-memory", "much"], 2, "'much' is not a size"),
        (["noisy.png", "--sigma", 50, "--max-memory", "9" * 400], 2, "is not a size"),
        (["noisy.png", "--sigma", 50, "--tile", "9" * 5000], 2, "is neither auto nor"),
        (["noisy.png", "--sigma", 50, "--max-memory", "200M"], 6, "too little memory"),
        (["noisy.png", "--sigma", 50, "--color", "sepia"], 2, "sepia"),
        (["noisy.png", "--sigma", 50, "--device", "abacus"], 6, "abacus"),
        (["noisy.png", "--sigma", 50, "--model", "none.safetensors"], 5, "no checkpoint file"),
        (["noisy.png", "--sigma", 50, "--model", "mdrn-9b"], 5, "mdrn-9b"),
        (["noisy.png", "--sigma", 50, "--strength", 2], 2, "strength"),
        (["noisy.png", "--quality", 101], 2, "quality"),
        (["noisy.png", "--flatten", "sepiaish"], 2, "sepiaish"),
        (["clear.png", "-o", "out.jpg"], 2, "transparency"),
        (["noisy.png", "text.png", "--compare", "c.png", "-o", "out"], 2, "--compare"),
        (["noisy.png", "--sigma", 50, "--nonsense"], 2, "--nonsense"),
    ],
)
def test_errors_are_one_line_with_a_hint_and_a_code(noisy, arguments, code, message):
    broken_files(noisy.parent)
    before = {path: path.read_bytes() for path in noisy.parent.iterdir()}
    done = run_mdrn("denoise", *arguments, cwd=noisy.parent)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in noisy.parent.iterdir()} == before


def test_no_checkpoint_lists_those_there_are(noisy):
    done = run_mdrn("denoise", noisy, "--sigma", 33, "--model", "swinir")
    assert "hint: there are: auto, mdrn, mdrn-2b, " in done.stderr
    assert "mdrn-2b-color-50" in done.stderr
    done = run_mdrn("denoise", noisy, "--model", "mdrn-9b")
    assert "hint: did you mean mdrn-2b?" in done.stderr
    done = run_mdrn("denoise", noisy, "--model", "mdrn-2b-grey-50")
    assert "hint: did you mean mdrn-2b-gray-50 or " in done.stderr


def test_json_tells_of_failure_too():
    done = run_mdrn("denoise", "none.png", "--sigma", 50, "--json")
    assert done.returncode == 4
    failure, summary = map(json.loads, done.stdout.splitlines())
    assert (failure["status"], summary["failed"]) == ("failed", 1)
    assert "none.png" in failure["error"]


def test_an_existing_output_is_replaced_only_when_asked(noisy, tiny_weights):
    options = DenoiseOptions(50.0, str(tiny_weights("color")))
    target = noisy.with_name("out.png")
    target.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        denoise_file(noisy, target, options)
    assert target.read_text() == "precious"
    denoise_file(noisy, target, DenoiseOptions(50.0, str(tiny_weights("color"))), existing="overwrite")
    assert Image.open(target).size == (200, 150)


def test_a_failed_write_leaves_the_old_output_whole(noisy, tiny_weights, monkeypatch):
    target = noisy.with_name("out.png")
    target.write_text("precious")
    options = DenoiseOptions(50.0, str(tiny_weights("color")))
    monkeypatch.setattr(os, "fsync", lambda _fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(MdrnError, match="No space left") as caught:
        denoise_file(noisy, target, options, existing="overwrite")
    assert caught.value.exit_code == 1
    assert target.read_text() == "precious"
    assert not list(noisy.parent.glob(".*"))


def test_weights_for_something_else_are_refused(noisy, tiny_weights):
    with pytest.raises(UsageError, match="is for"):
        denoise_file(noisy, noisy.with_name("out.png"), DenoiseOptions(50.0, str(tiny_weights("gray"))))


def test_a_level_between_stretches_the_intensities(tmp_path, noisy, tiny_weights):
    """Noise of 62.5 multiplied by 0.8 is noise of 50, which the network knows; 0.5 stays 0.5."""
    weights = tiny_weights("color")
    options = DenoiseOptions(62.5, str(weights), device="cpu", precision="float32")
    facts = denoise_file(noisy, tmp_path / "out.png", options)
    assert (facts.sigma, facts.sigma_source, facts.network.trained_sigma) == (62.5, "option", 50)
    network = Engine(load_checkpoint(weights), "cpu", "float32")
    pixels = unclipped(read_picture(noisy).pixels, 62.5, True)
    expected = (network((pixels - 0.5) * 0.8 + 0.5) - 0.5) / 0.8 + 0.5
    written = read_picture(tmp_path / "out.png").pixels
    assert np.abs(written - np.clip(expected, 0, 1)).max() < 0.51 / 255


def test_the_noise_level_is_estimated_for_each_picture(tmp_path, photo, tiny_weights):
    options = DenoiseOptions(None, str(tiny_weights("color")), device="cpu")
    for sigma in (10, 40):
        noisy = rounded(add_noise(photo, sigma).transpose(1, 2, 0) * 255)
        Image.fromarray(noisy).save(tmp_path / f"{sigma}.png")
        facts = denoise_file(tmp_path / f"{sigma}.png", tmp_path / f"out{sigma}.png", options)
        assert facts.sigma == pytest.approx(sigma, rel=0.1)
        assert facts.sigma_source == "estimate"


@pytest.mark.parametrize("sigma", [8, 15, 30])
@pytest.mark.parametrize(("quality", "subsampling"), [(95, 0), (95, 2), (85, 2)])
def test_the_level_estimated_of_a_jpeg_restores_it_as_well_as_any(tmp_path, photo, sigma, quality, subsampling):
    """JPEG takes much of the noise from the colors, and smears what it leaves; with the bundled weights."""
    clean = photo[100:292, 100:292]
    noisy = rounded(add_noise(clean, sigma).transpose(1, 2, 0) * 255)
    file = tmp_path / "a.jpg"
    Image.fromarray(noisy).save(file, quality=quality, subsampling=subsampling)

    def restored(level):
        output = tmp_path / f"{level}.png"
        facts = denoise_file(file, output, DenoiseOptions(level, "mdrn-2b"))
        return facts.sigma, psnr(read_uint8(output, "color"), clean)

    estimated, reached = restored(None)
    assert 0.8 * sigma < estimated < 1.7 * sigma
    assert reached > max(restored(sigma * factor)[1] for factor in (0.7, 1.0, 1.4)) - 0.5


def test_a_file_without_noise_is_copied_unless_more_is_asked_for(tmp_path, tiny_weights):
    ramp = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 100, 3))
    smooth, options = tmp_path / "smooth.jpg", DenoiseOptions(None, str(tiny_weights("color")))
    Image.fromarray(ramp).save(smooth, quality=80, comment=b"kept")
    content = smooth.read_bytes()
    (tmp_path / "named.png").write_bytes(content)  # a JPEG under another name

    def result(source: Path, target: Path | None, save: SaveOptions | None = None) -> Path:
        jobs = plan_jobs([source], Naming(target, in_place=target is None))
        (outcome,) = run_jobs(jobs, options, save=save)
        assert outcome.status == "done", outcome.error
        assert "no noise was found" in outcome.warnings[0]
        return outcome.job.target

    assert result(smooth, tmp_path / "copy.jpg").read_bytes() == content
    assert result(smooth, tmp_path / "laid.jpg", SaveOptions(flatten="white")).read_bytes() == content, "no alpha"
    for save in (SaveOptions(quality=70), SaveOptions(strip_metadata=True)):
        assert result(smooth, tmp_path / f"{save.quality}.jpg", save).read_bytes() != content
    assert Image.open(result(smooth, tmp_path / "a.png")).format == "PNG"
    assert Image.open(result(tmp_path / "named.png", tmp_path / "b.png")).format == "PNG"
    before = smooth.stat()
    assert result(smooth, None).read_bytes() == content
    assert (smooth.stat().st_ino, smooth.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "not written again"


def test_a_file_keeps_its_format_where_it_is_replaced_and_else_it_is_told(tmp_path, photo, tiny_weights):
    """A PNG that is called .jpg would lose by becoming one."""
    ramp = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 100, 3))
    for pixels, sigma in ((ramp, None), (photo[:100, :100], 50)):
        source = tmp_path / f"{sigma}.jpg"
        Image.fromarray(pixels).save(source, "PNG")
        options = DenoiseOptions(sigma, str(tiny_weights("color")))
        (outcome,) = run_jobs(plan_jobs([source], Naming(tmp_path / f"out-{sigma}.jpg")), options)
        assert "the input is PNG by its content, and its result JPEG by its name" in outcome.warnings
        assert Image.open(outcome.job.target).format == "JPEG"
        before = source.read_bytes()
        (outcome,) = run_jobs(plan_jobs([source], Naming(in_place=True)), options)
        assert (outcome.status, Image.open(source).format) == ("done", "PNG")
        assert (source.read_bytes() == before) == (sigma is None)
        assert not any("by its content" in warning for warning in outcome.warnings)


def test_a_picture_without_noise_is_left_as_it_is(tmp_path, tiny_weights):
    ramp = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 100, 3))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    jobs = plan_jobs([tmp_path / "a.png"], Naming(tmp_path / "b.png"))
    (outcome,) = run_jobs(jobs, DenoiseOptions(None, str(tiny_weights("color"))))
    assert "no noise" in outcome.warnings[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), ramp)


@pytest.mark.parametrize(("estimate", "served"), [(0.6, None), (0.8, 0.8), (3.0, 3.0), (150.0, 100.0)])
def test_little_noise_is_removed_as_little_or_left(photo, monkeypatch, estimate, served):
    """Restored as of 1, noise of 0.6 would lose more than it is; many photographs without noise are estimated so."""
    monkeypatch.setattr("mdrn_cli.restore.find_noise", lambda *_: Noise(estimate, is_white=True))
    restored, facts = Restorer(DenoiseOptions())(picture_of(photo[:64, :64], has_alpha=False))
    assert facts.sigma == estimate
    assert (facts.network.sigma if facts.network else None) == served
    assert np.array_equal(restored.channels.transpose(1, 2, 0), photo[:64, :64]) == (served is None)


def test_gray_made_of_a_color_picture_without_noise_is_not_called_left_as_it_is():
    ramp = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 100, 3)) // np.array([1, 2, 3], np.uint8)
    restored, _ = Restorer(DenoiseOptions(color="gray"))(picture_of(ramp, has_alpha=False))
    assert restored.mode == "L"
    assert restored.warnings == ("no noise was found; only the color mode is changed",)


@pytest.mark.parametrize("gain", [1.5, 3.0])
def test_floats_beyond_white_are_restored_as_well_as_those_within(photo, gain):
    """The network, which knows intensities up to 1, is shown them so."""
    clean = photo[:128, :128].astype(np.float32) / 255 * np.float32(gain)
    noisy = clean + np.random.default_rng(0).normal(0, 15 / 255, clean.shape).astype(np.float32)
    errors = []
    for options in (DenoiseOptions(), DenoiseOptions(15)):
        restored, _ = Restorer(options)(picture_of(noisy, has_alpha=False))
        errors.append(255 * np.sqrt(np.mean((restored.channels.transpose(1, 2, 0) - clean) ** 2)))
    assert max(errors) < 10


def test_a_picture_too_small_to_estimate_is_left_and_says_so(tmp_path):
    """An icon in a folder of photographs costs the run nothing."""
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    (outcome,) = run_jobs(plan_jobs([tmp_path / "a.png"], Naming(tmp_path / "b.png")), DenoiseOptions())
    assert (outcome.status, outcome.warnings) == ("done", (TOO_SMALL,))
    assert "--sigma" in TOO_SMALL
    assert to_json(outcome)["sigma"]["value"] is None
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize("noise", [25, 0])
def test_a_gray_picture_to_be_in_color_is_restored_as_the_gray_one_it_is(photo, noise):
    """A network for color has never seen the same noise in three channels."""
    gray = rounded(add_noise(photo[:128, :128, :1], noise)[0] * 255)
    gray = gray if noise else np.full_like(gray, 90)
    plain, facts = Restorer(DenoiseOptions(model="mdrn-2b"))(picture_of(gray, has_alpha=False))
    colored, about = Restorer(DenoiseOptions(model="mdrn-2b", color="color"))(picture_of(gray, has_alpha=False))
    assert (facts.mode, about.mode, colored.mode) == ("L", "RGB", "RGB")
    assert about.network == facts.network
    assert np.array_equal(colored.channels, np.repeat(plain.channels, 3, axis=0))
    assert colored.warnings == (() if noise else (CONVERTED,))


def test_a_network_for_color_that_is_named_restores_gray_pictures_that_are_to_be_in_color(photo, tiny_weights):
    gray = picture_of(photo[:32, :40, 1].copy(), has_alpha=False)
    asked = {"sigma": 50.0, "model": str(tiny_weights("color"))}
    colored, about = Restorer(DenoiseOptions(**asked, color="color"))(gray)
    assert colored.channels.shape == (3, 32, 40)
    assert np.array_equal(colored.channels, Restorer(DenoiseOptions(**asked))(gray.to_color("color"))[0].channels)
    assert about.network


def test_options_of_saving_have_the_defaults_of_what_they_set():
    """Which the command line cannot take from there: that would load numpy before `--help` is answered."""
    options = inspect.signature(denoise_command).parameters
    assert {field.name: options[field.name].default for field in fields(SaveOptions)} == asdict(SaveOptions())


def test_a_quality_that_has_no_effect_is_told_of(tmp_path, photo, tiny_weights):
    Image.fromarray(photo[:32, :32]).save(tmp_path / "a.png")
    weights = tiny_weights("color")
    for name, told in (("b.png", True), ("c.jpg", False)):
        options = "--sigma", 30, "--model", weights, "--quality", 50
        done = run_mdrn("denoise", tmp_path / "a.png", "-o", tmp_path / name, *options)
        assert done.returncode == 0
        assert ("--quality is of JPEG" in done.stderr) == told


def test_strength_blends_with_the_input(tmp_path, noisy, tiny_weights):
    weights = str(tiny_weights("color"))
    results = {}
    for strength in (0.0, 0.5, 1.0):
        target = tmp_path / f"{strength}.png"
        denoise_file(noisy, target, DenoiseOptions(50.0, weights, strength=strength, precision="float32"))
        results[strength] = np.asarray(Image.open(target)).astype(float)
    assert np.array_equal(results[0.0], np.asarray(Image.open(noisy)))
    inside = (results[1.0] > 0) & (results[1.0] < 255)
    assert np.abs(results[0.5] - (results[0.0] + results[1.0]) / 2)[inside].max() <= 1


@pytest.mark.parametrize(
    ("target", "save", "told"),
    [
        ("a.tif", {}, (40, 24, "LA", 16)),
        ("a.png", {"strip_metadata": True}, (24, 40, "LA", 16)),
        ("a.png", {"flatten": "white"}, (40, 24, "L", 16)),
        ("a.jpg", {"flatten": "white"}, (40, 24, "L", 8)),
        ("a.bmp", {"flatten": "white"}, (24, 40, "L", 8)),
        ("a.webp", {}, (40, 24, "RGBA", 8)),
        ("a.webp", {"flatten": "white"}, (40, 24, "RGB", 8)),
    ],
)
def test_what_is_told_of_the_layout_is_that_of_the_result(tmp_path, tiny_weights, target, save, told):
    sideways = Image.Exif()
    sideways[274] = 6
    data = np.random.default_rng(0).integers(0, 65536, (24, 40, 2)).astype(np.uint16)
    picture = Picture(data[:, :, :1].transpose(2, 0, 1), data[:, :, 1], "uint16", Metadata(exif=sideways.tobytes()))
    (tmp_path / "deep.tif").write_bytes(encode_picture(picture, "TIFF")[0])
    plan = plan_jobs([tmp_path / "deep.tif"], Naming(tmp_path / target))
    (outcome,) = run_jobs(plan, DenoiseOptions(50.0, str(tiny_weights())), save=SaveOptions(**save))
    facts, result = outcome.facts, read_picture(tmp_path / target)
    assert (facts.width, facts.height, facts.mode, facts.bit_depth) == told
    assert told == (*result.channels.shape[:0:-1], result.mode, result.bit_depth)


def test_sixteen_bits_stay_sixteen(tmp_path, tiny_weights):
    """Restored pixels fall between the 256 steps of 8 bits, and alpha is the input's."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 65536, (64, 64, 4)).astype(np.uint16)
    pyvips.Image.new_from_array(data).copy(interpretation="rgb16").write_to_file(str(tmp_path / "a.png"))
    facts = denoise_file(tmp_path / "a.png", tmp_path / "b.tif", DenoiseOptions(50.0, str(tiny_weights("color"))))
    assert facts.bit_depth == 16
    back = pyvips.Image.new_from_file(str(tmp_path / "b.tif")).numpy()
    assert back.dtype == np.uint16
    assert np.array_equal(back[..., 3], data[..., 3])
    assert len(np.unique(back[..., :3])) > 1000


def test_a_comparison_is_written_beside_the_result(noisy, tiny_weights):
    sheet = noisy.with_name("sheet.png")
    done = run_mdrn("denoise", noisy, "--sigma", 50, "--model", tiny_weights("color"), "--compare", sheet)
    assert done.returncode == 0, done.stderr
    with Image.open(sheet) as image:
        assert image.width > 2 * 200
    made = noisy.parent / "made"
    of_its_own = ["--sigma", 50, "--model", tiny_weights("color"), "-o", f"{made}/", "--compare", made / "sheet.png"]
    done = run_mdrn("denoise", noisy, *of_its_own)
    assert done.returncode == 0, done.stderr
    assert (made / "sheet.png").read_bytes() == sheet.read_bytes()
    shutil.rmtree(made)
    before = {path: path.read_bytes() for path in noisy.parent.iterdir()}
    again = run_mdrn("denoise", noisy, "--skip-existing", "--compare", sheet)
    assert again.returncode == 0, again.stderr
    assert {path: path.read_bytes() for path in noisy.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "noisy.png"], "noisy.png is an input or a result of this run"),
        (["--compare", "./../{here}/noisy.png", "--overwrite"], "is an input or a result of this run"),
        (["--compare", "out.png", "--overwrite"], "out.png is an input or a result of this run"),
        (["--report", "noisy.png", "--overwrite"], "noisy.png is an input or a result of this run"),
        (["--report", "link.png", "--overwrite"], "link.png is an input or a result of this run"),
        (["--report", "out.png"], "out.png is an input or a result of this run"),
        (["--compare", "other.png"], "other.png exists already"),
        (["--report", "other.json"], "other.json exists already"),
        (["--compare", "sheet.jpg"], "the picture is a PNG, not sheet.jpg"),
        (["--compare", "none/sheet.png"], "no folder none"),
        (["--report", "none/report.json"], "no folder none"),
        (["--report", "-"], "only --output can be -"),
        (["--report", "/dev/stdout", "--overwrite"], "/dev/stdout exists already and is not a file"),
        (["--report", "same.png", "--compare", "same.png"], "both --compare and --report"),
    ],
)
def test_a_sheet_or_report_that_would_do_harm_is_refused_before_any_work(noisy, arguments, message):
    folder = noisy.parent
    (folder / "other.png").write_text("precious")
    (folder / "other.json").write_text('{"results": [], "summary": "of another program"}')
    (folder / "link.png").symlink_to("noisy.png")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    arguments = [argument.format(here=folder.name) for argument in arguments]
    done = run_mdrn("denoise", "noisy.png", "-o", "out.png", *arguments, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_without_a_suffix_is_told_to_be_none_that_is_read(tmp_path):
    """As a shell's <(command) gives one."""
    os.mkfifo(tmp_path / "63")
    done = run_mdrn("denoise", tmp_path / "63")
    assert (done.returncode, "63 is not a file" in done.stderr, "use -" in done.stderr) == (4, True, True)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="there is no such name")
@pytest.mark.parametrize(
    "arguments", [["-o", "/dev/stdout"], ["-o", "/dev/stdout", "-f", "png"], ["--report", "/dev/fd/1"]]
)
def test_a_log_that_goes_on_is_not_replaced(noisy, tiny_weights, arguments):
    how = ["denoise", str(noisy), *arguments, "--overwrite", "--sigma", "50", "--model", str(tiny_weights("color"))]
    with (noisy.parent / "log").open("w") as log:
        log.write("before\n")
        log.flush()
        number = (noisy.parent / "log").stat().st_ino
        done = subprocess.run([sys.executable, "-m", "mdrn_cli", *how], stdout=log, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert b"is not a file" in done.stderr
    assert (noisy.parent / "log").stat().st_ino == number
    assert (noisy.parent / "log").read_text() == "before\n"


def test_a_report_replaces_that_of_an_earlier_run(noisy, tmp_path, tiny_weights):
    """So that a script can be run again; the folder of results need not be there the first time."""
    how = ["--sigma", 50, "--model", tiny_weights("color"), "--report", tmp_path / "out" / "report.json"]
    for status in ("done", "skipped"):
        done = run_mdrn("denoise", noisy, "-o", tmp_path / "out", "--skip-existing", *how)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "out" / "report.json").read_text())["results"][0]["status"] == status


def test_the_result_is_written_though_its_comparison_cannot_be(noisy, monkeypatch, capsys, tiny_weights):
    def full(_versions):
        raise MdrnError("cannot write sheet.png (No space left on device)")

    monkeypatch.setattr(mdrn_cli.compare, "compare_pictures", full)
    arguments = [noisy, "-o", noisy.with_name("out.png"), "--compare", noisy.with_name("sheet.png"), "--sigma", 50]
    arguments += ["--model", tiny_weights("color")]
    monkeypatch.setattr(sys, "argv", ["mdrn", "denoise", *map(str, arguments)])
    assert run(app) == 1
    assert "No space left" in capsys.readouterr().err
    assert Image.open(noisy.with_name("out.png")).size == (200, 150)


def test_errors_keep_their_kind():
    assert (UsageError("").exit_code, InputError("").exit_code, WeightsError("").exit_code) == (2, 4, 5)
