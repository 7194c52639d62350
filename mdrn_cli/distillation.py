"""Heterogeneous knowledge distillation: a student trained under a frozen teacher (paper, section 3.2)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mdrn_cli.checkpoint import Checkpoint, load_checkpoint
from mdrn_cli.devices import layout
from mdrn_cli.errors import UsageError, WeightsError
from mdrn_cli.levels import HMDS_LEVELS
from mdrn_cli.losses import distillation_loss, reconstruction_loss
from mdrn_cli.manifest import FAMILY_BLOCKS, WHITE, choose
from mdrn_cli.model import MDRN, Network
from mdrn_cli.paths import is_file, sha256_of
from mdrn_cli.photographs import PhotoFolder, Reading
from mdrn_cli.replay import Batch, Memory
from mdrn_cli.runlog import Report
from mdrn_cli.runstate import TEACHER, Counters, saved_sources
from mdrn_cli.steps import BatchNoise, DrawNoise, StepLoss, Terms, computing, network_of
from mdrn_cli.trainconfig import Distillation, TrainConfig
from mdrn_cli.training import noisy_version, run_with
from mdrn_cli.weights import all_records, explicit_path, find_weights, locate, recorded


def run_distill(
    config: TrainConfig,
    output: Path,
    resume: bool,
    report: Report,
    reading: Reading | None = None,
) -> tuple[Counters, PhotoFolder]:
    """Train a student under a frozen teacher (section 3.2): `run_train` with another loss, set by
    `config.distillation`.

    Raises:
        UsageError: teacher and student do not go together.
        Others: see `run_train`.
    """
    distillation = config.distillation
    if distillation is None:
        raise UsageError("the run has no teacher to learn from", "a plain run goes on by `mdrn train --resume`")
    teacher = load_checkpoint(Path(distillation.teacher))
    sha256 = sha256_of(Path(distillation.teacher))
    known = recorded(sha256)
    if (known or teacher).noise != WHITE:
        raise UsageError("the teacher was trained on noise that is not white, unlike the student")
    check_teacher(config, distillation, teacher)
    if resume and saved_sources(output).get(TEACHER, sha256) != sha256:
        raise UsageError(
            f"{distillation.teacher} is not the teacher that the run began with", "give that one by --teacher"
        )
    return run_with(
        lambda device: distilled_loss(
            config.sigma,
            config.loss,
            distillation,
            network_of(computing(frozen(teacher.build(), device), config, device), config),
        ),
        config,
        output,
        resume,
        report,
        reading,
        {TEACHER: sha256},
    )


def found_again(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration of a run that is resumed; a bundled teacher may lie elsewhere than when the run began, as in
    another environment.

    Raises:
        WeightsError: it cannot be had.
    """
    if config.distillation is None or is_file(Path(config.distillation.teacher)):
        return config
    sha256 = saved_sources(folder).get(TEACHER)
    for record in all_records():
        if record.sha256 == sha256:
            return replace(config, distillation=replace(config.distillation, teacher=str(locate(record))))
    return config


def default_sigma(mode: str, teacher: str | None, color: str, teacher_sigma: float | None) -> float:
    """Noise level of a student where none is given, 0-255 scale: for hads that of its teacher, the bundled one if none
    is named, or of `mdrn train` if there is none; for hmds the paper's.

    Args:
        mode, teacher, color: as for `find_teacher`.
        teacher_sigma: noise level asked of the teacher, if any.

    Raises:
        WeightsError: the named teacher is missing or no checkpoint.
    """
    if mode == "hads":
        if teacher_sigma is not None:
            return teacher_sigma
        if (level := level_of(teacher)) is not None:
            return level
        with suppress(WeightsError):
            return choose(all_records(), teacher or "mdrn", color, TrainConfig.sigma).sigma
    return HMDS_LEVELS[color][1] if mode == "hmds" and color in HMDS_LEVELS else TrainConfig.sigma


def default_teacher_sigma(teacher: str | None, color: str, sigma: float) -> float | None:
    """Noise level of an hmds teacher where none is given, 0-255 scale: that of the teacher named, else the paper's;
    None where the paper has no such student.

    Args:
        teacher, color: as for `find_teacher`.
        sigma: noise level of the student.

    Raises:
        WeightsError: the named teacher is missing or no checkpoint.
    """
    if (level := level_of(teacher)) is not None:
        return level
    theirs, ours = HMDS_LEVELS[color]
    return theirs if sigma == ours else None


def level_of(teacher: str | None) -> float | None:
    """Noise level that a teacher given by name, file or run folder was trained at, 0-255 scale; None for a family, or
    where none is given.

    Raises:
        WeightsError: it is missing or no checkpoint.
    """
    if teacher and (path := explicit_path(teacher)):
        return load_checkpoint(path).sigma
    return next((record.sigma for record in all_records() if record.name == teacher), None)


