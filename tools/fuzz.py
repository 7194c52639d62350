"""Coverage-guided fuzzing of what reads foreign files of weights: the manifest and the checkpoint reader.

Needs atheris, which is for development alone and no part of an extra:

    python -m venv --system-site-packages /tmp/fuzz && /tmp/fuzz/bin/pip install atheris
    /tmp/fuzz/bin/python tools/fuzz.py manifest -max_total_time=180

What follows the target's name goes to libFuzzer. A reader may return, or raise WeightsError; anything else is a
finding, and the input that made it is left in the working directory; named there, too, it is tried again.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["mdrn_cli"]):
    from mdrn_cli.checkpoint import METADATA_KEY, Checkpoint, load_checkpoint, save_checkpoint
    from mdrn_cli.errors import WeightsError
    from mdrn_cli.manifest import load_manifest, manifest_path, parse_manifest, save_manifest
    from mdrn_cli.model import MDRN, MDRNConfig

FOLDER = Path(tempfile.mkdtemp(prefix="mdrn-fuzz-"))
atexit.register(shutil.rmtree, FOLDER)
FILE = FOLDER / "fuzzed.safetensors"


def _small_checkpoint() -> bytes:
    """A whole file, with a network of two features."""
    config = MDRNConfig("gray", 1, 2)
    save_checkpoint(FILE, Checkpoint(config, 25.0, MDRN(config).state_dict(), {"iterations": 0}))
    return FILE.read_bytes()


WHOLE = _small_checkpoint()
HEADER_END = 8 + int.from_bytes(WHOLE[:8], "little")
HEADER, TENSORS = WHOLE[8:HEADER_END], WHOLE[HEADER_END:]
ABOUT = json.loads(HEADER)["__metadata__"][METADATA_KEY].encode()


def _load(content: bytes) -> None:
    FILE.write_bytes(content)
    load_checkpoint(FILE)


def _load_header(header: bytes) -> None:
    """The header fuzzed, its length and the tensors as they should be."""
    _load(len(header).to_bytes(8, "little") + header + TENSORS)


def _load_about(about: bytes) -> None:
    """Our own metadata fuzzed, all that safetensors checks as it should be."""
    header = json.loads(HEADER)
    header["__metadata__"][METADATA_KEY] = about.decode("utf-8", "replace")
    _load_header(json.dumps(header).encode())


def _small_manifest() -> bytes:
    save_manifest(FOLDER / "manifest.json", load_manifest(manifest_path())[:1])
    return (FOLDER / "manifest.json").read_bytes()


# Each target: what takes the bytes, and an example to begin with.
TARGETS: dict[str, tuple[Callable[[bytes], object], Callable[[], bytes]]] = {
    "manifest": (lambda content: parse_manifest(content, "fuzzed"), _small_manifest),
    "checkpoint": (_load, lambda: WHOLE),
    "header": (_load_header, lambda: HEADER),
    "metadata": (_load_about, lambda: ABOUT),
}


# What a field is replaced by, beside what libFuzzer makes of its bytes.
NUMBERS = (True, 0, -1, 1e308, float("nan"), float("inf"), 10**400)
ODD: tuple[Any, ...] = (*NUMBERS, None, "", "\ud800", "\n\0", "a" * 300, [], {}, [[]], {"a": {}})


def _mutate_json(content: bytes, most: int, seed: int) -> bytes:
    """One node of the document replaced, dropped or doubled; every other time, and for what is not JSON, bytes."""
    choice = random.Random(seed)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, (dict, list)) or choice.random() < 0.5:
        return bytes(atheris.Mutate(content, most))
    parents: list[Any] = [document]
    for node in parents:
        parents += [v for v in (node.values() if isinstance(node, dict) else node) if isinstance(v, (dict, list)) and v]
    parent = choice.choice(parents)
    places = list(parent) if isinstance(parent, dict) else range(len(parent))
    if places:
        place = choice.choice(places)
        action = choice.randrange(3)
        if action == 0:
            parent[place] = choice.choice(ODD)
        elif action == 1:
            del parent[place]
        else:
            parent[place] = [parent[place], parent[place]]
    return json.dumps(document).encode()[:most]


def main() -> None:
    """Fuzz the target named first on the command line."""
    read, example = TARGETS[sys.argv.pop(1)]
    arguments = sys.argv[1:]
    if not any(Path(argument).exists() for argument in arguments):  # else a finding to try again, or a corpus
        seeds = FOLDER / "seeds"
        seeds.mkdir()
        (seeds / "example").write_bytes(example())
        arguments.append(str(seeds))

    def one(content: bytes) -> None:
        with contextlib.suppress(WeightsError):
            read(content)

    limits = ["-rss_limit_mb=4096", "-timeout=20", "-max_len=65536"]  # of two, the last counts
    atheris.Setup([sys.argv[0], *limits, *arguments], one, custom_mutator=_mutate_json)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
