"""Checkpoints: a safetensors file that carries its network's configuration and training record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mdrn_cli.errors import WeightsError
from mdrn_cli.files import write_atomically
from mdrn_cli.manifest import WHITE
from mdrn_cli.model import MDRN, MSAB, MDRNConfig

METADATA_KEY = "mdrn"
FORMAT = "mdrn.checkpoint/1"
FLOAT_TYPES = ("F16", "BF16", "F32")
"""Of tensors, as safetensors calls them."""


@lru_cache(maxsize=8)
def _shapes(config: MDRNConfig) -> dict[str, list[int]]:
    """Of a network's tensors, by name."""
    with torch.device("meta"):
        return {name: list(tensor.shape) for name, tensor in MDRN(config).state_dict().items()}


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what they are for.

    Attributes:
        config: shape of the network.
        sigma: noise level the weights were trained at, on the 0-255 scale.
        state: float32 state dict, complete and finite.
        record: how the weights came to be (data, iterations, seed, ...), as stored.
    """

    config: MDRNConfig
    sigma: float
    state: dict[str, Tensor]
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def noise(self) -> str:
        """Of what kind the noise is that it was trained on (see manifest.py): white where its run says nothing."""
        return str(self.record.get("noise", WHITE))

    @property
    def distillation(self) -> Mapping[str, Any]:
        """How it was distilled, as its run has written down; empty where that says nothing."""
        written = self.record.get("distillation")
        return written if isinstance(written, dict) else {}

    def build(self) -> MDRN:
        """The network with these weights, in float32 on the CPU whatever torch's defaults are, in evaluation
        mode; torch's generator is left as it was."""
        with torch.random.fork_rng(devices=()), torch.device("cpu"):
            model = MDRN(self.config).float()
        model.load_state_dict(self.state)
        return model.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint, dtype: torch.dtype = torch.float16) -> None:
    """Write a checkpoint atomically: `path` holds either its old content or all of the new.

    Raises:
        WeightsError: a weight is not finite in `dtype`.
    """
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in checkpoint.state.items()}
    _check_finite(state, path)
    about = {
        "format": FORMAT,
        "config": checkpoint.config.to_dict(),
        "sigma": checkpoint.sigma,
        "record": checkpoint.record,
    }
    write_atomically(path, save(state, {METADATA_KEY: json.dumps(about, sort_keys=True)}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint strictly: every tensor of the network, none besides, all finite.

    Raises:
        WeightsError: the file is missing, not safetensors, not an MDRN checkpoint, or does not fit its own
            configuration.
    """
    try:
        if not path.is_file():
            raise WeightsError(f"no checkpoint file {path}")
        with safe_open(path, framework="pt") as file:
            names = file.keys()  # (not a mapping)
            config, sigma, record = _parse_metadata(file.metadata() or {}, path)
            # What the tensors are is checked before they are read: a foreign file may claim to hold any amount.
            _check_layout({name: file.get_slice(name) for name in names}, config, path)
            state = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, RuntimeError) as error:  # the last where it cannot be mapped into memory
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error})", "mdrn loads safetensors only"
        ) from error
    _check_finite(state, path)
    # A copy in any case: what is read is mapped from the file, which would change with it and which Windows would not
    # replace meanwhile.
    own = {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}
    return Checkpoint(config, sigma, own, record)


def _parse_metadata(metadata: Mapping[str, str], path: Path) -> tuple[MDRNConfig, float, dict[str, Any]]:
    try:
        about = json.loads(metadata[METADATA_KEY])
        if about["format"] != FORMAT:
            raise WeightsError(f"{path} has format {about['format']!r}; this version reads {FORMAT!r}")
        config = _config_of(about, path)
        sigma, record = float(about["sigma"]), dict(about["record"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WeightsError(f"{path} is not an MDRN checkpoint (bad metadata)") from error
    if not 0 < sigma <= 255:
        raise WeightsError(f"{path} has sigma {sigma}, outside 0 to 255")
    return config, sigma, record


def _config_of(about: Mapping[str, Any], path: Path) -> MDRNConfig:
    try:
        return MDRNConfig(**about["config"])
    except WeightsError as error:
        raise error.naming(path) from error.__cause__


def _check_layout(slices: Mapping[str, Any], config: MDRNConfig, path: Path) -> None:
    """Refuse tensors that are not the network's, from names, shapes and types alone."""
    expected = _shapes(config)
    for name in expected.keys() - slices.keys():
        raise WeightsError(f"{path} lacks the tensor {name}")
    for name, tensor in slices.items():
        if name not in expected:
            raise WeightsError(f"{path} has a tensor the network does not: {name}")
        if tensor.get_shape() != expected[name] or tensor.get_dtype() not in FLOAT_TYPES:
            raise WeightsError(
                f"{path}: {name} is {tensor.get_dtype()} {tensor.get_shape()}, expected {expected[name]}"
            )


def _check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"{path}: {name} holds values that are not finite")


def adapt(checkpoint: Checkpoint, config: MDRNConfig) -> dict[str, Tensor]:
    """Weights for a network of another color mode or more blocks, made from a trained one.

    Growth in blocks keeps the function exactly: appended MSABs end in a zero convolution. What a color
    network needs beyond a gray one, chroma in its head and tail, is drawn from torch's global generator.

    Args:
        checkpoint: the source.
        config: the target.

    Returns:
        A complete state dict of the target.

    Raises:
        WeightsError: the target has fewer blocks or another width.
    """
    source = checkpoint.config
    if config.features != source.features:
        raise WeightsError(f"cannot start {config.features} features from {source.features}")
    if config.blocks < source.blocks:
        raise WeightsError(f"cannot start {config.blocks} blocks from {source.blocks}", "start from fewer blocks")
    model = MDRN(config)
    for name, module in model.named_modules():
        if isinstance(module, MSAB) and int(name.rsplit(".", 1)[1]) >= source.blocks:
            torch.nn.init.zeros_(module.conv_out.weight)
            torch.nn.init.zeros_(module.conv_out.bias)  # type: ignore[arg-type]
    fresh = model.state_dict()
    trained = dict(checkpoint.state)
    if config.channels > source.channels:
        trained |= _gray_to_color(checkpoint.state, fresh)
    elif config.channels < source.channels:
        trained |= _color_to_gray(checkpoint.state)
    return fresh | trained


def _gray_to_color(gray: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Head and tail that treat equal channels, in the mean, as the gray network did. Chroma gets fresh weights
    that sum to zero over the channels: were they zero, every channel would have the same gradient and the
    network would never come to see color."""
    head, tail, bias = fresh["head.weight"], fresh["tail.weight"], gray["tail.bias"]
    channels = tail.shape[0]
    return {
        "head.weight": gray["head.weight"] / channels + head - head.mean(dim=1, keepdim=True),
        "tail.weight": gray["tail.weight"] + tail - tail.mean(dim=0, keepdim=True),
        "tail.bias": bias.expand(channels).clone(),
    }


def _color_to_gray(color: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Head and tail that do to a gray image what the color network does to three equal channels."""
    return {
        "head.weight": color["head.weight"].sum(dim=1, keepdim=True),
        "tail.weight": color["tail.weight"].mean(dim=0, keepdim=True),
        "tail.bias": color["tail.bias"].mean(dim=0, keepdim=True),
    }
