"""The weights manifest: which checkpoints there are, what each is for and how it measured (docs/weights.md)."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mdrn_cli.errors import UsageError, WeightsError
from mdrn_cli.files import write_atomically
from mdrn_cli.stretch import stretch_loss

SCHEMA = "mdrn.manifest/1"
FAMILY_LOSS = {"mdrn": 0.0, "mdrn-2b": 0.3}
"""About how many dB a family is behind the best, measured on validation photographs with the networks of today (0.15 to
0.35 in gray, 0.3 to 0.5 in color)."""
FAMILIES = tuple(FAMILY_LOSS)
FAMILY_BLOCKS = {"mdrn": 8, "mdrn-2b": 2}
DISTILLATIONS = (None, "hads", "hmds")
WHITE, CAMERA = "white", "camera"
NOISES = (WHITE, CAMERA)
"""Kinds of noise that networks are trained on: white noise, as benchmarks draw it, and noise as files have it."""
RESERVED = ("auto", *FAMILIES)
"""What `--model` takes beside names of checkpoints, which therefore cannot be such a name."""
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")

_PACKAGE = Path(__file__).parent
_DEEPEST = 16
"""Deepest nesting of lists and objects in a record's `training`."""


@dataclass(frozen=True)
class Record:
    """One checkpoint.

    Attributes:
        name: such as "mdrn-2b-gray-50".
        file: file name, without a folder.
        sha256: of the file, hexadecimal.
        bytes: size of the file.
        urls: where it can be fetched, in order of preference.
        family: "mdrn" or "mdrn-2b".
        color: "gray" or "color".
        sigma: noise level it was trained at, 0-255 scale.
        distilled: None, "hads" or "hmds".
        noise: "white" or "camera", that it was trained on; "white" in manifests that do not say.
        config: keywords of MDRNConfig.
        parameters: count of trained numbers.
        training: provenance (data, iterations, pixels, hardware, seed, command, ...).
        metrics: PSNR in dB by set, such as {"Set12": 27.1}, at `sigma`, by `mdrn bench`.
        spot_checks: PSNR in dB of single images, by set and file: enough to notice that results have changed.
        licence: of the weights.
    """

    name: str
    file: str
    sha256: str
    bytes: int
    urls: tuple[str, ...]
    family: str
    color: str
    sigma: float
    distilled: str | None
    noise: str
    config: dict[str, Any]
    parameters: int
    training: dict[str, Any]
    metrics: dict[str, float]
    spot_checks: dict[str, dict[str, float]]
    licence: str


def manifest_path() -> Path:
    """The project's own manifest: inside an installed package, at the top of a checkout."""
    inside = _PACKAGE / "weights_manifest.json"
    return inside if inside.is_file() else _PACKAGE.parent / "weights_manifest.json"


def load_manifest(path: Path | None = None) -> tuple[Record, ...]:
    """Read and validate a manifest.

    Args:
        path: the file; the project's own by default.

    Raises:
        WeightsError: unreadable, not a manifest, or a record is broken; the message says which and why.
    """
    path = path or manifest_path()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} is not a readable manifest ({error})") from error
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, origin: str) -> tuple[Record, ...]:
    """The validated records of a manifest's JSON text.

    Args:
        content: UTF-8 JSON.
        origin: where it came from, for messages.

    Raises:
        WeightsError: see `load_manifest`.
    """
    try:
        data = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{origin} is not a readable manifest ({error})") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA or not isinstance(data.get("checkpoints"), list):
        raise WeightsError(f"{origin} is not a manifest of schema {SCHEMA}")
    try:
        records = tuple(parse_record(item) for item in data["checkpoints"])
    except WeightsError as error:
        raise WeightsError(f"{origin}: {error.message}", error.hint) from error
    for name, count in Counter(record.name for record in records).items():
        if count > 1:
            raise WeightsError(f"{origin} has more than one record named {name}")
    return records


