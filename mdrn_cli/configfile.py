"""Configuration files of training runs: TOML of one level, a key for each option."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mdrn_cli.errors import InputError, UsageError, hint_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NOT_JSON = {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}
"""What Python writes into JSON, as TOML has it."""


def read_config(path: Path, known: Iterable[str]) -> dict[str, Any]:
    """The values of a file.

    Args:
        path: the file.
        known: keys that make sense.

    Raises:
        InputError: it cannot be read.
        UsageError: it is no TOML, or has a key that is not known.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    names = sorted(known)
    for key in values:
        if key not in names:
            raise UsageError(f"{path} has an unknown key {key!r}", hint_of(key, names, "keys are"))
    return values


def format_config(values: Mapping[str, Any]) -> str:
    """TOML that `read_config` takes.

    Keys whose value is None are left out; a path that is not Unicode, which TOML cannot hold, is left as a comment.
    """
    return "".join(_line(key, value) for key, value in values.items() if value is not None)


def _line(key: str, value: object) -> str:
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return f"# {key} is not Unicode: {value!a}\n"
    # What JSON has is TOML, too, but for a character in strings and for what is no number in JSON.
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{key} = {_NOT_JSON.get(text, text)}\n"
