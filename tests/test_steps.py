"""What a step goes by: the learning rate, and where random numbers are drawn."""

import math
from pathlib import Path

import pytest
import torch
from conftest import tiny_config
from torch.overrides import TorchFunctionMode

from mdrn_cli.parallel import Group
from mdrn_cli.patches import PatchSampler
from mdrn_cli.photographs import read_photographs
from mdrn_cli.steps import Stepper, rate_factor
from mdrn_cli.training import initial_model, plain_loss


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


class PretendedMPS(TorchFunctionMode):
    """Computes on the CPU what is for MPS, and refuses what MPS would: float64, and generators of other devices."""

    used = 0

    def __torch_function__(self, function, _types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        devices = [value for value in (*args, kwargs.get("device")) if isinstance(value, torch.device)]
        if any(device.type == "mps" for device in devices):
            self.used += 1
            tensors = [value for value in args if isinstance(value, torch.Tensor)]
            assert torch.float64 not in (kwargs.get("dtype"), *(tensor.dtype for tensor in tensors))
            assert kwargs.get("generator") is None
            args = [torch.device("cpu") if value in devices else value for value in args]
            kwargs |= {"device": torch.device("cpu")} if "device" in kwargs else {}
        return function(*args, **kwargs)


def weights_after_steps(folder: Path, device: str) -> list[torch.Tensor]:
    config = tiny_config(folder, optimizer="adamw", sigma=25.0)
    sampler = PatchSampler(read_photographs(folder, config.color), config.patch_size, torch.device(device))
    stepper = Stepper(config, initial_model(config), plain_loss(config.sigma, config.loss), sampler, Group())
    for step in range(3):
        stepper.step(step / 3)
    stepper.collect()
    assert stepper.state.counters.skipped == 0
    return stepper.parameters


def test_steps_on_mps_go_by_random_numbers_of_the_cpu(photo_folder):
    on_cpu = weights_after_steps(photo_folder, "cpu")
    with PretendedMPS() as mps:
        on_mps = weights_after_steps(photo_folder, "mps")
    assert mps.used
    for a, b in zip(on_cpu, on_mps, strict=True):
        assert torch.equal(a, b)
