"""From a training run to a bundled checkpoint with its manifest record."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mdrn_cli.bench import Result, measure
from mdrn_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mdrn_cli.datasets import Dataset, named_set, open_dataset
from mdrn_cli.engine import Engine
from mdrn_cli.errors import UsageError
from mdrn_cli.files import sha256_of
from mdrn_cli.manifest import (
    DISTILLATIONS,
    FAMILY_BLOCKS,
    NAME_PATTERN,
    Record,
    load_manifest,
    manifest_path,
    parse_record,
    save_manifest,
)
from mdrn_cli.runfolder import load_environment
from mdrn_cli.weights import BUNDLED

LICENCE = "MIT"
HALF_TOLERANCE_DB = 0.002
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
    "ema",
    "seed",
    "precision",
    "elapsed",
    "average_of",  # seeds of the runs whose weights were averaged by hand
)


def checkpoint_name(checkpoint: Checkpoint, distilled: str | None) -> str:
    """The name DESIGN section 6 gives, such as "mdrn-2b-hads-gray-15".

    Raises:
        UsageError: the network is of no family, or nothing is called by such a distillation or noise level.
    """
    if distilled not in DISTILLATIONS:
        raise UsageError(f"distilled must be one of {', '.join(filter(None, DISTILLATIONS))}, not {distilled!r}")
    parts = [_family(checkpoint), distilled, checkpoint.config.color, f"{checkpoint.sigma:g}"]
    name = "-".join(part for part in parts if part)
    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(f"a checkpoint cannot be named {name!r}", "bundled networks are of whole noise levels")
    return name


def _family(checkpoint: Checkpoint) -> str:
    for family, blocks in FAMILY_BLOCKS.items():
        if checkpoint.config.blocks == blocks and checkpoint.config.features == 64:
            return family
    raise UsageError(f"no family has {checkpoint.config.blocks} blocks", "bundled networks have 2 or 8")


def pack(
    source: Path,
    sets: Sequence[str],
    validation: str,
    data: Path | None = None,
    distilled: str | None = None,
    on_set: Callable[[str], None] | None = None,
) -> tuple[Record, dict[str, float]]:
    """Bundle a trained checkpoint: store it as float16, prove that this costs nothing, measure it, record it.

    A bundled file of its name is replaced only when all of that is done.

    Args:
        source: float32 checkpoint of a run, `best.safetensors` or `last.safetensors`.
        sets: benchmark sets to measure on, by name.
        validation: folder whose PSNR, by float32 and float16 weights, decides whether float16 is harmless.
        data: folder that holds the sets.
        distilled: "hads", "hmds" or None.
        on_set: called with the name of each set before it is measured.

    Returns:
        The record, now in the manifest, and validation PSNR in dB as float32 and float16.

    Raises:
        UsageError: the network has no name (see `checkpoint_name`), a set cannot be measured on, or float16 storage
            costs more than 0.002 dB.
        WeightsError: the record would not be valid.
    """
    trained = load_checkpoint(source)
    name = checkpoint_name(trained, distilled)
    photographs, *measured = _open_sets([validation, *sets], trained, data)
    if not measured:
        raise UsageError("no benchmark set to measure on", "give --set")
    BUNDLED.mkdir(exist_ok=True)
    candidate = BUNDLED / f".{name}.candidate.safetensors"
    try:
        save_checkpoint(candidate, replace(trained, record={"name": name}), torch.float16)
        stored = load_checkpoint(candidate)
        checks = {
            label: _measured(checkpoint, photographs, on_set).mean("psnr")
            for label, checkpoint in (("float32", trained), ("float16", stored))
        }
        if abs(checks["float32"] - checks["float16"]) > HALF_TOLERANCE_DB:
            raise UsageError(f"float16 storage changes the PSNR of {source}: {checks}")
        results = [_measured(stored, dataset, on_set) for dataset in measured]
        training = _training(trained, load_environment(source.parent), checks)
        record = _record(name, candidate, trained, distilled, training, results)
        records = _with(record)
        candidate.replace(BUNDLED / record.file)
        save_manifest(manifest_path(), records)
    finally:
        candidate.unlink(missing_ok=True)
    return record, checks


def measure_again(record: Record, data: Path | None = None) -> Record:
    """Measure a bundled checkpoint as the engine is now, on the sets that its record has.

    Args:
        record: of the project's own manifest.
        data: folder that holds the sets.

    Returns:
        The record with new figures, now in the manifest.

    Raises:
        UsageError: a set cannot be measured on.
    """
    checkpoint = load_checkpoint(BUNDLED / record.file)
    results = [_measured(checkpoint, dataset, None) for dataset in _open_sets(list(record.metrics), checkpoint, data)]
    record = replace(record, metrics=_metrics(results), spot_checks=_spot_checks(results))
    save_manifest(manifest_path(), _with(record))
    return record


def _open_sets(names: Sequence[str], checkpoint: Checkpoint, data: Path | None) -> list[Dataset]:
    """Sets and folders that figures can be had of.

    Raises:
        UsageError: one has no truth to compare with, or has the name of a public set and other content.
    """
    opened = [open_dataset(name, data, checkpoint.config.color) for name in names]
    for dataset in opened:
        if not dataset.clean:
            raise UsageError(f"{dataset.name} has no clean images to measure PSNR against", "take sets of clean images")
        if named_set(dataset.name) and not dataset.verified:
            raise UsageError(
                f"{dataset.folder} is not byte for byte the public {dataset.name}",
                "bring that with `mdrn data fetch`, or call the folder otherwise",
            )
    return opened


def _with(record: Record) -> list[Record]:
    """The manifest's records and this one, in place of one of its name."""
    return [*(other for other in load_manifest() if other.name != record.name), record]


