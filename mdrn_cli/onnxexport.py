"""A checkpoint as an ONNX model, for ONNX Runtime, OpenVINO, TensorRT and the like.

The graph is written out operator by operator rather than traced: tracing fixes the padding to the size it sees, while
here any height and width are padded inside the graph as `MDRN` pads them. `check` holds it against the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdrn_cli.checkpoint import Checkpoint
from mdrn_cli.errors import MdrnError
from mdrn_cli.model import LEVELS, PAD_MULTIPLE, channel_shuffle, node, restored_and_fused

OPSET = 17
IR_VERSION = 8
INPUT, OUTPUT = "noisy", "denoised"
# One size that needs no padding, one that needs it along both sides, one smaller than its pad.
CHECKED_SIZES = ((64, 48), (37, 51), (3, 9))
TOLERANCE = 1e-3


def to_onnx(checkpoint: Checkpoint) -> bytes:
    """The content of an ONNX file: float32 (N, channels, H, W) "noisy", intensities in [0, 1], to "denoised" of the
    same shape, not clipped; N, H and W are free.

    Raises:
        MdrnError: the package onnx is not installed.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise MdrnError("ONNX export needs the package onnx", "pip install 'mdrn-cli[onnx]'") from error
    graph = _Graph(checkpoint)
    graph.build()
    shape = ["batch", checkpoint.config.channels, "height", "width"]
    made = helper.make_graph(
        graph.nodes,
        "mdrn",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        graph.constants,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mdrn")
    about = {"sigma": f"{checkpoint.sigma:g}", "color": checkpoint.config.color}
    helper.set_model_props(model, about)
    content: bytes = model.SerializeToString()
    return content


def check(content: bytes, checkpoint: Checkpoint) -> float | None:
    """Run an ONNX model beside the network on noise of several sizes, odd ones among them.

    Returns:
        The largest difference of intensities in [0, 1], or None where onnxruntime is not installed.

    Raises:
        MdrnError: they differ by more than rounding does.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    model, generator, worst = checkpoint.build(), torch.Generator().manual_seed(0), 0.0
    for size in CHECKED_SIZES:
        noisy = torch.rand(1, checkpoint.config.channels, *size, generator=generator)
        with torch.inference_mode():
            expected = model(noisy).numpy()
        (given,) = session.run(None, {INPUT: noisy.numpy()})
        worst = max(worst, float(np.abs(given - expected).max()))
    if not worst <= TOLERANCE:
        raise MdrnError(f"the ONNX model differs from the network by {worst:.2g}")
    return worst


class _Graph:
    """Nodes and constants of the network; values go by their names."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.state, self.blocks = checkpoint.state, checkpoint.config.blocks
        self.features = checkpoint.config.features
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def build(self) -> None:
        """The pyramid of `MDRN.forward_features`, between padding and cropping."""
        size = self.add("Shape", INPUT, start=2)
        x = self.pad(INPUT, size)
        rows: list[list[str]] = [[] for _ in range(LEVELS)]
        for j in range(LEVELS):
            for i in range(LEVELS - j):
                if j > 0:
                    rows[i].append(self.group(i, j, rows[i], rows[i + 1][j - 1]))
                elif i > 0:
                    rows[i].append(self.group(i, j, [self.conv(f"degrade.{i - 1}", rows[i - 1][0], stride=2)]))
                else:
                    rows[i].append(self.group(i, j, [self.conv("head", x, padding=1)]))
        denoised = self.add("Sub", x, self.conv("tail", rows[0][-1], padding=1))
        axes = self.constant(np.array([2, 3]))
        start = self.constant(np.array([0, 0]))
        self.add("Slice", denoised, start, size, axes, name=OUTPUT)

    def group(self, i: int, j: int, inputs: Sequence[str], coarse: str = "") -> str:
        """MSAG: fusion, blocks, long skip; see `MSAG.forward`."""
        name, kernel = f"groups.{node(i, j)}", None
        weight, bias = self.state[f"{name}.fuse.weight"], self.state[f"{name}.fuse.bias"]
        if coarse:
            restore, restore_bias = (self.state[f"restore.{node(i, j)}.{part}"] for part in ("weight", "bias"))
            kernel, bias = restored_and_fused(restore, restore_bias, weight[:, -self.features :], bias)
            weight = weight[:, : -self.features]
        x = inputs[0] if len(inputs) == 1 else self.add("Concat", *inputs, axis=1)
        fused = self.add("Conv", x, self.constant(weight.numpy()), self.constant(bias.numpy()))
        if kernel is not None:
            restored = self.add("ConvTranspose", coarse, self.constant(kernel.numpy()), strides=[2, 2])
            fused = self.add("Add", fused, restored)
        x = fused
        for k in range(self.blocks):
            x = self.block(f"{name}.blocks.{k}", x)
        return self.add("Add", fused, x)

    def block(self, name: str, x: str) -> str:
        """MSAB; its channel shuffle is a permutation of the last convolution's weights."""
        halves = np.s_[: self.features // 2], np.s_[self.features // 2 :]
        near, far = (self.add("Relu", self.conv(f"{name}.conv_in", x, rows=part)) for part in halves)
        near = self.conv(f"{name}.conv_d1", near, padding=1)
        far = self.conv(f"{name}.conv_d2", far, padding=2, dilation=2)
        y = self.add("Relu", self.add("Concat", near, far, axis=1))
        return self.add("Add", x, self.conv(f"{name}.conv_out", y, columns=channel_shuffle(self.features)))

    def conv(
        self,
        name: str,
        x: str,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        rows: slice = slice(None),
        columns: slice | Tensor = slice(None),
    ) -> str:
        """A convolution by the weights of that name; `rows` and `columns` choose its outputs and inputs."""
        weight = self.constant(self.state[f"{name}.weight"][rows][:, columns].numpy())
        bias = self.constant(self.state[f"{name}.bias"][rows].numpy())
        pads = [padding] * 4
        return self.add("Conv", x, weight, bias, strides=[stride] * 2, pads=pads, dilations=[dilation] * 2)

    def pad(self, x: str, size: str) -> str:
        """At the bottom and right to multiples of 8, as `pad_to_multiple` does: each padded row and column is one of
        the image's, chosen by index."""
        multiple = self.constant(np.array([PAD_MULTIPLE]))
        rounded = self.add("Add", size, self.constant(np.array([PAD_MULTIPLE - 1])))
        padded = self.add("Mul", self.add("Div", rounded, multiple), multiple)
        for axis in (0, 1):
            here = self.constant(np.array(axis))
            index = self.source_index(self.add("Gather", size, here), self.add("Gather", padded, here))
            x = self.add("Gather", x, index, axis=axis + 2)
        return x

    def source_index(self, size: str, padded: str) -> str:
        """For each of `padded` positions the one to copy: itself, its mirror image, or the last where that lies
        outside of the image."""
        zero, one, two = (self.constant(np.array(value)) for value in (0, 1, 2))
        position = self.add("Range", zero, padded, one)
        last = self.add("Sub", size, one)
        mirrored = self.add("Sub", self.add("Mul", last, two), position)
        fits = self.add("Less", self.add("Sub", padded, size), size)
        outside = self.add("Where", fits, mirrored, last)
        return self.add("Where", self.add("Less", position, size), position, outside)

    def constant(self, values: Any) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(np.shape(values)), name))
        return name

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Append an operator; returns the name of its result."""
        from onnx import helper

        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name
