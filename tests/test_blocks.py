"""Blocks of an image, of which its noise is told."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mdrn_cli.blocks import Blocks, energies_of, looked_at, noise_features, quiet_amplitude
from mdrn_cli.pixels import MOST_BLOCKS, SIDE, blocks_of


@pytest.fixture
def blocks(photo):
    """Some with lines of one color, some clipped, most neither."""
    pixels = looked_at(np.ascontiguousarray(photo[:96, :96].transpose(2, 0, 1))).pixels.copy()
    pixels[:200, :, 3] = 77
    pixels[200:600, :, :, 5] = 90
    pixels[500:900, 1, 2, 2] = 255
    return Blocks.of(pixels)


def test_lines_of_one_color_and_clipped_intensities_are_seen(blocks):
    assert blocks.row[:200].all()
    assert blocks.column[200:600].all()
    one = 1 / (3 * SIDE**2)
    assert (np.median(blocks.cut_off[500:900]), blocks.cut_off[500:900].min()) == pytest.approx((one, one))
    for known in (blocks.row, blocks.column, blocks.cut_off > 0):
        assert known.mean() < 0.3
    assert not blocks.without_even().even.any()
    assert len(blocks[:320].without_even()) == 320  # few would be left


def test_a_line_is_of_one_color_in_all_channels():
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 3, SIDE, SIDE)).astype(np.float32)
    pixels[0, :2, 4] = 9
    assert not Blocks.of(pixels).row[0]
    pixels[0, 2, 4] = 200
    assert Blocks.of(pixels).row[0]


def test_of_some_blocks_the_same_is_told_as_if_they_alone_had_been_looked_at(blocks):
    chosen = np.flatnonzero(np.random.default_rng(0).random(len(blocks)) < 0.3)
    (known, reference), (anew, again) = noise_features(blocks[chosen]), noise_features(Blocks.of(blocks.pixels[chosen]))
    assert known == pytest.approx(anew, abs=1e-5)
    assert reference == pytest.approx(again, abs=1e-5)


def test_energy_is_that_of_the_discrete_cosine_transform():
    down, across = np.mgrid[:SIDE, :SIDE] + 0.5
    wave = np.cos(np.pi * 3 * down / SIDE) * np.cos(np.pi * 5 * across / SIDE)
    energy = energies_of(wave[None, None].astype(np.float32))[0, 0].reshape(SIDE, SIDE)
    assert energy[3, 5] == pytest.approx((wave**2).sum(), rel=1e-5)
    assert energy.sum() == pytest.approx(energy[3, 5], rel=1e-5)


def test_clipped_blocks_do_not_count_where_others_are_enough():
    noise = np.random.default_rng(0).normal(0, 10, (900, 1, SIDE, SIDE))
    light, dark = (np.clip(np.rint(level + noise), 0, 255).astype(np.float32) for level in (128, 0))
    half_dark = Blocks.of(np.concatenate([light, dark]))
    assert quiet_amplitude(half_dark) == quiet_amplitude(Blocks.of(light))
    energy, clipped = half_dark.told_from()
    assert len(energy) == 900
    assert 0.4 < clipped < 0.55
    half_dark.pixels[:90, 0, 0, :4] = 255
    slightly = Blocks.of(half_dark.pixels)
    assert [len(slightly.told_from(most)[0]) for most in (0, 0.05, 0.1)] == [810, 810, 900]
    energy, clipped = Blocks.of(dark).told_from()
    assert clipped == 1
    assert len(energy) > 800, "all but those with an even line"


@pytest.mark.parametrize("shape", [(8, 8), (70, 50), (160, 160), (200, 260), (321, 481), (512, 768), (3000, 150)])
def test_a_few_thousand_blocks_are_taken_of_an_image_of_any_size(shape):
    count = len(blocks_of(np.zeros((1, *shape), np.uint8)))
    places = (shape[0] - SIDE + 1) * (shape[1] - SIDE + 1)
    assert count == places if places <= 2 * MOST_BLOCKS else MOST_BLOCKS / 2 < count < 2 * MOST_BLOCKS


def test_the_same_is_seen_however_many_threads_there_are():
    program = f"""
import hashlib, numpy as np
from mdrn_cli.blocks import Blocks
pixels = np.random.default_rng(0).uniform(0, 255, (6001, 3, {SIDE}, {SIDE})).astype(np.float32)
print(hashlib.sha256(Blocks.of(pixels).energy.tobytes()).hexdigest())
"""
    said = set()
    for threads in ("1", "2", "5"):
        variables = os.environ | {"OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        run = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
        said.add(run.stdout)
    assert len(said) == 1
