"""Training losses (paper, section 3.3): tensors in, scalar tensor out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LOSSES = ("l1", "rmse")


def reconstruction_loss(denoised: Tensor, clean: Tensor, kind: str = "l1") -> Tensor:
    """Difference of two (N, C, H, W) batches, computed in float32.

    Args:
        denoised, clean: intensities in [0, 1].
        kind: "l1", the mean absolute difference (the paper's equation 2), or "rmse", the root of each image's mean
            squared difference, averaged over the batch: PSNR is a matter of squares.
    """
    difference = denoised.float() - clean.float()
    if kind == "rmse":
        return difference.square().mean(dim=(1, 2, 3)).add(1e-12).sqrt().mean()
    return difference.abs().mean()


def distillation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over the restored top-row groups of the mean absolute difference of their features, the paper's
    equation 3. Computed in float32.

    Args:
        student, teacher: outputs of MSAG-2, 3 and 4, each (N, C, H, W) with one C for both networks.
    """
    differences = [feature_difference(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)]
    return torch.stack(differences).sum()


def feature_difference(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean absolute difference of features, computed in float32."""
    return (ours.float() - theirs.float()).abs().mean()
