"""Pictures whose white is not the most that their data type holds."""

import io
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from conftest import run_mdrn
from PIL import Image

import mdrn_cli
from mdrn_cli.compare import LABEL, MARGIN, compare_pictures
from mdrn_cli.encoding import encode_picture
from mdrn_cli.errors import InputError, UsageError
from mdrn_cli.image import read_picture
from mdrn_cli.picture import picture_of
from mdrn_cli.restore import NO_NOISE, DenoiseOptions, Restorer

SIGMA = 25


@pytest.fixture(scope="module")
def clean(photo):
    return photo[:96, :96] / 255.0


@pytest.fixture(scope="module")
def noisy(clean):
    return np.clip(clean + np.random.default_rng(0).normal(0, SIGMA / 255, clean.shape), 0, 1)


def rms(a, b):
    return float(np.sqrt(np.mean(np.square(a - b))))


@pytest.mark.parametrize(("dtype", "white"), [("uint16", 4095), ("uint16", 1023), ("float32", 4095), ("float64", 200)])
def test_what_is_white_does_not_matter_once_it_is_told(clean, noisy, dtype, white):
    """But for what rounding to fewer bits costs."""
    errors = []
    for told, largest in ((white, white), (None, 65535 if dtype == "uint16" else 1)):
        values = noisy * largest
        given = (np.rint(values) if dtype == "uint16" else values).astype(dtype)
        restored = mdrn_cli.denoise(given, model="mdrn-2b", white=told)
        assert restored.dtype == given.dtype
        errors.append(rms(restored / largest, clean))
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
    assert errors[1] < 0.5 * rms(noisy, clean)


def test_nothing_is_changed_where_there_is_no_noise():
    flat = np.full((64, 64), 1234, np.uint16)
    picture = picture_of(flat, has_alpha=False)
    restored, _ = Restorer(DenoiseOptions(white=4095))(picture)
    assert restored.channels is picture.channels
    assert restored.warnings == (NO_NOISE,)
    assert restored.white == 4095


@pytest.mark.parametrize(("dtype", "white"), [("uint16", 4080), ("float32", 255)])
def test_results_of_fewer_bits_backgrounds_and_sheets_have_a_white_of_their_own(dtype, white):
    """They were black, or white all over."""
    ramp = np.tile(np.linspace(0, white, 100), (64, 1)).astype(dtype)
    restored, _ = Restorer(DenoiseOptions(white=white))(picture_of(ramp, has_alpha=False))
    same, _ = encode_picture(restored, "TIFF")
    assert np.array_equal(read_picture(same).channels[0], ramp)
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        if (kind, dtype) != ("PNG", "uint16"):
            content, warnings = encode_picture(restored, kind)
            assert np.abs(read_picture(content).pixels[0] - ramp / white).max() < 0.02, kind
            assert len(warnings) == 1
            assert "become" in warnings[0]
    with Image.open(io.BytesIO(compare_pictures([("it", restored)]))) as sheet:
        row = np.asarray(sheet.convert("L"))[LABEL + MARGIN + 5, MARGIN : MARGIN + 100]
    assert np.abs(row - ramp[0] / white * 255).max() < 2
    clear = replace(restored, alpha=np.zeros((64, 100), dtype))
    laid = clear.flattened("white")
    assert np.allclose(laid.channels, white)


def test_the_command_writes_what_is_seen_of_unused_bits(tmp_path):
    ramp = np.tile(np.arange(100) * 40, (64, 1)).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    done = run_mdrn("denoise", tmp_path / "a.png", "-o", tmp_path / "b.jpg", "--white", 3960, "--sigma", "auto")
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(tmp_path / "b.jpg"))[0, [0, 99]] == pytest.approx([0, 255], abs=3)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_colors_under_full_transparency_do_not_count_and_stay(noisy, dtype):
    """Those of a mask may be of the largest value that there is."""
    pixels = np.concatenate([noisy * 4095, np.full((96, 96, 1), 65535)], axis=2)
    pixels[:, :20] = [65535, 60000, 12345, 0]
    pixels = np.rint(pixels).astype(np.uint16)
    if dtype == np.float32:
        pixels = pixels.astype(np.float32)
    told = []
    for white in (None, 4095):
        picture = picture_of(pixels, has_alpha=True)
        if white or dtype == np.uint16:
            told.append(Restorer(DenoiseOptions(SIGMA if white else None, model="mdrn-2b", white=white))(picture)[0])
            assert np.array_equal(told[-1].channels[:, :, :20], picture.channels[:, :, :20])
    seen = told[-1].channels[:, :, 24:].transpose(1, 2, 0) / 4095
    assert rms(seen, noisy[:, 24:]) > 15 / 255
    if dtype == np.uint16:
        assert "--white 4095" in told[0].warnings[0]


