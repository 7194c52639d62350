"""Training losses (paper, section 3.3): tensors in, scalar tensor out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def reconstruction_loss(denoised: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of two (N, C, H, W) batches, the paper's equation 2. Computed in float32."""
    return (denoised.float() - clean.float()).abs().mean()


def distillation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Sum over the restored top-row groups of the mean absolute difference of their features, the paper's
    equation 3. Computed in float32.

    Args:
        student, teacher: outputs of MSAG-2, 3 and 4, each (N, C, H, W) with one C for both networks.
    """
    differences = [(ours.float() - theirs.float()).abs().mean() for ours, theirs in zip(student, teacher, strict=True)]
    return torch.stack(differences).sum()
