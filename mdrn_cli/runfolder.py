"""The folder of a training run: what is put into it, and what may be removed. Its state is in `runstate`."""

from __future__ import annotations

import io
import json
import platform
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mdrn_cli import __version__
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.errors import MdrnError, UsageError, WeightsError
from mdrn_cli.files import remove_leftovers, write_atomically
from mdrn_cli.hardware import system_name
from mdrn_cli.locks import locked
from mdrn_cli.paths import exists, is_folder, is_link
from mdrn_cli.places import Places
from mdrn_cli.runstate import STATE_FILE, saved_config
from mdrn_cli.weights import BEST_FILE, LAST_FILE

METRICS_FILE = "metrics.csv"
SAMPLES_FOLDER = "samples"
CONFIG_FILE = "config.toml"
ENVIRONMENT_FILE = "environment.json"
CURVES_FILE = "curves.png"
EVENTS_FOLDER = "events"
VALIDATED_ON = "validated_on"
"""In the records of checkpoints: digest of the photographs that the run was validated on."""
LOCK_FILE = ".lock"
"""Held while a run is under way."""
_FILES = (STATE_FILE, LAST_FILE, BEST_FILE, METRICS_FILE, CONFIG_FILE, ENVIRONMENT_FILE, CURVES_FILE)
_IN_FOLDERS = {SAMPLES_FOLDER: re.compile(r"[0-9]{8,}\.png"), EVENTS_FOLDER: re.compile(r"events\.out\.tfevents\..+")}
"""Patterns of the file names that runs put into each of their subfolders."""


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
    """Refuse a folder that is not of a run but holds something with a name that runs give.

    Raises:
        UsageError: it is such a folder.
    """
    file = next(_left_by_runs(folder), None)
    if file and not _is_run(folder):
        raise UsageError(f"{folder} is not the folder of a run, and {file} would be replaced", "give another --output")


def _is_run(folder: Path) -> bool:
    with suppress(MdrnError):
        return "mdrn" in load_environment(folder) or bool(saved_config(folder))
    return False


def _left_by_runs(folder: Path) -> Iterator[Path]:
    """What has a name that runs give to files in their folder."""
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


def best_psnr(folder: Path, validated_on: str) -> float | None:
    """Validation PSNR in dB of the best weights; None where there are none, or they were chosen by photographs with
    another digest."""
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


def without_links(folder: Path) -> None:
    """Remove links that lie in the place of state and weights, which are to be written there, not to where they
    lead."""
    for name in (STATE_FILE, LAST_FILE):
        if is_link(folder / name):
            (folder / name).unlink()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder until this one ends, however it does. The folder is created if need be, and
    removed again if nothing was put into it.

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


def save_sample(folder: Path, iteration: int, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Write uint8 (H, W, C) pictures of one size side by side as `samples/NNNNNNNN.png`."""
    (folder / SAMPLES_FOLDER).mkdir(exist_ok=True)
    content = io.BytesIO()
    Image.fromarray(np.concatenate(pictures, axis=1).squeeze()).save(content, "PNG")
    write_atomically(folder / SAMPLES_FOLDER / f"{iteration:08d}.png", content.getvalue())
