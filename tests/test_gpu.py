"""The network by our kernels for GPUs does what the plain one does. Without a GPU by triton's interpreter, which runs
them in float32; with one (MDRN_TEST_CUDA=1) as they are compiled."""

import copy
import gc
import os
import warnings
import weakref
from dataclasses import asdict

import numpy as np
import pytest
import torch
from conftest import tiny_config

from mdrn_cli import engine, fusedgpu
from mdrn_cli.checkpoint import Checkpoint
from mdrn_cli.devices import exact_convolutions
from mdrn_cli.engine import Engine, in_type
from mdrn_cli.errors import DeviceWarning
from mdrn_cli.model import MDRN, MSAG, MDRNConfig
from mdrn_cli.parallel import Group
from mdrn_cli.patches import PatchSampler
from mdrn_cli.photographs import read_photographs
from mdrn_cli.steps import Stepper
from mdrn_cli.training import initial_model, noisy_version, plain_loss

gpufunctions = pytest.importorskip("mdrn_cli.gpufunctions", exc_type=ImportError)  # there is no triton for every system
CUDA = torch.cuda.is_available()
DEVICE, TYPE = (torch.device("cuda"), torch.bfloat16) if CUDA else (torch.device("cpu"), torch.float32)
NEAR = 0.05 if CUDA else 1e-4
"""How far apart gradients may be, relative to their size: bfloat16 has 8 bits."""
needs_gpu = pytest.mark.skipif(not CUDA, reason="needs a CUDA GPU and MDRN_TEST_CUDA=1")


def network(color: str = "gray") -> MDRN:
    torch.manual_seed(0)
    return MDRN(MDRNConfig(color, 1, 32)).to(DEVICE, memory_format=torch.channels_last)


def by_kernels(model: MDRN) -> MDRN:
    copied = copy.deepcopy(model)
    return in_type(copied, DEVICE, TYPE) if CUDA else fusedgpu.with_kernels(copied)


def distance(ours: torch.Tensor, plain: torch.Tensor) -> float:
    return ((ours.detach().float() - plain.detach().float()).norm() / plain.detach().float().norm()).item()


@pytest.fixture(autouse=True)
def own_kernels(monkeypatch):
    """No test keeps kernels where another did, or knows what another found of them."""
    monkeypatch.setattr(fusedgpu, "_running", set())
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    monkeypatch.delenv("TRITON_CACHE_DIR")


def test_results_and_gradients_are_those_of_the_plain_network(monkeypatch):
    monkeypatch.setattr(gpufunctions, "PROGRAMS", 2)  # each of which then goes over several tiles
    monkeypatch.setattr(gpufunctions, "LAUNCH", dict.fromkeys(gpufunctions.LAUNCH, (64, 4, 1)))
    if not CUDA:
        monkeypatch.setattr(gpufunctions, "TOTALS", 1024)  # the interpreter takes as long for few as for many
    plain = network("color")
    ours = by_kernels(plain)
    assert {type(group) for group in ours.groups.values()} == {fusedgpu.KernelMSAG}
    assert ours.state_dict().keys() == plain.state_dict().keys()
    noisy = torch.rand(2, 3, 5, 12, device=DEVICE)
    changes = []
    for model in (ours, plain):
        denoised, features = model.forward_features(noisy)
        changes.append(denoised - noisy)
        (denoised.square().mean() + sum(values.float().abs().mean() for values in features)).backward()
    assert distance(*changes) < NEAR
    for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert a.grad.stride() == a.stride(), name
        assert distance(a.grad, b.grad) < NEAR, name


def test_compiled_kernels_are_kept_in_the_cache_folder(tmp_path):
    by_kernels(network())
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "home" / "kernels")


def test_where_they_cannot_be_kept_the_plain_network_runs(tmp_path):
    (tmp_path / "home").write_text("no folder")
    assert {type(group) for group in by_kernels(network()).groups.values()} == {MSAG}


def test_features_that_need_no_gradient_are_not_kept(monkeypatch):
    kept, model = [], by_kernels(network().requires_grad_(False))
    monkeypatch.setattr(gpufunctions, "_launch", lambda name, _pixels, *rest, **_: kept.append((name, rest[-1])))
    with torch.inference_mode():
        model(torch.rand(1, 1, 8, 8, device=DEVICE))
    assert {last for name, last in kept if name == "spread"} == {False}


def test_what_the_kernels_cannot_count_is_computed_plainly(monkeypatch):
    monkeypatch.setattr(fusedgpu, "MOST_VALUES", 1)
    monkeypatch.setattr(gpufunctions, "_launch", None)
    plain = network()
    noisy = torch.rand(1, 1, 16, 8, device=DEVICE)
    assert distance(by_kernels(plain)(noisy) - noisy, plain(noisy) - noisy) < NEAR


@pytest.mark.parametrize(
    ("device", "dtype", "features", "triton", "expected"),
    [
        ("cuda", torch.bfloat16, 64, True, True),
        ("cuda", torch.float32, 64, True, False),
        ("cuda", torch.bfloat16, 8, True, False),
        ("cuda", torch.bfloat16, 64, False, False),
        ("cpu", torch.bfloat16, 64, True, False),
    ],
)
def test_where_there_are_kernels(monkeypatch, device, dtype, features, triton, expected):
    monkeypatch.setattr(fusedgpu, "has_triton", lambda: triton)
    model = MDRN(MDRNConfig("gray", 1, features))
    assert fusedgpu.has_kernels(model, torch.device(device), dtype) == expected


