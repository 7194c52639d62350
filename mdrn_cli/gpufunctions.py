"""The network's blocks and fusions on a GPU, forward and backward, as the kernels of `gpukernels.py` compute them.

Features are channels_last and dense. Gradients of weights are summed over the pixels by each program, and over the
programs at the end, always in the same order. (Steps differ in their last digits all the same: cuDNN does the rest.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from mdrn_cli import gpukernels

PROGRAMS = 132
"""Most programs of the kernels that sum over all pixels, each of many tiles: one per multiprocessor of an H100."""
SUMMING = ("kernels_back", "spread_back", "squeeze_back", "fuse_back")
LAUNCH = {
    "squeeze": (128, 4, 1),
    "spread": (128, 8, 3),
    "spread_back": (128, 4, 3),
    "kernels_back": (128, 4, 3),
    "dilated_back": (128, 8, 3),
    "squeeze_back": (128, 4, 3),
    "fuse": (128, 8, 1),
    "fuse_back": (128, 8, 3),
}
"""By kernel: pixels that a program works on at once, its warps, and the stages of its pipeline of loads."""
TOTALS = 64
"""Values per program of the kernel `total`, which adds up the partial sums of other programs."""


def dense(x: Tensor) -> Tensor:
    """Make features or 3x3 weights channels_last and dense, as the kernels expect them."""
    return x.contiguous(memory_format=torch.channels_last)


def _launch(name: str, pixels: int, *arguments: Any, rows: int = 0) -> None:
    """Run a kernel over the pixels.

    Args:
        name: of the kernel.
        pixels: how many.
        arguments: all before its tile size.
        rows: programs of the grid's second axis, if it has one.
    """
    size, warps, stages = LAUNCH[name]
    grid = (_programs(name, pixels), *(rows,) * bool(rows))
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]  # triton launches on the current one
        getattr(gpukernels, name)[grid](*arguments, BP=size, num_warps=warps, num_stages=stages)


def _programs(name: str, pixels: int) -> int:
    """Number of programs of a kernel: one per tile; of kernels that sum at most PROGRAMS, over several tiles each."""
    tiles: int = triton.cdiv(pixels, LAUNCH[name][0])
    return min(tiles, PROGRAMS) if name in SUMMING else tiles


class Block(torch.autograd.Function):
    """An MSAB: (x, then weight and bias of its four convolutions) -> features of x's shape, all in one type."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        """See the class."""
        w, b, w1, b1, w2, b2, wo, bo = parameters
        x, w1, w2 = dense(x), dense(w1), dense(w2)
        count, c, height, width = x.shape
        pixels = count * height * width
        near, far = (torch.empty(pixels * c // 2, dtype=x.dtype, device=x.device) for _ in range(2))
        _launch("squeeze", pixels, x, w, b, near, far, pixels, c)
        keep = any(ctx.needs_input_grad)
        near_out, far_out = (torch.empty_like(near), torch.empty_like(far)) if keep else (near, far)
        out, weights = torch.empty_like(x), (w1, b1, w2, b2, wo, bo)
        _launch("spread", pixels, x, near, far, *weights, out, near_out, far_out, pixels, height, width, c, keep)
        if keep:
            ctx.save_for_backward(x, near, far, near_out, far_out, w, w1, w2, wo)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
        """Of all inputs."""
        x, near, far, near_out, far_out, w, w1, w2, wo = ctx.saved_tensors
        g = dense(g)
        count, c, height, width = x.shape
        h, pixels = c // 2, count * height * width
        shape = (pixels, height, width)
        g_near, g_far, before_near, before_far = (torch.empty_like(near) for _ in range(4))
        sizes = [c * c, c, h, h]
        sums = _sums("spread_back", pixels, sizes, x)
        _launch("spread_back", pixels, g, near_out, far_out, wo, g_near, g_far, sums, pixels, sums.shape[1], c)
        gwo, gbo, gb1, gb2 = _totals(sums, sizes, x)
        sizes = [9 * h * h] * 2
        sums = _sums("kernels_back", pixels, sizes, x)
        _launch("kernels_back", pixels, g_near, near, sums, *shape, sums.shape[1], h, 1, rows=3)
        _launch("kernels_back", pixels, g_far, far, sums[:, sizes[0] :], *shape, sums.shape[1], h, 2, rows=3)
        gw1, gw2 = (part.view(h, 3, 3, h).permute(0, 3, 1, 2) for part in _totals(sums, sizes, x))
        _launch("dilated_back", pixels, g_near, g_far, near, far, w1, w2, before_near, before_far, *shape, c)
        gx, sizes = torch.empty_like(x), [c * c, c]
        sums = _sums("squeeze_back", pixels, sizes, x)
        _launch("squeeze_back", pixels, g, before_near, before_far, x, w, gx, sums, pixels, sums.shape[1], c)
        gw, gb = _totals(sums, sizes, x)
        return gx, _as(gw, w), gb, gw1, gb1, gw2, gb2, _as(gwo, wo), gbo


class Fusion(torch.autograd.Function):
    """The sum of a 1x1 convolution for each of up to three inputs, of a bias and of reconstructed features or None:
    (weight (C, at least n * C, 1, 1), bias (C,), reconstructed, n inputs) -> (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, up: Tensor | None, *inputs: Tensor) -> Tensor:
        """See the class."""
        inputs = tuple(dense(x) for x in inputs)
        x, n = inputs[0], len(inputs)
        up = None if up is None else dense(up)
        pixels, c = x.shape[0] * x.shape[2] * x.shape[3], x.shape[1]
        out = torch.empty_like(x)
        three = (*inputs, *inputs[:1] * (3 - n))
        restored = x if up is None else up
        _launch("fuse", pixels, *three, restored, weight, bias, out, pixels, weight.shape[1], c, n, up is not None)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(weight, *inputs)
            ctx.up = up is not None
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Of all inputs."""
        weight, *inputs = ctx.saved_tensors
        g = dense(g)
        n, c, stride = len(inputs), g.shape[1], weight.shape[1]
        pixels = g.numel() // c
        sizes = [n * c * c, c]
        sums = _sums("fuse_back", pixels, sizes, g)
        grads = [torch.empty_like(x) for x in inputs]
        for j, (x, gx) in enumerate(zip(inputs, grads, strict=True)):
            ours, into = weight.view(-1)[j * c :], sums[:, j * c * c :]
            last = j == n - 1  # whose gradients are followed by the bias's
            _launch("fuse_back", pixels, g, x, ours, gx, into, pixels, stride, sums.shape[1], c, last)
        total, of_bias = _totals(sums, sizes, g)
        of_weight = torch.zeros_like(weight)
        of_weight.flatten(1)[:, : n * c].copy_(total.view(n, c, c).permute(1, 0, 2).flatten(1))
        return of_weight, of_bias, g if ctx.up else None, *grads


def _sums(name: str, pixels: int, sizes: Sequence[int], like: Tensor) -> Tensor:
    """Uninitialized memory for the sums of each program of a kernel: (programs, values)."""
    return torch.empty((_programs(name, pixels), sum(sizes)), dtype=torch.float32, device=like.device)


def _totals(sums: Tensor, sizes: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
    """The sums of a kernel's programs added up, split by `sizes`, in the type of the features."""
    programs, values = sums.shape
    out = torch.empty(values, dtype=like.dtype, device=like.device)
    with torch.cuda.device_of(sums):  # type: ignore[no-untyped-call]
        gpukernels.total[(triton.cdiv(values, TOTALS),)](sums, out, programs, values, TOTALS, 32, num_warps=4)
    return torch.split(out, list(sizes))


def _as(gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a 1x1 convolution's weights, given their strides: with other strides autograd would copy it."""
    return gradient.as_strided(weight.shape, weight.stride())
