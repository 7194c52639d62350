"""`mdrn train` and `mdrn distill` on a CPU with AMX (Xeon since 2023), about twice as fast: blocks and fusions,
forward and backward, by kernels of our own (amx.cpp), which g++ compiles at the first call.

python tools/amx_training.py train --color gray --sigma 25 --data photos --output run
"""

import ctypes
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdrn_cli import losses
from mdrn_cli.__main__ import main
from mdrn_cli.devices import native_bfloat16
from mdrn_cli.errors import MdrnError
from mdrn_cli.model import MSAB, MSAG, Coarse, autocast_type, exactly, restored_and_fused

SOURCE = Path(__file__).with_name("amx.cpp")
LIBRARIES = Path(__file__).parents[1] / "build" / "amx"
COMPILER = "g++", "-O3", "-march=sapphirerapids", "-fopenmp", "-shared", "-fPIC", str(SOURCE)
FEATURES = 64
"""What the kernels are for."""
SMALLEST, LARGEST = 16, 256
"""Sides of a patch at the levels of the pyramid; other images, as those validated on, go torch's way."""
PARAMETERS = 8
"""Of a block: weight and bias of its four convolutions."""

without_kernels = MSAG.forward
difference_without = losses.feature_difference
saved_before: dict[int, list[Tensor]] = {}
"""Room for what is saved for a backward pass, by its size, kept for the next: fresh pages take longer than kernels."""


def compiled() -> ctypes.CDLL:
    """The kernels.

    Raises:
        MdrnError: they cannot be compiled, or do not run here.
    """
    not_here = MdrnError("this processor has no AMX", "use mdrn train")
    if not has_amx():
        raise not_here
    made_of = hashlib.sha256(" ".join(COMPILER[:-1]).encode() + SOURCE.read_bytes()).hexdigest()
    library = LIBRARIES / f"{made_of[:16]}.so"
    if not library.exists():
        LIBRARIES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=LIBRARIES) as folder:  # of this process, however many begin at once
            part = Path(folder) / library.name
            try:
                done = subprocess.run([*COMPILER, "-o", str(part)], capture_output=True, text=True, check=False)
            except FileNotFoundError as error:
                raise MdrnError("there is no g++ to compile the kernels", "install it, or use mdrn train") from error
            if done.returncode:
                raise MdrnError(f"the kernels cannot be compiled ({done.stderr.strip()[:200]})", "use mdrn train")
            part.replace(library)
    kernels = ctypes.CDLL(str(library))
    kernels.save_size.restype, kernels.difference.restype = ctypes.c_size_t, ctypes.c_double
    if not kernels.amx_allowed():
        raise not_here
    return kernels


def has_amx() -> bool:
    """Whether the processor has tiles of bfloat16."""
    flags = Path("/proc/cpuinfo")
    return native_bfloat16(torch.device("cpu")) and flags.exists() and " amx_bf16" in flags.read_text()


def dense(x: Tensor) -> Tensor:
    """As the kernels take features."""
    return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def plain(parameter: Tensor) -> Tensor:
    """As the kernels take weights."""
    return parameter.detach().float().contiguous()