def find_teacher(teacher: str | None, mode: str, color: str, sigma: float, blocks: int) -> Path:
    """The file of a teacher.

    Args:
        teacher: name, file or run folder; None for the bundled network that the mode asks for: MDRN for hads, for hmds
            the student's architecture, or what there is at that level.
        mode: "hads" or "hmds".
        color: "gray" or "color".
        sigma: noise level of the teacher, 0-255 scale.
        blocks: MSABs per MSAG of the student.

    Raises:
        Those of `find_weights`.
    """
    if teacher is None and mode == "hmds":
        for family in (name for name, size in FAMILY_BLOCKS.items() if size == blocks):
            with suppress(WeightsError):
                return find_weights(family, color, sigma)
        teacher = "auto"
    try:
        return find_weights(teacher or "mdrn", color, sigma)
    except UsageError as error:
        other = next((record.color for record in all_records() if record.name == teacher), color)
        hint = "leave --teacher out to have one chosen"
        raise UsageError(error.message, hint if other == color else f"give --color {other}, or {hint}") from error
    except WeightsError as error:
        if teacher:
            raise
        raise WeightsError(error.message, "give --teacher FILE, one trained by `mdrn train --blocks 8`") from error


def check_teacher(config: TrainConfig, distillation: Distillation, teacher: Checkpoint) -> None:
    """Refuse a pair that makes no sense.

    Raises:
        UsageError: widths or color modes differ, or size or noise level of the teacher are not what the mode asks for.
    """
    theirs, ours = teacher.config, config.network
    if theirs.features != ours.features:
        raise UsageError(f"the teacher has {theirs.features} features, the student {ours.features}: they must agree")
    if theirs.color != ours.color:
        raise UsageError(
            f"the teacher is for {theirs.color} images, the student for {ours.color}",
            f"give --color {theirs.color}, or another --teacher",
        )
    if teacher.sigma != distillation.teacher_sigma:
        raise UsageError(f"the teacher is for sigma {teacher.sigma:g}, not {distillation.teacher_sigma:g}")
    check_levels(distillation.mode, teacher.sigma, config.sigma)
    if distillation.mode == "hads" and theirs.blocks <= ours.blocks:
        raise UsageError(
            f"hads needs a teacher larger than the student: {theirs.blocks} blocks are not more than {ours.blocks}",
            "give a larger --teacher, or fewer --blocks",
        )


def check_levels(mode: str, teacher: float, student: float) -> None:
    """Refuse noise levels, on the 0-255 scale, that a mode of distillation is not for.

    Raises:
        UsageError: they differ for hads, or the teacher's is not the lower one for hmds.
    """
    if mode == "hads" and teacher != student:
        raise UsageError(
            f"hads needs one noise level: the teacher has {teacher:g}, the student {student:g}",
            "hmds is for a teacher at a lower level",
        )
    if mode == "hmds" and teacher >= student:
        raise UsageError(
            f"hmds needs a teacher below the student: {teacher:g} is not below {student:g}",
            "hads is for one noise level",
        )


def frozen(teacher: MDRN, device: torch.device) -> MDRN:
    """A teacher ready for use: on the device, in evaluation mode, without gradients."""
    moved: MDRN = teacher.to(device, memory_format=layout(device))  # type: ignore[call-overload]
    return moved.eval().requires_grad_(False)


def distilled_loss(sigma: float, kind: str, distillation: Distillation, teacher: Network) -> StepLoss:
    """Reconstruction loss plus weighted distillation loss (section 3.3, equation 4); one forward pass of each
    network gives both its image and its features. The reconstruction loss, against the soft target where there is one,
    is told apart. Where batches come again, features are held against the teacher's of new ones alone.

    Args:
        sigma: noise level of the student, 0-255 scale.
        kind: of the reconstruction loss.
        distillation: mode and weights.
        teacher: frozen, on the training device.
    """

    memory = Memory(teacher)

    def asked(noisy: Tensor, batch: Batch | None) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        return memory(noisy, batch) if batch else teacher(noisy)

    def step_loss(network: Network, clean: Tensor, draw_noise: DrawNoise, done: float | Tensor) -> Terms:
        noise = draw_noise(clean)
        noisy = noisy_version(clean, noise, sigma)
        denoised, features = network(noisy)
        if distillation.mode == "hmds":
            theirs = noise if distillation.shared_noise else draw_noise(clean)
            noisy = noisy_version(clean, theirs, distillation.teacher_sigma)
        with torch.no_grad():
            restored, wanted = asked(noisy, draw_noise.batch if isinstance(draw_noise, BatchNoise) else None)
            target = torch.lerp(clean, restored.to(clean.dtype), distillation.soft_target)
        reconstruction = reconstruction_loss(denoised, target, kind)
        if wanted is None:
            return Terms(reconstruction, reconstruction)
        weight = distillation.weight + (distillation.final_weight - distillation.weight) * done
        return Terms(reconstruction + weight * distillation_loss(features, wanted), reconstruction)

    return step_loss
