"""The x8 self-ensemble."""

import numpy as np
import pytest
from conftest import tiny_checkpoint

from mdrn_cli.engine import Engine
from mdrn_cli.ensemble import self_ensemble

TURNS = [
    lambda x: x[:, ::-1],
    lambda x: x[:, :, ::-1],
    lambda x: x.transpose(0, 2, 1),
    lambda x: np.rot90(x, 1, (1, 2)),
    lambda x: np.rot90(x, 3, (1, 2)),
]


@pytest.mark.parametrize("shape", [(1, 33, 47), (3, 16, 16), (1, 1, 5)])
def test_result_turns_with_the_input(shape):
    function = self_ensemble(Engine(tiny_checkpoint("gray" if shape[0] == 1 else "color"), "cpu", "float32"))
    image = np.random.default_rng(0).random(shape, np.float32)
    result = function(image)
    assert result.shape == shape
    for turn in TURNS:
        np.testing.assert_allclose(function(turn(image)), turn(result), atol=2e-6)


def test_it_is_the_mean_over_eight_orientations():
    seen = []

    def function(x):
        seen.append(x.copy())
        return x

    image = np.random.default_rng(0).random((1, 4, 4), np.float32)
    np.testing.assert_allclose(self_ensemble(function)(image), image, atol=1e-6)
    assert len({x.tobytes() for x in seen}) == 8


def test_it_is_not_the_plain_result():
    engine = Engine(tiny_checkpoint(), "cpu", "float32")
    image = np.random.default_rng(0).random((1, 24, 24), np.float32)
    assert np.abs(self_ensemble(engine)(image) - engine(image)).max() > 1e-5
