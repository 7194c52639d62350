"""The folder of a training run: resumable state, checkpoints, metrics and sample pictures.

State is a safetensors file (no pickle), replaced atomically, so a run killed at any moment goes on from its
last save.
"""

from __future__ import annotations

import io
import json
import math
import platform
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mdrn_cli import __version__
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.errors import MdrnError, UsageError, WeightsError
from mdrn_cli.files import remove_leftovers, write_atomically
from mdrn_cli.hardware import system_name
from mdrn_cli.locks import locked
from mdrn_cli.paths import exists, is_file, is_folder, is_link
from mdrn_cli.places import Places
from mdrn_cli.weights import BEST_FILE, LAST_FILE

STATE_FILE = "state.safetensors"
METRICS_FILE = "metrics.csv"
SAMPLES_FOLDER = "samples"
CONFIG_FILE = "config.toml"
ENVIRONMENT_FILE = "environment.json"
CURVES_FILE = "curves.png"
EVENTS_FOLDER = "events"
PHOTOGRAPHS, TEACHER = "photographs", "teacher"
"""What a run learns from; see `RunState`."""
VALIDATED_ON = "validated_on"
"""In the records of checkpoints: digest of the photographs that the run was validated on."""
LOCK_FILE = ".lock"
"""Held while a run is under way."""
_FILES = (STATE_FILE, LAST_FILE, BEST_FILE, METRICS_FILE, CONFIG_FILE, ENVIRONMENT_FILE, CURVES_FILE)
_IN_FOLDERS = {SAMPLES_FOLDER: re.compile(r"[0-9]{8,}\.png"), EVENTS_FOLDER: re.compile(r"events\.out\.tfevents\..+")}
"""What runs put into folders of theirs: names there."""
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


def clear(folder: Path, but: Collection[str] = ()) -> None:
    """Remove what an earlier run left, but for files of some names, and nothing else."""
    for file in _left_by_runs(folder):
        if file.name not in but:
            file.unlink(missing_ok=True)
    for name in _IN_FOLDERS:
        remove_leftovers(folder / name)
        with suppress(OSError):  # among them, that it holds something else
            (folder / name).rmdir()


def refuse_to_clear_what_is_no_run(folder: Path) -> None:
    """Hold a folder to be one of a run, if there is anything in it that is called like what runs leave.

    Raises:
        UsageError: it is not.
    """
    file = next(_left_by_runs(folder), None)
    if file and not _is_run(folder):
        raise UsageError(f"{folder} is not the folder of a run, and {file} would be replaced", "give another --output")


def _is_run(folder: Path) -> bool:
    with suppress(MdrnError):
        return "mdrn" in load_environment(folder) or bool(saved_config(folder))
    return False


def _left_by_runs(folder: Path) -> Iterator[Path]:
    """What is called like what a run leaves in its folder."""
    yield from (folder / name for name in _FILES if exists(folder / name) or is_link(folder / name))
    for name, kind in _IN_FOLDERS.items():
        with suppress(OSError):  # there is none, or it may not be listed
            yield from (file for file in (folder / name).iterdir() if kind.fullmatch(file.name))


def holds(folder: Path, path: Path) -> bool:
    """Whether `clear` might remove a file."""
    places = Places()
    return is_of_the_run(folder, path.parent) or places.of(path) in {places.of(folder / name) for name in _FILES}


def is_of_the_run(folder: Path, path: Path) -> bool:
    """Whether a path is, or lies in, a folder that runs put files into."""
    return any(Places().within(path, folder / name) for name in _IN_FOLDERS)


def is_empty(folder: Path) -> bool:
    """Whether a run can begin in a folder: it does not exist, or has nothing in it but the lock of one that did not."""
    return not exists(folder) or (is_folder(folder) and all(file.name == LOCK_FILE for file in folder.iterdir()))


