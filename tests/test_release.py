"""`mdrn weights pack`: from a run to a bundled checkpoint and its record."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import tiny_checkpoint
from PIL import Image

from mdrn_cli import release
from mdrn_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mdrn_cli.errors import UsageError
from mdrn_cli.files import sha256_of
from mdrn_cli.manifest import load_manifest, save_manifest
from mdrn_cli.model import MDRN, MDRNConfig

RUN = {"iteration": 7, "batch_size": 2, "patch_size": 16, "sigma": 50.0, "seed": 3, "data": "photos/of/mine"}


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Weights and manifest of their own."""
    save_manifest(tmp_path / "manifest.json", [])
    monkeypatch.setattr(release, "BUNDLED", tmp_path / "weights")
    monkeypatch.setattr(release, "manifest_path", lambda: tmp_path / "manifest.json")
    monkeypatch.setattr(release, "load_manifest", lambda: load_manifest(tmp_path / "manifest.json"))
    return tmp_path


@pytest.fixture
def pictures(tmp_path, photo):
    """A set of two small images."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(2):
        Image.fromarray(photo[100 * k : 100 * k + 32, :40]).save(folder / f"{k}.png")
    return folder


def trained(folder, scale=0.01):
    torch.manual_seed(0)
    config = MDRNConfig("gray", 2)
    state = MDRN(config).state_dict()
    state["tail.weight"] *= scale
    save_checkpoint(folder / "best.safetensors", Checkpoint(config, 50.0, state, RUN), torch.float32)
    return folder / "best.safetensors"


def test_a_run_becomes_a_checkpoint_and_a_record(room, pictures):
    seen = []
    record, checks = release.pack(trained(room), [str(pictures)], str(pictures), on_set=seen.append)
    stored = room / "weights" / "mdrn-2b-gray-50.safetensors"
    assert [path.name for path in (room / "weights").iterdir()] == [stored.name]
    assert load_checkpoint(stored).record == {"name": "mdrn-2b-gray-50"}
    assert (record.name, record.sha256, record.bytes) == (stored.stem, sha256_of(stored), stored.stat().st_size)
    assert abs(checks["float32"] - checks["float16"]) <= 0.002
    (kept,) = json.loads((room / "manifest.json").read_text())["checkpoints"]
    assert (kept["training"]["steps"], kept["training"]["pixels"], kept["training"]["data"]) == (7, 7 * 2 * 256, "mine")
    assert kept["metrics"] == {pictures.name: pytest.approx(checks["float16"], abs=1e-3)}
    assert len(next(iter(kept["spot_checks"].values()))) == 2
    assert len(seen) == 3


def test_a_second_run_replaces_the_first(room, pictures):
    for scale in (0.01, 0.02):
        record, _ = release.pack(trained(room, scale), [str(pictures)], str(pictures))
    assert [kept.sha256 for kept in load_manifest(room / "manifest.json")] == [record.sha256]


def test_a_bundled_checkpoint_is_measured_again(room, pictures, monkeypatch):
    monkeypatch.chdir(room)
    record, _ = release.pack(trained(room), [pictures.name], str(pictures))
    save_manifest(room / "manifest.json", [replace(record, metrics={pictures.name: 1.0}, spot_checks={})])
    (stale,) = load_manifest(room / "manifest.json")
    assert release.measure_again(stale) == record
    assert load_manifest(room / "manifest.json") == (record,)


def test_what_float16_would_harm_is_not_bundled(room, pictures, monkeypatch):
    monkeypatch.setattr(release, "HALF_TOLERANCE_DB", -1.0)
    with pytest.raises(UsageError, match="float16 storage changes"):
        release.pack(trained(room), [], str(pictures))
    assert list((room / "weights").iterdir()) == []
    assert load_manifest(room / "manifest.json") == ()


def test_a_network_of_no_family_is_refused(room, pictures):
    save_checkpoint(room / "tiny.safetensors", tiny_checkpoint(), torch.float32)
    with pytest.raises(UsageError, match="no family"):
        release.pack(room / "tiny.safetensors", [], str(pictures))
