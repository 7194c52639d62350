"""What is drawn has no noise, however it is stored, and is left as it is; noise in it is found nevertheless."""

from io import BytesIO

import numpy as np
import pytest
from conftest import rounded, tool_module
from PIL import Image, ImageDraw

from mdrn_cli import estimate_sigma
from mdrn_cli.blocks import Blocks, looked_at
from mdrn_cli.drawn import drawn_features, is_drawn
from mdrn_cli.grain import estimate_coarse_sigma
from mdrn_cli.noise import add_noise
from mdrn_cli.picture import picture_of
from mdrn_cli.pixels import halved
from mdrn_cli.restore import NO_NOISE, NOISELESS, DenoiseOptions, Restorer


def table():
    image = Image.new("RGB", (480, 360), "white")
    draw, rng = ImageDraw.Draw(image), np.random.default_rng(3)
    for top in range(10, 350, 22):
        draw.line((10, top, 470, top), fill="black")
        for left in range(10, 470, 92):
            draw.line((left, 10, left, 340), fill="black")
            draw.text((left + 5, top + 4), f"{rng.integers(10**5) / 100:.2f}", fill="black", font_size=13)
    return image


def hatching():
    image = Image.new("RGB", (256, 256), "white")
    for left in range(-256, 256, 6):
        ImageDraw.Draw(image).line((left, 0, left + 256, 256), fill="black", width=2)
    return image


def plot():
    image, rng = Image.new("RGB", (1600, 1200), "white"), np.random.default_rng(3)
    for color in ("#1f77b4", "#ff7f0e", "#2ca02c"):
        values = 600 + np.cumsum(rng.normal(0, 16, 400))
        ImageDraw.Draw(image).line(list(zip(range(0, 1600, 4), values, strict=True)), fill=color, width=8)
    image = image.resize((400, 300), Image.Resampling.LANCZOS)
    for place in range(50, 400, 75):
        ImageDraw.Draw(image).line((place, 0, place, 300), fill="#ccc")
        ImageDraw.Draw(image).text((place, 280), str(place), fill="black", font_size=12)
    return image


def cells():
    board = np.random.default_rng(0).integers(0, 2, (40, 40), dtype=np.uint8) * 255
    return Image.fromarray(board.repeat(7, 0).repeat(7, 1)).convert("RGB")


def stored(image, form=None, quality=None):
    if not form:
        return np.asarray(image)
    buffer = BytesIO()
    image.save(buffer, form, quality=quality)
    return np.asarray(Image.open(buffer).convert(image.mode))


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("how", [(), ("JPEG", 95), ("JPEG", 75), ("WEBP", 80)], ids=str)
@pytest.mark.parametrize("drawn", [table, hatching, plot, cells])
def test_it_is_kept_bit_for_bit(drawn, how, gray):
    """Else up to 159 was told of hatching, and a table lost 7 dB."""
    image = drawn().convert("L") if gray else drawn()
    pixels = stored(image, *how)
    assert estimate_sigma(pixels) < NOISELESS
    picture = picture_of(pixels.reshape(*pixels.shape[:2], -1), False)
    restored, _ = Restorer(DenoiseOptions())(picture)
    assert restored.channels is picture.channels
    assert restored.warnings == (NO_NOISE,)


@pytest.mark.parametrize("side", [3, 5])
def test_noise_is_not_sought_in_it_at_smaller_sizes_either(side):
    """Of a mosaic, half as large, 110 is told."""
    mosaic = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    picture = picture_of(mosaic.repeat(side, 0).repeat(side, 1), False)
    assert estimate_coarse_sigma(halved(picture.channels)) > 10
    restored, _ = Restorer(DenoiseOptions(model="mdrn-2b"))(picture)
    assert restored.channels is picture.channels


@pytest.mark.parametrize("form", [None, "JPEG"])
def test_the_dots_of_print_are_kept(photo, form):
    """Of which levels of 135 to 250 are told."""
    inks = photo[:320, :320] / 255
    y, x = np.indices(inks.shape[:2])
    for k, angle in enumerate((0.3, 0.8, 1.3)):
        across, down = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        screen = (np.cos(2 * np.pi * across / 6) + np.cos(2 * np.pi * down / 6)) / 4 + 0.5
        inks[..., k] = 1 / (1 + np.exp(-14 * (inks[..., k] - screen)))
    pixels = stored(Image.fromarray(np.rint(255 * inks).astype(np.uint8)), form, 90)
    picture = picture_of(pixels, False)
    restored, _ = Restorer(DenoiseOptions(model="mdrn-2b"))(picture)
    assert restored.channels is picture.channels


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("sigma", [5, 15, 40])
@pytest.mark.parametrize("drawn", [table, plot])
def test_noise_in_it_is_found(drawn, sigma, gray):
    clean = np.asarray(drawn().convert("L") if gray else drawn(), float)
    noisy = rounded(clean + np.random.default_rng(0).normal(0, sigma, clean.shape))
    for pixels in (noisy, stored(Image.fromarray(noisy), "JPEG", 95)):
        assert estimate_sigma(pixels) > 0.3 * sigma  # half of it is cut off, on paper


@pytest.mark.parametrize("kind", ["color", "gray", "gray in color"])
@pytest.mark.parametrize("sigma", [2, 10, 50])
def test_photographs_with_noise_are_not_taken_for_drawn(photo, gray_photo, kind, sigma):
    clean = photo if kind == "color" else gray_photo
    for part in (clean, clean[:100, :100], clean[300:, 200:]):
        noisy = add_noise(part, sigma)
        pixels = np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
        coded = stored(Image.fromarray(pixels.transpose(1, 2, 0).squeeze()), "JPEG", 85)
        coded = coded.reshape(*coded.shape[:2], -1).transpose(2, 0, 1)
        for image in (noisy, pixels, coded):
            image = image.repeat(3, 0) if kind == "gray in color" else image
            assert not is_drawn(looked_at(image))


@pytest.fixture(scope="module")
def tools():
    return tool_module("graphics"), tool_module("train_drawn")


@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_drawing_is_drawn_at_any_size(tools, channels):
    graphics, _ = tools
    for seed, shape in enumerate([(16, 16), (24, 300), (300, 24), (128, 128)] * 20):
        image = graphics.graphic(shape, channels, np.random.default_rng(seed))
        assert image.shape == (*shape, channels)
        assert 0 <= image.min() <= image.max() <= 255
        assert np.array_equal(image, np.rint(image))
        assert np.array_equal(image, graphics.graphic(shape, channels, np.random.default_rng(seed)))


@pytest.mark.parametrize("color", ["gray", "color"])
def test_it_is_learned_from_drawings_and_photographs(tools, photo, tmp_path, color):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    rows = tools[1].rows(tmp_path / "photo.png", (0, 0), color)
    channels = 1 if color == "gray" else 3
    assert {row.shape for row, _, _ in rows} == {(49 * channels + 25,)}
    assert all((target == 1) == (kind == "drawings") for _, target, kind in rows)
    assert {kind for _, _, kind in rows} >= {"drawings", "drawings with noise", "photographs"}


def test_features_are_of_any_blocks():
    """Also of few, and of ones that are all alike."""
    for blocks in (
        np.zeros((1, 3, 8, 8)),
        np.full((300, 1, 8, 8), 255.0),
        np.random.default_rng(0).normal(0, 99, (9, 1, 8, 8)),
    ):
        assert np.isfinite(drawn_features(Blocks.of(blocks.astype(np.float32)))).all()
