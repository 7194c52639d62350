"""The network's blocks (section 3.1.1) on a GPU in few passes over its memory, which is what one waits for there:
Triton kernels for their forward and backward passes.

Features are channels_last and dense, seen as (P, C) with P the pixels of the batch; a program works on BP of these.
Products are summed in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rows(start, P, BP: tl.constexpr):
    offsets = start * BP + tl.arange(0, BP)
    return offsets, offsets < P


@triton.jit
def squeeze(x, w, b, near, far, P, C: tl.constexpr, BP: tl.constexpr):
    """The first 1x1 convolution and ReLU, halves apart: x (P, C) -> near, far (P, C/2)."""
    H: tl.constexpr = C // 2
    rows, inside = _rows(tl.program_id(0), P, BP)
    c, h = tl.arange(0, C), tl.arange(0, H)
    values = tl.load(x + rows[:, None] * C + c[None, :], mask=inside[:, None], other=0.0)
    w_near = tl.load(w + h[None, :] * C + c[:, None])  # (in, out)
    w_far = tl.load(w + (H + h)[None, :] * C + c[:, None])
    near_values = tl.dot(values, w_near) + tl.load(b + h).to(tl.float32)[None, :]
    far_values = tl.dot(values, w_far) + tl.load(b + H + h).to(tl.float32)[None, :]
    half = rows[:, None] * H + h[None, :]
    tl.store(near + half, tl.maximum(near_values, 0.0).to(near.dtype.element_ty), mask=inside[:, None])
    tl.store(far + half, tl.maximum(far_values, 0.0).to(far.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _dilated(
    values, w, rows, y, x, inside, height, width, D: tl.constexpr, H: tl.constexpr, BACK: tl.constexpr, BP: tl.constexpr
):
    """Sum over the nine taps of a 3x3 convolution with dilation D of values (P, H), or of its transpose (BACK); weights
    (out, 3, 3, in)."""
    h = tl.arange(0, H)
    acc = tl.zeros((BP, H), tl.float32)
    for tap in range(9):
        dy, dx = (tap // 3 - 1) * (-D if BACK else D), (tap % 3 - 1) * (-D if BACK else D)
        there = inside & (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        moved = tl.load(values + (rows + dy * width + dx)[:, None] * H + h[None, :], mask=there[:, None], other=0.0)
        if BACK:
            weight = tl.load(w + h[:, None] * (9 * H) + tap * H + h[None, :])  # (out, in)
        else:
            weight = tl.load(w + h[None, :] * (9 * H) + tap * H + h[:, None])  # (in, out)
        acc = tl.dot(moved, weight, acc)
    return acc


@triton.jit
def spread(
    x, near, far, w1, b1, w2, b2, wo, bo, out, near_out, far_out, P, height, width,
    C: tl.constexpr, KEEP: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Both dilated convolutions, ReLU, the shuffle, the last 1x1 convolution and the sum with x."""
    H: tl.constexpr = C // 2
    rows, inside = _rows(tl.program_id(0), P, BP)
    c, h = tl.arange(0, C), tl.arange(0, H)
    px, py = rows % width, rows // width % height
    first = _dilated(near, w1, rows, py, px, inside, height, width, 1, H, False, BP)
    second = _dilated(far, w2, rows, py, px, inside, height, width, 2, H, False, BP)
    first = tl.maximum(first + tl.load(b1 + h).to(tl.float32)[None, :], 0.0).to(near.dtype.element_ty)
    second = tl.maximum(second + tl.load(b2 + h).to(tl.float32)[None, :], 0.0).to(near.dtype.element_ty)
    if KEEP:
        half = rows[:, None] * H + h[None, :]
        tl.store(near_out + half, first, mask=inside[:, None])
        tl.store(far_out + half, second, mask=inside[:, None])
    # The shuffle: channel k of the first half lands at 2 k, of the second at 2 k + 1.
    w_first = tl.load(wo + c[None, :] * C + 2 * h[:, None])  # (in, out)
    w_second = tl.load(wo + c[None, :] * C + 2 * h[:, None] + 1)
    total = tl.dot(second, w_second, tl.dot(first, w_first)) + tl.load(bo + c).to(tl.float32)[None, :]
    whole = rows[:, None] * C + c[None, :]
    total += tl.load(x + whole, mask=inside[:, None], other=0.0).to(tl.float32)
    tl.store(out + whole, total.to(out.dtype.element_ty), mask=inside[:, None])


