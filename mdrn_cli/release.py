"""From a training run to a bundled checkpoint with its manifest record."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mdrn_cli.bench import Result, measure, measure_image, tile_by_memory
from mdrn_cli.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mdrn_cli.checkpointname import distillation_of, family_of, name_for
from mdrn_cli.datasets import Dataset, named_set, open_dataset
from mdrn_cli.engine import Engine
from mdrn_cli.errors import UsageError
from mdrn_cli.files import telling_write_errors, write_together
from mdrn_cli.locks import folder_locked
from mdrn_cli.manifest import (
    WHITE,
    Record,
    load_manifest,
    manifest_content,
    manifest_path,
    parse_record,
    save_manifest,
)
from mdrn_cli.paths import exists, is_file, is_folder, refuse_existing, sha256_of
from mdrn_cli.places import Places
from mdrn_cli.provenance import training_of
from mdrn_cli.runfolder import load_environment
from mdrn_cli.weights import BEST_FILE, BUNDLED, LAST_FILE

LICENCE = "MIT"
HALF_TOLERANCE_DB = 0.002


def checkpoint_of(source: Path) -> Path:
    """The checkpoint that a run folder ends with, the best one where there is no last; a file is itself.

    Raises:
        UsageError: there is neither in the folder.
    """
    if not is_folder(source):
        return source
    for name in (LAST_FILE, BEST_FILE):
        if is_file(source / name):
            return source / name
    raise UsageError(f"no {LAST_FILE} or {BEST_FILE} in {source}", "give a run folder, or a checkpoint")


def pack(
    source: Path,
    sets: Sequence[str],
    validation: str,
    data: Path | None = None,
    distilled: str | None = None,
    on_set: Callable[[str], None] | None = None,
    name: str | None = None,
    manifest: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> tuple[Record, dict[str, float]]:
    """Bundle a trained checkpoint: store it as float16, prove that this costs nothing, measure it, record it.

    What it replaces is replaced only when all of that is done.

    Args:
        source: run folder, or a float32 checkpoint of one.
        sets: benchmark sets to measure on, by name.
        validation: folder whose PSNR, by float32 and float16 weights, computed in float32, decides whether float16 is
            harmless.
        data: folder that holds the sets.
        distilled: "hads" or "hmds"; None for what the run says.
        on_set: called with the name of each set before it is measured.
        name: what it must be called; in the project's manifest that says what it is.
        manifest: one of your own, made or added to, the file put beside it; None for the project's.
        overwrite: replace a record and the file of its name.
        device: to measure on, see `Engine`.

    Returns:
        The record, now in the manifest, and validation PSNR in dB as float32 and float16.

    Raises:
        UsageError: the network has no name (see `checkpoint_name`) or another than asked for, was distilled
            otherwise, would replace its own source or what is not to be replaced, a set cannot be measured on, or
            float16 storage costs more than 0.002 dB.
        WeightsError: the record would not be valid, or the manifest is broken.
    """
    source = checkpoint_of(source)
    trained = load_checkpoint(source)
    distilled = distillation_of(trained, distilled)
    family_of(trained)  # refused before anything is measured
    name = name_for(trained, distilled, name, manifest is not None)
    folder = BUNDLED if manifest is None else manifest.absolute().parent
    _refuse_to_replace(name, folder, source, manifest, overwrite)
    photographs, *measured = _open_sets([validation, *sets], trained, data)
    if not measured:
        raise UsageError("no benchmark set to measure on", "give --set")
    called, count = Counter(dataset.name for dataset in measured).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{count} sets are named {called}, and figures are stored by name", "rename the folders")
    with telling_write_errors(folder):
        folder.mkdir(parents=manifest is not None, exist_ok=True)
    candidate = folder / f".{name}.{secrets.token_hex(8)}.candidate.safetensors"
    try:
        save_checkpoint(candidate, replace(trained, record=_told(name, trained, distilled)), torch.float16)
        stored = load_checkpoint(candidate)
        checks = _harmless(source, trained, stored, photographs, on_set, device)
        results = [_measured(stored, dataset, on_set, device) for dataset in measured]
        training = training_of(trained, load_environment(source.parent), checks)
        spot_checks = _spot_checks(stored, measured, results)
        record = _record(name, candidate, trained, distilled, training, _metrics(results), spot_checks)
        if manifest is not None:
            record = replace(record, urls=(str(folder / record.file),))
        file = manifest or manifest_path()
        with telling_write_errors(file), folder_locked(file.parent):
            # Read again: measuring takes a while, and others may have packed meanwhile.
            _refuse_to_replace(name, folder, source, manifest, overwrite)
            others = _others(name, manifest)
            stored_as = folder / record.file, candidate.read_bytes()  # of a link the file behind it
            write_together((stored_as, (file, manifest_content([*others, record]))))
    finally:
        candidate.unlink(missing_ok=True)
    return record, checks


def _told(name: str, trained: Checkpoint, distilled: str | None) -> dict[str, Any]:
    """The metadata stored in the file, for whoever has it without its record."""
    about: dict[str, Any] = {"name": name}
    if trained.noise != WHITE:
        about["noise"] = trained.noise
    if distilled:
        about["distillation"] = {"mode": distilled}
    return about


def _harmless(
    source: Path,
    trained: Checkpoint,
    stored: Checkpoint,
    photographs: Dataset,
    on_set: Callable[[str], None] | None,
    device: str,
) -> dict[str, float]:
    """PSNR in dB by the weights as trained and as stored; see `pack`.

    Raises:
        UsageError: they differ by more than HALF_TOLERANCE_DB.
    """
    checks = {
        # Computed in float32, too: how bfloat16 rounds either is chance, and up to 0.003 dB at low levels.
        label: _measured(checkpoint, photographs, on_set, device, "float32").mean("psnr")
        for label, checkpoint in (("float32", trained), ("float16", stored))
    }
    if abs(checks["float32"] - checks["float16"]) > HALF_TOLERANCE_DB:
        before, after = (f"{checks[kind]:.4f}" for kind in ("float32", "float16"))
        raise UsageError(
            f"float16 storage changes the PSNR of {source} from {before} to {after} dB",
            "it needs float32, and is not packed: give the file itself as --model",
        )
    return checks


def _refuse_to_replace(name: str, folder: Path, source: Path, manifest: Path | None, overwrite: bool) -> None:
    """Refuse to replace what is not meant to be.

    Raises:
        UsageError: the manifest has a record of that name, or beside it lies a file that a record would have; or that
            file is the source.
        WeightsError: the manifest is broken.
    """
    records, target, places = _records(manifest), folder / _file_of(name), Places()
    if places.of(target) == places.of(source):
        raise UsageError(f"the output would replace its own source {source}", "give another --name, or move it first")
    if overwrite:
        return
    if any(record.name == name for record in records):
        there, instead = (manifest, "another --name") if manifest else ("this mdrn itself", "a --manifest of your own")
        raise UsageError(f"{there} has a {name} already", f"give {instead}, or --overwrite to replace it")
    refuse_existing(target, overwrite=False)


def _file_of(name: str) -> str:
    return f"{name}.safetensors"


def measure_again(record: Record, data: Path | None = None, device: str = "auto") -> Record:
    """Measure a bundled checkpoint as the engine is now, on the sets that its record has.

    Args:
        record: of the project's own manifest.
        data: folder that holds the sets.
        device: see `Engine`.

    Returns:
        The record with new figures, now in the manifest.

    Raises:
        UsageError: a set cannot be measured on.
    """
    checkpoint = load_checkpoint(BUNDLED / record.file)
    opened = _open_sets(list(record.metrics), checkpoint, data)
    results = [_measured(checkpoint, dataset, None, device) for dataset in opened]
    record = replace(record, metrics=_metrics(results), spot_checks=_spot_checks(checkpoint, opened, results))
    with telling_write_errors(manifest_path()), folder_locked(manifest_path().parent):
        save_manifest(manifest_path(), [*_others(record.name, None), record])
    return record


def _open_sets(names: Sequence[str], checkpoint: Checkpoint, data: Path | None) -> list[Dataset]:
    """Open the sets and folders to measure on.

    Raises:
        UsageError: one has no truth to compare with, has the name of a public set and other content, or is of gray
            images where the network is for color.
    """
    opened = [open_dataset(name, data, checkpoint.config.color) for name in names]
    for dataset in opened:
        if not dataset.clean:
            raise UsageError(f"{dataset.name} has no clean images to measure PSNR against", "take sets of clean images")
        known = named_set(dataset.name)
        if known and known.color == "gray" and dataset.color == "color":
            raise UsageError(f"{dataset.name} is of gray images, and the network for color", "take Kodak24 or CBSD68")
        if known and not dataset.verified:
            raise UsageError(
                f"{dataset.folder} is not byte for byte the public {dataset.name}",
                "bring that with `mdrn data fetch`, or call the folder otherwise",
            )
    return opened


def _records(manifest: Path | None) -> list[Record]:
    """Records of a manifest, none if it does not exist; None for the project's."""
    if manifest is None:
        return list(load_manifest())
    return list(load_manifest(manifest)) if exists(manifest) else []


