"""The devices of this machine: which compute, in what types, with what memory, and what their faults are."""

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
    """The torch device of a name; "auto" takes CUDA, then MPS, then the CPU, which takes the place of one that is there
    and cannot compute, with a warning.

    Raises:
        DeviceError: no such device on this machine, or one that cannot compute.
        OutOfMemoryError: a GPU that can has no room; the CPU would be slow where it is soon free.
    """
    if name == "auto":
        if torch.cuda.is_available():
            found = torch.device("cuda")
        else:
            found = torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        if why := fault_of(found):
            warnings.warn(f"the CPU computes in the place of {found}: {why}", DeviceWarning, stacklevel=2)
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
    """Why a device cannot compute, in one line; empty where it can. A GPU may be there that this torch has no kernels
    for, or that another process has for itself alone.

    Raises:
        OutOfMemoryError: it has no room even for this.
    """
    if device.type == "cpu" or device in _computing:
        return ""
    try:
        # Which the device "meta", of no memory, cannot do.
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
    """Whether an error is that of a GPU which from then on computes nothing in this process, as after one of memory it
    does."""
    if lacks_memory(error):
        return False
    accelerator = getattr(torch, "AcceleratorError", ())  # not before torch 2.8
    told = ("CUDA error", "CUDA driver error", "Triton Error", "cuDNN error", "CUBLAS_STATUS", "HIP error")
    lasts = any(text in str(error) for text in told) and "NOT_SUPPORTED" not in str(error)
    return isinstance(error, accelerator) or lasts


def failure(error: Exception) -> DeviceError:
    """What to tell of such an error."""
    return DeviceError(f"the GPU has failed: {told_by(error)}", "run it again, or use --device cpu")


@contextmanager
def exact_convolutions(device: torch.device) -> Iterator[None]:
    """On CUDA, where by default convolutions of float32 round to the 10 bits of TF32, have them not do so, and give the
    same every time."""
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
    # Where it is as that of all of cuDNN, it is to follow that afterwards, too.
    before = "none" if cudnn.conv.fp32_precision == cudnn.fp32_precision else cudnn.conv.fp32_precision
    others = cudnn.benchmark, cudnn.deterministic
    cudnn.conv.fp32_precision, cudnn.benchmark, cudnn.deterministic = "ieee", False, True
    try:
        yield
    finally:
        cudnn.conv.fp32_precision, (cudnn.benchmark, cudnn.deterministic) = before, others


_exactly = Nested(_exact_cudnn)


def _precision_is_set() -> bool:
    """Whether the program has set precision as torch has it since 2.9, beside which what was before cannot be used."""
    above = (torch.backends, torch.backends.cudnn)
    if any(getattr(place, "fp32_precision", "none") != "none" for place in above):
        return True
    try:
        return torch.backends.cudnn.allow_tf32 is None
    except RuntimeError:
        return True


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
    as_a_fork_can(torch.device("cpu"))


def as_a_fork_can(device: torch.device) -> None:
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


@contextmanager
def telling_out_of_memory(message: str, hint: str) -> Iterator[None]:
    """Whatever runs out of memory within is told as an OutOfMemoryError of this message and hint, and a GPU that fails
    as a DeviceError. Where memory is spent during a recording, the end of that is an error, too."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if lacks_memory(error) or (error.__context__ and lacks_memory(error.__context__)):
            raise OutOfMemoryError(message, hint) from error
        if is_fault(error):
            raise failure(error) from error
        raise


def free_memory(device: torch.device) -> float:
    """Bytes that tensors may yet take on a GPU, those that torch keeps for reuse among them; of a CPU, no bound."""
    if device.type == "mps":
        most = getattr(torch.mps, "recommended_max_memory", half_of_memory)()  # not before torch 2.5
        return float(most - torch.mps.driver_allocated_memory())
    if device.type != "cuda":
        return math.inf
    index = torch.cuda.current_device() if device.index is None else device.index  # torch 2.4 wants one
    kept = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
    return float(torch.cuda.mem_get_info(index)[0] + kept)
