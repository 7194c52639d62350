"""A checkpoint made fast on a device."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from mdrn_cli.checkpoint import Checkpoint
from mdrn_cli.errors import DeviceError, OutOfMemoryError
from mdrn_cli.freedmemory import keep_freed_memory
from mdrn_cli.fused import fuse, fusible
from mdrn_cli.fusedgpu import has_kernels, with_kernels
from mdrn_cli.hardware import check_precision, cores, half_of_memory, threads_asked_for
from mdrn_cli.model import MDRN

# Measured as peak resident memory over tiles of 256 to 1024 pixels, of several shapes in one process: features of full
# size that live at once at most (eight of the fused network, but glibc seldom fits one into the room of another), and
# bytes of the process without any.
_LIVE_FEATURES, _LIVE_FUSED = 22, 18
_LIBRARIES = 300e6
TRUSTED = ("cpu", "cuda")
"""Kinds of devices whose results have been measured; on others they are held against the CPU's each time."""
MOST_APART = 0.02
"""Difference, on a scale of 1, that rounding to bfloat16 stays well below."""


def pick_device(name: str = "auto") -> torch.device:
    """The torch device of a name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: no such device on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()  # which the device "meta", of no memory, cannot do
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise DeviceError(f"no device {name!r} here", "use --device cpu") from error
    return device


def layout(device: torch.device) -> torch.memory_format:
    """How images and 3x3 weights lie in memory where they are computed with: channels_last, but on MPS, whose
    convolutions have read parts of such tensors wrongly (pytorch issue 180984)."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def limit_threads(processes: int = 1) -> None:
    """Compute with as many CPU threads as `MDRN_THREADS` says, where it is set, and else no more than there are cores.

    Args:
        processes: of this machine that share the threads, or else all cores.

    Raises:
        UsageError: see `threads_asked_for`.
    """
    threads = threads_asked_for()
    _one_thread_after_fork()
    if _forked:
        threads = processes = 1
    if threads or processes > 1 or cores() < torch.get_num_threads():  # in a container these are those of the machine
        torch.set_num_threads(max((threads or cores()) // processes, 1))


_forked = False
"""Whether this process is a copy of one in which networks were made ready."""


@lru_cache
def _one_thread_after_fork() -> None:
    """Have copies of this process, as multiprocessing makes them, compute with one thread each: GNU's OpenMP waits for
    ever for the others, which are not copied. The result is the same, to the last bit."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_be_alone)


def _be_alone() -> None:
    global _forked
    _forked = True
    _as_a_fork_can(torch.device("cpu"))


def _as_a_fork_can(device: torch.device) -> None:
    """In such a copy, see to it that one thread computes, whatever was set since, and on the CPU.

    Raises:
        DeviceError: the copied process has used the GPU, which copies cannot.
    """
    if not _forked:
        return
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise DeviceError("a process that was forked cannot use the GPU of its parent", "have multiprocessing spawn it")


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; emulation would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    told = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # not by torch before 2.5
    return device.type == "cpu" and told is not None and bool(told())


def compute_type(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The type to compute in: torch.bfloat16 or torch.float32.

    Args:
        device: where the network runs.
        precision: "auto" (bfloat16 where native), "bfloat16" or "float32".

    Raises:
        UsageError: unknown precision.
    """
    check_precision(precision)
    reduced = precision == "bfloat16" or (precision == "auto" and native_bfloat16(device))
    return torch.bfloat16 if reduced else torch.float32


def available_precisions(device: torch.device) -> tuple[str, ...]:
    """Precisions worth having on a device, fastest last."""
    return ("float32", "bfloat16") if native_bfloat16(device) else ("float32",)


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
        _as_a_fork_can(self.device)
        self.dtype = compute_type(self.device, precision)
        self._checkpoint = checkpoint
        self._exact: MDRN | None = None
        with telling_out_of_memory(f"{self.device} has too little memory left for the network", "use --device cpu"):
            self.model = self._build(self.dtype)
            if self.device.type not in TRUSTED and not computes_right(self.model, checkpoint.build()):
                if device != "auto":
                    raise wrong_device(self.device)
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
        """Denoise one image or tile; not clipped. What reduced precision cannot hold is computed again in float32.

        Raises:
            OutOfMemoryError: the device ran out of memory.
            DeviceError: this process was forked from one that has used the GPU.
        """
        _as_a_fork_can(self.device)
        try:
            denoised = self._run(self.model, image)
            if self.dtype != torch.float32 and not np.isfinite(denoised).all():
                self._exact = self._exact or self._build(torch.float32)
                denoised = self._run(self._exact, image)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
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
        # On CUDA, convolutions of float32 would by default round to the 10 bits of TF32.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            batch = torch.from_numpy(image.copy())[None].to(self.device, memory_format=layout(self.device))
            denoised: NDArray[np.float32] = model(batch)[0].cpu().numpy()
            return denoised


def in_type(model: MDRN, device: torch.device, dtype: torch.dtype) -> MDRN:
    """A network as it computes on a device in a type: all but the head, which alone sees intensities; by kernels of our
    own where there are.

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
    """Whether a network on a device gives what the same network gives on the CPU. Errors of a library there have been
    silent, and their pictures plausible.

    Args:
        model: on the device.
        twin: on the CPU, in float32.
    """
    device = next(model.parameters()).device
    picture = torch.rand(1, twin.config.channels, 40, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = model(picture.to(device, memory_format=layout(device))).cpu()
        return bool((theirs - twin(picture)).abs().max() < MOST_APART)


def wrong_device(device: torch.device) -> DeviceError:
    """What to tell of a device that computes wrongly."""
    return DeviceError(
        f"{device} computes wrongly with torch {torch.__version__}", "use --device cpu, or another version of torch"
    )


def out_of_memory(error: Exception) -> bool:
    """Whether an error is that of memory running out, on whatever device."""
    # On the CPU torch raises a bare RuntimeError from its allocator (with other words on Windows), on CUDA others from
    # the driver and its libraries, on MPS one that tells of no memory.
    told = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED", "Invalid buffer size")
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or any(text in str(error) for text in told)


@contextmanager
def telling_out_of_memory(message: str, hint: str) -> Iterator[None]:
    """Whatever runs out of memory within is told as an OutOfMemoryError of this message and hint."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemoryError(message, hint) from error


def free_memory(device: torch.device) -> float:
    """Bytes that tensors may yet take on a GPU, those that torch keeps for reuse among them; of a CPU, no bound."""
    if device.type == "mps":
        most = getattr(torch.mps, "recommended_max_memory", half_of_memory)()  # not before torch 2.5
        return float(most - torch.mps.driver_allocated_memory())
    if device.type != "cuda":
        return math.inf
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + kept)
