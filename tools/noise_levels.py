"""Makes docs/noise-levels.md: any noise level on Set12 and CBSD68, against peers, and errors of the estimate.

    python tools/noise_levels.py peers ../shared/data/test    # hours; needs `pip install bm3d` (not for commercial use)
    python tools/noise_levels.py table ../shared/data/test > docs/noise-levels.md    # needs `pip install PyWavelets`
    python tools/noise_levels.py grain ../shared/data/test    # one of its sections, as SECTIONS names them

BM3D's figures are kept in tools/peers.json, image by image, and gone on with where they were left.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from sensor import Camera

from mdrn_cli.bench import measure
from mdrn_cli.datasets import Dataset, open_dataset
from mdrn_cli.denoisers import Denoisers
from mdrn_cli.image import picture_of, read_uint8
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise, estimate_sigma
from mdrn_cli.pixels import to_unit
from mdrn_cli.restore import DenoiseOptions, Restorer

LEVELS = (5, 10, 20, 35, 40, 60, 75)
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
GRAINS = ((0.5, 0.0), (0.7, 0.0), (1, 0.0), (5, 0.0), (20, 0.0), (8, 0.8), (8, 1.2), (8, 2.0), (12, 3.0))
# Level, Gaussian that smears it in pixels, and quality of the JPEG, if one; and what the first is multiplied with.
ALIKE, ALIKE_LEVELS = ((15, 0.0, None), (15, 0.0, 90), (10, 0.8, None)), (1.0, 1.6, 2.5)
# Level, pixels by which noise of colors is smeared, and quality of the JPEG, if one.
SENSOR = ((12, 0.0, None), (12, 0.0, 90), (12, 2.0, 90))
SENSOR_LEVELS = (1.0, 1.6, 2.4)
PEERS = Path(__file__).parent / "peers.json"
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
                if file.name in figures:
                    continue
                clean = read_uint8(file, dataset.color)
                noisy = add_noise(clean, level).transpose(1, 2, 0)
                denoise = bm3d.bm3d_rgb if dataset.color == "color" else bm3d.bm3d
                restored = denoise(np.ascontiguousarray(noisy.squeeze()), level / 255).reshape(noisy.shape)
                figures[file.name] = round(psnr(to_uint8(restored.transpose(2, 0, 1)), clean), 4)
                PEERS.write_text(json.dumps(stored, indent=1) + "\n")


def levels_table(dataset: Dataset) -> list[str]:
    """Rows of PSNR by level: ours, BM3D on the same images, FFDNet."""
    peers = json.loads(PEERS.read_text()).get(dataset.name, {}) if PEERS.is_file() else {}
    denoisers = Denoisers()
    rows = ["| sigma | network | ours | BM3D | FFDNet |", "|---|---|---|---|---|"]
    for level in LEVELS:
        denoiser = denoisers.find(dataset.color, level)
        result = measure(dataset, level, denoiser.label, denoiser)
        ours = {row.file: row.psnr for row in result.images}
        bm3d = peers.get(str(level), {})
        beside = "-"
        if bm3d:
            beside = f"{np.mean(list(bm3d.values())):.2f}"
            if len(bm3d) < len(ours):
                same = np.mean([ours[name] for name in bm3d])
                beside += f" (ours {same:.2f} on the same {len(bm3d)} images)"
        rows.append(
            f"| {level} | {result.model} | **{result.mean('psnr'):.2f}** | {beside} "
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


def jpeg_round_trip(image: NDArray[np.uint8], quality: int, subsampling: int) -> NDArray[np.uint8]:
    """An image (H, W, C) stored as JPEG and read again; quality and subsampling as Pillow numbers them."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(buffer)).reshape(image.shape)


