"""Estimating the noise of a picture without restoring it."""

from __future__ import annotations

from dataclasses import dataclass

from mdrn_cli.blocknoise import Noise
from mdrn_cli.coarse import smeared_levels
from mdrn_cli.levels import check_white
from mdrn_cli.noise import find_noise
from mdrn_cli.picture import Picture
from mdrn_cli.restore import may_be_smeared
from mdrn_cli.unseen import filled_if_needed
from mdrn_cli.white import white_of, whitened


@dataclass(frozen=True)
class Estimate:
    """The noise of a picture.

    Attributes:
        picture: as prepared for the estimate.
        noise: at full size; its level is NaN if the picture is too small for an estimate.
        warnings: those that preparing the picture added.
    """

    picture: Picture
    noise: Noise
    warnings: tuple[str, ...]

    def at_smaller_sizes(self) -> tuple[float, ...]:
        """Noise levels at half the size and at a quarter, 0-255 scale, where the noise is smeared, so that restoring
        would begin there; else none."""
        picture, noise = self.picture, self.noise
        if not may_be_smeared(picture, noise, noise.tone):
            return ()
        return smeared_levels(picture.channels, picture.seen, noise.tone, noise.sigma, white_of(picture))


def estimate_noise(picture: Picture, white: float | None = None) -> Estimate:
    """Estimate the noise of a picture.

    Args:
        picture: of any data type.
        white: see `DenoiseOptions`.

    Raises:
        UsageError: white makes no sense.
        InputError: intensities go beyond it, or of floats far beyond 1.
    """
    if white is not None:
        check_white(white)
    looked_at = filled_if_needed(whitened(picture, white))
    noise = find_noise(looked_at.channels, looked_at.seen, white=white_of(looked_at))
    return Estimate(looked_at, noise, looked_at.warnings[len(picture.warnings) :])
