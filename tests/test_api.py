"""`mdrn_cli.denoise` on arrays and Pillow images: the same as the command, bit for bit."""

import math
import os
import subprocess
import sys
import typing
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from conftest import rounded, run_mdrn, tiny_checkpoint
from PIL import Image

import mdrn_cli
from mdrn_cli import api
from mdrn_cli.arguments import in_arguments
from mdrn_cli.checkpoint import save_checkpoint
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.errors import DeviceError, InputError, UsageError, WeightsError
from mdrn_cli.noise import add_noise


@pytest.fixture(scope="module")
def noisy(photo) -> np.ndarray:
    pixels = add_noise(photo[:150, :200], 30).transpose(1, 2, 0)
    return rounded(pixels * 255)


@pytest.mark.parametrize("sigma", ["auto", 30.0])
def test_the_same_bits_as_the_command(tmp_path, noisy, tiny_weights, sigma):
    weights = tiny_weights("color")
    Image.fromarray(noisy).save(tmp_path / "a.png")
    done = run_mdrn("denoise", tmp_path / "a.png", "-o", tmp_path / "b.png", "--sigma", sigma, "--model", weights)
    assert done.returncode == 0, done.stderr
    expected = np.asarray(Image.open(tmp_path / "b.png"))
    assert np.array_equal(mdrn_cli.denoise(noisy, sigma, str(weights)), expected)
    image = mdrn_cli.denoise(Image.fromarray(noisy), sigma, str(weights))
    assert isinstance(image, Image.Image)
    assert np.array_equal(np.asarray(image), expected)


def test_the_same_sixteen_bits_as_the_command(tmp_path, noisy, tiny_weights):
    weights = tiny_weights("color")
    deep = noisy.astype(np.uint16) * 257
    pyvips.Image.new_from_array(deep).copy(interpretation="rgb16").write_to_file(str(tmp_path / "a.png"))
    done = run_mdrn("denoise", tmp_path / "a.png", "-o", tmp_path / "b.png", "--sigma", 30, "--model", weights)
    assert done.returncode == 0, done.stderr
    expected = pyvips.Image.new_from_file(str(tmp_path / "b.png")).numpy()
    assert np.array_equal(mdrn_cli.denoise(deep, 30, str(weights)), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.float16, ">u2", ">f4"])
@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1), (40, 50, 2), (40, 50, 3), (40, 50, 4)])
def test_shape_type_and_alpha_come_back(tiny_weights, dtype, shape):
    values = np.random.default_rng(0).random(shape)
    image = (values if np.dtype(dtype).kind == "f" else values * np.iinfo(dtype).max).astype(dtype)
    color = "color" if shape[-1] in (3, 4) else "gray"
    before = image.copy()
    result = mdrn_cli.denoise(image, 50, str(tiny_weights(color)))
    assert (result.shape, result.dtype) == (shape, dtype)
    assert np.array_equal(image, before)
    if shape[-1] in (2, 4):
        assert np.array_equal(result[..., -1], image[..., -1])
    assert not np.array_equal(result, image)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((4, 4), np.int32), {}, "int32"),
        (np.zeros((4, 4, 5), np.uint8), {}, "shape"),
        (np.zeros((0, 4), np.uint8), {}, "shape"),
        (np.full((8, 8), np.nan, np.float32), {}, "finite"),
        (Image.new("CMYK", (4, 4)), {}, "CMYK"),
        ("a.png", {}, "not paths"),
        (Path("a.png"), {}, "not paths"),
        (np.zeros((8, 8), np.uint8), {"sigma": "much"}, "sigma"),
        (np.zeros((8, 8), np.uint8), {"sigma": 0.1}, "below 1"),
        (np.zeros((8, 8), np.uint8), {"sigma": 5, "strength": 3}, "strength"),
        (np.zeros((8, 8), np.uint8), {"sigma": 5, "strength": "1"}, "strength"),
        (np.zeros((8, 8), np.uint8), {"sigma": 5, "max_memory": "2G"}, "max_memory"),
    ],
)
def test_what_makes_no_sense_is_said(image, options, message):
    with pytest.raises(UsageError, match=message):
        mdrn_cli.denoise(image, **options)


