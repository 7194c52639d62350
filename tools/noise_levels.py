"""Makes docs/noise-levels.md: any noise level on Set12 and CBSD68, against peers, and errors of the estimate.

    python tools/noise_levels.py peers ../shared/data/test    # hours; needs `pip install bm3d` (not for commercial use)
    python tools/noise_levels.py all ../shared/data/test      # hours, too; needs `pip install PyWavelets`
    python tools/noise_levels.py grain ../shared/data/test    # one of its sections, as SECTIONS names them

Each section is put into the page when it is measured. BM3D's figures are kept in tools/peers.json, image by image, and
gone on with where they were left.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from crop_tables import CROP_SECTIONS

from mdrn_cli.bench import measure
from mdrn_cli.datasets import Dataset, open_dataset
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.files import write_atomically
from mdrn_cli.image import read_uint8
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise, estimate_sigma

LEVELS = (5, 10, 20, 35, 40, 60, 75)
PEERS = Path(__file__).parent / "peers.json"
PAGE = Path(__file__).parents[1] / "docs" / "noise-levels.md"
# FFDNet's own weights, measured under the same protocol.
FFDNET = {
    "Set12": {5: 38.08, 10: 34.64, 20: 31.43, 35: 28.91, 40: 28.31, 60: 26.48, 75: 25.49},
    "CBSD68": {5: 40.24, 10: 36.14, 20: 32.36, 35: 29.59, 40: 28.97, 60: 27.19, 75: 26.27},
}


def measure_peers(data: Path, names: list[str], every: int) -> None:
    """BM3D on every n-th image of sets, at all levels."""
    import bm3d

    stored: dict[str, Any] = json.loads(PEERS.read_text()) if PEERS.is_file() else {}
    for name in names:
        dataset = open_dataset(name, data)
        for level in LEVELS:
            figures = stored.setdefault(name, {}).setdefault(str(level), {})
            for file in dataset.files[::every]:
                name_in_set = dataset.path_of(file).as_posix()
                if name_in_set in figures:
                    continue
                clean = read_uint8(file, dataset.color)
                noisy = add_noise(clean, level).transpose(1, 2, 0)
                denoise = bm3d.bm3d_rgb if dataset.color == "color" else bm3d.bm3d
                restored = denoise(np.ascontiguousarray(noisy.squeeze()), level / 255).reshape(noisy.shape)
                figures[name_in_set] = round(psnr(to_uint8(restored.transpose(2, 0, 1)), clean), 4)
                write_atomically(PEERS, (json.dumps(stored, indent=1) + "\n").encode())


def levels_table(dataset: Dataset) -> list[str]:
    """Rows of PSNR by level: ours, BM3D on the same images, FFDNet."""
    peers = json.loads(PEERS.read_text()).get(dataset.name, {}) if PEERS.is_file() else {}
    denoisers = Denoisers()
    rows = ["| sigma | network | ours | BM3D | FFDNet |", "|---|---|---|---|---|"]
    for level in LEVELS:
        denoiser = denoisers.find(dataset.color, level)
        result = measure(dataset, level, denoiser.name, denoiser)
        ours = {row.file: row.psnr for row in result.images}
        bm3d = peers.get(str(level), {})
        beside = "-"
        if bm3d:
            beside = f"{np.mean(list(bm3d.values())):.2f}"
            if len(bm3d) < len(ours):
                same = np.mean([ours[name] for name in bm3d])
                beside += f" (ours {same:.2f} on the same {len(bm3d)} images)"
        rows.append(
            f"| {level} | {denoiser.label} | **{result.mean('psnr'):.2f}** | {beside} "
            f"| {FFDNET[dataset.name][level]:.2f} |"
        )
    return rows


def estimate_table(dataset: Dataset) -> list[str]:
    """Rows of relative error by level: ours, scikit-image's."""
    from skimage.restoration import estimate_sigma as wavelet_sigma

    rows = [
        "| true sigma | ours: median | 95th percentile | scikit-image: median | 95th percentile |",
        "|---|---|---|---|---|",
    ]
    for level in (5, 10, 15, 25, 35, 50, 75):
        ours, theirs = [], []
        for file in dataset.files:
            noisy = add_noise(read_uint8(file, dataset.color), level)
            ours.append(abs(estimate_sigma(noisy) / level - 1))
            image, channel_axis = noisy.transpose(1, 2, 0).squeeze() * 255, None if len(noisy) == 1 else 2
            wavelet = wavelet_sigma(image, channel_axis=channel_axis)  # type: ignore[no-untyped-call]
            theirs.append(abs(float(np.mean(wavelet)) / level - 1))
        cells = [f"{q:.1%}" for errors in (ours, theirs) for q in (np.median(errors), np.quantile(errors, 0.95))]
        rows.append(f"| {level} | {' | '.join(cells)} |")
    return rows


def levels_section(data: Path) -> str:
    """What is reached at levels with and without a checkpoint."""
    return "\n".join(f"## {name}\n\n" + "\n".join((*levels_table(open_dataset(name, data)), "")) for name in FFDNET)


def estimates_section(data: Path) -> str:
    """Errors of the estimate."""
    lines = ["## Error of the estimated level", "", "Relative, over the images of a set.", ""]
    for name in ("BSD68", "CBSD68"):
        lines += [f"{name}:", "", *estimate_table(open_dataset(name, data)), ""]
    return "\n".join(lines)


SECTIONS = {"levels": levels_section, "estimates": estimates_section, **CROP_SECTIONS}


def replaced(page: str, text: str) -> str:
    """A page with sections, each from its heading to the next one, in place of those of the same headings, or after
    all."""
    for section in _sections(text):
        heading, parts = section.partition("\n")[0], _sections(page)
        places = [k for k, part in enumerate(parts) if part.partition("\n")[0] == heading]
        if places:
            parts[places[0]] = section
        else:
            parts.append(section)
        page = "\n".join(part.rstrip("\n") + "\n" for part in parts)
    return page


def _sections(text: str) -> list[str]:
    return re.split(r"(?<=\n)(?=## )", text)


def main() -> None:
    """Measure a part, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("peers", "all", *SECTIONS))
    parser.add_argument("data", type=Path, help="folder that holds the sets")
    parser.add_argument("--every", type=int, default=1, help="peers on every n-th image only")
    parser.add_argument("--set", action="append", choices=tuple(FFDNET), help="peers on this set only")
    arguments = parser.parse_args()
    if arguments.what == "peers":
        measure_peers(arguments.data, arguments.set or list(FFDNET), arguments.every)
        return
    for name in SECTIONS if arguments.what == "all" else (arguments.what,):
        text = SECTIONS[name](arguments.data)
        write_atomically(PAGE, replaced(PAGE.read_text(), text).encode())


if __name__ == "__main__":
    main()
