"""Noise whose level depends on the intensity, as that of sensors does: its noise level function, and the transform of
intensities that makes the level the same everywhere, as networks expect it (variance stabilization)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mdrn_cli.stretch import Function

LEAST_LEVEL = 0.3
"""Floor of the levels fitted, 0-255 scale: rounding to 8 bits alone leaves as much."""
OUTLIER = 0.15
"""Distance from the fit, in natural logarithms, beyond which a level counts less: there may be texture in it."""
STIFFNESS = (0.0, 0.03, 0.3)
"""Penalties on the squares of the polynomial's coefficients: constant, slope and bend, for intensities from -1 to 1. A
level's squared residual has weight 1. Chosen on validation photographs, as OUTLIER is."""
ROUNDS = 20
"""Of the reweighted least squares fit."""
REACH, STEPS = 1.0, 3001
"""How far the transform is tabulated beyond black and white, in units of the scale, and the number of points."""
_DEVIATES, _SHARES = np.polynomial.hermite_e.hermegauss(9)


@dataclass(frozen=True)
class _Table:
    """A function tabulated at equal steps; takes a tenth of the time of `numpy.interp`.

    Attributes:
        least: the first point.
        per_unit: steps per unit.
        values: (STEPS,) float32, at `least` and each step on from there.
    """

    least: np.float32
    per_unit: np.float32
    values: NDArray[np.float32]

    @classmethod
    def of(cls, points: NDArray[np.float64], values: NDArray[np.float64]) -> _Table:
        """Tabulate a function given by its values at points that do not fall."""
        steps = np.linspace(points[0], points[-1], STEPS)
        per_unit = (STEPS - 1) / (points[-1] - points[0])
        return cls(np.float32(points[0]), np.float32(per_unit), np.interp(steps, points, values).astype(np.float32))

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate, any shape; beyond the ends in a straight line. What is not finite stays so."""
        place = (image - self.least) * self.per_unit
        below = np.fmax(np.fmin(place, np.float32(STEPS - 2)), np.float32(0)).astype(np.intp)
        place -= below.astype(np.float32)
        result: NDArray[np.float32] = self.values[below] + place * np.diff(self.values)[below]
        return result


@dataclass(frozen=True)
class LevelFunction:
    """The noise level at each intensity: its logarithm is a polynomial, constant beyond the intensities fitted.

    Attributes:
        coefficients: of rising powers of the intensity, scaled to -1 (black) to 1 (white).
        darkest, lightest: intensities in [0, 1] between which levels were known.
    """

    coefficients: tuple[float, ...]
    darkest: float
    lightest: float

    @classmethod
    def of(cls, intensities: NDArray[np.float64], levels: Sequence[float]) -> LevelFunction:
        """Fit a smooth function to levels found at intensities, some of which may be wrong.

        Args:
            intensities: (N,), in [0, 1], rising.
            levels: N on the 0-255 scale.
        """
        powers = np.vander(2 * intensities - 1, len(STIFFNESS), increasing=True)
        logs = np.log(np.maximum(levels, LEAST_LEVEL))
        weights = np.ones_like(logs)
        for _ in range(ROUNDS):
            weighted = powers * weights[:, None]
            solution = np.linalg.solve(powers.T @ weighted + np.diag(STIFFNESS), weighted.T @ logs)
            weights = np.minimum(1, OUTLIER / np.maximum(np.abs(powers @ solution - logs), 1e-6))
        return cls(tuple(float(value) for value in solution), float(intensities[0]), float(intensities[-1]))

    def __call__(self, intensities: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Levels on the 0-255 scale at intensities, of which 0 is black and 1 white."""
        seen = 2 * np.clip(intensities, self.darkest, self.lightest) - 1
        levels: NDArray[np.float64] = np.exp(np.polynomial.polynomial.polyval(seen, self.coefficients))
        return levels

    @property
    def ends(self) -> tuple[float, float]:
        """The level in black, and in white."""
        return float(self(0.0)), float(self(1.0))

    @property
    def spread(self) -> float:
        """The highest level over the lowest."""
        levels = self._levels
        return float(levels.max() / levels.min())

    @property
    def stabilized_sigma(self) -> float:
        """The noise level after the transform, 0-255 scale: the same at every intensity."""
        return self._transform[2]

    def stabilized(self, function: Function) -> Function:
        """Make a denoiser for noise of `stabilized_sigma` one for noise of this function: intensities are transformed,
        denoised, and transformed back by the inverse that is unbiased (Makitalo and Foi 2011).

        Args:
            function: on float32 (C, H, W) in [0, 1].
        """
        transformed, expected, _ = self._transform
        forwards = _Table.of(self._points, transformed)
        back = _Table.of(expected, self._points)
        return lambda noisy: back(function(forwards(noisy)))

    @property
    def _points(self) -> NDArray[np.float64]:
        return np.linspace(-REACH, 1 + REACH, STEPS)

    @property
    def _levels(self) -> NDArray[np.float64]:
        return self(self._points)

    @cached_property
    def _transform(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """What the transform makes of the points, its mean over the noise at each of them, and the noise level after it
        on the 0-255 scale. Black and white are mapped to themselves."""
        points, deviations = self._points, self._levels / 255
        steepness = 1 / deviations
        area = np.concatenate([[0], np.cumsum((steepness[1:] + steepness[:-1]) / 2 * np.diff(points))])
        black, white = np.interp([0, 1], points, area)
        transformed = (area - black) / (white - black)
        expected = np.zeros_like(points)
        for deviate, share in zip(_DEVIATES, _SHARES / _SHARES.sum(), strict=True):
            expected += share * np.interp(points + deviate * deviations, points, transformed)
        return transformed, np.maximum.accumulate(expected), float(255 / (white - black))