def test_hints_are_of_arguments_not_of_options():
    with pytest.raises(InputError) as told:
        mdrn_cli.denoise(np.full((32, 32), 5.0))
    assert told.value.hint == "give white=VALUE"
    assert in_arguments("--coarse-sigma 0 --device cpu --tile") == "coarse_sigma=0 device='cpu' tile"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("sigma", [25]),
        ("sigma", np.array([25.0])),
        ("sigma", True),
        ("coarse_sigma", ["a"]),
        ("coarse_sigma", [[5, 5]]),
        ("coarse_sigma", [[1], [1, 2]]),
        ("tile", [256]),
        ("tile", 192.5),
        ("strength", None),
        ("white", "255"),
        ("max_memory", math.nan),
        ("max_memory", -math.inf),
        ("max_memory", "2G"),
        ("model", None),
        ("device", None),
        ("ensemble", "no"),
    ],
)
def test_arguments_of_other_types_are_refused(argument, value):
    with pytest.raises(UsageError, match=f"^{argument} must be"):
        mdrn_cli.denoise(np.zeros((32, 32), np.uint8), **{argument: value})
    if argument == "white":
        with pytest.raises(UsageError, match=r"^white must be"):
            mdrn_cli.estimate_sigma(np.zeros((32, 32), np.uint8), white=value)


def test_numbers_may_be_numpys(noisy, tiny_weights):
    weights = str(tiny_weights("color"))
    ours, numpys = (mdrn_cli.denoise(noisy, kind(30), weights, coarse_sigma=(kind(9),)) for kind in (float, np.float32))
    assert np.array_equal(ours, numpys)
    assert np.array_equal(ours, mdrn_cli.denoise(noisy, np.array(30), weights, coarse_sigma=np.array([9])))
    wide = np.tile(noisy, (1, 2, 1))[:192]
    tiled, numpys = (mdrn_cli.denoise(wide, 30, weights, tile=tile) for tile in (192, np.float32(192)))
    assert np.array_equal(tiled, numpys)


def test_masked_arrays_are_refused():
    """Their mask would count for nothing."""
    with pytest.raises(UsageError, match="masked"):
        mdrn_cli.denoise(np.ma.masked_less(np.zeros((32, 32), np.uint8), 1))


def test_memory_to_stay_within_can_be_given(photo):
    with pytest.raises(DeviceError, match="too little memory") as told:
        mdrn_cli.denoise(photo[:64, :64], 25, "mdrn-2b", max_memory=10**8)
    assert told.value.hint == "raise max_memory, or give a tile"
    whole = mdrn_cli.denoise(photo[:64, :64], 25, "mdrn-2b", tile=0)
    for bytes_for_all in (2**40, math.inf):
        assert np.array_equal(mdrn_cli.denoise(photo[:64, :64], 25, "mdrn-2b", max_memory=bytes_for_all), whole)