def jpeg_table(dataset: Dataset) -> list[str]:
    """Rows by level of white noise and kind of JPEG it was stored in: the estimate, and the PSNR it leads to."""
    rows = [
        "| noise | stored as | estimate: 5 % to 95 % | PSNR | at the best of five levels |",
        "|---|---|---|---|---|",
    ]
    denoisers = Denoisers()
    for level in (5, 15, 30):
        for quality, subsampling, name in ((95, 0, "4:4:4"), (95, 2, "4:2:0"), (80, 2, "4:2:0")):
            estimates, reached, best = [], [], []
            for file in dataset.files:
                clean = _middle(read_uint8(file, "color"))
                noisy = to_uint8(add_noise(clean, level))
                stored = jpeg_round_trip(noisy, quality, subsampling).transpose(2, 0, 1)
                pixels = to_unit(stored)
                estimates.append(estimate_sigma(stored))
                levels = [max(estimates[-1], 1), *(level * factor for factor in JPEG_LEVELS)]
                restored = [psnr(to_uint8(denoisers.find("color", one)(pixels)), clean) for one in levels]
                reached.append(restored[0])
                best.append(max(restored[1:]))
            low, high = np.quantile(estimates, (0.05, 0.95))
            rows.append(
                f"| {level} | quality {quality}, {name} | {low:.1f} to {high:.1f} | {np.mean(reached):.2f} "
                f"| {np.mean(best):.2f} |"
            )
    return rows


def print_clipped(data: Path) -> None:
    """The section on noise in 8 bits."""
    print(
        "\n## Noise in 8 bits\n\n"
        f"Crops of {CROP_SIDE}x{CROP_SIDE} with white noise, clipped and rounded as files have it, restored at its\n"
        "level: by the network alone, and by `mdrn denoise`, which first mends the mean that clipping moved. Beside\n"
        "them the network on the same noise not clipped, which is what the tables above have."
    )
    print("\n| set | noise | in 8 bits | network alone | `mdrn denoise` | network, noise not clipped |")
    print("|---|---|---|---|---|---|")
    denoisers = Denoisers()
    for name in ("Set12", "Kodak24", "CBSD68"):
        dataset = open_dataset(name, data)
        for level in CLIPPED_LEVELS:
            network, restorer = denoisers.find(dataset.color, level), Restorer(DenoiseOptions(level), denoisers)
            figures = []
            for file in dataset.files:
                clean = _middle(read_uint8(file, dataset.color))
                noisy = add_noise(clean, level)
                stored = to_uint8(noisy)
                restored, _ = restorer(picture_of(stored, False))
                pictures = (
                    stored,
                    to_uint8(network(to_unit(stored.transpose(2, 0, 1)))),
                    restored.channels.transpose(1, 2, 0),
                    to_uint8(network(noisy)),
                )
                figures.append([psnr(picture, clean) for picture in pictures])
            plain, alone, ours, bound = np.mean(figures, axis=0)
            print(f"| {name} | {level} | {plain:.2f} | {alone:.2f} | **{ours:.2f}** | {bound:.2f} |")


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
                restored = [Restorer(DenoiseOptions(one), denoisers)(picture_of(noisy, False)) for one in (None, level)]
                estimates.append(restored[0][1].sigma)
                pictures = (noisy, *(picture.channels.transpose(1, 2, 0) for picture, _ in restored))
                figures.append([psnr(picture, clean) for picture in pictures])
            low, high = np.quantile(estimates, (0.05, 0.95))
            plain, ours, best = np.mean(figures, axis=0)
            rows.append(
                f"| {level} | {factor:g} | {low:.1f} to {high:.1f} | {plain:.2f} | **{ours:.2f}** | {best:.2f} |"
            )
    return rows


def uneven_table(dataset: Dataset) -> list[str]:
    """Rows by how white noise in 8 bits depends on the intensity: its root mean square, the estimate, and PSNR by
    `mdrn denoise` at it, and at the best of five levels about the former."""
    rows = ["| noise | r.m.s. | estimate | noisy | PSNR | at the best of five levels |", "|---|---|---|---|---|---|"]
    denoisers = Denoisers()
    for name, (black, white, power) in UNEVEN.items():
        figures = []
        for k, file in enumerate(dataset.files):
            clean = _middle(read_uint8(file, "color"))
            level = (black**power + (white**power - black**power) * (clean / 255)) ** (1 / power)
            noise = level * np.random.RandomState(k).normal(size=clean.shape)
            noisy = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
            true = float(noise.std())
            restored = [
                Restorer(DenoiseOptions(one), denoisers)(picture_of(noisy, False))
                for one in (None, *(true * factor for factor in UNEVEN_LEVELS))
            ]
            ours, *others = (psnr(picture.channels.transpose(1, 2, 0), clean) for picture, _ in restored)
            figures.append((true, restored[0][1].sigma, psnr(noisy, clean), ours, max(others)))
        true, estimate, plain, ours, best = np.mean(figures, axis=0)
        rows.append(f"| {name} | {true:.1f} | {estimate:.1f} | {plain:.2f} | **{ours:.2f}** | {best:.2f} |")
    return rows


