"""`mdrn doctor`."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from typing import Any

from mdrn_cli import __version__
from mdrn_cli.cli.console import echo, printable
from mdrn_cli.cli.options import Json, Offline
from mdrn_cli.errors import MdrnError

SCHEMA = "mdrn.doctor/1"
LIBRARIES = ("torch", "numpy", "pillow", "pyvips", "pyvips-binary", "safetensors", "typer")


def doctor(_offline: Offline = False, as_json: Json = False) -> int:
    """Say what this installation has and would use; exits with 5 when weights are missing or damaged,
    with 6 when MDRN_DEVICE names none there is."""
    about, problem = _examine()
    if as_json:
        echo(json.dumps({"schema": SCHEMA, **about}))
    else:
        for label, value in about.items():
            echo(printable(f"{label:12} {_text(value)}"))
    if problem:
        raise problem
    return 0 if about["weights"]["damaged or missing"] == 0 else 5


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name} {each}" for name, each in value.items()]
    return (", ".join(value) if isinstance(value, list) else value and str(value)) or "none"


def _examine() -> tuple[dict[str, Any], MdrnError | None]:
    """What there is; and what is wrong with the device that the environment asks for, the best being told instead."""
    import torch

    from mdrn_cli.cache import Cache
    from mdrn_cli.engine import compute_type, limit_threads, pick_device
    from mdrn_cli.fetch import is_offline
    from mdrn_cli.hardware import system_name

    limit_threads()
    problem = None
    try:
        device = pick_device(os.environ.get("MDRN_DEVICE") or "auto")
    except MdrnError as error:
        device, problem = pick_device("auto"), error
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
        "cache": str(Cache().root),
        "data": os.environ.get("MDRN_DATA") or None,
        "mirror": os.environ.get("MDRN_WEIGHTS_URL") or None,
        "network": "off (MDRN_OFFLINE)" if is_offline() else "may be used to fetch weights and image sets",
        "weights": _weights(),
    }
    return about, problem


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _weights() -> dict[str, int]:
    from mdrn_cli.weights import all_records, status

    states = [status(record).state for record in all_records()]
    good = sum(state in ("bundled", "cached") for state in states)
    return {"intact": good, "damaged or missing": len(states) - good}