@pytest.mark.parametrize("value", [-9999, -32767, -3e38, -4.5])
def test_floats_that_stand_for_no_data_are_refused_where_they_can_be_seen(value):
    """One pixel would spoil all the network sees it from."""
    pixels = np.full((64, 64, 2), 0.5, np.float32)
    pixels[..., 1] = 1
    pixels[10, 12, 0] = value
    with pytest.raises(InputError, match="reach down to"):
        mdrn_cli.denoise(pixels, SIGMA)
    with pytest.raises(InputError, match="reach down to"):
        mdrn_cli.estimate_sigma(pixels[:, :, 0])
    with pytest.raises(InputError, match="reach down to"):
        mdrn_cli.denoise(pixels * np.float32(0.9), SIGMA, white=0.9)
    pixels[10, 12, 1] = 0
    assert np.abs(mdrn_cli.denoise(pixels, SIGMA, "mdrn-2b")[20:, :, 0] - 0.5).max() < 0.1


def test_a_white_that_makes_no_sense_is_refused(noisy):
    for white in (0, -1, np.inf, np.nan):
        with pytest.raises(UsageError, match="white must be above 0"):
            mdrn_cli.denoise(noisy, SIGMA, white=white)
        assert run_mdrn("estimate", "any.png", "--white", white).returncode == 2
    with pytest.raises(InputError, match="beyond a white of 255"):
        mdrn_cli.denoise(np.full((32, 32), 256, np.uint16), SIGMA, white=255)
    with pytest.raises(InputError, match="white is 4095, and 8 bits hold 255 at most"):
        mdrn_cli.denoise(np.full((32, 32), 99, np.uint8), SIGMA, white=4095)
    with pytest.raises(InputError) as told:
        mdrn_cli.denoise(noisy * 4095, SIGMA)
    assert told.value.hint == "give white=VALUE"


def test_the_commands_take_it_and_tell_where_it_is_wanting(tmp_path, noisy):
    file = tmp_path / "a.png"
    Image.fromarray(np.rint(noisy[:, :, 0] * 4095).astype(np.uint16)).save(file)
    wide, narrow = (json.loads(run_mdrn("estimate", file, *how, "--json").stdout) for how in (["--white", 4095], []))
    assert (wide["warnings"], narrow["warnings"]) == (
        [],
        ["intensities reach 4095 of 65535 only: if that is white, give --white 4095"],
    )
    assert f"warning: {file}: intensities reach 4095" in run_mdrn("estimate", file).stderr
    level, narrow = wide["sigma"], narrow["sigma"]
    assert level == pytest.approx(SIGMA, rel=0.1)
    assert narrow < SIGMA / 10
    how = ["denoise", file, "--model", "mdrn-2b", "--json", "-o"]
    plain, told = (
        json.loads(run_mdrn(*how, tmp_path / name, *options).stdout.splitlines()[0])
        for name, options in (("b.png", []), ("c.png", ["--white", 4095]))
    )
    assert any(warning.endswith("if that is white, give --white 4095") for warning in plain["warnings"])
    assert told["warnings"] == []
    assert told["sigma"]["value"] == pytest.approx(level, abs=0.01)
    with Image.open(tmp_path / "c.png") as restored:
        assert 2500 < np.asarray(restored).max() <= 4095


def test_floats_from_minus_one_are_warned_of(noisy, photo):
    """As networks often take them; dark noise about black, and colors beyond those of a profile, are as they should."""
    with pytest.warns(UserWarning, match=r"reach down to -0\.\d\d: if they are from -1 to 1, convert .*$"):
        mdrn_cli.estimate_sigma(2 * noisy - 1)
    dark = photo[:256, :256] / 2000 + np.random.default_rng(0).normal(0, 100 / 255, (256, 256, 3))
    for fine in (noisy, noisy - 0.1, dark):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mdrn_cli.estimate_sigma(fine)


def test_no_level_is_told_of_floats_that_must_mean_something_else(tmp_path, noisy):
    Image.fromarray((noisy[:, :, 0] * 255).astype(np.float32)).save(tmp_path / "a.tif")
    Image.fromarray(noisy[:, :, 0].astype(np.float32)).save(tmp_path / "b.tif")
    done = run_mdrn("estimate", tmp_path / "a.tif", tmp_path / "b.tif", "--json")
    assert done.returncode == 3
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["error"].startswith(f"{tmp_path / 'a.tif'}: floats should be from 0 to 1")
    assert second["sigma"] == pytest.approx(SIGMA, rel=0.1)
    told = run_mdrn("estimate", tmp_path / "a.tif", "--white", 255).stdout.split("\t")[1]
    assert float(told) == pytest.approx(second["sigma"], abs=0.01)
    with pytest.raises(InputError) as raised:
        mdrn_cli.estimate_sigma(noisy * 255)
    assert raised.value.hint == "give white=VALUE"
