"""What a step goes by."""

import math

import pytest
from conftest import tiny_config

from mdrn_cli.steps import rate_factor


def test_the_rate_rises_over_the_warm_up_and_falls_as_a_cosine():
    config = tiny_config("photos", warmup=0.1)
    assert rate_factor(config, 0.0) == pytest.approx(0.01, rel=0.01), "the first step moves something"
    assert rate_factor(config, 0.049) == pytest.approx(0.5, abs=0.01)
    for done in (0.1, 0.25, 0.5, 0.75):
        assert rate_factor(config, done) == pytest.approx((1 + math.cos(math.pi * done)) / 2)
    assert rate_factor(config, 1.0) == rate_factor(config, 1.5) == 0


@pytest.mark.parametrize(("done", "expected"), [(0, 1), (0.24, 1), (0.25, 1 / 2), (0.5, 1 / 4), (0.99, 1 / 8)])
def test_the_rate_is_halved_in_equal_parts_of_the_run(done, expected):
    assert rate_factor(tiny_config("photos", schedule="halving", halvings=3, warmup=0.0), done) == expected
