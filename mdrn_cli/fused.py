"""The network's groups by oneDNN's fused convolutions: ReLU and residual sum are done while the result is in registers,
so that a block passes over its features less often, as memory is the bottleneck on a CPU. Sums whose operands are not
needed afterwards are done in place, to use less memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdrn_cli.model import MDRN, MSAB, MSAG, Coarse, restored_and_fused


def fusible(device: torch.device) -> bool:
    """Whether this torch has the fused convolutions, which are internal to its compiler, for the device."""
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def fuse(model: MDRN) -> MDRN:
    """Replace the groups of a network on the CPU, for inference only, by ones that do the same faster.

    Args:
        model: in the type and memory format it is to run in; changed in place.

    Returns:
        The same model.
    """
    for name, group in model.groups.items():
        model.groups[name] = FusedMSAG(group)  # type: ignore[arg-type]
    return model


class FusedMSAG(nn.Module):
    """`MSAG` for inference; takes over the weights of one."""

    def __init__(self, group: MSAG) -> None:
        super().__init__()
        features = group.fuse.out_channels
        self.weights = [_dense(weight) for weight in group.fuse.weight.chunk(group.fuse.in_channels // features, dim=1)]
        assert group.fuse.bias is not None
        self.bias = group.fuse.bias
        self.blocks = [FusedMSAB(block) for block in group.blocks]  # type: ignore[arg-type]

    def forward(self, inputs: list[Tensor], coarse: Coarse | None = None) -> Tensor:
        """As `MSAG.forward`."""
        if coarse:
            features, restore = coarse
            kernel, bias = restored_and_fused(restore.weight, restore.bias, self.weights[-1], self.bias)
            x = F.conv_transpose2d(features, kernel, bias, stride=2)
        else:
            x = _convolve(inputs[0], self.weights[0], self.bias)
            inputs = inputs[1:]
        for others, weight in zip(inputs, self.weights, strict=False):
            x = _convolve_and_add(others, weight, None, x, in_place=True)
        first, *rest = self.blocks
        y = first(x)  # leaves x as it is, for the long skip
        for block in rest:
            y = block(y, in_place=True)
        return x.add_(y)


class FusedMSAB:
    """`MSAB` for inference; takes over the weights of one."""

    def __init__(self, block: MSAB) -> None:
        assert block.conv_in.bias is not None
        halves = zip(block.conv_in.weight.chunk(2), block.conv_in.bias.chunk(2), strict=True)
        self.near_in, self.far_in = ((_dense(weight), bias.clone()) for weight, bias in halves)
        self.near, self.far = ((conv.weight, conv.bias) for conv in (block.conv_d1, block.conv_d2))
        self.out = _dense(block.conv_out.weight[:, block.shuffle]), block.conv_out.bias

    def __call__(self, x: Tensor, in_place: bool = False) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), maybe where `x` was."""
        near = _convolve(_convolve(x, *self.near_in, "relu"), *self.near, "relu", dilation=1)  # (N, C/2, H, W)
        far = _convolve(_convolve(x, *self.far_in, "relu"), *self.far, "relu", dilation=2)  # (N, C/2, H, W)
        return _convolve_and_add(torch.cat([near, far], dim=1), *self.out, x, in_place)


def _dense(weight: Tensor) -> Tensor:
    return weight.detach().contiguous(memory_format=torch.channels_last)


def _in_any_type(convolve: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a convolution take bfloat16 also where oneDNN refuses it, on processors without the instructions it needs
    (x86 before AVX-512): it is computed in float32 and rounded to bfloat16, which gives what other machines do."""

    @wraps(convolve)
    def run(x: Tensor, *rest: Any, **named: Any) -> Tensor:
        if x.dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return convolve(x, *rest, **named)
        exact = (value.float() if isinstance(value, Tensor) else value for value in (x, *rest))
        return convolve(*exact, **named).to(x.dtype)

    return run


@_in_any_type
def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none", dilation: int = 0) -> Tensor:
    """A convolution that keeps the size, 1x1 without dilation and 3x3 with, then the activation."""
    done: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, [dilation] * 2, [1, 1], [max(dilation, 1)] * 2, 1, activation, [], ""
    )
    return done


@_in_any_type
def _convolve_and_add(x: Tensor, weight: Tensor, bias: Tensor | None, other: Tensor, in_place: bool = False) -> Tensor:
    """A 1x1 convolution of `x`, added to `other`, which may be overwritten if `in_place`."""
    how: tuple[Any, ...] = ([0, 0], [1, 1], [1, 1], 1, "add", 1.0, None, [], None)
    done: Tensor
    if in_place:
        done = torch.ops.mkldnn._convolution_pointwise_.binary(other, x, weight, bias, *how)
    else:
        done = torch.ops.mkldnn._convolution_pointwise.binary(x, other, weight, bias, *how)
    return done
