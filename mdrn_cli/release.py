"""From a training run to a bundled checkpoint with its manifest record."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mdrn_cli.bench import Result, measure
from mdrn_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mdrn_cli.datasets import open_dataset
from mdrn_cli.engine import Engine
from mdrn_cli.errors import UsageError
from mdrn_cli.files import sha256_of
from mdrn_cli.manifest import FAMILY_BLOCKS, Record, load_manifest, manifest_path, parse_record, save_manifest
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
    """The name DESIGN section 6 gives, such as "mdrn-2b-hads-gray-15"."""
    parts = [_family(checkpoint), distilled, checkpoint.config.color, f"{checkpoint.sigma:g}"]
    return "-".join(part for part in parts if part)


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
        UsageError: the network is of no family, or float16 storage costs more than 0.002 dB.
    """
    trained = load_checkpoint(source)
    name = checkpoint_name(trained, distilled)
    BUNDLED.mkdir(exist_ok=True)
    candidate = BUNDLED / f".{name}.candidate.safetensors"
    try:
        save_checkpoint(candidate, replace(trained, record={"name": name}), torch.float16)
        checks = {
            label: _measured(load_checkpoint(path), validation, data, on_set).mean("psnr")
            for label, path in (("float32", source), ("float16", candidate))
        }
        if abs(checks["float32"] - checks["float16"]) > HALF_TOLERANCE_DB:
            raise UsageError(f"float16 storage changes the PSNR of {source}: {checks}")
        stored = load_checkpoint(candidate)
        results = [_measured(stored, name, data, on_set) for name in sets]
        target = BUNDLED / f"{name}.safetensors"
        candidate.replace(target)
    finally:
        candidate.unlink(missing_ok=True)
    record = _record(target, trained, distilled, results, checks)
    _enter(record)
    return record, checks


def measure_again(record: Record, data: Path | None = None) -> Record:
    """Measure a bundled checkpoint as the engine is now, on the sets that its record has.

    Args:
        record: of the project's own manifest.
        data: folder that holds the sets.

    Returns:
        The record with new figures, now in the manifest.
    """
    checkpoint = load_checkpoint(BUNDLED / record.file)
    results = [_measured(checkpoint, name, data, None) for name in record.metrics]
    record = replace(record, metrics=_metrics(results), spot_checks=_spot_checks(results))
    _enter(record)
    return record


def _enter(record: Record) -> None:
    """Put a record into the manifest, in place of one of its name."""
    save_manifest(manifest_path(), [*(other for other in load_manifest() if other.name != record.name), record])


def _metrics(results: Sequence[Result]) -> dict[str, float]:
    return {result.dataset: round(result.mean("psnr"), 4) for result in results}


def _spot_checks(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """PSNR in dB of two images of the first set, one from its beginning and one from its middle."""
    first = results[0]
    rows = (first.images[0], first.images[len(first.images) // 2])
    return {first.dataset: {row.file: round(row.psnr, 4) for row in rows}}


def _measured(checkpoint: Checkpoint, dataset: str, data: Path | None, on_set: Callable[[str], None] | None) -> Result:
    opened = open_dataset(dataset, data, checkpoint.config.color)
    if on_set:
        on_set(opened.name)
    return measure(opened, checkpoint.sigma, "", Engine(checkpoint))


def _record(
    file: Path, trained: Checkpoint, distilled: str | None, results: Sequence[Result], checks: dict[str, float]
) -> Record:
    run = trained.record
    steps = int(run.get("iteration", 0))
    training: dict[str, Any] = {key: run.get(key) for key in TRAINING_KEYS}
    training |= {
        "steps": steps,
        "pixels": steps * int(run.get("batch_size", 0)) * int(run.get("patch_size", 0)) ** 2,
        "init": Path(run["init"]).parent.name if run.get("init") else None,
        "data": Path(str(run.get("data", ""))).name,
        "hardware": f"{os.cpu_count()} x {platform.machine()} CPU cores",
        "validation_psnr": {label: round(value, 4) for label, value in checks.items()},
        "torch": torch.__version__,
    }
    return parse_record(
        {
            "name": file.stem,
            "file": file.name,
            "sha256": sha256_of(file),
            "bytes": file.stat().st_size,
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
