"""Named benchmark sets: where they are, how they are used, and what the paper reports on them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdrn_cli.errors import InputError, UsageError
from mdrn_cli.image import find_images

PUBLISHED = Path(__file__).parent / "reference" / "published.json"
PAPER_SIGMAS = {"gray": (15.0, 25.0, 50.0), "color": (30.0, 50.0, 70.0)}


@dataclass(frozen=True)
class Dataset:
    """A folder of clean images, to be measured on.

    Attributes:
        name: of the set, or of the folder.
        color: "gray" or "color".
        files: in sorted order.
    """

    name: str
    color: str
    files: tuple[Path, ...]


NAMED_SETS = {
    "Set12": "gray",
    "BSD68": "gray",
    "CBSD68": "color",
    "Kodak24": "color",
    "McMaster": "color",
    "Urban100": "color",
}
"""Color mode each set is measured in unless asked otherwise."""


def open_dataset(name: str, data: Path | None = None, color: str | None = None) -> Dataset:
    """A named set, or any folder of images.

    Args:
        name: one of NAMED_SETS (in any case), found under `data` or `MDRN_DATA`; else a path to a folder.
        data: folder that holds the sets.
        color: "gray" or "color"; by default the set's own, "color" for a folder.

    Raises:
        UsageError: no such set or folder.
        InputError: the set is not on this machine, or holds no images.
    """
    known = {key.lower(): key for key in NAMED_SETS}.get(name.lower())
    folder = _set_folder(known, data) if known else Path(name)
    if not folder.is_dir():
        raise UsageError(f"no benchmark set or folder {name!r}", f"sets are: {', '.join(NAMED_SETS)}")
    files = tuple(find_images(folder))
    if not files:
        raise InputError(f"no images in {folder}")
    return Dataset(known or folder.resolve().name, color or NAMED_SETS.get(known or "", "color"), files)


def _set_folder(name: str, data: Path | None) -> Path:
    root = data or (Path(os.environ["MDRN_DATA"]) if os.environ.get("MDRN_DATA") else None)
    if root is None:
        raise InputError(f"the set {name} needs its images", "set MDRN_DATA or give --data to the folder of sets")
    for folder in (root / name, root / "test" / name):
        if folder.is_dir():
            return folder
    raise InputError(f"no folder {name} in {root}", "set MDRN_DATA or give --data to the folder of sets")


def published_psnr(dataset: str, color: str, sigma: float) -> dict[str, float]:
    """What the paper's tables report: PSNR in dB by method, empty where they have no such column."""
    tables: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    figures: dict[str, float] = {}
    for key, table in tables.items():
        if key.startswith("table") and color in key:
            for method, sets in table.items():
                value = sets.get(dataset, {}).get(f"{sigma:g}")
                if value is not None:
                    figures.setdefault(method, value)
    return figures
