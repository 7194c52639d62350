"""Noise levels (0-255 scale), factors and whites: checks of what a user gives, and the levels of the paper's HMDS."""

from __future__ import annotations

import math

from mdrn_cli.errors import UsageError

LOWEST_SIGMA, HIGHEST_SIGMA = 1, 100
"""Range of the noise levels that can be removed."""
LEAST_FACTOR, MOST_FACTOR = 0.1, 10.0
"""Range of the factor for estimated levels."""
LEAST_WHITE = 1e-30
"""Least value for white that floats of 32 bits can be divided by; the inverse of it is the largest."""
HMDS_LEVELS = {"gray": (25.0, 50.0), "color": (50.0, 70.0)}
"""By color mode, the levels of teacher and student of the networks that the paper distilled by HMDS (Table 5)."""
HIGHEST_TRAINED = 255
"""Highest level that a network may be trained at, which is above HIGHEST_SIGMA."""


def check_white(white: float) -> None:
    """Refuse a value that cannot be white.

    Raises:
        UsageError: not above 0, or beyond what floats of 32 bits can be scaled by.
    """
    if not 0 < white < math.inf:
        raise UsageError(f"white must be above 0, not {white:g}", "such as 4095")
    if not LEAST_WHITE <= white <= 1 / LEAST_WHITE:
        raise UsageError(f"white must be from {LEAST_WHITE:g} to {1 / LEAST_WHITE:g}, not {white:g}", "such as 4095")


def check_sigma(sigma: float, highest: float = HIGHEST_SIGMA, name: str = "sigma") -> None:
    """Refuse a noise level that cannot be meant.

    Raises:
        UsageError: not in [1, highest]; a value below 1 gets a hint on the scale.
    """
    if 0 < sigma < 1:
        meant = f": did you mean {sigma * 255:.3g}?" if LOWEST_SIGMA <= sigma * 255 <= highest else ""
        raise UsageError(f"{name} {sigma:g} is below 1", f"{name} is on the 0-255 scale{meant}")
    if not LOWEST_SIGMA <= sigma <= highest:
        raise UsageError(f"{name} must be from {LOWEST_SIGMA} to {highest:g}, not {sigma:g}")


def parse_sigma(text: str) -> tuple[float | None, float]:
    """Parse a noise level: "auto", a number, or "x1.3" for 1.3 times the estimate.

    Returns:
        The level, None where it is to be estimated, and the factor for the estimate.

    Raises:
        UsageError: it is none of these.
    """
    if text == "auto":
        return None, 1.0
    try:
        return (None, parse_number(text[1:])) if text.startswith("x") else (parse_number(text), 1.0)
    except ValueError:
        raise UsageError(
            f"--sigma {text!r} is neither auto, a number such as 25, nor x1.3 for 1.3 times auto"
        ) from None


def parse_number(text: str) -> float:
    """A number without underscores, as people write it: Python's float() takes 2_5 for 25.

    Raises:
        ValueError: the text is no such number.
    """
    if "_" in text:
        raise ValueError(text)
    return float(text)


def check_factor(factor: float) -> None:
    """Refuse a factor for estimated levels that cannot be meant.

    Raises:
        UsageError: not in [LEAST_FACTOR, MOST_FACTOR].
    """
    if not LEAST_FACTOR <= factor <= MOST_FACTOR:
        raise UsageError(f"the factor for sigma must be from {LEAST_FACTOR:g} to {MOST_FACTOR:g}, not {factor:g}")
