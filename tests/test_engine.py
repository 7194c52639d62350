"""A network made fast, in each precision."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_checkpoint

from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.engine import Engine, computes_right
from mdrn_cli.errors import DeviceError, DeviceWarning, UsageError
from mdrn_cli.freedmemory import keep_freed_memory
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise
from mdrn_cli.weights import BUNDLED

CPU = torch.device("cpu")


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


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="precision"):
        Engine(tiny_checkpoint(), "cpu", "int4")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes."),  # on Windows
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),  # since cuDNN 9
        RuntimeError("GET was unable to find an engine to execute this computation"),  # in room for its workspace
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


def test_a_tile_takes_most_of_what_a_gpu_has_left(monkeypatch):
    monkeypatch.setattr("mdrn_cli.engine.free_memory", lambda _device: 13_000)
    engine = Engine(tiny_checkpoint(), "cpu")
    assert engine.tile_memory(2**31, 10**9) == 2**31 - 300e6 - 10**9
    engine.device = torch.device("cuda")
    assert engine.tile_memory(2**31, 10**9) == 0.8 * 13_000, "pictures are elsewhere"


def test_what_reduced_precision_cannot_hold_is_computed_again():
    """The first attempt overflows, as float16 or bfloat16 may; the answer is that of float32."""
    image = np.random.default_rng(0).random((1, 40, 56), np.float32)
    engine = Engine(tiny_checkpoint(), "cpu", "bfloat16")
    with torch.no_grad():
        engine.model.tail.bias.fill_(float("inf"))
    assert np.array_equal(engine(image), Engine(tiny_checkpoint(), "cpu", "float32")(image))


@pytest.mark.parametrize(
    "said", ["CUDA error: an illegal memory access was encountered\nCUDA kernel errors might", "cuDNN error: EXECUTION"]
)
def test_a_gpu_that_fails_serves_no_other_picture(monkeypatch, said):
    """Its faults stay for as long as the process lives: the run ends, and each picture is not told as damaged."""
    engine = Engine(tiny_checkpoint(), "cpu")

    def fail(_batch):
        raise RuntimeError(said)

    monkeypatch.setattr(engine, "model", fail)
    with pytest.raises(DeviceError, match=r"the GPU has failed: (CUDA|cuDNN) error: [a-zA-Z ]+$") as caught:
        engine(np.zeros((1, 8, 16), np.float32))
    assert "--device cpu" in caught.value.hint


def test_other_faults_are_not_dressed_up():
    engine = Engine(tiny_checkpoint(), "cpu")
    with pytest.raises(RuntimeError, match="channels"):
        engine(np.zeros((3, 8, 8), np.float32))


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

    def lacks(_values):
        raise NotImplementedError("The operator 'aten::pixel_shuffle' is not currently implemented for the MPS device")

    model.forward = lacks
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
    with pytest.warns(DeviceWarning, match="using the CPU instead: meta computes wrongly"):
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
