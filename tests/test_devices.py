"""Devices: which is taken, what it computes in, and what is told of one that fails."""

import math
import os
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer import Typer

from mdrn_cli import devices
from mdrn_cli.cli.boundary import run
from mdrn_cli.devices import (
    compute_type,
    exact_convolutions,
    free_memory,
    limit_threads,
    native_bfloat16,
    pick_device,
    telling_out_of_memory,
)
from mdrn_cli.errors import DeviceError, DeviceWarning, OutOfMemoryError, UsageError
from mdrn_cli.hardware import cores, memory_to_use

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
NO_KERNELS = "CUDA error: no kernel image is available for execution on the device"


@pytest.fixture
def old_gpu(monkeypatch):
    """A GPU that is there, and that this torch has no kernels for."""
    monkeypatch.setattr(devices, "_computing", set())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def ones(*_sizes, device, **_how):
        assert device.type == "cuda"
        raise RuntimeError(NO_KERNELS + "\nCUDA kernel errors might be asynchronously reported")

    monkeypatch.setattr(torch, "ones", ones)


def test_an_unknown_device_is_refused():
    with pytest.raises(DeviceError, match="no device 'abacus' here"):
        pick_device("abacus")
    with pytest.raises(DeviceError, match="no device 'meta' here: "):
        pick_device("meta")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="no device 'cuda' here: "):
            pick_device("cuda")


@pytest.mark.usefixtures("old_gpu")
def test_of_a_gpu_that_cannot_compute_the_cpu_takes_the_place_unless_it_was_asked_for():
    with pytest.warns(DeviceWarning, match=f"using the CPU instead of cuda: {NO_KERNELS}$"):
        assert pick_device("auto") == CPU
    with pytest.raises(DeviceError, match=f"no device 'cuda:0' here: {NO_KERNELS}$") as caught:
        pick_device("cuda:0")
    assert (caught.value.exit_code, caught.value.hint) == (6, "use --device cpu")


def test_a_gpu_that_is_full_for_a_moment_is_asked_again(monkeypatch):
    """And the CPU does not take its place for hours of training."""
    monkeypatch.setattr(devices, "_computing", set())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    room, ones = [], torch.ones

    def full(*sizes, device, **how):
        assert device.type == "cuda"
        if not room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        return ones(*sizes, **how)

    monkeypatch.setattr(torch, "ones", full)
    for name in ("auto", "cuda"):
        with pytest.raises(OutOfMemoryError, match=r"^cuda is out of memory$"):
            pick_device(name)
    room.append(True)
    assert pick_device("auto") == pick_device("cuda") == CUDA
    room.clear()
    assert pick_device("auto") == CUDA, "it is known by now"


