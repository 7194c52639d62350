"""Muon and the division of parameters between optimizers."""

import math

import pytest
import torch

from mdrn_cli.model import MDRN, MDRNConfig
from mdrn_cli.optim import FUSED_ON, Muon, make_optimizers, orthogonalise, step_where


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((4, 16, 16), (2, 8, 72), (3, 64, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_every_parameter_is_in_exactly_one_optimizer():
    model = MDRN(MDRNConfig("color", 2, 8))
    for name in ("muon", "adamw", "adam"):
        optimizers = make_optimizers(model, name, 1e-3, 0.02)
        ids = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
        assert sorted(ids) == sorted(id(p) for p in model.parameters())
    hidden = make_optimizers(model, "muon", 1e-3, 0.02)[0]
    outer = {id(p) for name in ("head", "tail") for p in getattr(model, name).parameters()}
    assert not outer & {id(p) for p in hidden.param_groups[0]["params"]}


def test_batched_update_equals_one_kernel_at_a_time():
    torch.manual_seed(0)
    kernels = [torch.randn(8, 4, 3, 3, requires_grad=True) for _ in range(3)]
    copies = [k.detach().clone().requires_grad_() for k in kernels]
    together = Muon(kernels, lr=0.1)
    alone = [Muon([k], lr=0.1) for k in copies]
    for _ in range(3):
        for a, b in zip(kernels, copies, strict=True):
            a.grad = torch.randn(8, 4, 3, 3)
            b.grad = a.grad.clone()
        together.step()
        for optimizer in alone:
            optimizer.step()
    for a, b in zip(kernels, copies, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_muon_descends():
    torch.manual_seed(0)
    target, weight = torch.randn(8, 8, 1, 1), torch.zeros(8, 8, 1, 1, requires_grad=True)
    optimizer = Muon([weight], lr=0.05)
    before = (weight - target).square().mean().item()
    for _ in range(100):
        optimizer.zero_grad()
        (weight - target).square().mean().backward()
        optimizer.step()
    assert (weight - target).square().mean().item() < before / 4


@pytest.mark.parametrize("name", ["muon", "adamw", "adam"])
@pytest.mark.parametrize("fused_on", [FUSED_ON, ()], ids=["fused", "not fused"])
def test_a_step_that_is_not_finite_changes_nothing_that_lasts(name, fused_on, monkeypatch):
    """One NaN step between two good ones must leave what the two alone would have given."""
    monkeypatch.setattr("mdrn_cli.optim.FUSED_ON", fused_on)

    def after(gradients):
        torch.manual_seed(0)
        model = MDRN(MDRNConfig("gray", 1, 8))
        optimizers = make_optimizers(model, name, 1e-3, 0.02)
        for value in gradients:
            for p in model.parameters():
                p.grad = torch.full_like(p, value) + torch.arange(p.numel()).view(p.shape) / p.numel()
            step_where(torch.tensor(value).isfinite(), optimizers)
        return list(model.parameters())

    for a, b in zip(after([0.1, math.nan, 0.3]), after([0.1, 0.3]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
