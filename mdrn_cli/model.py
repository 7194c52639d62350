"""MDRN: Multiple Degradation and Reconstruction Network (paper, section 3.1).

Ten multi-scale aggregation groups (MSAG) form an inverted pyramid over four scales. Node (i, j) sits
on level i (features at 1 / 2**i of the input's size); j counts its predecessors on that level:

    level 0   (0,0) -> (0,1) -> (0,2) -> (0,3) -> tail
    level 1   (1,0) -> (1,1) -> (1,2)
    level 2   (2,0) -> (2,1)
    level 3   (3,0)

Node (i, 0) reads the degraded (strided convolution) output of node (i-1, 0); node (i, j >= 1) reads all
earlier nodes of its level and the reconstructed (transposed convolution) output of node (i+1, j-1).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdrn_cli.errors import WeightsError

Network = Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]
"""`MDRN.forward_features`, compiled or not."""
LEVELS = 4
PAD_MULTIPLE = 2 ** (LEVELS - 1)
MAX_BLOCKS = 256
MAX_FEATURES = 1024
COLOR_CHANNELS = {"gray": 1, "color": 3}


@dataclass(frozen=True)
class MDRNConfig:
    """What fixes a network's shape.

    Args:
        color: "gray" (1 channel) or "color" (3 channels, RGB).
        blocks: MSABs per MSAG, the paper's B: 8 is MDRN, 2 is MDRN (2B), 40 the large end of section 4.6.
        features: channels C inside the network; even. 64 in the paper.

    Raises:
        WeightsError: a value is of the wrong type or out of range.
    """

    color: str = "gray"
    blocks: int = 8
    features: int = 64

    def __post_init__(self) -> None:
        if self.color not in COLOR_CHANNELS:
            raise WeightsError(f"color mode must be 'gray' or 'color', not {self.color!r}")
        for name, value, most in (("blocks", self.blocks, MAX_BLOCKS), ("features", self.features, MAX_FEATURES)):
            if type(value) is not int or not 1 <= value <= most:
                raise WeightsError(f"{name} must be a whole number from 1 to {most}, not {value!r}")
        if self.features % 2:
            raise WeightsError(f"features must be even, not {self.features}")

    @property
    def channels(self) -> int:
        """Channels of the input and output image."""
        return COLOR_CHANNELS[self.color]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; `MDRNConfig(**d)` is its inverse."""
        return asdict(self)