def at(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where a tensor lies, or nowhere."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def all_at(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """Where tensors lie."""
    return (ctypes.c_void_p * len(tensors))(*map(at, tensors))


def room(values: int) -> Tensor:
    """For what is saved."""
    free = saved_before.setdefault(values, [])
    return free.pop() if free else torch.zeros(values, dtype=torch.bfloat16)


def give_back(saved: Tensor) -> None:
    """Keep it for the next that asks for so much."""
    saved_before[saved.numel()].append(saved)


class Chain(torch.autograd.Function):
    """The blocks of a group with its long skip: (kernels, x, then the eight parameters of each) -> features."""

    @staticmethod
    def forward(ctx: Any, kernels: ctypes.CDLL, x: Tensor, *parameters: Tensor) -> Tensor:
        """See the class."""
        x = dense(x)
        count, _, height, width = x.shape
        blocks = len(parameters) // PARAMETERS
        weights = [plain(parameter) for parameter in parameters]
        keep = any(ctx.needs_input_grad)
        places = blocks if keep else min(blocks, 2)
        saved = room(count * places * kernels.save_size(height, width) + 2048)
        out = torch.empty_like(x)
        shape = count, height, width, blocks
        kernels.chain_forward(*shape, places, at(x), all_at(weights), at(out), at(saved))
        if keep:
            ctx.kernels, ctx.saved, ctx.weights, ctx.shape = kernels, saved, weights, shape
        else:
            give_back(saved)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Of all inputs."""
        g = dense(g)
        gx, grads = torch.empty_like(g), [torch.empty_like(weight) for weight in ctx.weights]
        ctx.kernels.chain_backward(*ctx.shape, at(g), all_at(ctx.weights), at(ctx.saved), at(gx), all_at(grads))
        give_back(ctx.saved)
        del ctx.saved
        return (None, gx, *grads)


class Fusion(torch.autograd.Function):
    """(kernels, weight (64, at least n * 64, 1, 1), bias (64,), reconstructed or None, n inputs) -> features: the sum
    of a 1x1 convolution for each input, of the bias and of reconstructed features. After them the inputs themselves,
    for whatever uses them afterwards: so its gradients come here, and need no pass of their own to be added."""

    @staticmethod
    def forward(
        ctx: Any, kernels: ctypes.CDLL, weight: Tensor, bias: Tensor, up: Tensor | None, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """See the class."""
        given = [dense(x) for x in inputs]
        up = None if up is None else dense(up)
        rows, out = plain(weight).flatten(1), torch.empty_like(given[0])
        about = ctypes.c_int64(out.numel() // FEATURES), len(given)
        added = plain(bias)
        kernels.fuse_forward(*about, all_at(given), at(rows), rows.shape[1], at(added), at(up), at(out))
        if any(ctx.needs_input_grad):
            ctx.kernels, ctx.about, ctx.rows, ctx.given, ctx.up = kernels, about, rows, given, up is not None
            ctx.shape = weight.shape
        ctx.set_materialize_grads(False)
        return out, *inputs

    @staticmethod
    def backward(ctx: Any, g: Tensor, *later: Tensor | None) -> tuple[Tensor | None, ...]:
        """Of all inputs."""
        g, after = dense(g), [None if gradient is None else dense(gradient) for gradient in later]
        n = len(ctx.given)
        grads = [torch.empty_like(x) for x in ctx.given]
        gw, gb = torch.empty(n, FEATURES, FEATURES), torch.empty(FEATURES)
        weights = at(ctx.rows), ctx.rows.shape[1]
        ctx.kernels.fuse_backward(
            *ctx.about, at(g), all_at(ctx.given), *weights, all_at(after), all_at(grads), at(gw), at(gb)
        )
        whole = torch.zeros(ctx.shape)
        whole.flatten(1)[:, : n * FEATURES] = gw.permute(2, 0, 1).flatten(1)
        del ctx.given
        return (None, whole, gb, g if ctx.up else None, *grads)


class Difference(torch.autograd.Function):
    """(kernels, ours, theirs) -> their mean absolute difference."""

    @staticmethod
    def forward(ctx: Any, kernels: ctypes.CDLL, ours: Tensor, theirs: Tensor) -> Tensor:
        """See the class."""
        ours, theirs = dense(ours), dense(theirs)
        ctx.kernels, ctx.given = kernels, (ours, theirs)
        return torch.tensor(kernels.difference(ctypes.c_int64(ours.numel()), at(ours), at(theirs)) / ours.numel())

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Of ours."""
        ours, theirs = ctx.given
        gradient, scale = torch.empty_like(ours), ctypes.c_float(g.item() / ours.numel())
        ctx.kernels.difference_backward(ctypes.c_int64(ours.numel()), at(ours), at(theirs), scale, at(gradient))
        del ctx.given
        return None, gradient, None


def install(kernels: ctypes.CDLL) -> None:
    """Have the groups of networks that are made or were, and the loss of their features, compute by the kernels, on the
    CPU and in bfloat16."""

    def forward(self: MSAG, inputs: list[Tensor], coarse: Coarse | None = None) -> Tensor:
        count, features, height, width = inputs[0].shape
        fits = SMALLEST <= height == width <= LARGEST and count * height * width % 32 == 0 and features == FEATURES
        device = inputs[0].device
        if not fits or device.type != "cpu" or autocast_type(device) != torch.bfloat16:
            return without_kernels(self, inputs, coarse)
        bias, restored = self.fuse.bias, None
        assert bias is not None
        if coarse:
            below, restore = coarse
            last = self.fuse.weight[:, len(inputs) * FEATURES :]
            kernel, bias = restored_and_fused(restore.weight, restore.bias, last, bias)
            restored = F.conv_transpose2d(below, kernel.contiguous(), stride=2)
        with exactly(device):
            x, *inputs[:] = Fusion.apply(kernels, self.fuse.weight, bias, restored, *inputs)  # type: ignore[no-untyped-call]
            done: Tensor = Chain.apply(kernels, x, *parameters_of(self.blocks))  # type: ignore[no-untyped-call]
        return done

    def feature_difference(ours: Tensor, theirs: Tensor) -> Tensor:
        if {ours.dtype, theirs.dtype} != {torch.bfloat16} or ours.numel() % 32 or ours.device.type != "cpu":
            return difference_without(ours, theirs)
        return Difference.apply(kernels, ours, theirs)  # type: ignore[no-any-return, no-untyped-call]

    MSAG.forward = forward  # type: ignore[method-assign]
    losses.feature_difference = feature_difference


def parameters_of(blocks: nn.Sequential) -> list[Tensor]:
    """Of a group's blocks, as `Chain` takes them."""
    found: list[Tensor] = []
    for block in blocks:
        assert isinstance(block, MSAB)
        into, near, far, out = block.conv_in, block.conv_d1, block.conv_d2, block.conv_out
        weights = into.weight, near.weight, far.weight, out.weight[:, block.shuffle]
        for conv, weight in zip((into, near, far, out), weights, strict=True):
            assert conv.bias is not None
            found += [weight, conv.bias]
    return found


if __name__ == "__main__":
    try:
        install(compiled())
    except MdrnError as error:
        sys.exit(f"{error.message} ({error.hint})")
    sys.exit(main())
