"""The network's groups on a GPU by kernels of our own (`gpufunctions.py`), for inference and for training: there, as
on a CPU, memory is what one waits for."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._triton import has_triton

from mdrn_cli.cache import KERNELS, library_folder
from mdrn_cli.model import MDRN, MSAB, MSAG, Coarse, restored_and_fused

WIDTHS = (32, 64, 128)
"""Features that the kernels can work with: tensor cores multiply matrices of 16 and more."""
SHARED_MEMORY = {32: 0, 64: 81920, 128: 135168}
"""Bytes of a multiprocessor's shared memory that the kernels of a width take, where that may be more than there is."""
MOST_VALUES = 2**31
"""Of features, which the kernels count in 32 bits."""


def has_kernels(model: MDRN, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there are kernels for a network on a device and the type it is to run in."""
    features = model.config.features
    if not (device.type == "cuda" and dtype == torch.bfloat16 and features in WIDTHS and has_triton()):
        return False
    about = torch.cuda.get_device_properties(device)
    # Not told by torch before 2.6.
    return bool(getattr(about, "shared_memory_per_block_optin", math.inf) >= SHARED_MEMORY[features])


def with_kernels(model: MDRN) -> MDRN:
    """Let the groups of a network compute by the kernels, where these can be kept; its weights and their names stay.

    Args:
        model: changed in place.

    Returns:
        The same model.
    """
    if not _have_a_place():
        return model
    for part in model.modules():
        if type(part) is MSAB:
            part.__class__ = KernelMSAB
        elif type(part) is MSAG:
            part.__class__ = KernelMSAG
    return model


def _have_a_place() -> bool:
    """See to it that kernels, which take seconds to compile, are kept with all else that is, not in a folder of
    triton's; whether that is possible."""
    told = os.environ.get("TRITON_CACHE_DIR")
    folder = Path(told) if told is not None else library_folder(KERNELS)
    os.environ["TRITON_CACHE_DIR"] = str(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


class KernelMSAB(MSAB):
    """`MSAB` by kernels."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if x.numel() >= MOST_VALUES:
            return super().forward(x)
        from mdrn_cli.gpufunctions import Block

        convolutions = (self.conv_in, self.conv_d1, self.conv_d2, self.conv_out)
        parameters = (value for conv in convolutions for value in (conv.weight, conv.bias))
        done: Tensor = Block.apply(x, *parameters)  # type: ignore[no-untyped-call]
        return done


class KernelMSAG(MSAG):
    """`MSAG` by kernels."""

    def forward(self, inputs: list[Tensor], coarse: Coarse | None = None) -> Tensor:
        """As `MSAG.forward`."""
        if inputs[0].numel() >= MOST_VALUES:
            return super().forward(inputs, coarse)
        from mdrn_cli.gpufunctions import Fusion

        weight, bias, restored = self.fuse.weight, self.fuse.bias, None
        assert bias is not None
        if coarse:
            features, restore = coarse
            last = weight[:, len(inputs) * features.shape[1] :]
            kernel, bias = restored_and_fused(restore.weight, restore.bias, last, bias)
            restored = F.conv_transpose2d(features, kernel, stride=2)
        x: Tensor = Fusion.apply(weight, bias, restored, *inputs)  # type: ignore[no-untyped-call]
        return x + self.blocks(x)  # type: ignore[no-any-return]