def test_colors_of_sixteen_bits_that_pillow_cuts_are_warned_of(tmp_path, photo):
    deep = photo[:32, :32].astype(np.uint16) * 257
    pyvips.Image.new_from_array(deep).copy(interpretation="rgb16").write_to_file(str(tmp_path / "deep.png"))
    Image.fromarray(photo[:32, :32]).save(tmp_path / "plain.png")
    with pytest.warns(UserWarning, match="16 bits a channel as 8"):
        mdrn_cli.estimate_sigma(Image.open(tmp_path / "deep.png"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mdrn_cli.estimate_sigma(Image.open(tmp_path / "plain.png"))


def test_a_family_that_is_misspelt_is_told_what_there_is():
    with pytest.raises(WeightsError) as caught:
        mdrn_cli.denoise(np.zeros((16, 16), np.uint8), model="MDRN-2B-")
    assert caught.value.hint.startswith("did you mean mdrn-2b")


def test_importing_is_light():
    """torch is loaded when a picture is denoised, not before."""
    code = "import sys, mdrn_cli; assert 'torch' not in sys.modules; mdrn_cli.denoise; print(mdrn_cli.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError):
        _ = mdrn_cli.nonsense


def test_an_array_without_noise_comes_back_as_it_was():
    flat = np.full((64, 64), 0.3)
    with pytest.warns(UserWarning, match="no noise was found") as told:
        result = mdrn_cli.denoise(flat)
    assert told[0].filename == __file__
    assert result is not flat
    assert np.array_equal(result, flat)


def test_what_there_is_to_warn_of_is_told_of_arguments():
    with pytest.warns(UserWarning, match="give white=4000$"):
        mdrn_cli.denoise(np.full((64, 64), 4000, np.uint16))


def test_levels_of_coarse_noise_can_be_given(photo):
    gray = photo[:160, :160, 0]
    plainly = mdrn_cli.denoise(gray, 10)
    assert np.array_equal(mdrn_cli.denoise(gray, 10, coarse_sigma=(0,)), plainly)
    assert not np.array_equal(mdrn_cli.denoise(gray, 10, coarse_sigma=[20]), plainly)
    with pytest.raises(UsageError, match="coarse_sigma"):
        mdrn_cli.denoise(gray, 10, coarse_sigma="much")


def test_networks_are_loaded_once_whatever_else_is_asked_for(noisy, tiny_weights, monkeypatch):
    loads = []
    load = Denoisers._load
    monkeypatch.setattr(Denoisers, "_load", lambda *args: (loads.append(args), load(*args))[1])
    weights = str(tiny_weights("color"))
    for options in ({"sigma": 30}, {"sigma": 20}, {"sigma": 20, "strength": 0.5}, {"sigma": 20, "coarse_sigma": 10}):
        mdrn_cli.denoise(noisy, model=weights, **options)
    assert len(loads) == 1


def test_a_path_is_what_lies_there_now(noisy, tmp_path, monkeypatch):
    """As that of a run that goes on, or of a run of the same name in another folder."""
    states = [tiny_checkpoint("color", seed=seed) for seed in range(3)]
    for folder, state in zip("xy", states, strict=False):
        (tmp_path / folder).mkdir()
        save_checkpoint(tmp_path / folder / "w.safetensors", state, torch.float32)
    monkeypatch.chdir(tmp_path / "x")
    first = mdrn_cli.denoise(noisy, 30, "w.safetensors")
    monkeypatch.chdir(tmp_path / "y")
    second = mdrn_cli.denoise(noisy, 30, "w.safetensors")
    save_checkpoint(tmp_path / "y" / "w.safetensors", states[2], torch.float32)
    third = mdrn_cli.denoise(noisy, 30, "w.safetensors")
    assert not any(np.array_equal(a, b) for a, b in ((first, second), (second, third), (first, third)))


def test_a_path_of_a_checkpoint_is_taken(noisy, tiny_weights):
    weights = tiny_weights("color")
    assert np.array_equal(mdrn_cli.denoise(noisy, 30, weights), mdrn_cli.denoise(noisy, 30, str(weights)))


@pytest.mark.parametrize(("mode", "hint"), [("I", "uint16"), ("F", "floats"), ("CMYK", 'convert("RGB")')])
def test_the_hint_for_another_mode_loses_nothing(mode, hint):
    with pytest.raises(UsageError) as told:
        mdrn_cli.denoise(Image.new(mode, (32, 32)), 30)
    assert hint in told.value.hint


@pytest.mark.parametrize("kind", ["P", "I;16", "1", *(f"{mode} with transparency" for mode in ("P", "1", "L", "RGB"))])
def test_palettes_transparent_colors_one_and_sixteen_bits_are_taken_as_by_the_command(
    tmp_path, noisy, tiny_weights, kind
):
    image = Image.fromarray(noisy)
    mode = kind.split()[0]
    if mode == "I;16":
        image = Image.fromarray(noisy[:, :, 1].astype(np.uint16) * 257)
    else:
        image = image.quantize(64) if mode == "P" else image.convert(mode)
    color = {"P": bytes(range(64)), "RGB": tuple(map(int, noisy[3, 4])), "L": image.getpixel((4, 3)), "1": 255}
    clear = {"transparency": color[mode]} if "with" in kind else {}
    image.save(tmp_path / "a.png", **clear)
    weights = tiny_weights("color" if mode in ("P", "RGB") else "gray")
    run_mdrn("denoise", tmp_path / "a.png", "-o", tmp_path / "b.png", "--sigma", 30, "--model", weights)
    with Image.open(tmp_path / "a.png") as given, Image.open(tmp_path / "b.png") as expected:
        restored = mdrn_cli.denoise(given, 30, weights)
        assert given.mode == mode
        plain = {"P": "RGB", "1": "L"}.get(mode, mode)
        assert restored.mode == expected.mode == plain + ("A" if clear else "")
        assert "transparency" not in restored.info
        assert np.array_equal(np.asarray(restored), np.asarray(expected))
        assert mdrn_cli.estimate_sigma(given) == mdrn_cli.estimate_sigma(np.asarray(given.convert(restored.mode)))


def test_one_level_of_coarse_noise_may_be_a_number(noisy, tiny_weights):
    one, several = (mdrn_cli.denoise(noisy, 30, str(tiny_weights("color")), coarse_sigma=c) for c in (10, [10.0]))
    assert np.array_equal(one, several)


def test_what_is_left_to_be_found_may_be_none_or_auto(noisy, tiny_weights):
    weights = str(tiny_weights("color"))
    plainly = mdrn_cli.denoise(noisy, model=weights)
    assert np.array_equal(mdrn_cli.denoise(noisy, None, weights, tile="auto"), plainly)
    assert np.array_equal(mdrn_cli.denoise(noisy, "auto", weights, tile=None, coarse_sigma=None), plainly)
    with pytest.raises(UsageError, match="sigma is too large"):
        mdrn_cli.denoise(noisy, 10**400, weights)
    with pytest.raises(UsageError, match="tile must be"):
        mdrn_cli.denoise(noisy, 30, weights, tile="large")


def test_the_level_of_arrays_and_images_as_the_command_tells_it(tmp_path, noisy):
    Image.fromarray(noisy).save(tmp_path / "a.png")
    told = run_mdrn("estimate", tmp_path / "a.png").stdout.split("\t")[1].strip()
    level = mdrn_cli.estimate_sigma(noisy)
    assert f"{level:.2f}" == told
    assert mdrn_cli.estimate_sigma(Image.fromarray(noisy)) == level
    opaque = np.dstack([noisy, np.full(noisy.shape[:2], 255, np.uint8)])
    assert mdrn_cli.estimate_sigma(opaque) == level
    assert mdrn_cli.estimate_sigma(noisy[:, :, 0]) == mdrn_cli.estimate_sigma(noisy[:, :, :1])
    with pytest.raises(UsageError, match="no image"):
        mdrn_cli.estimate_sigma(noisy.transpose(2, 0, 1))


def test_the_level_where_white_is_less_than_a_file_can_hold(noisy):
    deep = noisy.astype(np.uint16) * 16
    assert mdrn_cli.estimate_sigma(deep, white=4080) == pytest.approx(mdrn_cli.estimate_sigma(noisy), rel=0.01)
    with pytest.raises(InputError, match="beyond a white of 1000") as raised:
        mdrn_cli.estimate_sigma(deep, white=1000)
    assert raised.value.hint == "give a larger white"


def test_the_level_is_told_with_what_there_is_to_warn_of(noisy):
    with pytest.warns(UserWarning, match="if that is white, give white=4080$"):
        assert mdrn_cli.estimate_sigma(noisy.astype(np.uint16) * 16) < 3


class Tensor:
    """As torch's that learns, or is on a GPU."""

    def __array__(self, *_args, **_more):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.\nUse detach.")


@pytest.mark.parametrize("of", [mdrn_cli.denoise, mdrn_cli.estimate_sigma])
def test_what_no_array_can_be_had_of_is_refused(of):
    with pytest.raises(
        UsageError, match=r"^a Tensor cannot be made an array: Can't call numpy\(\) on Tensor .*grad\.$"
    ):
        of(Tensor())
    with pytest.raises(UsageError, match=r"beyond those of floats of 32 bits"):
        of(np.full((32, 32), 1e39))
    for white in (1e-320, 1e100):
        with pytest.raises(UsageError, match=r"^white must be from 1e-30 to 1e\+30, not"):
            of(np.zeros((32, 32)), white=white)


def test_a_flag_is_called_true_or_false():
    with pytest.raises(UsageError, match=r"^ensemble must be bool, not 1$"):
        mdrn_cli.denoise(np.zeros((32, 32), np.uint8), ensemble=1)


FORKED = """
import multiprocessing, sys
import numpy as np
import mdrn_cli

def restored(image):
    return mdrn_cli.denoise(image, 20, sys.argv[1], device="cpu")

def with_threads():
    import torch
    torch.set_num_threads(2)

if __name__ == "__main__":
    images = list(np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8))
    here = [restored(image) for image in images]
    with multiprocessing.get_context("fork").Pool(2, with_threads) as pool:
        there = pool.map_async(restored, images).get(60)
    print(all(map(np.array_equal, here, there)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_forked_after_a_picture_was_restored_restore_others(tmp_path, tiny_weights):
    """They waited for ever for threads that are not copied."""
    (tmp_path / "forked.py").write_text(FORKED)
    command = [sys.executable, str(tmp_path / "forked.py"), str(tiny_weights("gray"))]
    environment = os.environ | {"MDRN_THREADS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "True\n", done.stderr


def test_threads_may_restore_at_once(noisy, tiny_weights):
    weights = str(tiny_weights("color"))
    parts = [noisy[k : k + 64, k : k + 64] for k in range(0, 80, 10)]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda part: mdrn_cli.denoise(part, 20, weights), parts))
    assert all(map(np.array_equal, at_once, (mdrn_cli.denoise(part, 20, weights) for part in parts)))


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_caller_s_autocast_changes_nothing(photo, precision, kind):
    expected = mdrn_cli.denoise(photo[:64, :64], 25, "mdrn-2b", precision=precision)
    with torch.autocast("cpu", kind):
        assert np.array_equal(mdrn_cli.denoise(photo[:64, :64], 25, "mdrn-2b", precision=precision), expected)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_a_network_is_the_same_whatever_torch_s_defaults_are_when_it_is_loaded(photo, tiny_weights, kind):
    weights = tiny_weights("color")
    expected = mdrn_cli.denoise(photo[:64, :64], 25, weights)
    api._kept.cache_clear()
    torch.set_default_dtype(kind)
    try:
        with torch.device("meta"):
            mdrn_cli.denoise(photo[:64, :64], 25, weights)
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.array_equal(mdrn_cli.denoise(photo[:64, :64], 25, weights), expected)


def test_errors_of_floats_that_a_caller_asks_for_are_not_those_of_ours(photo):
    small = photo[:64, :64] / 255 * 1e-42
    smaller = small.astype(np.float32)
    with np.errstate(all="raise"):
        assert mdrn_cli.estimate_sigma(small) == 0
        mdrn_cli.denoise(smaller)


def test_the_functions_tell_their_types_and_are_listed():
    for function in (mdrn_cli.denoise, mdrn_cli.estimate_sigma):
        assert {"image", "white", "return"} <= typing.get_type_hints(function).keys()
    assert set(mdrn_cli.__all__) <= set(dir(mdrn_cli))