@pytest.mark.parametrize("learning", [False, True])
def test_kernels_that_do_not_run_are_left_alone(monkeypatch, learning):
    """There may be no compiler of C, or too little memory in a multiprocessor; training needs more kernels."""
    fails, launched = ("fuse_back" if learning else "spread"), gpufunctions._launch

    def launch(name, *arguments, **more):
        if name == fails:
            raise RuntimeError("Failed to find C compiler.\nSet CC.")
        launched(name, *arguments, **more)

    monkeypatch.setattr(gpufunctions, "_launch", launch)
    with pytest.warns(DeviceWarning, match=r"do not run: Failed to find C compiler\.$"):
        model = by_kernels(network().requires_grad_(learning))
    assert {type(part) for part in model.groups.values()} == {MSAG}
    monkeypatch.setattr(gpufunctions, "_launch", launched)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = by_kernels(network().requires_grad_(learning))
    assert {type(part) for part in model.groups.values()} == {fusedgpu.KernelMSAG}


def test_kernels_that_compute_wrongly_are_left_alone(monkeypatch):
    monkeypatch.setattr(fusedgpu.KernelMSAB, "forward", lambda _self, x: x + 1)
    with pytest.warns(DeviceWarning, match="results are off by"):
        model = by_kernels(network())
    assert {type(part) for part in model.groups.values()} == {MSAG}


def test_trying_them_leaves_the_random_numbers_as_they_were(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", None)  # nor those of a GPU
    torch.default_generator.manual_seed(1)
    expected = torch.rand(3)
    model = MDRN(MDRNConfig("gray", 1, 32)).to(DEVICE, memory_format=torch.channels_last)
    torch.default_generator.manual_seed(1)
    by_kernels(model)
    assert torch.equal(torch.rand(3), expected)


def test_the_engine_takes_them_where_there_are(monkeypatch):
    monkeypatch.setattr(engine, "has_kernels", lambda *_: True)
    monkeypatch.setattr(engine, "fusible", lambda _: False)
    model = network()
    checkpoint = Checkpoint(model.config, 25.0, model.cpu().state_dict(), {})
    image = np.random.default_rng(0).random((1, 9, 12), np.float32)
    done = Engine(checkpoint, str(DEVICE), str(TYPE).removeprefix("torch."))
    assert {type(group) for group in done.model.groups.values()} == {fusedgpu.KernelMSAG}
    plain = checkpoint.build()(torch.from_numpy(image)[None])[0].detach().numpy()
    assert np.abs(done(image) - plain).max() < NEAR


def stepper(folder, **options) -> Stepper:
    config = tiny_config(folder, features=32, optimizer="muon", sigma=25.0, iterations=8, **options)
    sampler = PatchSampler(read_photographs(folder, config.color), config.patch_size, DEVICE)
    model = initial_model(config).to(DEVICE, memory_format=torch.channels_last)
    return Stepper(config, model, plain_loss(config.sigma, config.loss), sampler, Group())


def test_a_copy_in_another_type_computes_and_the_weights_themselves_learn(photo_folder, monkeypatch):
    plain = stepper(photo_folder)
    monkeypatch.setattr("mdrn_cli.steps.computing", lambda model, *_: copy.deepcopy(model).to(torch.float64))
    monkeypatch.setattr("mdrn_cli.training.noisy_version", lambda *given: noisy_version(*given).double())
    ours = stepper(photo_folder)
    assert ours.copy is not ours.model
    with exact_convolutions(DEVICE):
        for step in range(4):
            for each in (plain, ours):
                each.step(step / 4)
    assert {parameter.dtype for parameter in ours.copied_parameters} == {torch.float64}
    assert {parameter.dtype for parameter in ours.parameters} == {torch.float32}
    for a, b in zip(ours.averaged_parameters, plain.averaged_parameters, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_run_that_is_over_leaves_its_memory_at_once(photo_folder):
    """Gigabytes of a GPU, which the next run of the same process needs."""
    stepper(photo_folder).step(0.0)  # what is imported on the way makes circles of its own
    gc.collect()
    gc.disable()
    try:
        run = stepper(photo_folder)
        run.step(0.0)
        parts = [weakref.ref(part) for part in (run, run.sampler, run.model, run.averaged)]
        del run
        assert [part() for part in parts] == [None] * len(parts)
    finally:
        gc.enable()


@needs_gpu
def test_recorded_steps_are_those_taken_one_by_one(photo_folder, monkeypatch):
    recorded = stepper(photo_folder)
    monkeypatch.setattr("mdrn_cli.steps.Recording", lambda _generators: lambda work: work())
    plain = stepper(photo_folder)
    for step in range(8):
        for each in (plain, recorded):
            each.step(step / 8)
    for each in (plain, recorded):
        each.collect()
    sums = "loss_sum", "reconstruction_sum"
    theirs, ours = (asdict(each.state.counters) for each in (plain, recorded))
    assert {key: ours.pop(key) for key in sums} == pytest.approx({key: theirs.pop(key) for key in sums}, rel=1e-3)
    assert ours == theirs
    for a, b in zip(recorded.averaged_parameters, plain.averaged_parameters, strict=True):
        assert torch.allclose(a, b, atol=1e-3)
