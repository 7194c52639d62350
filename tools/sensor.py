"""Noise as a camera's sensor leaves it: drawn on raw intensities, of which a picture is then made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve, gaussian_filter

from mdrn_cli.pixels import LUMA

Pixels = NDArray[Any]
"""float32."""

GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
RED_OR_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
MEDIUM = 0.2
"""The linear intensity of a medium gray."""
LEAST = 1e-3
"""Root of the mean square of noise from which on there is some."""
FROM_CAMERA = np.array([[1.7, -0.55, -0.15], [-0.2, 1.5, -0.3], [0, -0.5, 1.5]], np.float32)
"""Colors of a sensor, white balanced, to linear sRGB; about what cameras have."""


@dataclass(frozen=True)
class Camera:
    """What makes a picture of the intensities of a Bayer sensor.

    Attributes:
        along_edges: how what a pixel lacks is filled in: Hamilton and Adams' way, else linearly.
        mixing: how far sensor and picture differ in their colors, 0 (not) to 1 (as by `FROM_CAMERA`).
        gains: of red, green and blue, by which white becomes white.
        read: share of noise that does not depend on the light, at a medium gray.
        smoothed: pixels, the standard deviation of a Gaussian by which noise of colors is smeared; 0: it is not.
    """

    along_edges: bool
    mixing: float
    gains: tuple[float, float, float]
    read: float
    smoothed: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Camera:
        """One of them."""
        return cls(
            along_edges=rng.random() < 0.6,
            mixing=float(rng.uniform(0, 1)),
            gains=(float(rng.uniform(1.2, 2.4)), 1.0, float(rng.uniform(1.2, 2.4))),
            read=float(rng.uniform(0, 0.6)),
            smoothed=float(rng.uniform(0.5, 3)) if rng.random() < 0.5 else 0.0,
        )

    def features(self) -> tuple[float, ...]:
        """For `Crop.kind`, (5,)."""
        return 1.0, float(self.along_edges), self.mixing, self.read, self.smoothed

    def picture(self, scene: Pixels, level: float, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """A picture without noise and, to be added to it, noise of about a level.

        Args:
            scene: (h, w, 3) on the 0-255 scale.
            level: root of the mean square of the noise, on the same scale.
            rng: what draws it.

        Returns:
            Both (h, w, 3) on the 0-255 scale.
        """
        to_picture = np.eye(3, dtype=np.float32) + self.mixing * (FROM_CAMERA - np.eye(3, dtype=np.float32))
        light = np.clip(_linear(scene / 255) @ np.linalg.inv(to_picture).T, 0, 1) / self._gains()
        mosaic = _mosaic(light.shape[:2])
        raw = (light * mosaic).sum(axis=2)
        clean = self._developed(raw, mosaic, to_picture)
        spread = np.sqrt((1 - self.read) * raw + self.read * MEDIUM)
        drawn = (rng.normal(size=raw.shape) * spread).astype(np.float32)
        strength = level / 255
        for _ in range(2):  # what it comes to depends on the picture
            noise = self._smeared_colors(self._developed(raw + strength * drawn, mosaic, to_picture) - clean)
            strength *= level / max(float(noise.std()), LEAST)
        return clean, noise

    def _gains(self) -> Pixels:
        return np.array(self.gains, np.float32)

    def _developed(self, raw: Pixels, mosaic: Pixels, to_picture: Pixels) -> Pixels:
        """(h, w) of a sensor -> (h, w, 3) on the 0-255 scale."""
        filled = _along_edges(raw, mosaic) if self.along_edges else _linearly(raw, mosaic)
        return _encoded((filled * self._gains()) @ to_picture.T) * np.float32(255)

    def _smeared_colors(self, noise: Pixels) -> Pixels:
        if not self.smoothed:
            return noise
        gray = (noise @ LUMA)[:, :, None]
        colored: Pixels = gaussian_filter(noise - gray, (self.smoothed, self.smoothed, 0), mode="nearest")
        return gray + colored


def _linear(encoded: Pixels) -> Pixels:
    """sRGB in [0, 1] to intensities of light."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encoded(light: Pixels) -> Pixels:
    """Intensities of light, clipped to [0, 1], to sRGB."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055).astype(np.float32)


def _mosaic(shape: tuple[int, int]) -> Pixels:
    """(h, w, 3), which of its colors a pixel of a Bayer sensor sees: 1, and 0 for the others."""
    down, across = np.indices(shape) % 2
    return np.stack([(down + across) == 0, (down + across) == 1, (down + across) == 2], axis=2).astype(np.float32)


def _linearly(raw: Pixels, mosaic: Pixels) -> Pixels:
    """The mean of the nearest pixels that see a color."""
    kernels = RED_OR_BLUE, GREEN, RED_OR_BLUE
    return np.stack([convolve(raw * mosaic[:, :, k], kernels[k], mode="mirror") for k in range(3)], axis=2)


def _along_edges(raw: Pixels, mosaic: Pixels) -> Pixels:
    """Green along the direction in which less changes (Hamilton and Adams 1997), then the others' differences to it."""
    padded = np.pad(raw, 2, mode="reflect")
    height, width = raw.shape

    def at(down: int, across: int) -> Pixels:
        return padded[2 + down : 2 + down + height, 2 + across : 2 + across + width]

    bend_across = 2 * raw - at(0, -2) - at(0, 2)
    bend_down = 2 * raw - at(-2, 0) - at(2, 0)
    across, down = (at(0, -1) + at(0, 1)) / 2 + bend_across / 4, (at(-1, 0) + at(1, 0)) / 2 + bend_down / 4
    change_across = np.abs(at(0, -1) - at(0, 1)) + np.abs(bend_across)
    change_down = np.abs(at(-1, 0) - at(1, 0)) + np.abs(bend_down)
    either = np.where(change_down < change_across, down, (across + down) / 2)
    filled = np.where(change_across < change_down, across, either)
    green = np.where(mosaic[:, :, 1] > 0, raw, filled)
    red, blue = (green + convolve((raw - green) * mosaic[:, :, k], RED_OR_BLUE, mode="mirror") for k in (0, 2))
    return np.stack([red, green, blue], axis=2)
