"""Where weights come from: an explicit path, the verified cache, or the bundled files (DESIGN section 6)."""

from __future__ import annotations

import os
from pathlib import Path

from mdrn_cli.errors import WeightsError
from mdrn_cli.files import sha256_of
from mdrn_cli.manifest import Record, choose, load_manifest

BUNDLED = Path(__file__).parent / "weights"


def cache_root() -> Path:
    """The cache folder: `MDRN_HOME`, or the platform's."""
    home = os.environ.get("MDRN_HOME")
    if home:
        return Path(home)
    import platformdirs

    return Path(platformdirs.user_cache_dir("mdrn", appauthor=False))


def find_weights(model: str, color: str, sigma: float) -> tuple[Path, Record | None]:
    """The weights file for a request.

    Args:
        model: "auto", a family, the name of a checkpoint, or a path to a safetensors file.
        color: "gray" or "color".
        sigma: noise level, 0-255 scale.

    Returns:
        The file, and its manifest record (None for a path).

    Raises:
        WeightsError: nothing serves the request, or the file is missing or corrupt.
        UsageError: the named checkpoint is for something else.
    """
    if model.endswith(".safetensors") or os.sep in model:
        return Path(model), None
    record = choose(load_manifest(), model, color, sigma)
    return locate(record), record


def locate(record: Record) -> Path:
    """The file of a record, its SHA-256 checked: from the cache, else from the bundled weights.

    Raises:
        WeightsError: it is nowhere, or all copies are corrupt.
    """
    copies = [path for path in (cache_root() / "weights" / record.file, BUNDLED / record.file) if path.is_file()]
    for path in copies:
        if path.stat().st_size == record.bytes and sha256_of(path) == record.sha256:
            return path
    if copies:
        raise WeightsError(f"{copies[-1]} is corrupt: its SHA-256 is not the manifest's", "reinstall mdrn-cli")
    raise WeightsError(
        f"the weights {record.name} are not on this machine", f"put {record.file} in {cache_root()}/weights"
    )
