"""Sections of docs/noise-levels.md on crops of photographs, with noise as files have it, by `mdrn denoise`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from noisy_crops import as_stored, jpeg_round_trip
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sensor import Camera

from mdrn_cli.datasets import Dataset, open_dataset
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.image import read_uint8
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise, estimate_sigma
from mdrn_cli.picture import picture_of
from mdrn_cli.pixels import to_unit
from mdrn_cli.restore import DenoiseOptions, Facts, Restorer

CROP_SIDE = 256
CLIPPED_LEVELS = (5, 15, 25, 50)
DARK_LEVELS, DARKNESS = (5, 10, 25), (0.2, 0.1, 0.05)
# Levels of noise in black and in white, and the power of the level that grows linearly between them.
UNEVEN = {
    "5 in black, 25 in white": (5, 25, 1),
    "25 in black, 5 in white": (25, 5, 1),
    "3 in black, 15 in white, as a sensor's": (3, 15, 2),
    "2 in black, 6 in white, as a sensor's": (2, 6, 2),
}
UNEVEN_LEVELS = (0.8, 0.9, 1.0, 1.1, 1.25)
JPEG_LEVELS = (0.5, 0.7, 1.0, 1.4, 2.0)
STORED_QUALITIES = (97, 92, 85, 75, 50)
GRAINS = ((0.5, 0.0), (0.7, 0.0), (1, 0.0), (5, 0.0), (20, 0.0), (8, 0.8), (8, 1.2), (8, 2.0), (12, 3.0))
# Level, Gaussian that smears it in pixels, and quality of the JPEG, if one; and what the first is multiplied with.
ALIKE, ALIKE_LEVELS = ((15, 0.0, None), (15, 0.0, 90), (10, 0.8, None)), (1.0, 1.6, 2.5)
# Level, pixels by which noise of colors is smeared, and quality of the JPEG, if one.
SENSOR = ((12, 0.0, None), (12, 0.0, 90), (12, 2.0, 90))
SENSOR_LEVELS = (1.0, 1.6, 2.4)


def restored(
    denoisers: Denoisers, stored: NDArray[np.uint8], clean: NDArray[np.uint8], options: Sequence[DenoiseOptions]
) -> tuple[list[float], list[Facts]]:
    """PSNR of pixels (H, W, C) of a file, restored by each of the options, and what was done."""
    pictures = [Restorer(one, denoisers)(picture_of(stored, False)) for one in options]
    return [psnr(one.channels.transpose(1, 2, 0), clean) for one, _ in pictures], [facts for _, facts in pictures]


def at_levels(levels: Iterable[float]) -> list[DenoiseOptions]:
    """To restore at the estimate, then at each of some levels."""
    return [DenoiseOptions(), *(DenoiseOptions(level) for level in levels)]


def jpeg_table(dataset: Dataset) -> list[str]:
    """Rows by level of white noise and kind of JPEG it was stored in: the estimate, and the PSNR it leads to."""
    rows = [
        "| noise | stored as | estimate: 5 % to 95 % | PSNR | at the best of five levels |",
        "|---|---|---|---|---|",
    ]
    denoisers = Denoisers()
    for level in (5, 15, 30):
        for quality, subsampling, name in ((95, 0, "4:4:4"), (95, 2, "4:2:0"), (80, 2, "4:2:0")):
            estimates, figures = [], []
            for file in dataset.files:
                clean = _middle(read_uint8(file, "color"))
                stored = jpeg_round_trip(to_uint8(add_noise(clean, level)), quality, subsampling)
                options = at_levels(level * factor for factor in JPEG_LEVELS)
                (ours, *others), _ = restored(denoisers, stored, clean, options)
                estimates.append(estimate_sigma(stored.transpose(2, 0, 1)))
                figures.append((ours, max(others)))
            low, high = np.quantile(estimates, (0.05, 0.95))
            ours, best = np.mean(figures, axis=0)
            rows.append(
                f"| {level} | quality {quality}, {name} | {low:.1f} to {high:.1f} | **{ours:.2f}** | {best:.2f} |"
            )
    return rows


def stored_section(data: Path) -> str:
    """Photographs that have lost something as JPEG, and else have no noise."""
    return _of_crops(
        data,
        "Photographs stored as JPEG",
        "without any noise, stored as JPEG (4:2:0), restored by\n"
        "`mdrn denoise`, and at the same level by the network for white noise alone. What JPEG has added is\n"
        "found to be noise that is not white in so many, which two networks share; the others come out alike.",
        stored_table,
    )


def clipped_section(data: Path) -> str:
    """The section on noise in 8 bits."""
    rows = [
        "| set | noise | in 8 bits | network alone | `mdrn denoise` | network, noise not clipped |",
        "|---|---|---|---|---|---|",
    ]
    denoisers = Denoisers()
    for name in ("Set12", "Kodak24", "CBSD68"):
        dataset = open_dataset(name, data)
        for level in CLIPPED_LEVELS:
            network = denoisers.find(dataset.color, level)
            figures = []
            for file in dataset.files:
                clean = _middle(read_uint8(file, dataset.color))
                noisy = add_noise(clean, level)
                stored = to_uint8(noisy)
                (ours,), _ = restored(denoisers, stored, clean, [DenoiseOptions(level)])
                pictures = (stored, to_uint8(network(to_unit(stored.transpose(2, 0, 1)))), to_uint8(network(noisy)))
                plain, alone, bound = (psnr(picture, clean) for picture in pictures)
                figures.append((plain, alone, ours, bound))
            plain, alone, ours, bound = np.mean(figures, axis=0)
            rows.append(f"| {name} | {level} | {plain:.2f} | {alone:.2f} | **{ours:.2f}** | {bound:.2f} |")
    return _section(
        "Noise in 8 bits",
        f"Crops of {CROP_SIDE}x{CROP_SIDE} with white noise, clipped and rounded as files have it, restored at its\n"
        "level: by the network alone, and by `mdrn denoise`, which first mends the mean that clipping moved. Beside\n"
        "them the network on the same noise not clipped, which is what the tables above have.",
        rows,
    )


def dark_table(dataset: Dataset) -> list[str]:
    """Rows by level of white noise in 8 bits and how dark the picture is: the estimate, and PSNR by `mdrn denoise` at
    it and at the true level."""
    rows = [
        "| noise | brightness | estimate: 5 % to 95 % | noisy | PSNR | at the true level |",
        "|---|---|---|---|---|---|",
    ]
    denoisers = Denoisers()
    for level in DARK_LEVELS:
        for factor in DARKNESS:
            estimates, figures = [], []
            for file in dataset.files:
                clean = np.rint(_middle(read_uint8(file, "color")) * factor).astype(np.uint8)
                noisy = to_uint8(add_noise(clean, level))
                reached, facts = restored(denoisers, noisy, clean, at_levels([level]))
                estimates.append(facts[0].sigma)
                figures.append((psnr(noisy, clean), *reached))
            low, high = np.quantile(estimates, (0.05, 0.95))
            plain, ours, best = np.mean(figures, axis=0)
            rows.append(
                f"| {level} | {factor:g} | {low:.1f} to {high:.1f} | {plain:.2f} | **{ours:.2f}** | {best:.2f} |"
            )
    return rows


def uneven_table(dataset: Dataset, color: str = "color") -> list[str]:
    """Rows by how white noise in 8 bits depends on the intensity: its root mean square, the estimate, PSNR by `mdrn
    denoise` and, as of noise of one level, at the best of five about the former, and of how many crops the level at
    each intensity was found."""
    rows = [
        "| noise | r.m.s. | estimate | noisy | `mdrn denoise` | at the best of five levels | level at each found |",
        "|---|---|---|---|---|---|---|",
    ]
    denoisers = Denoisers()
    for name, (black, white, power) in UNEVEN.items():
        figures, found = [], 0
        for k, file in enumerate(dataset.files):
            clean = _middle(read_uint8(file, color))
            level = (black**power + (white**power - black**power) * (clean / 255)) ** (1 / power)
            noise = level * np.random.RandomState(k).normal(size=clean.shape)
            noisy = as_stored(clean + noise)
            true = float(noise.std())
            options = at_levels(true * factor for factor in UNEVEN_LEVELS)
            (ours, *others), facts = restored(denoisers, noisy, clean, options)
            found += facts[0].by_intensity is not None
            figures.append((true, facts[0].sigma, psnr(noisy, clean), ours, max(others)))
        true, estimate, plain, ours, best = np.mean(figures, axis=0)
        rows.append(
            f"| {name} | {true:.1f} | {estimate:.1f} | {plain:.2f} | **{ours:.2f}** | {best:.2f} "
            f"| {found} of {len(dataset.files)} |"
        )
    return rows


def smeared_noise(shape: tuple[int, ...], level: float, blur: float, seed: int) -> NDArray[np.float64]:
    """Gaussian noise (H, W, C) of a standard deviation, smeared by a Gaussian of `blur` pixels."""
    noise = np.random.RandomState(seed).normal(size=shape)
    if blur:
        noise = gaussian_filter(noise, (blur, blur, 0), mode="wrap")
    scaled: NDArray[np.float64] = level / noise.std() * noise
    return scaled


def grain_table(dataset: Dataset, color: str = "color") -> list[str]:
    """Rows by level and grain of noise: PSNR as the network alone restores it, and as `mdrn denoise` does."""
    rows = [
        "| noise | smeared by | noisy | at full size alone | `mdrn denoise` | coarse noise found |",
        "|---|---|---|---|---|---|",
    ]
    denoisers = Denoisers()
    for level, blur in GRAINS:
        figures, found = [], 0
        for k, file in enumerate(dataset.files):
            clean = _middle(read_uint8(file, color))
            noisy = as_stored(clean + smeared_noise(clean.shape, level, blur, k))
            told = max(estimate_sigma(noisy.transpose(2, 0, 1)), 1)
            (ours, alone), facts = restored(denoisers, noisy, clean, at_levels([told]))
            figures.append((psnr(noisy, clean), alone, ours))
            found += any(facts[0].coarse_sigmas)
        means = " | ".join(f"{mean:.2f}" for mean in np.mean(figures, axis=0))
        rows.append(f"| {level} | {f'{blur:g} pixels' if blur else '-'} | {means} | {found} of {len(figures)} |")
    return rows


def stored_table(dataset: Dataset) -> list[str]:
    """Rows by color mode and quality of the JPEG that photographs without noise are stored as: what is told of them,
    and PSNR as networks for white noise alone restore them, and as `mdrn denoise` does."""
    rows = [
        "| color | quality | two networks | as stored | white noise alone | `mdrn denoise` | gain of a crop |",
        "|---|---|---|---|---|---|---|",
    ]
    denoisers = Denoisers()
    for color in ("color", "gray"):
        for quality in STORED_QUALITIES:
            figures, shared = [], 0
            for file in dataset.files:
                clean = _middle(read_uint8(file, color))
                stored = jpeg_round_trip(clean, quality, 2)
                (ours,), (facts,) = restored(denoisers, stored, clean, [DenoiseOptions()])
                alone = ours
                if facts.network and facts.network.beside:
                    shared += 1
                    (alone,), _ = restored(denoisers, stored, clean, [DenoiseOptions(max(facts.sigma, 1))])
                figures.append((psnr(stored, clean), alone, ours))
            means = " | ".join(f"{mean:.2f}" for mean in np.mean(figures, axis=0))
            gains = [ours - alone for _, alone, ours in figures]
            spread = f"{min(gains):+.2f} to {max(gains):+.2f}"
            rows.append(f"| {color} | {quality} | {shared} of {len(figures)} | {means} | {spread} |")
    return rows


def alike_table(dataset: Dataset) -> list[str]:
    """Rows by level, grain and storage of noise that is alike in all channels: the estimate, and PSNR as the network
    for color restores it at the best of three levels, and as `mdrn denoise` does."""
    rows = [
        "| noise | smeared by | stored as | estimate: 5 % to 95 % | noisy | network for color | `mdrn denoise` |",
        "|---|---|---|---|---|---|---|",
    ]
    denoisers = Denoisers()
    for level, blur, quality in ALIKE:
        figures, estimates = [], []
        for k, file in enumerate(dataset.files):
            clean = _middle(read_uint8(file, "color"))
            noise = smeared_noise((*clean.shape[:2], 1), level, blur, k)
            noisy = as_stored(clean + noise)
            stored = jpeg_round_trip(noisy, quality, 2) if quality else noisy
            by_color = (DenoiseOptions(level * factor, color="color") for factor in ALIKE_LEVELS)
            (ours, *others), _ = restored(denoisers, stored, clean, [DenoiseOptions(), *by_color])
            figures.append((psnr(stored, clean), max(others), ours))
            estimates.append(estimate_sigma(stored.transpose(2, 0, 1)))
        low, high = np.quantile(estimates, (0.05, 0.95))
        plain, best, ours = np.mean(figures, axis=0)
        how = f"{f'{blur:g} pixels' if blur else '-'} | {f'JPEG, quality {quality}, 4:2:0' if quality else 'PNG'}"
        rows.append(f"| {level} | {how} | {low:.1f} to {high:.1f} | {plain:.2f} | {best:.2f} | **{ours:.2f}** |")
    return rows


def sensor_table(dataset: Dataset) -> list[str]:
    """Rows by level of a sensor's noise and how the picture made of it is stored: the estimate, and PSNR by
    `mdrn denoise` at it, and at the best of three levels about the true one."""
    rows = [
        "| noise | its colors | stored as | estimate: 5 % to 95 % | noisy | PSNR | at the best of three levels |",
        "|---|---|---|---|---|---|---|",
    ]
    denoisers = Denoisers()
    for level, smoothed, quality in SENSOR:
        figures, estimates = [], []
        camera = Camera(along_edges=True, mixing=0.7, gains=(2.0, 1.0, 1.6), read=0.1, smoothed=smoothed)
        for k, file in enumerate(dataset.files):
            scene = _middle(read_uint8(file, "color")).astype(np.float32)
            picture, noise = camera.picture(scene, level, np.random.default_rng(k))
            clean, noisy = (as_stored(one) for one in (picture, picture + noise))
            stored = jpeg_round_trip(noisy, quality, 2) if quality else noisy
            options = at_levels(level * factor for factor in SENSOR_LEVELS)
            (ours, *others), _ = restored(denoisers, stored, clean, options)
            figures.append((psnr(stored, clean), ours, max(others)))
            estimates.append(estimate_sigma(stored.transpose(2, 0, 1)))
        low, high = np.quantile(estimates, (0.05, 0.95))
        plain, ours, best = np.mean(figures, axis=0)
        how = f"{f'smeared by {smoothed:g} pixels' if smoothed else 'as they are'} | " + (
            f"JPEG, quality {quality}, 4:2:0" if quality else "PNG"
        )
        rows.append(f"| {level} | {how} | {low:.1f} to {high:.1f} | {plain:.2f} | **{ours:.2f}** | {best:.2f} |")
    return rows


def jpeg_section(data: Path) -> str:
    """The estimate in JPEGs, and what it leads to."""
    return _of_crops(
        data,
        "White noise in a JPEG",
        "with white noise, stored as JPEG, restored by\n"
        "`mdrn denoise` at the estimate, and, given a level and so by the network for white noise alone, at the best\n"
        "of five about the true one, chosen image by image. JPEG takes noise from the colors and\n"
        "smears what it leaves; the level that restores best is then above the noise that is left.",
        jpeg_table,
    )


def dark_section(data: Path) -> str:
    """The estimate where half of the noise is cut off, and what it leads to."""
    return _of_crops(
        data,
        "Noise in the dark",
        "made darker by a factor, with white noise, clipped and\n"
        "rounded as files have it, restored by `mdrn denoise` at the estimate and at the true level.",
        dark_table,
    )


def uneven_section(data: Path) -> str:
    """Noise that is stronger at one intensity than at another, in color and in gray."""
    both = (("", "", "color"), (", in gray", " in gray", "gray"))
    return "\n".join(
        _of_crops(
            data,
            f"Noise that depends on the light{title}",
            f"with white noise{what} in 8 bits, the level of which depends on the\n"
            "intensity, restored by `mdrn denoise`, and, given one level, at the best of five, chosen image by image.\n"
            "Where the level at each intensity is found, it is made the same at all before the network.",
            partial(uneven_table, color=color),
        )
        for title, what, color in both
    )


def sensor_section(data: Path) -> str:
    """Noise of a camera's sensor."""
    return _of_crops(
        data,
        "Noise of a camera",
        "as a camera makes them of what its Bayer sensor sees\n"
        "(tools/sensor.py): noise that grows with the light, spread over neighbours and colors, in 8 bits. Restored\n"
        "by `mdrn denoise` at the estimate, and, given a level and so by the network for white noise alone, at the\n"
        "best of three, chosen image by image.",
        sensor_table,
    )


