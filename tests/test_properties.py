"""What holds for all values, tried on those that hypothesis thinks of."""

import contextlib
import json
import math
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import typer
from conftest import SPACES, record_json
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mdrn_cli.cli.console import format_duration, parse_duration, printable
from mdrn_cli.devices import limit_threads, pick_device
from mdrn_cli.encoding import SaveOptions, encode_picture
from mdrn_cli.errors import DeviceError, MdrnError, UsageError, WeightsError
from mdrn_cli.image import read_picture
from mdrn_cli.levels import parse_sigma
from mdrn_cli.manifest import Record, parse_manifest, save_manifest
from mdrn_cli.picture import Picture
from mdrn_cli.pixels import from_unit, to_unit
from mdrn_cli.restore import DenoiseOptions
from mdrn_cli.tiling import GRID, count_tiles, plan_axis, run_tiled

# The suite shares its two cores; slow examples are no failures.
settings.register_profile("suite", deadline=None, max_examples=40, database=None, suppress_health_check=[*HealthCheck])
settings.load_profile("suite")

SIZES = st.integers(1, 90)


@st.composite
def tilings(draw) -> tuple[int, int]:
    """A side and an overlap that go together."""
    overlap = draw(st.integers(1, 8)) * GRID
    return draw(st.integers(2 * overlap // GRID, 40)) * GRID, overlap


@given(st.integers(1, 5000), tilings())
@example(8, (16, 8))
def test_tiles_cover_every_pixel_with_weights_that_sum_to_one(length, tiling):
    tile, overlap = tiling
    spans = plan_axis(length, tile, overlap)
    total = np.zeros(length, np.float64)
    for span in spans:
        assert span.start % GRID == 0
        assert 0 < span.stop - span.start <= tile
        assert span.weight.min() >= 0
        total[span.start : span.stop] += span.weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert all(left.stop - right.start >= overlap for left, right in pairwise(spans))


@given(SIZES, SIZES, st.sampled_from([1, 3]), tilings(), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_tiles_of_what_changes_nothing_change_nothing(height, width, channels, tiling, seed):
    image = np.random.default_rng(seed).random((channels, height, width), np.float32)
    seen = []

    def identity(tile: np.ndarray) -> np.ndarray:
        seen.append(tile.shape)
        return tile

    np.testing.assert_allclose(run_tiled(image, identity, *tiling), image, atol=1e-6)
    assert len(seen) == count_tiles(height, width, *tiling)


@given(st.integers(-100, 2000), st.integers(-100, 2000))
def test_a_tiling_works_or_is_a_usage_error(tile, overlap):
    try:
        spans = plan_axis(3000, tile, overlap)
    except UsageError:
        return
    assert spans[-1].stop == 3000


DEPTHS = st.sampled_from(["uint8", "uint16", "float32"])


@st.composite
def pictures(draw) -> Picture:
    """Small pictures of every kind that there is."""
    depth, channels, alpha = draw(DEPTHS), draw(st.sampled_from([1, 3])), draw(st.booleans())
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    real = st.floats(-1e6, 1e6, width=32)
    values = {"elements": real} if depth == "float32" else {}
    planes = draw(arrays(depth, (channels + alpha, *shape), **values))
    return Picture(planes[:channels], planes[-1] if alpha else None, depth)


@given(pictures())
@settings(max_examples=30)
def test_every_picture_comes_back_from_tiff_bit_for_bit(picture):
    back = read_picture(encode_picture(picture, "TIFF")[0])
    assert (back.depth, back.mode) == (picture.depth, picture.mode)
    assert np.array_equal(back.channels, picture.channels)
    assert picture.alpha is None or np.array_equal(back.alpha, picture.alpha)


@given(pictures(), st.sampled_from(["PNG", "WEBP", "JPEG", "BMP"]))
@settings(max_examples=30)
def test_every_picture_comes_back_from_other_formats_as_deep_as_they_are(picture, kind):
    content, warnings = encode_picture(picture, kind, SaveOptions(flatten="white" if kind in ("JPEG", "BMP") else None))
    back = read_picture(content)
    assert back.channels.shape[1:] == picture.channels.shape[1:]
    held = "uint16" if kind == "PNG" and picture.depth != "uint8" else "uint8"
    assert back.depth == held
    assert bool(warnings) == (held != picture.depth)
    if kind == "PNG":
        assert np.array_equal(back.channels, _as(picture.channels, held))
        assert picture.alpha is None or np.array_equal(back.alpha, _as(picture.alpha, held))


def _as(values: np.ndarray, depth: str) -> np.ndarray:
    return values if str(values.dtype) == depth else from_unit(to_unit(values), depth)


@given(arrays(st.sampled_from([np.uint8, np.uint16]), st.integers(1, 300)))
def test_integers_survive_the_unit_range(values):
    assert np.array_equal(from_unit(to_unit(values), str(values.dtype)), values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted(record_json())


def manifest(*records: Any) -> bytes:
    return json.dumps({"schema": "mdrn.manifest/1", "checkpoints": records}).encode()


@given(st.sampled_from(FIELDS), JSON)
@example("bytes", 10**400)
@example("parameters", 10**400)
@example("sigma", 10**400)
@settings(max_examples=100)
def test_a_record_with_any_value_anywhere_is_valid_or_a_weights_error(field, value):
    try:
        (record,) = parse_manifest(manifest(record_json(**{field: value})), "here")
    except WeightsError:
        return
    assert isinstance(record, Record)
    assert 0 < record.sigma <= 255
    assert 0 < record.bytes < 1 << 50
    assert f"{record.bytes / 1e6} {record.parameters / 1e6}"


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"schema": "mdrn.manifest/1", "checkpoints": [' + b"9" * 5000 + b"]}")
@settings(max_examples=60)
def test_anything_is_a_manifest_or_a_weights_error(content):
    with contextlib.suppress(WeightsError):
        assert isinstance(parse_manifest(content, "here"), tuple)


@given(
    st.lists(st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True), unique=True, max_size=5), st.floats(0.1, 255)
)
def test_a_manifest_written_is_read_back(tmp_path_factory, names, sigma):
    records = parse_manifest(manifest(*(record_json(name=name, sigma=sigma) for name in names)), "here")
    path = tmp_path_factory.mktemp("manifest") / "manifest.json"
    save_manifest(path, records)
    assert parse_manifest(path.read_bytes(), "there") == tuple(sorted(records, key=lambda record: record.name))


NUMBERS = st.floats().map(str) | st.integers().map(str) | st.text(max_size=12)


@given(NUMBERS)
@example("nan")
@example("inf")
@example("9" * 400)
@example("0.5")
def test_a_sigma_is_in_range_or_a_usage_error(text):
    for written in (text, f"x{text}"):
        try:
            sigma, factor = parse_sigma(written)
            DenoiseOptions(sigma, factor=factor)
        except UsageError:
            continue
        assert sigma is None or 1 <= sigma <= 100
        assert 0.1 <= factor <= 10


@given(st.floats(), st.integers(), st.integers())
def test_options_make_sense_or_are_usage_errors(strength, tile, quality):
    try:
        options, save = DenoiseOptions(strength=strength, tile=tile), SaveOptions(quality)
    except UsageError:
        return
    assert 0 <= options.strength <= 1
    assert options.tile == 0 or (options.tile >= 192 and options.tile % 8 == 0)
    assert 1 <= save.quality <= 100


@given(st.from_regex(r"[0-9.smh ]{0,12}", fullmatch=True) | st.text(max_size=12))
@example("9" * 400)
@example("9" * 400 + "h")
@example("1h30")
def test_a_duration_is_a_finite_time_or_a_usage_error(text):
    try:
        seconds = parse_duration(text)
    except typer.BadParameter:
        return
    assert 0 <= seconds < math.inf
    assert re.fullmatch(r"\d+:\d\d:\d\d", format_duration(seconds))


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours, minutes, seconds):
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize("name", ["meta", "hpu", "privateuseone", "", "cuda:-1", "cuda:" + "9" * 30, "\0", "cpu0", "É"])
def test_a_device_that_is_not_there_is_a_device_error(name):
    with pytest.raises(DeviceError):
        pick_device(name)


@pytest.mark.parametrize("threads", ["0", "-1", "1.5", "four", "²", "1025", "9" * 30, "9" * 5000])
def test_a_number_of_threads_that_cannot_be_is_a_usage_error(monkeypatch, threads):
    monkeypatch.setenv("MDRN_THREADS", threads)
    with pytest.raises(UsageError) as caught:
        limit_threads()
    assert len(caught.value.message) < 120


@given(st.text())
@example("a\nb\x1b[31m\u202e\udcff")
def test_what_is_printed_is_one_line_that_any_terminal_can_show(text):
    shown = printable(text)
    assert re.sub(SPACES, " ", shown).isprintable()
    shown.encode()
    assert (shown == text) == re.sub(SPACES, " ", text).isprintable()


def test_errors_have_the_exit_codes_of_the_design():
    codes = {kind.__name__: kind.exit_code for kind in (MdrnError, UsageError, WeightsError, DeviceError)}
    assert codes == {"MdrnError": 1, "UsageError": 2, "WeightsError": 5, "DeviceError": 6}
