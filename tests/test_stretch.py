"""A network serves levels that it was not trained at."""

import numpy as np
import pytest

from mdrn_cli.stretch import stretch_loss, stretched

NOISY = np.random.default_rng(0).random((1, 6, 7), np.float32)


def seen_by(trained, sigma):
    """What the network is given, and what comes back when it answers with `answer`."""
    seen = []

    def network(x):
        seen.append(x)
        return x - np.float32(0.1)

    return stretched(network, trained, sigma)(NOISY), seen[0]


@pytest.mark.parametrize("sigma", [40, 50, 75, 100])
def test_intensities_are_stretched_about_the_middle_and_back(sigma):
    result, seen = seen_by(50, sigma)
    np.testing.assert_allclose(seen, (NOISY - 0.5) * (50 / sigma) + 0.5, atol=1e-6)
    np.testing.assert_allclose(result, NOISY - 0.1 * sigma / 50, atol=1e-6)


def test_no_stretch_where_none_is_needed():
    function = np.negative
    assert stretched(function, 25.0, 25.0) is function


@pytest.mark.parametrize(("trained", "least"), [(50, 0.7), (5, 0.95)])
def test_far_below_the_expansion_is_bounded_and_the_input_kept_in_part(trained, least):
    """The sooner, the lower the level is that the network knows."""
    result, seen = seen_by(trained, 0.14 * trained)
    np.testing.assert_allclose(seen, (NOISY - 0.5) / least + 0.5, atol=1e-6)
    np.testing.assert_allclose(result, NOISY - 0.14 / least * 0.1 * least, atol=1e-6)
    weaker, _ = seen_by(trained, 0.02 * trained)
    assert np.abs(weaker - NOISY).max() < np.abs(result - NOISY).max() / 5, "less noise, less change"


@pytest.mark.parametrize("sigma", [1.2, 5.0])
def test_a_network_that_was_trained_so_is_given_the_picture_expanded_wholly(sigma):
    seen = []
    result = stretched(lambda x: seen.append(x) or x - np.float32(0.1), 15.0, sigma, wholly=True)(NOISY)
    np.testing.assert_allclose(seen[0], (NOISY - 0.5) * (15 / sigma) + 0.5, rtol=1e-5)
    np.testing.assert_allclose(result, NOISY - 0.1 * sigma / 15, atol=1e-5)


def test_expanding_costs_more_than_compressing():
    assert stretch_loss(25, 25) == 0
    assert stretch_loss(25, 50) < stretch_loss(25, 100) < stretch_loss(25, 12.5)
