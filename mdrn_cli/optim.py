"""Optimizers for training: Muon for the hidden convolutions, AdamW for the rest.

torch's own Muon (2.9 and later) takes only matrices; this one takes convolution kernels and runs the
orthogonalisation of all kernels of one shape as a single batched product.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz coefficients of K. Jordan, "Muon: an optimizer for hidden layers" (2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
OPTIMIZERS = ("muon", "adamw", "adam")
FUSED_ON = ("cpu", "cuda")
"""Kinds of devices on which Adam and AdamW are fused: in every version of torch that we run with."""


def orthogonalise(matrices: Tensor) -> Tensor:
    """(K, m, n) float32 -> the same shape, each matrix brought near its closest semi-orthogonal one."""
    # Sums are part of the products: on a GPU, where these matrices are small, it is kernels that one waits for.
    a, b, c = NEWTON_SCHULZ
    x: Tensor = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised, for kernels of shape (out, in, h, w) seen as (out, in*h*w).

    As in torch's fused optimizers, a step does nothing while `found_inf`, a scalar tensor on the device, is not 0:
    whether to skip is decided there, without waiting for the device.

    Args:
        params: convolution kernels, or one group {"params": ...}.
        lr: step length in spectral norm.
        momentum: of the Nesterov average of gradients.
    """

    def __init__(self, params: Any, lr: float | Tensor = 0.01, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.found_inf = torch.zeros(())

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update every kernel that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault((p.shape[0], p[0].numel()), []).append(p)
            for shape, params in by_shape.items():
                self._step_shape(shape, params, group["lr"], group["momentum"])

    def _step_shape(self, shape: tuple[int, int], params: list[Tensor], lr: float, momentum: float) -> None:
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros(shape, dtype=p.dtype, device=p.device)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        grads = torch.stack([p.grad.reshape(shape) for p in params if p.grad is not None])
        keep = self.found_inf == 0
        gains = torch.where(keep, grads - torch.stack(buffers), 0) * (1 - momentum)
        torch._foreach_add_(buffers, list(gains.unbind()))
        averages = torch.stack(buffers)
        nesterov = torch.where(keep, grads + momentum * (averages - grads), 0)
        steps = orthogonalise(nesterov) * (-lr * max(1.0, shape[0] / shape[1]) ** 0.5)
        torch._foreach_add_(params, [step.view(p.shape) for p, step in zip(params, steps, strict=True)])


def make_optimizers(model: nn.Module, name: str, lr: float, muon_lr: float) -> list[torch.optim.Optimizer]:
    """The optimizers of a model, each parameter in exactly one. On CUDA, where steps are recorded, their rates lie on
    the device.

    Args:
        model: an MDRN.
        name: "muon" (hidden kernels by Muon, head, tail and biases by AdamW), "adamw" or "adam" (everything).
        lr: peak learning rate of AdamW or Adam.
        muon_lr: peak learning rate of Muon.
    """
    named = list(model.named_parameters())
    # A transposed convolution's kernel is (in, out, h, w); as a matrix it serves the same.
    hidden = [p for k, p in named if name == "muon" and p.ndim == 4 and not k.startswith(("head.", "tail."))]
    hidden_ids = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in hidden_ids]
    device = rest[0].device
    fused, recorded = device.type in FUSED_ON, device.type == "cuda"
    rate, muon_rate = (torch.tensor(value, device=device) if recorded else value for value in (lr, muon_lr))
    adam: torch.optim.Optimizer
    if name == "adam":
        adam = torch.optim.Adam(rest, lr=rate, fused=fused, capturable=recorded)
    else:
        adam = torch.optim.AdamW(rest, lr=rate, weight_decay=0.0, fused=fused, capturable=recorded)
    return [Muon(hidden, lr=muon_rate), adam] if hidden else [adam]


def step_where(finite: Tensor, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """One step of each optimizer, which changes nothing unless `finite`, a scalar tensor of bool on the device. The
    device decides and nobody waits for it, but for Adam(W) where it is not fused: that cannot be told to skip."""
    for optimizer in optimizers:
        if isinstance(optimizer, Muon) or optimizer.defaults["fused"]:
            optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        elif not finite:
            continue
        optimizer.step()