def smeared_noise(shape: tuple[int, ...], level: float, blur: float, seed: int) -> NDArray[np.float64]:
    """Gaussian noise (H, W, C) of a standard deviation, smeared by a Gaussian of `blur` pixels."""
    noise = np.random.RandomState(seed).normal(size=shape)
    if blur:
        noise = gaussian_filter(noise, (blur, blur, 0), mode="wrap")
    scaled: NDArray[np.float64] = level / noise.std() * noise
    return scaled


def grain_table(dataset: Dataset) -> list[str]:
    """Rows by level and grain of noise: PSNR as the network alone restores it, and as `mdrn denoise` does."""
    rows = [
        "| noise | smeared by | noisy | at full size alone | `mdrn denoise` | coarse noise found |",
        "|---|---|---|---|---|---|",
    ]
    denoisers = Denoisers()
    for level, blur in GRAINS:
        figures, found = [], 0
        for k, file in enumerate(dataset.files):
            clean = _middle(read_uint8(file, "color"))
            noisy = np.clip(np.rint(clean + smeared_noise(clean.shape, level, blur, k)), 0, 255).astype(np.uint8)
            picture = picture_of(noisy, False)
            restored, facts = Restorer(DenoiseOptions(), denoisers)(picture)
            alone, _ = Restorer(DenoiseOptions(max(estimate_sigma(picture.channels), 1)), denoisers)(picture)
            pictures = (one.channels.transpose(1, 2, 0) for one in (picture, alone, restored))
            figures.append([psnr(one, clean) for one in pictures])
            found += any(facts.coarse_sigmas)
        means = " | ".join(f"{mean:.2f}" for mean in np.mean(figures, axis=0))
        rows.append(f"| {level} | {f'{blur:g} pixels' if blur else '-'} | {means} | {found} of {len(figures)} |")
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
            noisy = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
            picture = picture_of(jpeg_round_trip(noisy, quality, 2) if quality else noisy, False)
            restored, _ = Restorer(DenoiseOptions(), denoisers)(picture)
            others = [
                Restorer(DenoiseOptions(level * factor, color="color"), denoisers)(picture)[0]
                for factor in ALIKE_LEVELS
            ]
            plain, ours, *by_color = (
                psnr(one.channels.transpose(1, 2, 0), clean) for one in (picture, restored, *others)
            )
            figures.append((plain, max(by_color), ours))
            estimates.append(estimate_sigma(picture.channels))
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
            clean, noisy = (np.clip(np.rint(one), 0, 255).astype(np.uint8) for one in (picture, picture + noise))
            stored = jpeg_round_trip(noisy, quality, 2) if quality else noisy
            restored = [
                Restorer(DenoiseOptions(one), denoisers)(picture_of(stored, False))
                for one in (None, *(level * factor for factor in SENSOR_LEVELS))
            ]
            ours, *others = (psnr(one.channels.transpose(1, 2, 0), clean) for one, _ in restored)
            figures.append((psnr(stored, clean), ours, max(others)))
            estimates.append(estimate_sigma(stored.transpose(2, 0, 1)))
        low, high = np.quantile(estimates, (0.05, 0.95))
        plain, ours, best = np.mean(figures, axis=0)
        how = f"{f'smeared by {smoothed:g} pixels' if smoothed else 'as they are'} | " + (
            f"JPEG, quality {quality}, 4:2:0" if quality else "PNG"
        )
        rows.append(f"| {level} | {how} | {low:.1f} to {high:.1f} | {plain:.2f} | **{ours:.2f}** | {best:.2f} |")
    return rows


def print_levels(data: Path) -> None:
    """What is reached at levels with and without a checkpoint."""
    for name in FFDNET:
        print(f"\n## {name}\n\n" + "\n".join(levels_table(open_dataset(name, data))))