class MSAB(nn.Module):
    """Multi-scale aggregation block (section 3.1.1): two dilations on two halves of the channels."""

    shuffle: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        half = features // 2
        self.conv_in = nn.Conv2d(features, features, 1)
        self.conv_d1 = nn.Conv2d(half, half, 3, padding=1)
        self.conv_d2 = nn.Conv2d(half, half, 3, padding=2, dilation=2)
        self.conv_out = nn.Conv2d(features, features, 1)
        self.register_buffer("shuffle", channel_shuffle(features), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        # One convolution for each half rather than one that is then split, so that each result is dense in memory.
        assert self.conv_in.bias is not None
        near_in, far_in = zip(self.conv_in.weight.chunk(2), self.conv_in.bias.chunk(2), strict=True)
        near = F.relu_(F.conv2d(x, *near_in))  # (N, C/2, H, W)
        far = F.relu_(F.conv2d(x, *far_in))  # (N, C/2, H, W)
        y = F.relu_(torch.cat([self.conv_d1(near), self.conv_d2(far)], dim=1))  # (N, C, H, W)
        # The shuffle before a 1x1 convolution is a permutation of its weights: same function, no copy of y.
        weight = self.conv_out.weight[:, self.shuffle]
        return x + F.conv2d(y, weight, self.conv_out.bias)


def channel_shuffle(features: int) -> Tensor:
    """Where channel k of a concatenation of two halves lands after a two-group channel shuffle, (C,)."""
    # Not arange: on the meta device, where shapes are checked, that imports half a second of torch.
    return torch.tensor([*range(0, features, 2), *range(1, features, 2)])


Coarse = tuple[Tensor, nn.ConvTranspose2d]
"""Features (N, C, H/2, W/2) of the next level, and what reconstructs them."""


class MSAG(nn.Module):
    """Multi-scale aggregation group (section 3.1.1): 1x1 fusion of its inputs, then B MSABs with a long skip."""

    def __init__(self, inputs: int, config: MDRNConfig) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(inputs * config.features, config.features, 1)
        self.blocks = nn.Sequential(*(MSAB(config.features) for _ in range(config.blocks)))

    def forward(self, inputs: list[Tensor], coarse: Coarse | None = None) -> Tensor:
        """Inputs of this level, k x (N, C, H, W), and after them the one to be reconstructed -> (N, C, H, W)."""
        # The sum of one 1x1 convolution for each input is that of their concatenation, without the copy. Weights are
        # made dense: torch's convolution on MPS reads them as if they were (pytorch issue 192212).
        parts, bias = self.fuse.weight.chunk(len(inputs) + (coarse is not None), dim=1), self.fuse.bias
        weights = [part.contiguous() for part in parts]
        assert bias is not None
        if coarse:
            features, restore = coarse
            kernel, bias = restored_and_fused(restore.weight, restore.bias, weights[-1], bias)
        x = F.conv2d(inputs[0], weights[0], bias)
        for others, weight in zip(inputs[1:], weights[1:], strict=False):
            x = x + F.conv2d(others, weight)
        if coarse:
            x = x + F.conv_transpose2d(features, kernel.contiguous(), stride=2)
        return x + self.blocks(x)  # type: ignore[no-any-return]


def restored_and_fused(
    restore: Tensor, restore_bias: Tensor | None, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """A reconstruction and the 1x1 convolution after it as the one transposed convolution that they are: fewer passes
    over the finer level's features. Its bias joins the fusion's: oneDNN is slow at gradients of a transposed one's.

    Args:
        restore: (C in, C out, 2, 2), of the reconstruction, a transposed convolution of stride 2.
        restore_bias: (C,), its bias.
        weight: (C, C, 1, 1), of the 1x1 convolution.
        bias: (C,), of the fusion.

    Returns:
        The transposed convolution's weight (C, C, 2, 2) and the fusion's bias (C,).
    """
    assert restore_bias is not None
    with exactly(weight.device):
        mixed = weight.flatten(1)
        return torch.einsum("imyx,om->ioyx", restore, mixed), bias + mixed @ restore_bias


def autocast_type(device: torch.device) -> torch.dtype | None:
    """The type that autocast is casting convolutions on a device to, None where it is off."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return None


def exactly(device: torch.device) -> torch.autocast | nullcontext[None]:
    """A context without autocast."""
    return torch.autocast(device.type, enabled=False) if autocast_type(device) else nullcontext()


def node(level: int, index: int) -> str:
    """The name of pyramid node (i, j) in the state dict."""
    return f"{level}_{index}"


class MDRN(nn.Module):
    """The network of section 3.1: a noisy image in, the denoised image out (input - predicted noise)."""

    def __init__(self, config: MDRNConfig) -> None:
        super().__init__()
        c = config.features
        self.config = config
        self.head = nn.Conv2d(config.channels, c, 3, padding=1)
        self.degrade = nn.ModuleList(nn.Conv2d(c, c, 2, stride=2) for _ in range(LEVELS - 1))
        self.restore = nn.ModuleDict()
        self.groups = nn.ModuleDict()
        for j in range(LEVELS):
            for i in range(LEVELS - j):
                if j > 0:
                    self.restore[node(i, j)] = nn.ConvTranspose2d(c, c, 2, stride=2)
                self.groups[node(i, j)] = MSAG(j + 1, config)
        self.tail = nn.Conv2d(c, config.channels, 3, padding=1)

    def forward(self, noisy: Tensor) -> Tensor:
        """Denoise.

        Args:
            noisy: (N, channels, H, W), intensities in [0, 1] plus noise, any H and W from 1 up.

        Returns:
            (N, channels, H, W), not clipped.
        """
        return self.forward_features(noisy)[0]

    def forward_features(self, noisy: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Denoise, and give the restored top-row features that distillation compares (section 3.2).

        Args:
            noisy: as for `forward`.

        Returns:
            The denoised image, and the outputs of nodes (0,1), (0,2), (0,3) (MSAG-2, 3, 4), each
            (N, C, H', W') with H', W' the input's size rounded up to a multiple of 8.
        """
        height, width = noisy.shape[-2:]
        x = pad_to_multiple(noisy, PAD_MULTIPLE)
        rows: list[list[Tensor]] = [[] for _ in range(LEVELS)]
        for j in range(LEVELS):
            for i in range(LEVELS - j):
                group = self.groups[node(i, j)]
                if j > 0:
                    rows[i].append(group(rows[i], (rows[i + 1][j - 1], self.restore[node(i, j)])))
                else:
                    rows[i].append(group([self._degraded(i, rows[i - 1]) if i else self._shallow(x)]))
        # Weights may be of a reduced type; the predicted noise is subtracted in the input's own.
        denoised = x - self._noise(rows[0][-1]).to(x.dtype)
        return denoised[..., :height, :width], tuple(rows[0][1:])

    def _shallow(self, x: Tensor) -> Tensor:
        """The head's features, in the type of all others. Near white the steps of bfloat16 are as large as those of 8
        bits, too coarse for weak noise; so the head, which alone sees intensities, works in its own weights' type."""
        with exactly(x.device):
            features = self.head(x.to(self.head.weight.dtype))
        return features.to(autocast_type(x.device) or self.tail.weight.dtype)  # type: ignore[no-any-return]

    def _degraded(self, level: int, finer: list[Tensor]) -> Tensor:
        """What a level begins with, made of the first features of the finer one. These come in their row, in which
        something that computes gradients its own way may put what the groups after it are to use instead."""
        return self.degrade[level - 1](finer[0])  # type: ignore[no-any-return]

    def _noise(self, features: Tensor) -> Tensor:
        """The noise that features tell of, (N, channels, H, W)."""
        return self.tail(features)  # type: ignore[no-any-return]


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) at the bottom and right to multiples of `multiple`: by reflection, or by
    replication along a side shorter than the pad."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if bottom:
        x = F.pad(x, (0, 0, 0, bottom), mode="reflect" if bottom < height else "replicate")
    if right:
        x = F.pad(x, (0, right, 0, 0), mode="reflect" if right < width else "replicate")
    return x
