"""Noise levels, on the 0-255 scale, and whites that can be meant."""

from __future__ import annotations

import math

from mdrn_cli.errors import UsageError

LOWEST_SIGMA, HIGHEST_SIGMA = 1, 100
"""Those restored."""
HIGHEST_TRAINED = 255
"""A network may be trained for more."""


def check_white(white: float) -> None:
    """Refuse a value that nothing can be white at.

    Raises:
        UsageError: not above 0, or not finite.
    """
    if not 0 < white < math.inf:
        raise UsageError(f"white must be above 0, not {white:g}", "such as 4095")


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
