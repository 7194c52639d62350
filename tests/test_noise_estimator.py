"""tools/train_noise_estimator.py: that what estimates noise levels learns."""

import sys

import numpy as np
import pytest
from conftest import tool_module

from mdrn_cli.blocks import answer, looked_at, noise_features


@pytest.fixture(scope="module")
def tool():
    return tool_module("train_noise_estimator")


def test_networks_are_stored_where_the_errors_printed_are_theirs(tool, tmp_path, monkeypatch, capsys):
    elsewhere = tmp_path / "other.npz"
    monkeypatch.setattr(sys, "argv", ["train_noise_estimator.py", "train", "val", str(elsewhere)])
    with pytest.raises(SystemExit):
        tool.main()
    assert str(tool.PACKAGED) in capsys.readouterr().err
    assert tool.PACKAGED.is_file()
    tool.store(elsewhere, {"gray_white_mean": np.arange(3, dtype=np.float16)})
    with np.load(elsewhere, allow_pickle=False) as stored:
        assert stored["gray_white_mean"].tolist() == [0, 1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["other.npz"]


def test_a_network_learns_levels_from_features(tool, photo):
    """Told nothing of content but what the features have of it."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(300):
        crop = tool.white_crop(photo[:, :, :1], rng, float(rng.uniform(5, 50)))
        features, reference = noise_features(looked_at(crop.shown))
        rows.append((features, np.log(crop.level) - reference))
    features, targets = tool.columns(rows)
    network = tool.fit(features[:280], targets[:280], epochs=60)
    errors = [abs(answer(row, network) - target) for row, target in zip(features[280:], targets[280:], strict=True)]
    assert np.median(errors) < 0.1
    twice = tool.mean_of([network, network])
    assert answer(features[0], twice) == pytest.approx(answer(features[0], network), abs=1e-4)