def save_environment(folder: Path, device: torch.device, precision: str, processes: int) -> None:
    """Write what the run is computed with, for whoever wants to repeat it: now, and, where it is resumed, earlier."""
    before = load_environment(folder)
    earlier = before.pop("earlier", [])
    about: dict[str, Any] = {
        "mdrn": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": system_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "precision": precision,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }
    if before:
        about["earlier"] = [*(earlier if isinstance(earlier, list) else []), before]
    write_atomically(folder / ENVIRONMENT_FILE, (json.dumps(about, indent=1) + "\n").encode())


def load_environment(folder: Path) -> dict[str, Any]:
    """What `save_environment` wrote; empty where there is nothing readable."""
    try:
        about = json.loads((folder / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


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
        raise MdrnError(f"no run to resume in {folder}", _BEGIN)
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


def _load_generator(generator: torch.Generator, saved: Tensor, iteration: int) -> None:
    """Go on with the random numbers of the save. On a device of another kind, whose generators are others, the run goes
    on with new ones: not with those it began with once more."""
    if saved.numel() == generator.get_state().numel():
        generator.set_state(saved)
    else:
        generator.manual_seed(generator.initial_seed() + iteration)


def best_psnr(folder: Path, validated_on: str) -> float | None:
    """Validation PSNR in dB that the best weights are kept for; None where there are none, or these were chosen by
    other photographs than those of a digest."""
    record = _best_record(folder)
    value = record.get("best_psnr")
    return value if isinstance(value, float) and record.get(VALIDATED_ON, validated_on) == validated_on else None


def chosen_by(folder: Path) -> str | None:
    """The digest of the photographs that the best weights were chosen by; None where nothing tells."""
    digest = _best_record(folder).get(VALIDATED_ON)
    return digest if isinstance(digest, str) else None


def _best_record(folder: Path) -> dict[str, Any]:
    try:
        return dict(load_checkpoint(folder / BEST_FILE).record)
    except WeightsError:
        return {}


def saved_config(folder: Path) -> dict[str, Any]:
    """The configuration stored with a run's state.

    Raises:
        MdrnError: there is no readable state.
    """
    path = folder / STATE_FILE
    if not is_file(path):
        raise MdrnError(f"no run to resume in {folder}", _BEGIN)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads(file.metadata()["config"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, OSError) as error:
        reason = error if isinstance(error, (SafetensorError, OSError)) else "it does not tell the options of the run"
        raise MdrnError(f"{path} is damaged ({reason})", _begin_from(folder)) from error


def is_alone(folder: Path) -> bool:
    """Whether nothing is left in a folder of a run that the one in it has replaced: it was not killed just then."""
    with suppress(SafetensorError, OSError), safe_open(folder / STATE_FILE, framework="pt") as file:
        return (file.metadata() or {}).get("alone") != "false"
    return True


def without_links(folder: Path) -> None:
    """Remove links that lie in the place of state and weights, which are to be written there, not to where they
    lead."""
    for name in (STATE_FILE, LAST_FILE):
        if is_link(folder / name):
            (folder / name).unlink()


def saved_sources(folder: Path) -> dict[str, str]:
    """The `RunState.sources` that a run began with; empty where an earlier version began it, or nothing is readable."""
    try:
        with safe_open(folder / STATE_FILE, framework="pt") as file:
            return {str(name): str(value) for name, value in json.loads(file.metadata()["sources"]).items()}
    except (SafetensorError, LookupError, TypeError, AttributeError, ValueError, RecursionError, OSError):
        return {}


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder until this one ends, however it does. It is made, and removed where nothing was
    put into it.

    Raises:
        UsageError: there is one.
        OSError: the folder cannot be written.
    """
    made = not exists(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK_FILE, wait=False) as free:
        if not free:
            raise UsageError(f"another run is under way in {folder}", "give another --output, or wait for its end")
        try:
            yield
        finally:
            if made and is_empty(folder):
                with suppress(OSError):
                    (folder / LOCK_FILE).unlink(missing_ok=True)
                    folder.rmdir()


def _begin_from(folder: Path) -> str:
    """What can be done without a state."""
    for path in (folder / LAST_FILE, folder / BEST_FILE):
        if path.is_file():
            return f"begin another run, in another folder, from the weights of this one: --init {path}"
    return f"{_BEGIN}, with --overwrite"


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


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


def save_sample(folder: Path, iteration: int, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Write uint8 (H, W, C) pictures of one size side by side as `samples/NNNNNNNN.png`."""
    (folder / SAMPLES_FOLDER).mkdir(exist_ok=True)
    content = io.BytesIO()
    Image.fromarray(np.concatenate(pictures, axis=1).squeeze()).save(content, "PNG")
    write_atomically(folder / SAMPLES_FOLDER / f"{iteration:08d}.png", content.getvalue())
