"""Networks for noise as files have it: which pictures they restore."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import record_json, rounded, through_jpeg, tool_module
from scipy.ndimage import gaussian_filter

from mdrn_cli.denoisers import Denoisers
from mdrn_cli.manifest import WHITE
from mdrn_cli.metrics import psnr
from mdrn_cli.noise import find_noise
from mdrn_cli.passes import Passes
from mdrn_cli.paths import sha256_of
from mdrn_cli.picture import Picture, picture_of
from mdrn_cli.restore import LEAST_CAMERA, NOISELESS, DenoiseOptions, Restorer
from mdrn_cli.weights import BUNDLED

SIGMA = 12


@pytest.fixture
def manifest(tmp_path, monkeypatch, tiny_weights):
    """Of a network for color and one for gray."""
    monkeypatch.setenv("MDRN_HOME", str(tmp_path / "home"))
    records = []
    for color in ("gray", "color"):
        path = tiny_weights(color, 15.0)
        about = {"name": f"lab-{color}", "file": path.name, "sha256": sha256_of(path), "urls": [str(path)]}
        about |= {"bytes": path.stat().st_size, "color": color, "sigma": 15, "noise": "camera"}
        about |= {"metrics": {"Set12": 99.0, "Kodak24": 99.0}}  # and so preferred to the bundled one
        records.append(record_json(**about))
    path = tmp_path / "lab.json"
    path.write_text(json.dumps({"schema": "mdrn.manifest/1", "checkpoints": records}))
    return str(path)


def noisy(photo, blur, tone=False):
    photo = photo[:256, :256]
    noise = np.random.default_rng(0).normal(size=photo.shape)
    if tone:
        photo, noise = photo[:, :, :1], noise[:, :, :1]
    noise = gaussian_filter(noise, (blur, blur, 0)) if blur else noise
    return picture_of(rounded(photo + SIGMA * noise / noise.std()), has_alpha=False)


def network_for(picture, manifest, **options):
    options = {"model": "mdrn-2b", **options}
    denoisers = Denoisers(options["model"], manifests=[manifest])
    return Restorer(DenoiseOptions(**options), denoisers)(picture)[1].network.model


@pytest.mark.parametrize("blur", [0.6, 0.8])
def test_noise_that_is_not_white_is_left_to_a_network_for_it(photo, manifest, blur):
    assert network_for(noisy(photo, blur), manifest) == "lab-color"
    assert network_for(noisy(photo, blur, tone=True), manifest) == "lab-gray"


@pytest.mark.parametrize("tone", [(1.0, 1.0, 1.0), (1.0, 0.9, 0.7)])
def test_one_for_color_serves_gray_and_one_tone_too(photo, tmp_path, manifest, tone):
    records = json.loads(Path(manifest).read_text())
    records["checkpoints"] = [one for one in records["checkpoints"] if one["color"] == "color"]
    (tmp_path / "color.json").write_text(json.dumps(records))
    picture = noisy(photo, 0.8, tone=True)
    if min(tone) < 1:
        channels = np.rint(picture.channels * np.array(tone)[:, None, None]).astype(np.uint8)
        picture = replace(picture, channels=channels)
    network = Restorer(DenoiseOptions(model="mdrn-2b"), Denoisers("mdrn-2b", manifests=[str(tmp_path / "color.json")]))(
        picture
    )[1].network
    assert network.model == "lab-color"
    assert "-gray-" in network.beside.model


def test_of_a_gray_picture_one_for_color_gives_the_mean_of_channels(manifest):
    denoiser = Denoisers("mdrn-2b", manifests=[manifest]).find("color", 15.0, "camera")
    gray = np.random.default_rng(0).random((1, 32, 32), np.float32)
    expected = denoiser.engine(np.repeat(gray, 3, axis=0)).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(denoiser(gray), expected, atol=1e-6)


def test_by_its_file_a_bundled_one_is_served_as_by_its_name():
    named = Denoisers("mdrn-2b-camera-color-15").find("color", 5)
    path = BUNDLED / "mdrn-2b-camera-color-15.safetensors"
    given = Denoisers(str(path)).find("color", 5)
    assert (given.noise, given.sha256) == (named.noise, named.sha256) == ("camera", sha256_of(path))
    image = np.random.default_rng(0).random((3, 24, 24), np.float32)
    assert np.array_equal(given(image), named(image))


@pytest.mark.parametrize("level", [5.0, 30.0])
def test_it_is_stretched_to_its_own_level_however_far_that_is(manifest, level):
    """So it has been trained."""
    denoiser = Denoisers("mdrn-2b", manifests=[manifest]).find("color", level, "camera")
    noisy = np.random.default_rng(0).random((3, 32, 32), np.float32)
    expected = (denoiser.engine((noisy - 0.5) * np.float32(15 / level) + 0.5) - 0.5) * (level / 15) + 0.5
    np.testing.assert_allclose(denoiser(noisy), expected, atol=1e-4)


def test_next_to_no_noise_is_not_for_it(photo, manifest, monkeypatch):
    picture = noisy(photo, 0.8)
    monkeypatch.setattr("mdrn_cli.restore.LEAST_CAMERA", 50.0)
    assert network_for(picture, manifest).startswith("mdrn-2b-color-")


def test_what_jpeg_has_left_of_little_noise_is(resized_photo, manifest):
    through = through_jpeg(resized_photo, 80)
    sigma = find_noise(np.ascontiguousarray(through.transpose(2, 0, 1))).sigma
    assert NOISELESS <= sigma < LEAST_CAMERA
    assert network_for(picture_of(through, has_alpha=False), manifest) == "lab-color"


def test_white_noise_is_not(photo, manifest):
    assert network_for(noisy(photo, 0), manifest).startswith("mdrn-2b-color-")
    assert network_for(noisy(photo, 0, tone=True), manifest).startswith("mdrn-2b-gray-")


def test_a_level_that_is_given_is_of_white_noise_and_a_name_is_obeyed(photo, manifest):
    picture = noisy(photo, 0.8)
    assert network_for(picture, manifest, sigma=10.0).startswith("mdrn-2b-color-")
    assert network_for(picture, manifest, model="mdrn-2b-color-15") == "mdrn-2b-color-15"
    assert network_for(picture, manifest, model="lab-color", sigma=10.0) == "lab-color"


def test_a_family_without_such_networks_does_what_it_can(photo):
    denoisers = Denoisers("mdrn-2b")
    denoisers._records = tuple(record for record in denoisers._records if record.noise == WHITE)
    facts = Restorer(DenoiseOptions(model="mdrn-2b"), denoisers)(noisy(photo[:128, :128], 0.8))[1]
    assert facts.network.model.startswith("mdrn-2b-color-")
    assert facts.network.beside is None


@pytest.mark.parametrize("family", ["mdrn", "mdrn-2b"])
def test_the_bundled_one_leaves_less_of_a_cameras_noise_than_one_for_white_noise_alone(photo, family):
    camera = tool_module("sensor").Camera(True, 0.7, (2.0, 1.0, 1.6), 0.1, 0.0)
    scene, noise = camera.picture(photo[:192, :192].astype(np.float32), 12.0, np.random.default_rng(0))
    clean, stored = (rounded(pixels) for pixels in (scene, scene + noise))
    reached = {}
    for model in (family, f"{family}-color-15"):
        restored, facts = Restorer(DenoiseOptions(model=model))(picture_of(stored, has_alpha=False))
        reached[facts.network.label] = psnr(restored.channels.transpose(1, 2, 0), clean)
    both, white = reached
    stretched = "color-15 (trained at 15, stretched)"
    assert both == f"{family}-camera-{stretched} and {family}-{stretched}"
    assert reached[both] > reached[white] + 0.5


def test_the_mean_is_taken_of_it_and_a_network_for_white_noise(manifest):
    denoisers = Denoisers("mdrn-2b", manifests=[manifest])
    noisy = np.random.default_rng(0).random((3, 32, 32), np.float32)
    picture = Picture(noisy, depth="float32")
    passes = Passes(denoisers, picture, None, 1.0, None, tile=0, memory=2**31, ensemble=False, on_tile=None)
    both, done = passes(noisy, "float32", 15.0, kind="camera")
    assert (done.model, done.beside.model) == ("lab-color", "mdrn-2b-color-15")
    alone = [denoisers.find("color", 15.0, kind)(noisy) for kind in ("camera", "white")]
    np.testing.assert_allclose(both, np.mean(alone, axis=0), atol=2e-2)
    _, done = passes(noisy, "float32", 15.0)
    assert done.beside is None