def test_such_warnings_are_a_line_each(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mdrn"])
    shown = warnings.showwarning
    app = Typer()

    @app.command()
    def _main() -> None:
        warnings.warn("the CPU computes\nin its place", DeviceWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(app) == 0
    assert capsys.readouterr().err == "warning: the CPU computes in its place\n"
    assert warnings.showwarning is shown, "of the program that this is part of"


@contextmanager
def recording():
    """Ends as torch's does after an error."""
    try:
        yield
    finally:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def test_a_gpu_that_fails_is_a_device_error_wherever_it_does():
    said = r"failed: CUDA error: unspecified launch failure$"
    with pytest.raises(DeviceError, match=said), telling_out_of_memory("no room", "a hint"):
        raise RuntimeError("CUDA error: unspecified launch failure\nmore")
    with pytest.raises(OutOfMemoryError, match="no room"), telling_out_of_memory("no room", "a hint"):
        raise RuntimeError("CUDA error: out of memory")
    with pytest.raises(OutOfMemoryError, match="no room"), telling_out_of_memory("no room", "a hint"), recording():
        raise RuntimeError("CUDA error: out of memory")
    assert devices.is_fault(RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"))
    assert not devices.is_fault(RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"))
    with pytest.raises(RuntimeError, match="shapes"), telling_out_of_memory("no room", "a hint"):
        raise RuntimeError("shapes differ")


def test_memory_that_torch_keeps_for_reuse_is_free(monkeypatch):
    """Asked of a device by its number, as torch 2.4 wants it."""
    for name, answer in (("mem_get_info", (10_000, 99_000)), ("memory_reserved", 5_000), ("memory_allocated", 2_000)):
        monkeypatch.setattr(torch.cuda, name, lambda index, answer=answer: {1: answer, 3: answer}[index])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert free_memory(CUDA) == free_memory(torch.device("cuda:1")) == 13_000
    assert free_memory(CPU) == math.inf


def test_float32_is_float32_on_cuda_too(monkeypatch):
    """By default cuDNN rounds it to ten bits."""
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", True)  # which training sets otherwise
    for device, expected in ((CUDA, False), (CPU, True)):
        with exact_convolutions(device):
            assert cudnn.allow_tf32 == expected
            assert cudnn.deterministic != expected
    monkeypatch.setattr(cudnn, "enabled", False)
    with exact_convolutions(CUDA):
        assert not cudnn.enabled, "by the program, which may know it to be broken"
    with pytest.raises(ValueError, match="x"), exact_convolutions(CUDA):
        raise ValueError("x")
    assert cudnn.allow_tf32


def test_float32_stays_float32_while_another_thread_ends(monkeypatch):
    """Of two that compute at once neither sets back what the other has set, nor keeps it."""
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    first, second = exact_convolutions(CUDA), exact_convolutions(CUDA)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert cudnn.allow_tf32


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9 has no such setting")
def test_a_program_may_have_set_precision_as_newer_versions_of_torch_have_it(monkeypatch):
    monkeypatch.setattr(torch.backends, "fp32_precision", "tf32")
    convolution = torch.backends.cudnn.conv
    for device, expected in ((CUDA, "ieee"), (CPU, "tf32")):
        with exact_convolutions(device):
            assert convolution.fp32_precision == expected
            assert torch.backends.cudnn.deterministic == (device == CUDA)
        assert convolution.fp32_precision == "tf32"
        assert not torch.backends.cudnn.deterministic
    torch.backends.fp32_precision = "ieee"
    assert convolution.fp32_precision == "ieee", "it follows what the program says next"


def test_auto_computes_in_bfloat16_only_where_it_is_native(monkeypatch):
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("mdrn_cli.devices.native_bfloat16", lambda _d, native=native: native)
        assert compute_type(CPU, "auto") == expected
    assert compute_type(CPU, "float32") == torch.float32
    assert compute_type(CPU, "bfloat16") == torch.bfloat16
    assert isinstance(native_bfloat16(CPU), bool)


def test_threads_are_limited_by_the_environment(monkeypatch):
    monkeypatch.setenv("MDRN_THREADS", "3")
    limit_threads()
    assert torch.get_num_threads() == 3
    for wrong in ("0", "many", "-2"):
        monkeypatch.setenv("MDRN_THREADS", wrong)
        with pytest.raises(UsageError, match="MDRN_THREADS"):
            limit_threads()


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("150000 100000", 2), ("400000 100000", 4), ("50000 100000", 1), ("max 100000", 8), ("1 0", 8), ("", 8)],
)
def test_a_container_has_the_cores_that_its_time_is_worth(monkeypatch, tmp_path, limit, expected):
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "cpu").mkdir(parents=True)
    second.mkdir()
    (second / "cpu.max").write_text(limit)
    for name, number in zip(("quota", "period"), limit.replace("max", "-1").split(), strict=False):
        (first / "cpu" / f"cpu.cfs_{name}_us").write_text(f"{number}\n")
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(8)), raising=False)
    monkeypatch.delenv("MDRN_THREADS", raising=False)
    monkeypatch.setattr("mdrn_cli.hardware._OWN_GROUPS", tmp_path / "none")
    for groups in (tmp_path / "none", first, second):
        monkeypatch.setattr("mdrn_cli.hardware._GROUPS", groups)
        assert cores() == (8 if groups.name == "none" else expected)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    limit_threads()
    assert torch.get_num_threads() == expected
    torch.set_num_threads(before)


def test_what_a_sandbox_hides_is_not_there(monkeypatch):
    """Some hide /sys/fs, or what of /proc tells the control groups."""
    monkeypatch.delenv("MDRN_THREADS", raising=False)

    def refused(_file, *_how):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refused)
    monkeypatch.setattr(Path, "read_text", refused)
    assert cores() == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores() >= 1
    assert 1e8 < memory_to_use() <= 2**31


def test_a_process_forked_from_one_that_has_used_the_gpu_says_so(monkeypatch):
    cuda = torch.device("cuda")
    devices.as_a_fork_can(cuda)
    monkeypatch.setattr(devices, "_forked", True)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    devices.as_a_fork_can(torch.device("cpu"))
    with pytest.raises(DeviceError, match="was forked"):
        devices.as_a_fork_can(cuda)
