"""Precision and devices."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint

from mdrn_cli import engine
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.engine import (
    Engine,
    compute_type,
    computes_right,
    free_memory,
    limit_threads,
    native_bfloat16,
    pick_device,
)
from mdrn_cli.errors import DeviceError, UsageError
from mdrn_cli.freedmemory import keep_freed_memory
from mdrn_cli.hardware import cores
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise
from mdrn_cli.weights import BUNDLED

CPU = torch.device("cpu")


def test_auto_computes_in_bfloat16_only_where_it_is_native(monkeypatch):
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("mdrn_cli.engine.native_bfloat16", lambda _d, native=native: native)
        assert compute_type(CPU, "auto") == expected
    assert compute_type(CPU, "float32") == torch.float32
    assert compute_type(CPU, "bfloat16") == torch.bfloat16
    assert isinstance(native_bfloat16(CPU), bool)


def test_reduced_precision_changes_little_and_the_residual_stays_exact():
    """A network that predicts no noise must give its input back bit for bit in any precision."""
    image = np.random.default_rng(0).random((1, 40, 56), np.float32)
    checkpoint = tiny_checkpoint()
    exact, reduced = (Engine(checkpoint, "cpu", p)(image) for p in ("float32", "bfloat16"))
    assert exact.dtype == reduced.dtype == np.float32
    assert 0 < np.abs(exact - reduced).max() < 0.02
    for name in ("tail.weight", "tail.bias"):
        checkpoint.state[name].zero_()
    assert np.array_equal(Engine(checkpoint, "cpu", "bfloat16")(image), image)


def test_unknown_precision_and_device_are_refused():
    with pytest.raises(UsageError, match="precision"):
        Engine(tiny_checkpoint(), "cpu", "int4")
    with pytest.raises(DeviceError, match="abacus"):
        pick_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda"):
            pick_device("cuda")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),  # on Windows
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_running_out_of_memory_is_a_device_error_with_a_hint(monkeypatch, error):
    engine = Engine(tiny_checkpoint(), "cpu")

    def fail(_batch):
        raise error

    monkeypatch.setattr(engine, "model", fail)
    with pytest.raises(DeviceError, match="16x8") as caught:
        engine(np.zeros((1, 8, 16), np.float32))
    assert "--tile" in caught.value.hint


def test_no_room_for_the_weights_is_a_device_error(monkeypatch):
    def fail(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Engine, "_build", fail)
    with pytest.raises(DeviceError, match="cpu has too little memory"):
        Engine(tiny_checkpoint(), "cpu")


def test_a_tile_takes_what_a_gpu_has_left_whatever_torch_keeps_of_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (10_000, 99_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 5_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 2_000)
    assert free_memory(torch.device("cuda")) == 13_000
    assert free_memory(torch.device("cpu")) == math.inf
    engine = Engine(tiny_checkpoint(), "cpu")
    assert engine.tile_memory(2**31, 10**9) == 2**31 - 300e6 - 10**9
    engine.device = torch.device("cuda")
    assert engine.tile_memory(2**31, 10**9) == 0.8 * 13_000, "pictures are elsewhere"


def test_float32_is_float32_on_cuda_too():
    """By default cuDNN rounds it to ten bits."""
    engine, seen = Engine(tiny_checkpoint(), "cpu", "float32"), []
    engine.model.head.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    engine(np.zeros((1, 8, 8), np.float32))
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 == before


def test_what_reduced_precision_cannot_hold_is_computed_again():
    """The first attempt overflows, as float16 or bfloat16 may; the answer is that of float32."""
    image = np.random.default_rng(0).random((1, 40, 56), np.float32)
    engine = Engine(tiny_checkpoint(), "cpu", "bfloat16")
    with torch.no_grad():
        engine.model.tail.bias.fill_(float("inf"))
    assert np.array_equal(engine(image), Engine(tiny_checkpoint(), "cpu", "float32")(image))


def test_other_faults_are_not_dressed_up():
    engine = Engine(tiny_checkpoint(), "cpu")
    with pytest.raises(RuntimeError, match="channels"):
        engine(np.zeros((3, 8, 8), np.float32))


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


def test_bfloat16_sees_noise_below_its_own_steps(photo):
    """Near white these are a level of 8 bits apart: the head must not round the image to them."""
    clean = np.ascontiguousarray(photo[64:256, 128:320])
    checkpoint = load_checkpoint(BUNDLED / "mdrn-2b-color-2.safetensors")
    noisy = add_noise(clean, 2)
    exact, reduced = (psnr(to_uint8(Engine(checkpoint, "cpu", name)(noisy)), clean) for name in ("float32", "bfloat16"))
    assert reduced > exact - 0.02  # 0.2 less with such a head


def test_a_device_that_computes_wrongly_is_known():
    checkpoint = tiny_checkpoint("color")
    model = checkpoint.build()
    assert computes_right(model.bfloat16().float(), checkpoint.build())
    with torch.no_grad():
        model.tail.bias += 0.05
    assert not computes_right(model, checkpoint.build())


def test_of_such_a_device_the_cpu_takes_the_place_unless_it_was_asked_for(monkeypatch, photo):
    image = np.moveaxis(photo[:16, :16], 2, 0).astype(np.float32) / 255
    checkpoint = tiny_checkpoint("color")
    expected = Engine(checkpoint, "cpu", "float32")(image)
    monkeypatch.setattr("mdrn_cli.engine.TRUSTED", ())
    assert np.array_equal(Engine(checkpoint, "cpu", "float32")(image), expected)
    monkeypatch.setattr("mdrn_cli.engine.computes_right", lambda *_: False)
    with pytest.raises(DeviceError, match="cpu computes wrongly with torch"):
        Engine(checkpoint, "cpu")
    monkeypatch.setattr("mdrn_cli.engine.pick_device", lambda *_: torch.device("meta"))
    engine = Engine(checkpoint, "auto", "float32")
    assert engine.device == CPU
    assert np.array_equal(engine(image), expected)


def test_convolutions_are_given_dense_weights(monkeypatch):
    """As torch's on MPS takes them to be."""
    given = []

    def noting(convolve):
        def run(x, weight, *rest, **named):
            given.append(weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last))
            return convolve(x, weight, *rest, **named)

        return run

    for name in ("conv2d", "conv_transpose2d"):
        monkeypatch.setattr(torch.nn.functional, name, noting(getattr(torch.nn.functional, name)))
    model = tiny_checkpoint().build().to(memory_format=torch.channels_last)
    model(torch.rand(1, 1, 16, 16))
    assert len(given) > 20
    assert all(given)


def test_an_older_glibc_takes_a_lower_threshold(monkeypatch):
    asked = []

    def mallopt(option, value):
        asked.append((option, value))
        return option != -3 or value <= 2**25

    monkeypatch.setattr("mdrn_cli.freedmemory._glibc", lambda: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert asked == [(-3, 2**28), (-3, 2**25), (-1, 2**30)]


def test_a_process_forked_from_one_that_has_used_the_gpu_says_so(monkeypatch):
    cuda = torch.device("cuda")
    engine._as_a_fork_can(cuda)
    monkeypatch.setattr(engine, "_forked", True)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    engine._as_a_fork_can(torch.device("cpu"))
    with pytest.raises(DeviceError, match="was forked"):
        engine._as_a_fork_can(cuda)
