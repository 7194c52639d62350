"""The network in other runtimes, by way of its ONNX model: what they would gain over `Engine` is measured here
(`mdrn bench --speed`), and nothing but that uses them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mdrn_cli.checkpoint import Checkpoint
from mdrn_cli.devices import limit_threads, native_bfloat16
from mdrn_cli.onnxexport import INPUT, to_onnx

Pixels = NDArray[np.float32]
Runtime = Callable[[Checkpoint], Callable[[Pixels], Pixels]]
"""Makes a checkpoint a callable on (C, H, W) float32 arrays, intensities in [0, 1], on the CPU; not clipped."""


def runtimes() -> dict[str, Runtime]:
    """Those that are installed, by name and precision, on as many threads as `Engine` would take."""
    found: dict[str, Runtime] = {}
    if find_spec("onnx") and find_spec("onnxruntime"):
        found["ONNX Runtime float32"] = _onnxruntime
    if find_spec("onnx") and find_spec("openvino"):
        found["OpenVINO float32"] = partial(_openvino, "f32")
        if native_bfloat16(torch.device("cpu")):
            found["OpenVINO bfloat16"] = partial(_openvino, "bf16")
    return found


def _onnxruntime(checkpoint: Checkpoint) -> Callable[[Pixels], Pixels]:
    import onnxruntime

    limit_threads()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(to_onnx(checkpoint), options, providers=["CPUExecutionProvider"])

    def run(image: Pixels) -> Pixels:
        done: Pixels = session.run(None, {INPUT: image[None]})[0][0]
        return done

    return run


def _openvino(precision: str, checkpoint: Checkpoint) -> Callable[[Pixels], Pixels]:
    import openvino

    limit_threads()
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(to_onnx(checkpoint)), "CPU", options).create_infer_request()

    def run(image: Pixels) -> Pixels:
        done: Pixels = request.infer({INPUT: image[None]})[0][0].copy()
        return done

    return run