@triton.jit
def spread_back(
    g, near_out, far_out, wo, g_near, g_far, sums, P, K, C: tl.constexpr, BP: tl.constexpr
):  # fmt: skip
    """Gradient at the dilated convolutions' results, before ReLU, and of what comes after them and of their biases."""
    H: tl.constexpr = C // 2
    c, h = tl.arange(0, C), tl.arange(0, H)
    w_first = tl.load(wo + c[:, None] * C + 2 * h[None, :])  # (out, in)
    w_second = tl.load(wo + c[:, None] * C + 2 * h[None, :] + 1)
    gw_first, gw_second = tl.zeros((C, H), tl.float32), tl.zeros((C, H), tl.float32)
    gb, gb_first, gb_second = tl.zeros((C,), tl.float32), tl.zeros((H,), tl.float32), tl.zeros((H,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(P, BP), tl.num_programs(0)):
        rows, inside = _rows(tile, P, BP)
        half = rows[:, None] * H + h[None, :]
        grad = tl.load(g + rows[:, None] * C + c[None, :], mask=inside[:, None], other=0.0)
        first = tl.load(near_out + half, mask=inside[:, None], other=0.0)
        second = tl.load(far_out + half, mask=inside[:, None], other=0.0)
        across = tl.trans(grad)
        gw_first, gw_second = tl.dot(across, first, gw_first), tl.dot(across, second, gw_second)
        gb += tl.sum(grad.to(tl.float32), 0)
        g_first = tl.where(first > 0, tl.dot(grad, w_first), 0.0)
        g_second = tl.where(second > 0, tl.dot(grad, w_second), 0.0)
        gb_first += tl.sum(g_first, 0)
        gb_second += tl.sum(g_second, 0)
        tl.store(g_near + half, g_first.to(g_near.dtype.element_ty), mask=inside[:, None])
        tl.store(g_far + half, g_second.to(g_far.dtype.element_ty), mask=inside[:, None])
    sums += tl.program_id(0) * K
    tl.store(sums + c[:, None] * C + 2 * h[None, :], gw_first)
    tl.store(sums + c[:, None] * C + 2 * h[None, :] + 1, gw_second)
    tl.store(sums + C * C + c, gb)
    tl.store(sums + C * C + C + h, gb_first)
    tl.store(sums + C * C + C + H + h, gb_second)


@triton.jit
def dilated_back(
    g_near, g_far, near, far, w1, w2, into_near, into_far, P, height, width, C: tl.constexpr, BP: tl.constexpr
):  # fmt: skip
    """Gradient at the first 1x1 convolution's results, before ReLU."""
    H: tl.constexpr = C // 2
    rows, inside = _rows(tl.program_id(0), P, BP)
    px, py = rows % width, rows // width % height
    half = rows[:, None] * H + tl.arange(0, H)[None, :]
    first = _dilated(g_near, w1, rows, py, px, inside, height, width, 1, H, True, BP)
    first = tl.where(tl.load(near + half, mask=inside[:, None], other=0.0) > 0, first, 0.0)
    tl.store(into_near + half, first.to(into_near.dtype.element_ty), mask=inside[:, None])
    second = _dilated(g_far, w2, rows, py, px, inside, height, width, 2, H, True, BP)
    second = tl.where(tl.load(far + half, mask=inside[:, None], other=0.0) > 0, second, 0.0)
    tl.store(into_far + half, second.to(into_far.dtype.element_ty), mask=inside[:, None])


@triton.jit
def squeeze_back(g, g_near, g_far, x, w, gx, sums, P, K, C: tl.constexpr, BP: tl.constexpr):
    """Gradient at the block's input, and of its first convolution."""
    H: tl.constexpr = C // 2
    c, h = tl.arange(0, C), tl.arange(0, H)
    w_near = tl.load(w + h[:, None] * C + c[None, :])  # (out, in)
    w_far = tl.load(w + (H + h)[:, None] * C + c[None, :])
    gw_near, gw_far = tl.zeros((C, H), tl.float32), tl.zeros((C, H), tl.float32)  # (in, out)
    gb_near, gb_far = tl.zeros((H,), tl.float32), tl.zeros((H,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(P, BP), tl.num_programs(0)):
        rows, inside = _rows(tile, P, BP)
        half, whole = rows[:, None] * H + h[None, :], rows[:, None] * C + c[None, :]
        first = tl.load(g_near + half, mask=inside[:, None], other=0.0)
        second = tl.load(g_far + half, mask=inside[:, None], other=0.0)
        gb_near += tl.sum(first.to(tl.float32), 0)
        gb_far += tl.sum(second.to(tl.float32), 0)
        across = tl.trans(tl.load(x + whole, mask=inside[:, None], other=0.0))
        gw_near, gw_far = tl.dot(across, first, gw_near), tl.dot(across, second, gw_far)
        total = tl.dot(second, w_far, tl.dot(first, w_near))
        total += tl.load(g + whole, mask=inside[:, None], other=0.0).to(tl.float32)
        tl.store(gx + whole, total.to(gx.dtype.element_ty), mask=inside[:, None])
    sums += tl.program_id(0) * K
    tl.store(sums + h[None, :] * C + c[:, None], gw_near)
    tl.store(sums + (H + h)[None, :] * C + c[:, None], gw_far)
    tl.store(sums + C * C + h, gb_near)
    tl.store(sums + C * C + H + h, gb_far)


@triton.jit
def kernels_back(g, values, sums, P, height, width, K, H: tl.constexpr, D: tl.constexpr, BP: tl.constexpr):
    """Gradient of a 3x3 convolution's weights (out, 3, 3, in); one row of taps for each program of the second axis."""
    h = tl.arange(0, H)
    row = tl.program_id(1)
    dy = (row - 1) * D
    left, middle, right = tl.zeros((H, H), tl.float32), tl.zeros((H, H), tl.float32), tl.zeros((H, H), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(P, BP), tl.num_programs(0)):
        rows, inside = _rows(tile, P, BP)
        px, py = rows % width, rows // width % height
        across = tl.trans(tl.load(g + rows[:, None] * H + h[None, :], mask=inside[:, None], other=0.0))
        there = inside & (py + dy >= 0) & (py + dy < height)
        at = (rows + dy * width)[:, None] * H + h[None, :]
        moved = tl.load(values + at - D * H, mask=(there & (px >= D))[:, None], other=0.0)
        left = tl.dot(across, moved, left)
        moved = tl.load(values + at, mask=there[:, None], other=0.0)
        middle = tl.dot(across, moved, middle)
        moved = tl.load(values + at + D * H, mask=(there & (px + D < width))[:, None], other=0.0)
        right = tl.dot(across, moved, right)
    sums += tl.program_id(0) * K + h[:, None] * (9 * H) + row * (3 * H) + h[None, :]
    tl.store(sums, left)
    tl.store(sums + H, middle)
    tl.store(sums + 2 * H, right)


@triton.jit
def total(sums, out, programs, K, BK: tl.constexpr, R: tl.constexpr):
    """Sums (programs, K) -> (K,), over the programs."""
    k = tl.program_id(0) * BK + tl.arange(0, BK)
    r = tl.arange(0, R)
    acc = tl.zeros((R, BK), tl.float32)
    for first in range(0, programs, R):
        inside = (first + r < programs)[:, None] & (k < K)[None, :]
        acc += tl.load(sums + (first + r)[:, None] * K + k[None, :], mask=inside, other=0.0)
    tl.store(out + k, tl.sum(acc, 0).to(out.dtype.element_ty), mask=k < K)


@triton.jit
def fuse(
    a, b, c, up, w, bias, out, P, stride, C: tl.constexpr, N: tl.constexpr, UP: tl.constexpr, BP: tl.constexpr
):  # fmt: skip
    """The 1x1 fusion of N inputs (P, C), and the sum with what is reconstructed."""
    rows, inside = _rows(tl.program_id(0), P, BP)
    k = tl.arange(0, C)
    whole = rows[:, None] * C + k[None, :]
    weights = w + k[None, :] * stride + k[:, None]  # (in, out)
    total = tl.dot(tl.load(a + whole, mask=inside[:, None], other=0.0), tl.load(weights))
    if N > 1:
        total = tl.dot(tl.load(b + whole, mask=inside[:, None], other=0.0), tl.load(weights + C), total)
    if N > 2:
        total = tl.dot(tl.load(c + whole, mask=inside[:, None], other=0.0), tl.load(weights + 2 * C), total)
    total += tl.load(bias + k).to(tl.float32)[None, :]
    if UP:
        total += tl.load(up + whole, mask=inside[:, None], other=0.0).to(tl.float32)
    tl.store(out + whole, total.to(out.dtype.element_ty), mask=inside[:, None])


@triton.jit
def fuse_back(g, x, w, gx, sums, P, stride, K, C: tl.constexpr, BIAS: tl.constexpr, BP: tl.constexpr):
    """Gradients at one input of a fusion, of its weights, and of the bias."""
    k = tl.arange(0, C)
    weight = tl.load(w + k[:, None] * stride + k[None, :])  # (out, in)
    gw, gb = tl.zeros((C, C), tl.float32), tl.zeros((C,), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(P, BP), tl.num_programs(0)):
        rows, inside = _rows(tile, P, BP)
        whole = rows[:, None] * C + k[None, :]
        grad = tl.load(g + whole, mask=inside[:, None], other=0.0)
        values = tl.load(x + whole, mask=inside[:, None], other=0.0)
        gw = tl.dot(tl.trans(grad), values, gw)
        if BIAS:
            gb += tl.sum(grad.to(tl.float32), 0)
        tl.store(gx + whole, tl.dot(grad, weight).to(gx.dtype.element_ty), mask=inside[:, None])
    sums += tl.program_id(0) * K
    tl.store(sums + k[:, None] * C + k[None, :], gw)
    if BIAS:
        tl.store(sums + C * C + k, gb)
