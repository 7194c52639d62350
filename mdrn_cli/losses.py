"""Training losses (paper, section 3.3): tensors in, scalar tensor out."""

from __future__ import annotations

from torch import Tensor


def reconstruction_loss(denoised: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference of two (N, C, H, W) batches, the paper's equation 2. Computed in float32."""
    return (denoised.float() - clean.float()).abs().mean()