def grain_section(data: Path) -> str:
    """Noise that is smeared over several pixels."""
    return _of_crops(
        data,
        "Noise of coarse grain",
        "with Gaussian noise, smeared by a Gaussian, in 8 bits; the\n"
        "level is estimated. At full size alone, and with what is found at half the size and at a quarter removed\n"
        "there, before or after.",
        grain_table,
    )


def gray_grain_section(data: Path) -> str:
    """The same in gray."""
    return _of_crops(
        data,
        "Noise of coarse grain in gray",
        "in gray, with noise as above.",
        partial(grain_table, color="gray"),
    )


def alike_section(data: Path) -> str:
    """Noise that all channels have in common."""
    return _of_crops(
        data,
        "Noise alike in all channels",
        "with Gaussian noise, the same in red, green and blue, in 8\n"
        "bits; the level is estimated. Beside it the network for color at the best of 1, 1.6 and 2.5 times the noise,\n"
        "chosen image by image.",
        alike_table,
    )


def _of_crops(data: Path, title: str, what: str, table: Callable[[Dataset], list[str]]) -> str:
    """A section on crops of Kodak24."""
    return _section(title, f"Crops of {CROP_SIDE}x{CROP_SIDE} of Kodak24 {what}", table(open_dataset("Kodak24", data)))


def _section(title: str, what: str, rows: Sequence[str]) -> str:
    return "\n".join((f"## {title}", "", what, "", *rows, ""))


def _middle(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = ((side - CROP_SIDE) // 2 for side in photo.shape[:2])
    return photo[top : top + CROP_SIDE, left : left + CROP_SIDE]


CROP_SECTIONS = {
    "jpeg": jpeg_section,
    "stored": stored_section,
    "clipped": clipped_section,
    "dark": dark_section,
    "uneven": uneven_section,
    "sensor": sensor_section,
    "grain": grain_section,
    "gray-grain": gray_grain_section,
    "alike": alike_section,
}
