"""`make demo`: a photograph, noise added, restored by a bundled checkpoint; the picture of it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mdrn_cli.denoisers import Denoisers
from mdrn_cli.image import read_uint8
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise
from mdrn_cli.tilewise import denoise_pixels

PHOTO = Path(__file__).parent / "chelsea.png"
OUTPUT = Path("demo-output") / "noisy-restored.png"
SIGMA = 50.0


def main() -> None:
    """Run the demonstration."""
    clean = read_uint8(PHOTO, "color")
    noisy = add_noise(clean, SIGMA)
    denoiser = Denoisers().find("color", SIGMA)
    restored = to_uint8(denoise_pixels(noisy, denoiser))
    print(f"photograph  {PHOTO.name}, {clean.shape[1]}x{clean.shape[0]}, noise of sigma {SIGMA:g} added")
    print(f"checkpoint  {denoiser.name} on {denoiser.engine.device} in {denoiser.engine.precision}")
    print(f"noisy       {psnr(to_uint8(noisy), clean):.2f} dB")
    print(f"restored    {psnr(restored, clean):.2f} dB")
    OUTPUT.parent.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate([to_uint8(noisy), restored], axis=1)).save(OUTPUT)
    print(f"picture     {OUTPUT.resolve()} (noisy | restored)")


if __name__ == "__main__":
    main()
