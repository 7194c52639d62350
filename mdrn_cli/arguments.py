"""Arguments of `mdrn_cli.denoise` and its like: their types, and errors in their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import TypeVar

import numpy as np

from mdrn_cli.errors import MdrnError, UsageError

_T = TypeVar("_T")


def as_number(name: str, value: object) -> float:
    """An argument that is to be a number.

    Raises:
        UsageError: it is none.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{name} must be a number, not {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise UsageError(f"{name} is too large") from error


def as_numbers(name: str, value: object) -> tuple[float, ...]:
    """An argument that must be a number or a sequence of numbers."""
    row = isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim == 1)
    return tuple(as_number(name, one) for one in (value if row else (value,)))  # type: ignore[attr-defined]


def check_type(name: str, value: object, *types: type) -> None:
    """Refuse an argument that is of none of the types.

    Raises:
        UsageError: it is of another type.
    """
    if not isinstance(value, types):
        # Names once each: some types of numpy and of Python have the same.
        named = dict.fromkeys(each.__name__.rstrip("_") for each in types)
        raise UsageError(f"{name} must be {' or '.join(named)}, not {value!r}")


def none_if_auto(name: str, value: _T | str | None, wanted: str) -> _T | None:
    """An argument that may be "auto", which becomes None.

    Raises:
        UsageError: it is another string.
    """
    if not isinstance(value, str):
        return value
    if value != "auto":
        raise UsageError(f"{name} must be {wanted} or 'auto', not {value!r}")
    return None


@contextmanager
def told_in_arguments() -> Iterator[None]:
    """Make errors and hints name arguments of Python instead of command-line options."""
    try:
        yield
    except MdrnError as error:
        error.message, error.hint = in_arguments(error.message), in_arguments(error.hint)
        error.args = (error.message,)
        raise


def in_arguments(text: str) -> str:
    """Text in which command-line options are replaced by arguments, such as "--white 4095" by "white=4095"."""
    text = re.sub(r"--(device) (\w+)", r"\1='\2'", text)
    text = re.sub(r"--([a-z-]+) (VALUE\b|\d[\d.]*)", r"--\1=\2", text)
    return re.sub("--([a-z-]+)", lambda option: option[1].replace("-", "_"), text)
