"""`mdrn train` and `mdrn distill` on a CPU with AMX (Xeon since 2023), about twice as fast: networks, forward and
backward, by kernels of our own (amx/), which g++ compiles at the first call.

python tools/amx_training.py train --color gray --sigma 25 --data photos --output run
"""

import ctypes
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from amx_functions import (
    FEATURES,
    Chain,
    Degradation,
    Difference,
    Fusion,
    Head,
    Reconstruction,
    Tail,
    compiled,
)
from torch import Tensor, nn

from mdrn_cli import losses
from mdrn_cli.__main__ import main
from mdrn_cli.errors import MdrnError
from mdrn_cli.model import MDRN, MSAB, MSAG, Coarse, autocast_type, exactly, restored_and_fused

SMALLEST, LARGEST = 16, 256
"""Sides of a patch at the levels of the pyramid; other images, as those validated on, go torch's way."""
REPLACED = (
    (MSAG, "forward"),
    (MDRN, "_shallow"),
    (MDRN, "_degraded"),
    (MDRN, "_noise"),
    (losses, "feature_difference"),
)
"""What computes by the kernels once they are installed; where they are not for something, torch does it as before."""
by_torch: dict[str, Callable[..., Tensor]] = {name: getattr(owner, name) for owner, name in REPLACED}


def fits(x: Tensor, smallest: int = SMALLEST, features: int = FEATURES) -> bool:
    """Whether the kernels are for features (N, C, H, W)."""
    count, channels, height, width = x.shape
    of_size = smallest <= height == width <= LARGEST and count * height * width % 32 == 0 and channels == features
    return of_size and x.device.type == "cpu" and autocast_type(x.device) == torch.bfloat16


def install(kernels: ctypes.CDLL) -> None:
    """Have the groups of networks that are made or were, and the loss of their features, compute by the kernels, on the
    CPU and in bfloat16."""

    def forward(self: MSAG, inputs: list[Tensor], coarse: Coarse | None = None) -> Tensor:
        if not fits(inputs[0]):
            return by_torch["forward"](self, inputs, coarse)
        bias, restored = self.fuse.bias, None
        assert bias is not None
        if coarse:
            below, restore = coarse
            last = self.fuse.weight[:, len(inputs) * FEATURES :]
            kernel, bias = restored_and_fused(restore.weight, restore.bias, last, bias)
            if below.shape[2] < SMALLEST:
                restored = F.conv_transpose2d(below, kernel.contiguous(), stride=2)
            else:
                restored = Reconstruction.apply(kernels, kernel, below)  # type: ignore[no-untyped-call]
        with exactly(inputs[0].device):
            x, *inputs[:] = Fusion.apply(kernels, self.fuse.weight, bias, restored, *inputs)  # type: ignore[no-untyped-call]
            done: Tensor = Chain.apply(kernels, x, *parameters_of(self.blocks))  # type: ignore[no-untyped-call]
        return done

    def degraded(self: MDRN, level: int, finer: list[Tensor]) -> Tensor:
        if not fits(finer[0], 2 * SMALLEST):
            return by_torch["_degraded"](self, level, finer)
        conv = self.degrade[level - 1]
        done, finer[0] = Degradation.apply(kernels, conv.weight, conv.bias, finer[0])  # type: ignore[no-untyped-call]
        return done  # type: ignore[no-any-return]

    def shallow(self: MDRN, x: Tensor) -> Tensor:
        if not fits(x, features=self.config.channels) or self.config.features != FEATURES:
            return by_torch["_shallow"](self, x)
        return Head.apply(kernels, self.head.weight, self.head.bias, x)  # type: ignore[no-any-return, no-untyped-call]

    def noise(self: MDRN, features: Tensor) -> Tensor:
        if not fits(features):
            return by_torch["_noise"](self, features)
        tail = self.tail
        return Tail.apply(kernels, tail.weight, tail.bias, features)  # type: ignore[no-any-return, no-untyped-call]

    def feature_difference(ours: Tensor, theirs: Tensor) -> Tensor:
        if {ours.dtype, theirs.dtype} != {torch.bfloat16} or ours.numel() % 32 or ours.device.type != "cpu":
            return by_torch["feature_difference"](ours, theirs)
        return Difference.apply(kernels, ours, theirs)  # type: ignore[no-any-return, no-untyped-call]

    for (owner, name), function in zip(REPLACED, (forward, shallow, degraded, noise, feature_difference), strict=True):
        setattr(owner, name, function)


def parameters_of(blocks: nn.Sequential) -> list[Tensor]:
    """Of a group's blocks, as `Chain` takes them."""
    found: list[Tensor] = []
    for block in blocks:
        assert isinstance(block, MSAB)
        into, near, far, out = block.conv_in, block.conv_d1, block.conv_d2, block.conv_out
        weights = into.weight, near.weight, far.weight, out.weight[:, block.shuffle]
        for conv, weight in zip((into, near, far, out), weights, strict=True):
            assert conv.bias is not None
            found += [weight, conv.bias]
    return found


if __name__ == "__main__":
    try:
        install(compiled())
    except MdrnError as error:
        sys.exit(f"{error.message} ({error.hint})")
    sys.exit(main())