def print_estimates(data: Path) -> None:
    """Errors of the estimate."""
    print("\n## Error of the estimated level\n\nRelative, over the images of a set.")
    for name in ("BSD68", "CBSD68"):
        print(f"\n{name}:\n\n" + "\n".join(estimate_table(open_dataset(name, data))))


def print_jpeg(data: Path) -> None:
    """The estimate in JPEGs, and what it leads to."""
    _print_crops(
        data,
        "White noise in a JPEG",
        "with white noise, stored as JPEG, restored at the estimate\n"
        "and at the best of five about the true one, chosen image by image. JPEG takes noise from the colors and\n"
        "smears what it leaves; the level that restores best is then above the noise that is left.",
        jpeg_table,
    )


def print_dark(data: Path) -> None:
    """The estimate where half of the noise is cut off, and what it leads to."""
    _print_crops(
        data,
        "Noise in the dark",
        "made darker by a factor, with white noise, clipped and\n"
        "rounded as files have it, restored by `mdrn denoise` at the estimate and at the true level.",
        dark_table,
    )


def print_uneven(data: Path) -> None:
    """Noise that is stronger at one intensity than at another."""
    _print_crops(
        data,
        "Noise that depends on the light",
        "with white noise in 8 bits, the level of which depends on the\n"
        "intensity, restored by `mdrn denoise` at the estimate, and at the best of five levels, chosen image by image.",
        uneven_table,
    )


def print_sensor(data: Path) -> None:
    """Noise of a camera's sensor."""
    _print_crops(
        data,
        "Noise of a camera",
        "as a camera makes them of what its Bayer sensor sees\n"
        "(tools/sensor.py): noise that grows with the light, spread over neighbours and colors, in 8 bits. Restored\n"
        "by `mdrn denoise` at the estimate, and at the best of three levels, chosen image by image.",
        sensor_table,
    )


def print_grain(data: Path) -> None:
    """Noise that is smeared over several pixels."""
    _print_crops(
        data,
        "Noise of coarse grain",
        "with Gaussian noise, smeared by a Gaussian, in 8 bits; the\n"
        "level is estimated. At full size alone, and with what is found at half the size and at a quarter removed\n"
        "there, before or after.",
        grain_table,
    )


def print_alike(data: Path) -> None:
    """Noise that all channels have in common."""
    _print_crops(
        data,
        "Noise alike in all channels",
        "with Gaussian noise, the same in red, green and blue, in 8\n"
        "bits; the level is estimated. Beside it the network for color at the best of 1, 1.6 and 2.5 times the noise,\n"
        "chosen image by image.",
        alike_table,
    )


def _print_crops(data: Path, title: str, what: str, table: Callable[[Dataset], list[str]]) -> None:
    """A section on crops of Kodak24."""
    print(f"\n## {title}\n\nCrops of {CROP_SIDE}x{CROP_SIDE} of Kodak24 {what}\n")
    print("\n".join(table(open_dataset("Kodak24", data))))


def _middle(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = ((side - CROP_SIDE) // 2 for side in photo.shape[:2])
    return photo[top : top + CROP_SIDE, left : left + CROP_SIDE]


SECTIONS = {
    "levels": print_levels,
    "estimates": print_estimates,
    "jpeg": print_jpeg,
    "clipped": print_clipped,
    "dark": print_dark,
    "uneven": print_uneven,
    "sensor": print_sensor,
    "grain": print_grain,
    "alike": print_alike,
}


def main() -> None:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("peers", "table", *SECTIONS))
    parser.add_argument("data", type=Path, help="folder that holds the sets")
    parser.add_argument("--every", type=int, default=1, help="peers on every n-th image only")
    parser.add_argument("--set", action="append", choices=tuple(FFDNET), help="peers on this set only")
    arguments = parser.parse_args()
    if arguments.what == "peers":
        measure_peers(arguments.data, arguments.set or list(FFDNET), arguments.every)
        return
    if arguments.what == "table":
        print("# Noise levels\n\nMade by `tools/noise_levels.py`; protocol of docs/results.md, PSNR in dB.")
    for section in SECTIONS if arguments.what == "table" else (arguments.what,):
        SECTIONS[section](arguments.data)


if __name__ == "__main__":
    main()