def _metrics(results: Sequence[Result]) -> dict[str, float]:
    return {result.dataset: round(result.mean("psnr"), 4) for result in results}


def _spot_checks(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """PSNR in dB of two images of the first set, one from its beginning and one from its middle."""
    first = results[0]
    rows = (first.images[0], first.images[len(first.images) // 2])
    return {first.dataset: {row.file: round(row.psnr, 4) for row in rows}}


def _measured(checkpoint: Checkpoint, dataset: Dataset, on_set: Callable[[str], None] | None) -> Result:
    if on_set:
        on_set(dataset.name)
    return measure(dataset, checkpoint.sigma, "", Engine(checkpoint))


def _training(trained: Checkpoint, environment: Mapping[str, Any], checks: Mapping[str, float]) -> dict[str, Any]:
    """How the weights came to be, as far as their run has written it down."""
    run = trained.record
    steps = int(run.get("iteration", 0))
    training = {key: run.get(key) for key in TRAINING_KEYS}
    return training | {
        "steps": steps,
        "pixels": steps * int(run.get("batch_size", 0)) * int(run.get("patch_size", 0)) ** 2,
        "init": Path(run["init"]).parent.name if run.get("init") else None,
        "data": Path(str(run.get("data", ""))).name,
        "hardware": _hardware(run, environment),
        "validation_psnr": {label: round(value, 4) for label, value in checks.items()},
        "torch": environment.get("torch", torch.__version__),
    }


def _hardware(run: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """What the run was computed on; this machine, and the device asked for, where its folder does not say."""
    if "device" not in environment:
        return f"{os.cpu_count()} x {platform.machine()} CPU cores, device {run.get('device', 'auto')}"
    device, processes = environment["device"], environment.get("processes", 1)
    threads = f", {environment['threads']} CPU threads" if device == "cpu" and "threads" in environment else ""
    return f"{device}{threads}" if processes == 1 else f"{processes} x {device}{threads}"


def _record(
    name: str,
    candidate: Path,
    trained: Checkpoint,
    distilled: str | None,
    training: Mapping[str, Any],
    results: Sequence[Result],
) -> Record:
    return parse_record(
        {
            "name": name,
            "file": f"{name}.safetensors",
            "sha256": sha256_of(candidate),
            "bytes": candidate.stat().st_size,
            "urls": [],
            "family": _family(trained),
            "color": trained.config.color,
            "sigma": trained.sigma,
            "distilled": distilled,
            "config": trained.config.to_dict(),
            "parameters": sum(tensor.numel() for tensor in trained.state.values()),
            "training": training,
            "metrics": _metrics(results),
            "spot_checks": _spot_checks(results),
            "licence": LICENCE,
        }
    )
