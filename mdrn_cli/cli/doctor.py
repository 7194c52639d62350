"""`mdrn doctor`."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from mdrn_cli import __version__
from mdrn_cli.cli.console import echo, printable, raise_all
from mdrn_cli.cli.options import Json, Offline
from mdrn_cli.errors import MdrnError, WeightsError

if TYPE_CHECKING:
    from mdrn_cli.cache import Cache

SCHEMA = "mdrn.doctor/1"
LIBRARIES = ("torch", "numpy", "pillow", "pyvips", "pyvips-binary", "safetensors", "typer")


def doctor(_offline: Offline = False, as_json: Json = False) -> int:
    """Say what this installation has and would use, and what is wrong with it: exits with 1 when libvips does not load,
    with 2 when MDRN_DATA names no folder, or MDRN_HOME, MDRN_THREADS or MDRN_WEIGHTS_URL make no sense, with 5 when
    weights are missing or damaged, with 6 when MDRN_DEVICE names none there is."""
    about, problems = _examine()
    if as_json:
        echo(json.dumps({"schema": SCHEMA, **about}))
    else:
        for label, value in about.items():
            echo(printable(f"{label:12} {_text(value)}"))
    raise_all(problems)
    return 0


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name} {each}" for name, each in value.items()]
    return (", ".join(value) if isinstance(value, list) else value and str(value)) or "none"


def _examine() -> tuple[dict[str, Any], list[MdrnError]]:
    """What there is, and what is wrong; instead of a device that there is not the best is told."""
    import torch

    from mdrn_cli.addresses import is_offline, shown
    from mdrn_cli.cache import NOWHERE, Cache
    from mdrn_cli.datasets import data_folder
    from mdrn_cli.deep import load_libvips
    from mdrn_cli.devices import compute_type, limit_threads, pick_device
    from mdrn_cli.hardware import system_name
    from mdrn_cli.weights import check_mirror

    problems: list[MdrnError] = []
    try:
        limit_threads()
    except MdrnError as error:
        problems.append(error)
    try:
        cache = Cache()
    except MdrnError as error:
        cache = Cache(NOWHERE)
        problems.append(error)
    try:
        cache.refuse_file()
    except MdrnError as error:
        problems.append(error)
    device = torch.device("cpu")
    for name in dict.fromkeys((os.environ.get("MDRN_DEVICE") or "auto", "auto")):
        try:
            device = pick_device(name)
            break
        except MdrnError as error:  # of "auto", that a GPU is full
            problems.append(error)
    weights, bad = _weights(cache)
    if bad:
        hint = "bring them with `mdrn weights fetch` or `import`"
        problems.append(WeightsError(f"checkpoints that are not intact: {', '.join(bad)}", hint))
    for check in (load_libvips, data_folder, check_mirror):
        try:
            check()
        except MdrnError as error:
            problems.append(error)
    cuda = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    about = {
        "mdrn": __version__,
        "python": platform.python_version(),
        "system": system_name(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "device": str(device),
        "cuda": cuda,
        "precision": str(compute_type(device)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "cache": None if cache.root == NOWHERE else str(cache.root),
        "data": os.environ.get("MDRN_DATA") or None,
        "mirror": shown(os.environ.get("MDRN_WEIGHTS_URL") or "") or None,
        "network": "off (MDRN_OFFLINE)" if is_offline() else "may be used to fetch weights and image sets",
        "weights": weights,
    }
    return about, problems


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _weights(cache: Cache) -> tuple[dict[str, int], list[str]]:
    """How many checkpoints are intact and how many are not, and the names of the latter."""
    from mdrn_cli.weights import all_records, status

    records = all_records()
    bad = [record.name for record in records if status(record, cache).state in ("corrupt", "missing")]
    return {"intact": len(records) - len(bad), "damaged or missing": len(bad)}, bad
