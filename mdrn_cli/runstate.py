"""The state of a training run: everything that is needed to resume it.

A safetensors file (no pickle) in the run's folder, replaced atomically, so that a run killed at any moment goes on from
its last save.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mdrn_cli.errors import MdrnError
from mdrn_cli.files import write_atomically
from mdrn_cli.paths import exists, is_file
from mdrn_cli.weights import BEST_FILE, LAST_FILE

STATE_FILE = "state.safetensors"
PHOTOGRAPHS, TEACHER = "photographs", "teacher"
"""What a run learns from; see `RunState`."""
_BEGIN = "start one without --resume"


@dataclass
class Counters:
    """Where a run stands.

    Attributes:
        iteration: optimizer steps tried so far.
        elapsed: seconds of training so far, over all resumes, validation and saving included.
        skipped: steps skipped because loss or gradient was not finite.
        consecutive_skipped: of these, the ones since the last good step.
        best_psnr: highest validation PSNR so far in dB, None before the first.
        validated: `elapsed` when it was measured last.
        loss_sum, loss_steps: sum and count of losses since the last report.
        reconstruction_sum: of these losses the part that is reconstruction.
    """

    iteration: int = 0
    elapsed: float = 0.0
    skipped: int = 0
    consecutive_skipped: int = 0
    best_psnr: float | None = None
    validated: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0
    reconstruction_sum: float = 0.0


@dataclass
class RunState:
    """All that decides how a run goes on; tensors are live, not copies.

    Attributes:
        sources: what tells, wherever they lie, the PHOTOGRAPHS and the weights of the TEACHER that the run
            learns from.
    """

    model: nn.Module
    ema: dict[str, Tensor]
    optimizers: Sequence[torch.optim.Optimizer]
    generator: torch.Generator
    counters: Counters
    sources: Mapping[str, str] = field(default_factory=dict)


def save_state(folder: Path, state: RunState, config: Mapping[str, Any], alone: bool = True) -> None:
    """Write the run's full state; `config` is stored to be compared on resume, and so is whether the run is `alone` in
    the folder, or something of one that it replaces may be left."""
    tensors: dict[str, Tensor] = {"rng": state.generator.get_state()}
    tensors |= {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in state.ema.items()}
    for k, optimizer in enumerate(state.optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{k}.{index}.{key}": value for key, value in values.items()}
    about = {
        "counters": json.dumps(asdict(state.counters)),
        "config": json.dumps(dict(config)),
        "sources": json.dumps(dict(state.sources)),
        "alone": json.dumps(alone),
    }
    cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    write_atomically(folder / STATE_FILE, save(cpu, about))


def load_state(folder: Path, state: RunState) -> None:
    """Bring `state` to what was saved.

    Raises:
        MdrnError: there is no state, or it is not one of this network and these optimizers.
    """
    path = folder / STATE_FILE
    if not is_file(path):
        raise _nothing_to_resume(folder)
    try:
        with safe_open(path, framework="pt") as file:
            counters = json.loads(file.metadata()["counters"])
            # Not in the states of earlier versions; nobody knows it then until the next report.
            counters.setdefault("reconstruction_sum", math.nan if counters["loss_steps"] else 0.0)
            counters.setdefault("validated", counters["elapsed"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        state.model.load_state_dict(_under("model.", tensors))
        for name, tensor in _under("ema.", tensors).items():
            state.ema[name].copy_(tensor)
        for k, optimizer in enumerate(state.optimizers):
            _load_optimizer(optimizer, _under(f"optimizer.{k}.", tensors))
        _load_generator(state.generator, tensors["rng"], counters["iteration"])
        state.counters = Counters(**{f.name: counters[f.name] for f in fields(Counters)})
    except (SafetensorError, LookupError, TypeError, RuntimeError, ValueError, OSError) as error:
        raise MdrnError(f"{path} does not fit this run ({error})", "resume with the options it began with") from error


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        param = params[int(index)]
        # Fused kernels walk a parameter and its state side by side in memory: both need the same strides. A copy in
        # any case: what is read is mapped from the file, which Windows does not replace while it is.
        aligned = torch.empty_like(param).copy_(tensor) if tensor.shape == param.shape else tensor.clone()
        state.setdefault(int(index), {})[key] = aligned.detach()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _load_generator(generator: torch.Generator, saved: Tensor, iteration: int) -> None:
    """Continue the random numbers from the save. A device of another kind has another generator: there the run gets
    new random numbers, but not once more those that it began with."""
    if saved.numel() == generator.get_state().numel():
        generator.set_state(saved)
    else:
        generator.manual_seed((generator.initial_seed() + iteration) % 2**63)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def saved_config(folder: Path) -> dict[str, Any]:
    """The configuration stored with a run's state.

    Raises:
        MdrnError: there is no readable state.
    """
    path = folder / STATE_FILE
    if not is_file(path):
        raise _nothing_to_resume(folder)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads(file.metadata()["config"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        reason = error if isinstance(error, (SafetensorError, OSError)) else "it does not tell the options of the run"
        raise MdrnError(f"{path} is damaged ({reason})", _begin_from(folder)) from error


def _nothing_to_resume(folder: Path) -> MdrnError:
    return MdrnError(f"no run to resume in {folder}", _BEGIN if exists(folder) else "there is no such folder")


def _begin_from(folder: Path) -> str:
    """A hint on what can be done without a state."""
    for path in (folder / LAST_FILE, folder / BEST_FILE):
        if path.is_file():
            return f"begin another run, in another folder, from the weights of this one: --init {path}"
    return f"{_BEGIN}, with --overwrite"


def saved_sources(folder: Path) -> dict[str, str]:
    """The `RunState.sources` that a run began with; empty where an earlier version began it, or nothing is readable."""
    try:
        with safe_open(folder / STATE_FILE, framework="pt") as file:
            return {str(name): str(value) for name, value in json.loads(file.metadata()["sources"]).items()}
    except (SafetensorError, LookupError, TypeError, AttributeError, ValueError, RecursionError, OSError):
        return {}


def is_alone(folder: Path) -> bool:
    """Whether nothing is left in a folder of a run that the one in it has replaced: it was not killed just then."""
    with suppress(SafetensorError, OSError), safe_open(folder / STATE_FILE, framework="pt") as file:
        return (file.metadata() or {}).get("alone") != "false"
    return True
