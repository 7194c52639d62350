"""The network's groups on a GPU by our own kernels (`gpufunctions.py`), for inference and training: memory is the
bottleneck there, as on a CPU."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._triton import has_triton

from mdrn_cli.cache import KERNELS, library_folder
from mdrn_cli.errors import DeviceWarning, lacks_memory, told_by
from mdrn_cli.model import MDRN, MSAB, MSAG, Coarse, MDRNConfig, restored_and_fused

WIDTHS = (32, 64, 128)
"""Features that the kernels can work with: tensor cores multiply matrices of 16 and more."""
MOST_APART = 0.1
"""Relative difference between kernels and plain network beyond which kernels are wrong; bfloat16 stays well below."""
MOST_VALUES = 2**31
"""Number of feature values from which on the plain network is used: the kernels count in 32 bits."""
_running: set[tuple[int, torch.device, torch.dtype, bool]] = set()
"""What the kernels have been tried on successfully in this process: (width, device, type, whether for training)."""


def has_kernels(model: MDRN, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there are kernels for a network on a device and the type it is to run in."""
    return device.type == "cuda" and dtype == torch.bfloat16 and model.config.features in WIDTHS and has_triton()


def with_kernels(model: MDRN) -> MDRN:
    """Let a network's groups use the kernels, if these can be stored and pass a test; weights and their names stay.

    Args:
        model: on its device and in its type; changed in place.

    Returns:
        The same model.
    """
    if not _have_a_place():
        return model
    weight = next(model.groups.parameters())
    if why := _why_not(model.config.features, weight.device, weight.dtype, weight.requires_grad):
        problem = f"without kernels of its own the network is slower on {weight.device}, and these do not run: {why}"
        warnings.warn(problem, DeviceWarning, stacklevel=2)
        return model
    _switch(model)
    return model


def _why_not(features: int, device: torch.device, dtype: torch.dtype, learning: bool) -> str:
    """Why the kernels of a width do not run on a device, in one line; empty if they do. They are tried on a group that
    uses all of them: compiling needs a C compiler, which may be missing, a multiprocessor may have too little memory,
    or they may be compiled wrongly."""
    if (known := (features, device, dtype, learning)) in _running:
        return ""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed those of GPUs, too
        plain = MSAG(4, MDRNConfig("gray", 1, features))
        restore = nn.ConvTranspose2d(features, features, 2, 2)
        parts = nn.ModuleList((plain, restore)).requires_grad_(learning)
        fine, coarse = (torch.rand(1, features, side, side) - 0.5 for side in (16, 8))
    try:
        parts.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        fine, coarse = (values.to(restore.weight).requires_grad_(learning) for values in (fine, coarse))
        inputs = [fine] * 3, (coarse, restore)
        expected = plain(*inputs).detach().float()
        _switch(plain)
        ours = plain(*inputs)
        if learning:
            ours.sum().backward()
        apart = float((ours.detach().float() - expected).norm() / expected.norm())
    except Exception as error:
        if lacks_memory(error):
            raise
        return told_by(error)
    if not apart < MOST_APART:
        return f"their results are off by {apart:.0%}"
    _running.add(known)
    return ""


def _switch(model: nn.Module) -> None:
    """Make the blocks and groups of a network use the kernels."""
    for part in model.modules():
        if type(part) is MSAB:
            part.__class__ = KernelMSAB
        elif type(part) is MSAG:
            part.__class__ = KernelMSAG


def _have_a_place() -> bool:
    """Have compiled kernels, which take seconds to make, stored in this program's cache and not in triton's own folder.
    A `TRITON_CACHE_DIR` that is set is kept. Returns whether the folder can be written."""
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
