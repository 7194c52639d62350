"""The kernels for training with AMX (amx/), and what torch trains with by them: functions with gradients."""

import ctypes
import hashlib
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mdrn_cli.devices import native_bfloat16
from mdrn_cli.errors import MdrnError

SOURCES = sorted(Path(__file__).with_name("amx").iterdir())
LIBRARIES = Path(__file__).parents[1] / "build" / "amx"
COMPILER = "g++", "-O3", "-march=sapphirerapids", "-fopenmp", "-shared", "-fPIC"
FEATURES = 64
"""What the kernels are for."""
PARAMETERS = 8
"""Of a block: weight and bias of its four convolutions."""

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
    content = b"".join(source.read_bytes() for source in SOURCES)
    made_of = hashlib.sha256(" ".join(COMPILER).encode() + content).hexdigest()
    library = LIBRARIES / f"{made_of[:16]}.so"
    if not library.exists():
        LIBRARIES.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=LIBRARIES) as folder:  # of this process, however many begin at once
            part = Path(folder) / library.name
            try:
                command = [*COMPILER, "-o", str(part), *(str(path) for path in SOURCES if path.suffix == ".cpp")]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
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


def empty(count: int, height: int, width: int) -> Tensor:
    """Room for features, as the kernels give them."""
    shape = count, FEATURES, height, width
    return torch.empty(shape, dtype=torch.bfloat16, memory_format=torch.channels_last)


def sides(x: Tensor) -> tuple[int, int, int]:
    """How many images (N, C, H, W) are, and their height and width."""
    count, _, height, width = x.shape
    return count, height, width


def interleaved(image: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), float32."""
    return image.detach().float().permute(0, 2, 3, 1).contiguous()


def at(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where a tensor lies, or nowhere; for as long as somebody has the tensor."""
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


class Degradation(torch.autograd.Function):
    """(kernels, weight (64, 64, 2, 2), bias (64,), features (N, 64, 2 h, 2 w)) -> features (N, 64, h, w), and the given
    ones themselves (see `Fusion`)."""

    @staticmethod
    def forward(ctx: Any, kernels: ctypes.CDLL, weight: Tensor, bias: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        fine = dense(x)
        ctx.kernels, ctx.weight, ctx.fine = kernels, weight.detach(), fine
        ctx.set_materialize_grads(False)
        count, height, width = sides(fine)
        out = empty(count, height // 2, width // 2)
        taps, added = plain(weight.permute(2, 3, 1, 0)), plain(bias)
        kernels.to_coarse(*sides(out), at(fine), at(taps), at(added), at(out))
        return out, x

    @staticmethod
    def backward(ctx: Any, g: Tensor, later: Tensor | None) -> tuple[Tensor | None, ...]:
        """Of weight, bias and features."""
        g, later = dense(g), None if later is None else dense(later)
        gx, (gw, gb) = torch.empty_like(ctx.fine), between(ctx.kernels, ctx.fine, g)
        taps = plain(ctx.weight.permute(2, 3, 0, 1))
        ctx.kernels.to_fine(*sides(g), at(g), at(taps), at(later), at(gx))
        del ctx.fine
        return None, gw, gb, gx


class Reconstruction(torch.autograd.Function):
    """(kernels, kernel (64, 64, 2, 2), features (N, 64, h, w)) -> features (N, 64, 2 h, 2 w)."""

    @staticmethod
    def forward(ctx: Any, kernels: ctypes.CDLL, weight: Tensor, x: Tensor) -> Tensor:
        """See the class."""
        coarse = dense(x)
        ctx.kernels, ctx.weight, ctx.coarse = kernels, weight.detach(), coarse
        count, height, width = sides(coarse)
        out = empty(count, 2 * height, 2 * width)
        taps = plain(weight.permute(2, 3, 0, 1))
        kernels.to_fine(*sides(coarse), at(coarse), at(taps), None, at(out))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Of kernel and features."""
        g = dense(g)
        gx, (gw, _) = torch.empty_like(ctx.coarse), between(ctx.kernels, g, ctx.coarse)
        taps = plain(ctx.weight.permute(2, 3, 1, 0))
        ctx.kernels.to_coarse(*sides(gx), at(g), at(taps), None, at(gx))
        del ctx.coarse
        return None, gw, gx


def between(kernels: ctypes.CDLL, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a convolution between two levels, (64 coarse, 64 fine, 2, 2), and of the coarse one's bias."""
    gw, gb = torch.empty(2, 2, FEATURES, FEATURES), torch.empty(FEATURES)
    kernels.between(*sides(coarse), at(fine), at(coarse), at(gw), at(gb))
    return gw.permute(3, 2, 0, 1), gb


class Head(torch.autograd.Function):
    """(kernels, weight (64, C, 3, 3), bias (64,), image (N, C, H, W)) -> features, from products in float32."""

    @staticmethod
    def forward(ctx: Any, kernels: ctypes.CDLL, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        """See the class."""
        ctx.kernels, ctx.image = kernels, interleaved(x)
        out, taps, added = empty(*sides(x)), plain(weight.permute(2, 3, 1, 0)), plain(bias)
        kernels.to_features(*sides(x), x.shape[1], at(ctx.image), at(taps), at(added), at(out))
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Of weight and bias."""
        gw, gb = of_features(ctx.kernels, ctx.image, dense(g))
        return None, gw.permute(3, 2, 0, 1), gb, None


class Tail(torch.autograd.Function):
    """(kernels, weight (C, 64, 3, 3), bias (C,), features) -> image (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, kernels: ctypes.CDLL, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        """See the class."""
        x, reduced = dense(x), weight.to(torch.bfloat16)
        ctx.kernels, ctx.features, ctx.weight = kernels, x, reduced
        return F.conv2d(x, reduced, bias.to(torch.bfloat16), padding=1)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Of weight, bias and features: as of a head that makes features of the image's gradient, its taps turned."""
        image, x = interleaved(g), ctx.features
        gx, taps = torch.empty_like(x), plain(ctx.weight.flip(2, 3).permute(2, 3, 0, 1))
        ctx.kernels.to_features(*sides(x), g.shape[1], at(image), at(taps), None, at(gx))
        gw, _ = of_features(ctx.kernels, image, x)
        del ctx.features
        return None, gw.flip(0, 1).permute(2, 3, 0, 1), image.sum(dim=(0, 1, 2)), gx


def of_features(kernels: ctypes.CDLL, image: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Products of an image's neighbours with features, summed, (3, 3, C, 64), and the sum of the features."""
    channels = image.shape[3]
    gw, gb = torch.empty(3, 3, channels, FEATURES), torch.empty(FEATURES)
    kernels.of_features(*sides(features), channels, at(image), at(features), at(gw), at(gb))
    return gw, gb


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
