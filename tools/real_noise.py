"""Makes docs/real-noise.jpg: every image of RNI6 and RNI15, a crop of it before and after `mdrn denoise`.

python tools/real_noise.py ../shared/data/test docs/real-noise.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mdrn_cli.datasets import open_dataset
from mdrn_cli.image import read_picture
from mdrn_cli.picture import Picture
from mdrn_cli.pixels import as_depth
from mdrn_cli.restore import DenoiseOptions, Restorer

SIDE = 224
PAIRS_A_ROW = 3
LABEL, GAP = 20, 8


def crop(picture: Picture) -> Image.Image:
    """The middle of a picture as 8-bit RGB."""
    pixels = as_depth(picture.to_color("color").channels, "uint8").transpose(1, 2, 0)
    top, left = (max(0, (size - SIDE) // 2) for size in pixels.shape[:2])
    return Image.fromarray(np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE]))


def main() -> None:
    """Restore every image with the defaults and lay the crops out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    restore = Restorer(DenoiseOptions())
    pairs = []
    for name in ("RNI6", "RNI15"):
        for file in open_dataset(name, arguments.data).files:
            picture = read_picture(file)
            restored, facts = restore(picture)
            print(f"{name} {file.name}: sigma {facts.sigma:.1f}, {' and '.join(one.model for one in facts.passes)}")
            levels = " + ".join(f"{sigma:.1f}" for sigma in (facts.sigma, *filter(None, facts.coarse_sigmas)))
            pairs.append((f"{name} {file.stem}, estimated sigma {levels}", crop(picture), crop(restored)))
    rows = -(-len(pairs) // PAIRS_A_ROW)
    sheet = Image.new("RGB", (PAIRS_A_ROW * (2 * SIDE + 2 * GAP), rows * (SIDE + LABEL + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (label, before, after) in enumerate(pairs):
        left, top = k % PAIRS_A_ROW * (2 * SIDE + 2 * GAP), k // PAIRS_A_ROW * (SIDE + LABEL + GAP)
        draw.text((left, top + 3), label, fill="black", font=ImageFont.load_default(13))
        sheet.paste(before, (left, top + LABEL))
        sheet.paste(after, (left + SIDE, top + LABEL))
    sheet.save(arguments.output, quality=80)


if __name__ == "__main__":
    main()