def _refuse_constant(name: str) -> None:
    """Refuse NaN and infinities, which JSON does not have.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{name} is no number of JSON")


def save_manifest(path: Path, records: Sequence[Record]) -> None:
    """Write a manifest, records sorted by name."""
    write_atomically(path, manifest_content(records))


def manifest_content(records: Sequence[Record]) -> bytes:
    """A manifest as its file has it, records sorted by name."""
    data = {"schema": SCHEMA, "checkpoints": [asdict(r) for r in sorted(records, key=lambda r: r.name)]}
    return (json.dumps(data, indent=2, allow_nan=False) + "\n").encode()


def parse_record(item: Any) -> Record:
    """One validated record from its JSON form.

    Raises:
        WeightsError: a field is missing, unknown, of the wrong type or out of range.
    """
    if not isinstance(item, dict):
        raise WeightsError("a manifest record is not an object")
    label = f"manifest record {str(item.get('name'))[:80]!r}"
    item = {"noise": WHITE, **item}
    missing, unknown = _FIELDS.keys() - item.keys(), item.keys() - _FIELDS.keys()
    if missing or unknown:
        raise WeightsError(f"{label}: missing or unknown fields: {', '.join(sorted(missing | unknown))[:200]}")
    for name, valid in _FIELDS.items():
        if not valid(item[name]):
            raise WeightsError(f"{label}: {name} is not valid: {str(item[name])[:80]!r}")
    return Record(**{**item, "urls": tuple(item["urls"]), "sigma": float(item["sigma"])})


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9


def _figures(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_number, value.values()))


def _count(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 50


def _matches(pattern: re.Pattern[str]) -> Any:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and NAME_PATTERN.fullmatch(value) is not None and value not in RESERVED


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and _is_json(value, _DEEPEST)


def _is_json(value: Any, deepest: int) -> bool:
    """Whether a value can be written as JSON and read again; a number too large for floats is read as infinity."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        within, keys = list(value.values()), all(isinstance(key, str) for key in value)
        return keys and deepest > 0 and all(_is_json(each, deepest - 1) for each in within)
    if isinstance(value, (list, tuple)):
        return deepest > 0 and all(_is_json(each, deepest - 1) for each in value)
    return value is None or isinstance(value, (str, int))


# Every field of a record and what makes its value valid.
_FIELDS: dict[str, Any] = {
    "name": _is_name,
    # A bare name: no folder, so nothing can be read or written outside the folders of weights.
    "file": _matches(re.compile(NAME_PATTERN.pattern + r"\.safetensors")),
    "sha256": _matches(SHA256_PATTERN),
    "bytes": _count,
    "urls": lambda value: isinstance(value, list) and all(isinstance(url, str) for url in value),
    "family": lambda value: value in FAMILIES,
    "color": lambda value: value in ("gray", "color"),
    "sigma": lambda value: _number(value) and 0 < value <= 255,
    "distilled": lambda value: value in DISTILLATIONS,
    "noise": lambda value: value in NOISES,
    "config": _is_object,
    "parameters": _count,
    "training": _is_object,
    "metrics": _figures,
    "spot_checks": lambda value: isinstance(value, dict) and all(map(_figures, value.values())),
    "licence": lambda value: isinstance(value, str),
}


def serving(records: Sequence[Record], model: str, color: str, noise: str = WHITE) -> list[Record]:
    """The records of a family ("auto" is any) for a color mode and a kind of noise; none if `model` is another name."""
    families = FAMILIES if model == "auto" else (model,)
    return [r for r in records if (r.color, r.noise) == (color, noise) and r.family in families]


def choose(
    records: Sequence[Record], model: str, color: str, sigma: float, exact: bool = False, noise: str = WHITE
) -> Record:
    """The checkpoint that serves a request.

    Args:
        records: those there are.
        model: "auto" (any family), a family, or the exact name of a checkpoint.
        color: "gray" or "color".
        sigma: noise level, 0-255 scale.
        exact: only one trained at that very level will do.
        noise: that it was trained on, where no name is asked for.

    Returns:
        The one expected to do best: a larger network before a smaller one, one trained at the level or a little
        below before one further off or above (see `stretch_loss`), of equals the best measured one.

    Raises:
        WeightsError: no checkpoint serves it; the hint lists those there are.
        UsageError: the named checkpoint is for another color mode, or for another level where `exact`.
    """
    for record in records:
        if record.name == model:
            if record.color != color:
                raise for_another_color(model, record.color, color)
            if exact and record.sigma != sigma:
                raise UsageError(
                    f"{model} is for sigma {record.sigma:g}, not {sigma:g}", "leave --model out to have one chosen"
                )
            return record
    fitting = [r for r in serving(records, model, color, noise) if r.sigma == sigma or not exact]
    if not fitting:
        wanted = f"checkpoint of {model}" if model != "auto" else "checkpoint"
        there_are = ", ".join(record.name for record in records) or "none"
        raise WeightsError(f"no {wanted} for {color} images at sigma {sigma:g}", f"there are: {there_are}")
    return min(fitting, key=lambda r: (stretch_loss(r.sigma, sigma) + FAMILY_LOSS[r.family], -_quality(r)))


def for_another_color(name: str, trained: str, color: str) -> UsageError:
    """The error where the network asked for is of another color mode than the picture."""
    hint = f"leave --model out to have one chosen, or make the picture {trained} first"
    return UsageError(f"{name} is for {trained} images, not {color} ones", hint)


def _quality(record: Record) -> float:
    """PSNR on the set that every checkpoint of its color mode is measured on."""
    return record.metrics.get("Set12" if record.color == "gray" else "Kodak24", 0.0)
