"""The devices of this machine: which can compute, in which types, with how much memory, and how they fail."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F

from mdrn_cli.errors import DeviceError, DeviceWarning, OutOfMemoryError, lacks_memory, told_by
from mdrn_cli.hardware import check_precision, cores, half_of_memory, threads_asked_for
from mdrn_cli.nesting import Nested


def pick_device(name: str = "auto") -> torch.device:
    """The torch device of a name. "auto" takes CUDA, then MPS, then the CPU; the last, with a warning, also where a GPU
    is there but cannot compute.

    Raises:
        DeviceError: no such device on this machine, or one that cannot compute.
        OutOfMemoryError: a GPU has no room left. With "auto", too: the CPU would be slow, and the GPU may be free soon.
    """
    if name == "auto":
        if torch.cuda.is_available():
            found = torch.device("cuda")
        else:
            found = torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        if why := fault_of(found):
            warnings.warn(f"using the CPU instead of {found}: {why}", DeviceWarning, stacklevel=2)
            return torch.device("cpu")
        return found
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"no device {name!r} here", "use --device cpu") from error
    if why := fault_of(device):
        raise DeviceError(f"no device {name!r} here: {why}", "use --device cpu")
    return device


def fault_of(device: torch.device) -> str:
    """Why a device cannot compute, in one line; empty if it can. This torch may lack kernels for a GPU, or another
    process may use it exclusively.

    Raises:
        OutOfMemoryError: it has no room even for this test.
    """
    if device.type == "cpu" or device in _computing:
        return ""
    try:
        # Reading the result back fails on the device "meta", which has no memory.
        image, kernel = (torch.ones(1, 1, side, side, dtype=torch.float32, device=device) for side in (8, 3))
        F.conv2d(image, kernel).cpu()
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        if lacks_memory(error):
            raise OutOfMemoryError(f"{device} is out of memory", "free some there, or use --device cpu") from error
        return told_by(error)
    _computing.add(device)
    return ""


_computing: set[torch.device] = set()
"""Devices that have computed something in this process."""


def is_fault(error: Exception) -> bool:
    """Whether an error is one after which a GPU computes nothing more in this process; lack of memory is not."""
    if lacks_memory(error):
        return False
    accelerator = getattr(torch, "AcceleratorError", ())  # not before torch 2.8
    told = ("CUDA error", "CUDA driver error", "Triton Error", "cuDNN error", "CUBLAS_STATUS", "HIP error")
    lasts = any(text in str(error) for text in told) and "NOT_SUPPORTED" not in str(error)
    return isinstance(error, accelerator) or lasts


def failure(error: Exception) -> DeviceError:
    """The error to raise for one that `is_fault`."""
    return DeviceError(f"the GPU has failed: {told_by(error)}", "run it again, or use --device cpu")


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """Keep CUDA from rounding float32 in convolutions to the 10 bits of TF32, its default, and have them give the same
    every time."""
    if device.type != "cuda":
        yield
        return
    with _exactly:
        yield


@contextmanager
def _exact_cudnn() -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    if not _precision_is_set():
        with cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False):
            yield
        return
    # If it equals the setting for all of cuDNN, "none" makes it follow that again afterwards.
    before = "none" if cudnn.conv.fp32_precision == cudnn.fp32_precision else cudnn.conv.fp32_precision
    others = cudnn.benchmark, cudnn.deterministic
    cudnn.conv.fp32_precision, cudnn.benchmark, cudnn.deterministic = "ieee", False, True
    try:
        yield
    finally:
        cudnn.conv.fp32_precision, (cudnn.benchmark, cudnn.deterministic) = before, others


_exactly = Nested(_exact_cudnn)


def _precision_is_set() -> bool:
    """Whether the program has set `fp32_precision`, torch's interface since 2.9: it excludes using the older one."""
    above = (torch.backends, torch.backends.cudnn)
    if any(getattr(place, "fp32_precision", "none") != "none" for place in above):
        return True
    try:
        return torch.backends.cudnn.allow_tf32 is None
    except RuntimeError:
        return True


def layout(device: torch.device) -> torch.memory_format:
    """The memory layout of images and 3x3 weights on a device: channels_last, except on MPS, whose convolutions have
    read parts of such tensors wrongly (pytorch issue 180984)."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def limit_threads(processes: int = 1) -> None:
    """Limit torch's CPU threads to `MDRN_THREADS` if that is set, else to the number of cores.

    Args:
        processes: number of processes on this machine among which these are divided.

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
"""Whether this process was forked from one in which an `Engine` (or training) had set up threads."""


@lru_cache
def _one_thread_after_fork() -> None:
    """Make forks of this process, as multiprocessing makes them, compute with one thread each: GNU's OpenMP would wait
    for ever for the other threads, which a fork does not copy. Results are the same to the last bit."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_be_alone)


def _be_alone() -> None:
    global _forked
    _forked = True
    as_a_fork_can(torch.device("cpu"))


def as_a_fork_can(device: torch.device) -> None:
    """In a forked process make sure that one thread computes, whatever was set since, and not on the parent's GPU.

    Raises:
        DeviceError: the parent process has used the GPU, which its forks therefore cannot.
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


@contextmanager
def telling_out_of_memory(message: str, hint: str) -> Iterator[None]:
    """Turn running out of memory into an OutOfMemoryError with this message and hint, and a failing GPU into a
    DeviceError. Running out while steps are recorded ends in another error, which has the first as its context."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if lacks_memory(error) or (error.__context__ and lacks_memory(error.__context__)):
            raise OutOfMemoryError(message, hint) from error
        if is_fault(error):
            raise failure(error) from error
        raise


def free_memory(device: torch.device) -> float:
    """Bytes that tensors may still take on a GPU, including those that torch keeps for reuse; infinite for a CPU."""
    if device.type == "mps":
        most = getattr(torch.mps, "recommended_max_memory", half_of_memory)()  # not before torch 2.5
        return float(most - torch.mps.driver_allocated_memory())
    if device.type != "cuda":
        return math.inf
    index = torch.cuda.current_device() if device.index is None else device.index  # torch 2.4 wants one
    kept = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return float(torch.cuda.mem_get_info(index)[0] + kept)
