"""tools/train_camera.py: what the network for noise as files have it learns from, and that a run ends in one."""

import numpy as np
import pytest
import torch
from conftest import tool_module
from PIL import Image

from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.checkpointname import checkpoint_name
from mdrn_cli.errors import UsageError
from mdrn_cli.patches import PatchSampler
from mdrn_cli.runstate import saved_config
from mdrn_cli.trainconfig import TrainConfig
from mdrn_cli.training import run_train
from mdrn_cli.weights import BUNDLED


@pytest.fixture(scope="module")
def tool():
    return tool_module("train_camera")


def pair(tool, sigma=15.0, moved=0):
    rng = np.random.default_rng(0)
    clean = rng.integers(60, 200, (64, 64, 3), np.uint8)
    noisy = clean + rng.integers(0, 30, clean.shape, np.uint8)
    return tool.Pair(noisy, np.full_like(noisy, tool.MIDDLE + moved), clean, sigma)


def test_pairs_are_of_noise_that_is_not_white(tool, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "DRAWN", ((4, (8.0, 30.0)), (1, (0.1, 0.2))))
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(photo[:100]).save(tmp_path / "low.png")
    pairs = tool.pairs_of(tmp_path / "a.png", (0, 0))
    assert len(pairs) >= 2
    changes = [(one.noisy.astype(float) - one.clean).std() for one in pairs]
    assert max(changes) > 4
    for one in pairs:
        assert one.noisy.shape == one.clean.shape == one.moved.shape == (tool.SIDE, tool.SIDE, 3)
        assert one.sigma >= 1
    assert tool.pairs_of(tmp_path / "low.png", (0, 0)) == []


@pytest.mark.parametrize("sigma", [7.5, 15.0, 30.0])
def test_the_loss_is_of_the_picture_stretched_to_the_networks_level(tool, sigma):
    one = pair(tool, sigma)
    sampler = PatchSampler(tool.held([one]), 64, torch.device("cpu"))
    patches = sampler.sample(1, torch.Generator().manual_seed(0))
    loss = tool.step_loss(lambda noisy: (noisy,), patches, None, 0.0, sigma=15.0)
    rmse = np.sqrt(np.square((one.noisy.astype(float) - one.clean) / 255).mean())
    assert float(loss) == pytest.approx(np.sqrt(rmse * 15 / sigma), rel=0.02)


def test_the_network_sees_pixels_where_clipping_has_not_moved_them(tool):
    seen = []
    for moved in (0, 8):
        sampler = PatchSampler(tool.held([pair(tool, 15.0, moved)]), 64, torch.device("cpu"))
        patches = sampler.sample(1, torch.Generator().manual_seed(0))
        tool.step_loss(lambda noisy: (seen.append(noisy) or noisy,), patches, None, 0.0, sigma=15.0)
    assert (seen[1] - seen[0]).numpy() * 255 == pytest.approx(8 * tool.MOVED_STEP, rel=0.02)


def test_a_run_ends_in_a_network_for_such_noise(tool, tmp_path):
    config = TrainConfig(
        data=str(tmp_path), color="color", blocks=2, features=64, sigma=15.0, iterations=2, batch_size=1, noise="camera"
    )
    tool.train(config, tool.held([pair(tool)]), tmp_path / "run", resume=False)
    checkpoint = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert checkpoint_name(checkpoint, None) == "mdrn-2b-camera-color-15"
    assert checkpoint.record["iteration"] == 2
    with pytest.raises(UsageError, match="other noise than white"):
        run_train(TrainConfig.from_dict(saved_config(tmp_path / "run")), tmp_path / "run", True, print)


def test_an_earlier_run_is_not_replaced(tool, tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("")
    monkeypatch.setattr(
        "sys.argv", ["train_camera.py", str(tmp_path), str(tmp_path / "run"), "--init", "a.safetensors"]
    )
    with pytest.raises(SystemExit):
        tool.main()
    assert "is not empty" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.toml").exists()


def told(tool, monkeypatch, capsys, *arguments):
    """What the command says of an error."""
    monkeypatch.setattr("sys.argv", ["train_camera.py", *map(str, arguments)])
    with pytest.raises(SystemExit):
        tool.main()
    return capsys.readouterr().err


def test_photographs_that_are_of_no_use_are_told_of(tool, tmp_path, monkeypatch, capfd):
    Image.new("RGB", (100, 300)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    init = BUNDLED / "mdrn-2b-color-15.safetensors"
    said = told(tool, monkeypatch, capfd, tmp_path, tmp_path / "run", "--init", init)
    assert "no photograph of 208x208 pixels" in said
    assert f"skipped {tmp_path / 'broken.png'}: " in said
    assert not (tmp_path / "run").exists()


def test_what_cannot_begin_is_told_before_pairs_are_drawn(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "of_each", lambda *_: pytest.fail("drawn"))
    assert "a.safetensors" in told(tool, monkeypatch, capsys, tmp_path, tmp_path / "run", "--init", "a.safetensors")
    init = BUNDLED / "mdrn-gray-15.safetensors"
    assert "2 blocks from 8" in told(tool, monkeypatch, capsys, tmp_path, tmp_path / "run", "--init", init)


def test_a_run_goes_on_with_its_own_pairs_and_maybe_for_longer(tool, tmp_path, monkeypatch, capsys):
    drawn, trained = [], []
    monkeypatch.setattr(tool, "of_each", lambda _folder, _work, seed: drawn.append(seed) or [pair(tool)])
    init = ["--init", BUNDLED / "mdrn-2b-color-15.safetensors"]
    run = [tmp_path, tmp_path / "run"]
    options = ["--seed", 5, "--seconds", 0.2, "--batch-size", 1, "--patch-size", 32]
    monkeypatch.setattr("sys.argv", ["train_camera.py", *map(str, (*run, *init, *options))])
    tool.main()
    assert "began with" in told(tool, monkeypatch, capsys, *run, "--resume", "--seed", 6)
    assert "larger budget" in told(tool, monkeypatch, capsys, *run, "--resume", "--seconds", 0.1)
    monkeypatch.setattr(tool, "train", lambda config, *_: trained.append(config))
    monkeypatch.setattr("sys.argv", ["train_camera.py", *map(str, run), "--resume", "--seconds", "60"])
    tool.main()
    assert drawn == [5, 5]
    assert (trained[0].time_budget, trained[0].batch_size, trained[0].seed) == (60.0, 1, 5)
