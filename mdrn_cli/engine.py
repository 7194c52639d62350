"""A checkpoint's network, ready to run fast on a device."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from mdrn_cli.checkpoint import Checkpoint
from mdrn_cli.devices import (
    as_a_fork_can,
    compute_type,
    exact_convolutions,
    failure,
    free_memory,
    is_fault,
    layout,
    limit_threads,
    pick_device,
    telling_out_of_memory,
)
from mdrn_cli.errors import DeviceError, DeviceWarning, OutOfMemoryError, lacks_memory
from mdrn_cli.freedmemory import keep_freed_memory
from mdrn_cli.fused import fuse, fusible
from mdrn_cli.fusedgpu import has_kernels, with_kernels
from mdrn_cli.model import MDRN, exactly

# Measured by peak resident memory over tiles of 256 to 1024 pixels, of several shapes in one process: the most feature
# maps of full size in memory at once, plain and fused (which has eight, but glibc seldom reuses the room of one for
# another), and bytes of the process without any.
_LIVE_FEATURES, _LIVE_FUSED = 22, 18
_LIBRARIES = 300e6
TRUSTED = ("cpu", "cuda")
"""Kinds of devices that are known to compute right; on others results are compared with the CPU's each time."""
MOST_APART = 0.02
"""Largest difference of intensities in [0, 1] from the CPU's results; rounding to bfloat16 stays well below."""


class Engine:
    """A network ready to run: (C, H, W) float32 arrays in and out, intensities in [0, 1].

    The convolutions run in the chosen precision but for the head, which sees the image's intensities and runs in
    float32; the predicted noise is subtracted in float32.

    Args:
        checkpoint: the weights.
        device: "auto", "cpu", "cuda", ...
        precision: "auto" (bfloat16 where native), "bfloat16" or "float32".

    Raises:
        DeviceError: no such device, or one that computes wrongly; for "auto" the CPU then takes its place.
        UsageError: unknown precision.
        OutOfMemoryError: the device has no room for the weights.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", precision: str = "auto") -> None:
        limit_threads()
        keep_freed_memory()
        self.config = checkpoint.config
        self.device = pick_device(device)
        as_a_fork_can(self.device)
        self.dtype = compute_type(self.device, precision)
        self._checkpoint = checkpoint
        self._exact: MDRN | None = None
        with telling_out_of_memory(f"{self.device} has too little memory left for the network", "use --device cpu"):
            self.model = self._build(self.dtype)
            if self.device.type not in TRUSTED and not computes_right(self.model, checkpoint.build()):
                wrong = wrong_device(self.device)
                if device != "auto":
                    raise wrong
                warnings.warn(f"using the CPU instead: {wrong.message}", DeviceWarning, stacklevel=2)
                self.device = torch.device("cpu")
                self.dtype = compute_type(self.device, precision)
                self.model = self._build(self.dtype)

    def _build(self, dtype: torch.dtype) -> MDRN:
        built = in_type(self._checkpoint.build().requires_grad_(False), self.device, dtype)
        return fuse(built) if fusible(self.device) else built

    @property
    def precision(self) -> str:
        """Name of the type computed in."""
        return str(self.dtype).removeprefix("torch.")

    def tile_memory(self, limit: int, pictures: int) -> float:
        """Bytes that the features of a tile may take: on CUDA most of what is free there, elsewhere what is left of
        `limit` beside the libraries, the weights and `pictures`."""
        if self.device.type == "cuda":
            return 0.8 * free_memory(self.device)
        return limit - _LIBRARIES - pictures

    @property
    def bytes_per_pixel(self) -> int:
        """Memory the network takes for each pixel of a tile."""
        live = _LIVE_FUSED if fusible(self.device) else _LIVE_FEATURES
        return live * self.config.features * self.dtype.itemsize

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Denoise one image or tile; not clipped. If reduced precision overflows it is computed again in float32.

        Raises:
            OutOfMemoryError: the device ran out of memory.
            DeviceError: this process was forked from one that has used the GPU, or the GPU has failed.
        """
        as_a_fork_can(self.device)
        try:
            denoised = self._run(self.model, image)
            if self.dtype != torch.float32 and not np.isfinite(denoised).all():
                self._exact = self._exact or self._build(torch.float32)
                denoised = self._run(self._exact, image)
        except (RuntimeError, MemoryError) as error:
            if is_fault(error):
                raise failure(error) from error
            if not lacks_memory(error):
                raise
            # Leaving this block drops the traceback, and with it the tensors of the failed attempt.
        else:
            return denoised
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemoryError(
            f"{self.device} ran out of memory on a tile of {image.shape[2]}x{image.shape[1]}", "use a smaller --tile"
        )

    def _run(self, model: MDRN, image: NDArray[np.float32]) -> NDArray[np.float32]:
        # A caller's autocast would make some layers compute in another type than that of their weights.
        with torch.inference_mode(), exactly(self.device), exact_convolutions(self.device):
            batch = torch.from_numpy(image.copy())[None].to(self.device, memory_format=layout(self.device))
            denoised: NDArray[np.float32] = model(batch)[0].cpu().numpy()
            return denoised


def in_type(model: MDRN, device: torch.device, dtype: torch.dtype) -> MDRN:
    """A network moved to a device and, but for the head, which alone sees intensities, to a type; with our own kernels
    where there are any.

    Args:
        model: changed in place.
        device, dtype: where, and in what.

    Returns:
        The same model.
    """
    moved: MDRN = model.to(device, memory_format=layout(device))  # type: ignore[call-overload]
    for name, part in moved.named_children():
        if name != "head":
            part.to(dtype)
    return with_kernels(moved) if has_kernels(moved, device, dtype) else moved


def computes_right(model: MDRN, twin: MDRN) -> bool:
    """Whether a network gives the same on a device as on the CPU. Faults of a device's library have been silent, with
    plausible pictures; a missing operation, too, counts as wrong.

    Args:
        model: on the device.
        twin: on the CPU, in float32.
    """
    device = next(model.parameters()).device
    picture = torch.rand(1, twin.config.channels, 40, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            theirs = model(picture.to(device, memory_format=layout(device))).cpu()
        except RuntimeError as error:
            if lacks_memory(error):
                raise
            return False
        return bool((theirs - twin(picture)).abs().max() < MOST_APART)


def wrong_device(device: torch.device) -> DeviceError:
    """The error for a device that computes wrongly."""
    return DeviceError(
        f"{device} computes wrongly with torch {torch.__version__}", "use --device cpu, or another version of torch"
    )
