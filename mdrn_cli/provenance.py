"""How weights came to be, as far as their run has written it down: what a manifest record keeps of it."""

from __future__ import annotations

import math
import os
import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mdrn_cli.cache import cache_root
from mdrn_cli.checkpoint import Checkpoint
from mdrn_cli.weights import BUNDLED

# Kept from the run's record; the rest (paths, intervals) says nothing about the weights.
TRAINING_KEYS = (
    "iterations",
    "time_budget",
    "batch_size",
    "patch_size",
    "loss",
    "optimizer",
    "schedule",
    "learning_rate",
    "muon_learning_rate",
    "halvings",
    "warmup",
    "clip",
    "ema",
    "seed",
    "precision",
    "elapsed",
    "average_of",  # seeds of the runs whose weights were averaged by hand
)
# The same of how a student learned.
TEACHING_KEYS = ("mode", "teacher_sigma", "weight", "final_weight", "shared_noise", "soft_target", "teacher_every")


def training_of(trained: Checkpoint, environment: Mapping[str, Any], checks: Mapping[str, float]) -> dict[str, Any]:
    """What a record has of a training run.

    Args:
        trained: its checkpoint.
        environment: see `load_environment`.
        checks: PSNR in dB on validation photographs, by the type that weights are stored in.
    """
    run = trained.record
    steps = int(run.get("iteration", 0))
    training = {key: run.get(key) for key in TRAINING_KEYS}
    if training["clip"] == math.inf:
        training["clip"] = None  # JSON has no infinity
    return training | {
        "steps": steps,
        "pixels": steps * int(run.get("batch_size", 0)) * int(run.get("patch_size", 0)) ** 2,
        "init": _called(run["init"]) if run.get("init") else None,
        "distillation": _teaching(trained),
        "command": _command(environment),
        "data": Path(str(run.get("data", ""))).name,
        "hardware": _hardware(run, environment),
        "validation_psnr": {label: round(value, 4) for label, value in checks.items()},
        "torch": environment.get("torch", torch.__version__),
    }


def _teaching(trained: Checkpoint) -> dict[str, Any] | None:
    """How the student learned, and from which teacher; None for a plain run."""
    written = trained.distillation
    if not written:
        return None
    about = {key: written.get(key) for key in TEACHING_KEYS}
    return about | {"teacher": _called(str(written.get("teacher", "")))}


def _called(path: str) -> str:
    """A checkpoint that weights came from: the name of one that mdrn brought, else its folder and file."""
    file = Path(path)
    brought = file.parent == BUNDLED or file.is_relative_to(cache_root())
    return file.stem if brought else f"{file.parent.name}/{file.name}"


def _command(environment: Mapping[str, Any]) -> str | None:
    """The command line of the run, and those by which it was resumed."""
    commands = (session.get("command") for session in _sessions(environment))
    lines = [shlex.join(map(str, command)) for command in commands if isinstance(command, list)]
    return " && ".join(lines) or None


def _hardware(run: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """What the run was computed on; this machine, and the device asked for, where its folder does not say."""
    if "device" not in environment:
        return f"{os.cpu_count()} x {platform.machine()} CPU cores, device {run.get('device', 'auto')}"
    return ", then ".join(dict.fromkeys(map(_machine, _sessions(environment))))


def _sessions(environment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a run was begun and each time resumed with, in order."""
    earlier = environment.get("earlier")
    return [session for session in (earlier if isinstance(earlier, list) else []) if isinstance(session, dict)] + [
        environment
    ]


def _machine(session: Mapping[str, Any]) -> str:
    device, processes = session.get("device", "cpu"), session.get("processes", 1)
    threads = f", {session['threads']} CPU threads" if device == "cpu" and "threads" in session else ""
    return f"{device}{threads}" if processes == 1 else f"{processes} x {device}{threads}"
