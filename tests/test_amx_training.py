"""tools/amx_training.py: its kernels compute what torch does, where there is a processor and a compiler for them."""

import shutil
from dataclasses import replace

import pytest
import torch
from conftest import tiny_config, tool_module

from mdrn_cli import losses
from mdrn_cli.errors import MdrnError
from mdrn_cli.model import MDRN, MDRNConfig
from mdrn_cli.training import run_train

functions, amx = tool_module("amx_functions"), tool_module("amx_training")


def needs_amx(test):
    here = bool(shutil.which("g++")) and functions.has_amx()
    return pytest.mark.skipif(not here, reason="needs AMX and g++")(pytest.mark.usefixtures("kernels")(test))


@pytest.fixture
def kernels(monkeypatch):
    go_torchs_way(monkeypatch)  # and again after the test
    found = functions.compiled()
    amx.install(found)
    return found


def go_torchs_way(monkeypatch):
    for owner, name in amx.REPLACED:
        monkeypatch.setattr(owner, name, amx.by_torch[name])


def trained_a_step(model, clean, noisy, reduced):
    """Output and gradients, by float32 or as a run computes."""
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
        out = model(noisy)
        (out - clean).square().mean().sqrt().backward()
    return [out.detach(), *(value.grad.clone() for value in model.parameters())]


def difference(values, reference):
    """Of all values together, relative."""
    apart = sum((v - r).square().sum() for v, r in zip(values, reference, strict=True))
    whole = sum(r.square().sum() for r in reference)
    return float((apart / whole).sqrt())


@needs_amx
@pytest.mark.parametrize(("blocks", "color", "side"), [(2, "gray", 128), (3, "color", 192)])
def test_gradients_are_as_near_to_those_of_float32_as_torchs(monkeypatch, blocks, color, side):
    torch.manual_seed(3)
    model = MDRN(MDRNConfig(color, blocks)).to(memory_format=torch.channels_last)
    clean = torch.rand(2, model.config.channels, side, side).contiguous(memory_format=torch.channels_last)
    noisy = clean + 0.2 * torch.randn_like(clean)
    ours = trained_a_step(model, clean, noisy, True)
    with monkeypatch.context() as patch:
        go_torchs_way(patch)
        exact, theirs = (trained_a_step(model, clean, noisy, reduced) for reduced in (False, True))
    assert difference(ours, exact) <= 1.1 * difference(theirs, exact)
    assert difference(ours[1:], exact[1:]) <= 1.1 * difference(theirs[1:], exact[1:])


@needs_amx
def test_features_differ_and_teach_as_by_torch():
    """Those of both networks of HADS, by the network's own gradients, too: other groups use the features as well."""
    torch.manual_seed(6)
    student, teacher = (MDRN(MDRNConfig("gray", blocks)) for blocks in (1, 2))
    noisy = torch.rand(2, 1, 128, 128)

    def taught(difference):
        student.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                wanted = teacher.forward_features(noisy)[1]
            denoised, features = student.forward_features(noisy)
            parts = [difference(ours, theirs) for ours, theirs in zip(features, wanted, strict=True)]
            (denoised.square().mean() + torch.stack(parts).sum()).backward()
        return torch.stack(parts).detach(), [value.grad.clone() for value in student.parameters()]

    ours, gradients = taught(losses.feature_difference)
    assert losses.feature_difference is not amx.by_torch["feature_difference"]
    theirs, reference = taught(amx.by_torch["feature_difference"])
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert difference(gradients, reference) < 0.01


@needs_amx
def test_a_network_that_is_not_trained_gives_the_same():
    torch.manual_seed(4)
    model, noisy = MDRN(MDRNConfig("gray", 3)), torch.rand(2, 1, 128, 128)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trained = model(noisy).detach()
        with torch.no_grad():
            assert torch.equal(model.requires_grad_(False)(noisy), trained)


@needs_amx
def test_patches_the_kernels_are_not_for_go_torchs_way(monkeypatch):
    torch.manual_seed(5)
    model, odd = MDRN(MDRNConfig("gray", 1)), torch.rand(1, 1, 40, 72)
    narrow = MDRN(MDRNConfig("gray", 1, features=8)), torch.rand(1, 1, 128, 128)
    exact = MDRN(MDRNConfig("gray", 1)), torch.rand(1, 1, 128, 128)
    for network, noisy, reduced in ((model, odd, True), (*narrow, True), (*exact, False)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
            ours = network(noisy)
            with monkeypatch.context() as patch:
                go_torchs_way(patch)
                assert torch.equal(ours, network(noisy))


@needs_amx
def test_a_run_learns(photo_folder, tmp_path):
    changes = {"features": 64, "patch_size": 96, "iterations": 3, "precision": "bfloat16"}
    config = replace(tiny_config(photo_folder), **changes)
    counters, _ = run_train(config, tmp_path / "run", False, lambda _: None)
    assert counters.iteration == 3
    assert counters.skipped == 0


def test_where_the_kernels_cannot_run_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(functions, "LIBRARIES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(functions, "has_amx", lambda: True)
    with pytest.raises(MdrnError, match=r"no g\+\+"):
        functions.compiled()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(functions, "has_amx", lambda: False)
    with pytest.raises(MdrnError, match="no AMX"):
        functions.compiled()
