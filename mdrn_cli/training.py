"""Training runs (paper, section 4.2): from photographs to a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from mdrn_cli.checkpoint import adapt, load_checkpoint
from mdrn_cli.configfile import format_config
from mdrn_cli.devices import compute_type, free_memory, layout, limit_threads, pick_device, telling_out_of_memory
from mdrn_cli.engine import TRUSTED, computes_right, wrong_device
from mdrn_cli.errors import UsageError
from mdrn_cli.files import remove_leftovers, telling_write_errors, write_atomically
from mdrn_cli.fit import fit
from mdrn_cli.freedmemory import keep_freed_memory
from mdrn_cli.hardware import half_of_memory
from mdrn_cli.losses import reconstruction_loss
from mdrn_cli.manifest import WHITE
from mdrn_cli.model import MDRN, Network
from mdrn_cli.parallel import Group, launched
from mdrn_cli.patches import PatchSampler
from mdrn_cli.photographs import PhotoFolder, Reading, each_photograph, read_photographs
from mdrn_cli.places import Places
from mdrn_cli.runfolder import (
    CONFIG_FILE,
    alone_in,
    chosen_by,
    clear,
    holds,
    is_of_the_run,
    refuse_to_clear_what_is_no_run,
    save_environment,
)
from mdrn_cli.runlog import Report
from mdrn_cli.runstate import PHOTOGRAPHS, STATE_FILE, Counters, is_alone, saved_sources
from mdrn_cli.steps import DrawNoise, StepLoss
from mdrn_cli.trainconfig import TrainConfig
from mdrn_cli.validation import Validator
from mdrn_cli.weights import LAST_FILE

OF_TRAINING = 8
"""Photographs that are validated on, of those trained on."""


def plain_loss(sigma: float, kind: str) -> StepLoss:
    """Reconstruction loss of a kind under noise of level `sigma` (section 3.3, equation 2)."""

    def step_loss(network: Network, clean: Tensor, draw_noise: DrawNoise, _done: float | Tensor) -> Tensor:
        noisy = noisy_version(clean, draw_noise(clean), sigma)
        return reconstruction_loss(network(noisy)[0], clean, kind)

    return step_loss


def noisy_version(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """`clean` in [0, 1] under standard normal `noise` scaled to `sigma` on the 0-255 scale."""
    return (clean + noise * (sigma / 255)).contiguous(memory_format=layout(clean.device))


def run_train(
    config: TrainConfig,
    output: Path,
    resume: bool,
    report: Report,
    reading: Reading | None = None,
) -> tuple[Counters, PhotoFolder]:
    """Train with the reconstruction loss alone; leaves `last` and `best` checkpoints in `output`.

    Args:
        config: the run.
        output: run folder; created, an earlier run in it removed.
        resume: go on from the state in it instead.
        report: called every few steps.
        reading: told how the reading of photographs goes.

    Returns:
        Where the run ended, and what was read.

    Raises:
        UsageError, InputError, WeightsError, DeviceError: the run cannot start.
        MdrnError: it cannot resume, or diverged.
    """
    if config.distillation:
        raise UsageError("this run learns from a teacher", "go on with it by `mdrn distill --resume`")
    if config.noise != WHITE:
        raise UsageError("this run learns from other noise than white", "go on with it by tools/train_camera.py")
    return run_with(lambda _device: plain_loss(config.sigma, config.loss), config, output, resume, report, reading)


def run_with(
    make_loss: Callable[[torch.device], StepLoss],
    config: TrainConfig,
    output: Path,
    resume: bool,
    report: Report,
    reading: Reading | None,
    sources: Mapping[str, str] | None = None,
) -> tuple[Counters, PhotoFolder]:
    """What every kind of run has in common; `make_loss` gives its loss for the training device, and `sources` tells
    what that learns from beside photographs (see `RunState`). Under torchrun each process calls this, and the first
    alone writes and reports."""
    config = config.located()
    refuse_among_photographs(config, output)
    if not resume:
        refuse_to_replace_its_source(config, output)
    group, reading = launched(), reading or Reading()
    group.share(config.batch_size)
    device = ready_device(config, group)
    with group.connected(str(device)), telling_run_errors(device):
        start = initial_model(replace(config, init=None) if resume else config)
        validator = open_validation(config, output, resume, reading) if group.first else None
        with ExitStack() as held:
            if group.first:
                with telling_write_errors(output):
                    held.enter_context(alone_in(output))
            # Last, for it takes longest.
            photos, sampler = open_data(config, device, group, reading)
            sources = {**(sources or {}), PHOTOGRAPHS: photos.digest(Path(config.data))}
            if resume and saved_sources(output).get(PHOTOGRAPHS, sources[PHOTOGRAPHS]) != sources[PHOTOGRAPHS]:
                reading.changed()
            counters = fit_from(
                start, make_loss, config, sampler, validator, output, resume, report, group=group, sources=sources
            )
    return counters, photos


def ready_device(config: TrainConfig, group: Group) -> torch.device:
    """The device of this process of a run, with threads, memory and kernels set for training."""
    limit_threads(group.local_size)
    keep_freed_memory()
    torch.backends.cudnn.benchmark = True  # on CUDA: patches are all of one shape
    torch.backends.cudnn.allow_tf32 = False  # there it would round intensities, which the head sees, to 10 bits
    return pick_device(group.device(config.device))


def telling_run_errors(device: torch.device) -> AbstractContextManager[None]:
    """Tell of memory that is spent what can be done about it."""
    hint = "lower --batch-size, --patch-size or --cache-memory"
    return telling_out_of_memory(f"{device} ran out of memory in training", hint)


def fit_from(
    start: MDRN,
    make_loss: Callable[[torch.device], StepLoss],
    config: TrainConfig,
    sampler: PatchSampler,
    validator: Validator | None,
    output: Path,
    resume: bool,
    report: Report,
    group: Group | None = None,
    sources: Mapping[str, str] | None = None,
) -> Counters:
    """`fit` a network on the CPU to what `sampler` gives, on its device; see `run_with` for the arguments."""
    device, group = sampler.device, group or Group()
    twin = None if device.type in TRUSTED else deepcopy(start)
    model: MDRN = start.to(device, memory_format=layout(device))  # type: ignore[call-overload]
    if twin and not computes_right(model, twin):
        raise wrong_device(device)
    step_loss = make_loss(device)
    with telling_write_errors(output):
        prepare = partial(prepare_folder, config, output, resume, device, group.size)
        return fit(config, model, step_loss, sampler, validator, output, resume, report, group, sources, prepare)


def refuse_among_photographs(config: TrainConfig, output: Path) -> None:
    """Refuse a run folder among the photographs of the run, and photographs among its own pictures.

    Raises:
        UsageError: it is in the folder of those to train or to validate on, or that lies where it puts files.
    """
    for option, folder in (("data", config.data), ("val", config.val)):
        if folder and Places().within(output, Path(folder)):
            raise UsageError(
                f"the run folder {output} is inside --{option} {folder}: its sample pictures would become photographs",
                "give a run folder elsewhere",
            )
        if folder and is_of_the_run(output, Path(folder)):
            raise UsageError(
                f"--{option} {folder} is where the run folder {output} keeps files of its own",
                "give a run folder elsewhere",
            )


def refuse_to_replace_its_source(config: TrainConfig, output: Path) -> None:
    """Refuse a run that begins with weights of the one it replaces, or learns from them, and one that would replace
    files that no run has left.

    Raises:
        UsageError: they would be removed.
    """
    refuse_to_clear_what_is_no_run(output)
    for path in (config.init, config.distillation and config.distillation.teacher):
        if path and holds(output, Path(path)):
            raise UsageError(f"{path} belongs to the run that would be replaced", "give another --output")


def open_validation(config: TrainConfig, output: Path, resume: bool, reading: Reading) -> Validator | None:
    """The photographs to validate on; None where there are to be none."""
    if not config.val:
        return None
    held_out = each_photograph(Path(config.val), config.color, reading.unreadable)
    # A try-out (--smoke) has perhaps no others, and these may be thousands.
    places = Places()
    of_training = places.folder(Path(config.val)) == places.folder(Path(config.data))
    validator = Validator(islice(held_out, OF_TRAINING if of_training else None), config.sigma)
    if of_training:
        reading.validated_on_own(len(validator.clean))
    if resume and chosen_by(output) not in (None, validator.digest):
        reading.validated_otherwise()
    return validator


def open_data(
    config: TrainConfig, device: torch.device, group: Group, reading: Reading
) -> tuple[PhotoFolder, PatchSampler]:
    """The photographs of a run and what draws patches from them. Processes of one machine share a memory map, which the
    first makes."""
    memory = half_of_memory() if config.cache_memory is None else config.cache_memory
    with group.first_goes_first():
        limit = 0 if group.local_size > 1 else memory
        places, data, val = Places(), Path(config.data), Path(config.val or config.data)
        held_out = None if places.folder(data) == places.folder(val) else val
        photos = read_photographs(data, config.color, limit, reading, held_out)
    resident = photos.pixels.nbytes <= free_memory(device) / 2
    sampler = PatchSampler(photos, config.patch_size, device, resident)
    for file, reason in photos.unreadable:
        reading.unreadable(file, reason)
    reading.too_small(sampler.too_small)
    return photos, sampler


def prepare_folder(config: TrainConfig, output: Path, resume: bool, device: torch.device, processes: int) -> None:
    """The run folder, which has state and weights of a run, as that begins: what defines it, and nothing else of an
    earlier one unless that is resumed.

    Raises:
        OSError: it cannot be written.
    """
    settings = format_config(config.flat()).encode()
    precision = str(compute_type(device, config.precision)).removeprefix("torch.")
    output.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    if not (resume and is_alone(output)):
        clear(output, (STATE_FILE, LAST_FILE))
    write_atomically(output / CONFIG_FILE, settings)
    save_environment(output, device, precision, processes)


def initial_model(config: TrainConfig) -> MDRN:
    """The network a run starts from: fresh from the seed, or adapted from `config.init`."""
    torch.manual_seed(config.seed)
    model = MDRN(config.network)
    if config.init:
        model.load_state_dict(adapt(load_checkpoint(Path(config.init)), config.network))
    return model
