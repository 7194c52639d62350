"""The bundled checkpoints do what they are shipped for, on real photographs that are in no benchmark set."""

from functools import cache
from itertools import groupby

import numpy as np
import pytest
import skimage.data
from conftest import SHARED

from mdrn_cli.bench import measure_image
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.datasets import open_dataset
from mdrn_cli.engine import Engine
from mdrn_cli.manifest import CAMERA, load_manifest
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise
from mdrn_cli.stretch import stretched
from mdrn_cli.tilewise import denoise_pixels, overlap_at
from mdrn_cli.tiling import run_tiled
from mdrn_cli.weights import BUNDLED


def kind_of(record):
    return record.family, record.color, record.distilled or "", record.noise


RECORDS = load_manifest()
KINDS = {
    kind: list(records)
    for kind, records in groupby(sorted(RECORDS, key=lambda one: (kind_of(one), one.sigma)), key=kind_of)
}
"""The checkpoints of each kind, from the lowest level up."""
EVERY_RECORD = pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)


def photographs(color, side):
    for photo, y, x in ((skimage.data.astronaut(), 128, 144), (skimage.data.coffee(), 204, 278)):
        part = photo[y - side // 2 :, x - side // 2 :][:side, :side]
        yield np.rint(part @ [0.299, 0.587, 0.114]).astype(np.uint8)[:, :, None] if color == "gray" else part


def restored(name, ensemble=False, side=64):
    """PSNR of each photograph with noise, and denoised by a checkpoint."""
    (record,) = (record for record in RECORDS if record.name == name)
    engine = Engine(load_checkpoint(BUNDLED / record.file), "cpu")
    for clean in photographs(record.color, side):
        noisy = add_noise(clean, record.sigma)
        yield psnr(to_uint8(noisy), clean), psnr(to_uint8(denoise_pixels(noisy, engine, ensemble=ensemble)), clean)


@cache
def plainly_restored(name):
    return tuple(restored(name))


@EVERY_RECORD
def test_noise_is_removed(record):
    """Whoever breaks a checkpoint, the network or the engine loses several dB here."""
    for before, after in plainly_restored(record.name):
        assert after > before + 6 * min(1.0, record.sigma / 15)


def test_tiles_cannot_be_seen(photo, gray_photo, full_size):
    """Where two tiles meet on a photograph that share what they do at the level, nothing is further than 1/255 from
    the whole image: at the highest level of a family, which looks farthest, and at the highest of little noise in gray;
    at full size at all. Networks for noise as files have it are stretched to any level."""
    farthest = {kind: records[-1] for kind, records in KINDS.items() if not records[-1].distilled}
    farthest |= {"little": next(record for record in RECORDS if record.name == "mdrn-gray-25")}
    for record in RECORDS if full_size else farthest.values():
        camera = record.noise == CAMERA
        sigma = 45.0 if camera else record.sigma
        engine = Engine(load_checkpoint(BUNDLED / record.file), "cpu", "float32")
        serve = stretched(engine, record.sigma, sigma, wholly=camera)
        overlap = overlap_at(sigma)
        tile = max(2 * overlap, 128 + overlap // 2)
        noisy = add_noise((gray_photo if record.color == "gray" else photo)[: tile if full_size else 96, :256], sigma)
        tiled = run_tiled(noisy, serve, tile, overlap)
        assert np.abs(tiled - serve(noisy)).max() <= 1 / 255, record.name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: KINDS[kind][-1].name)
def test_the_ensemble_is_better_than_plain(kind, full_size):
    """In each picture, large enough for the errors of its edges not to decide; of each kind the checkpoint of the
    highest level, at full size all."""
    for record in KINDS[kind] if full_size else KINDS[kind][-1:]:
        for (_, plain), (_, ensemble) in zip(
            restored(record.name, side=128), restored(record.name, True, side=128), strict=True
        ):
            assert ensemble > plain, record.name


@pytest.mark.shared
@EVERY_RECORD
def test_manifest_figures_are_measured_again(record, full_size):
    """An image of a set of each checkpoint, at full size two, in float32 on any machine."""
    (name, figures), *_ = record.spot_checks.items()
    dataset = open_dataset(name, SHARED / "test", record.color)
    engine = Engine(load_checkpoint(BUNDLED / record.file), "cpu", "float32")
    again = [file for file in dataset.files if file.name in figures]
    assert len(again) == 2
    for file in again if full_size else again[:1]:
        row, _ = measure_image(file, dataset, record.sigma, engine, ensemble=False, tile=0)
        assert row.psnr == pytest.approx(figures[file.name], abs=0.005)