def _others(name: str, manifest: Path | None) -> list[Record]:
    """Records of other names; see `_records`."""
    return [other for other in _records(manifest) if other.name != name]


def _metrics(results: Sequence[Result]) -> dict[str, float]:
    return {result.dataset: round(result.mean("psnr"), 4) for result in results}


def _spot_checks(
    checkpoint: Checkpoint, opened: Sequence[Dataset], results: Sequence[Result]
) -> dict[str, dict[str, float]]:
    """PSNR in dB of two images of the set of the smallest, one from its beginning and one from its middle. By float32,
    which every machine has: bfloat16 costs up to 0.006 dB at the lowest levels."""
    dataset = min(zip(opened, results, strict=True), key=lambda pair: pair[1].mean("megapixels"))[0]
    engine = Engine(checkpoint, "cpu", "float32")
    files = dict.fromkeys((dataset.files[0], dataset.files[len(dataset.files) // 2]))
    rows = (measure_image(file, dataset, checkpoint.sigma, engine, False, tile_by_memory(engine))[0] for file in files)
    return {dataset.name: {row.file: round(row.psnr, 4) for row in rows}}


def _measured(
    checkpoint: Checkpoint,
    dataset: Dataset,
    on_set: Callable[[str], None] | None,
    device: str,
    precision: str = "auto",
) -> Result:
    if on_set:
        on_set(dataset.name)
    engine = Engine(checkpoint, device, precision)
    result = measure(dataset, checkpoint.sigma, "", engine, tile=tile_by_memory(engine))
    for image in result.images:
        if not math.isfinite(image.psnr):
            problem = f"{image.file} of {dataset.name} is restored exactly, which gives no figure"
            raise UsageError(problem, "leave it out")
    return result


def _record(
    name: str,
    candidate: Path,
    trained: Checkpoint,
    distilled: str | None,
    training: Mapping[str, Any],
    metrics: Mapping[str, float],
    spot_checks: Mapping[str, Mapping[str, float]],
) -> Record:
    return parse_record(
        {
            "name": name,
            "file": _file_of(name),
            "sha256": sha256_of(candidate),
            "bytes": candidate.stat().st_size,
            "urls": [],
            "family": family_of(trained),
            "color": trained.config.color,
            "sigma": trained.sigma,
            "distilled": distilled,
            "noise": trained.noise,
            "config": trained.config.to_dict(),
            "parameters": sum(tensor.numel() for tensor in trained.state.values()),
            "training": training,
            "metrics": metrics,
            "spot_checks": spot_checks,
            "licence": LICENCE,
        }
    )
