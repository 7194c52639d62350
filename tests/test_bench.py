"""`mdrn bench`: the protocol of the tables, beside the published figures."""

import csv
import io
import json
import math
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_mdrn, set_of, tiny_checkpoint
from PIL import ExifTags, Image, ImageCms
from rich.console import Console
from typer.testing import CliRunner

from mdrn_cli import bench as pipeline
from mdrn_cli import datasets
from mdrn_cli.bench import PUBLIC_PIXELS, ImageRow, Result, measure, reference_of, tile_by_memory
from mdrn_cli.checkpoint import save_checkpoint
from mdrn_cli.cli import app
from mdrn_cli.cli.benchresults import show
from mdrn_cli.cli.boundary import run
from mdrn_cli.datasets import open_dataset, published_psnr
from mdrn_cli.denoisers import Denoiser
from mdrn_cli.engine import Engine
from mdrn_cli.errors import FetchError, InputError, MdrnError, UsageError
from mdrn_cli.manifest import load_manifest
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise
from mdrn_cli.paths import sha256_of


@pytest.fixture
def sets(tmp_path, photo):
    """A folder that looks like the benchmark sets, with two small images in each."""
    for name in ("Set12", "Kodak24"):
        (tmp_path / name).mkdir()
        for k in range(2):
            Image.fromarray(photo[k * 64 : k * 64 + 48, :64]).save(tmp_path / name / f"{k}.png")
    return tmp_path


@pytest.fixture
def public(sets, monkeypatch):
    """These are taken for the public sets."""
    known = {"Set12": set_of(sets / "Set12", "Set12"), "Kodak24": set_of(sets / "Kodak24", "Kodak24", "color")}
    monkeypatch.setattr(datasets, "benchmark_sets", lambda: known)
    return sets


def bench(*arguments):
    """What `mdrn bench` prints, in this process."""
    done = CliRunner().invoke(app, ["bench", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_figures_follow_the_protocol(sets):
    dataset = open_dataset("set12", sets)
    result = measure(dataset, 25.0, "halved", lambda x: x * 0.5)
    assert (result.dataset, result.color, len(result.images)) == ("Set12", "gray", 2)
    expected = []
    for file in dataset.files:
        clean = np.asarray(Image.open(file).convert("L"))[:, :, None]
        expected.append(psnr(to_uint8(add_noise(clean, 25) * np.float32(0.5)), clean))
    assert [row.psnr for row in result.images] == pytest.approx(expected)
    assert result.mean("psnr") == pytest.approx(np.mean(expected))
    assert result.mean("noisy_psnr") == pytest.approx(20 * math.log10(255 / 25), abs=0.4)
    assert [row.megapixels for row in result.images] == [0.003072] * 2
    assert result.megapixels_per_second == pytest.approx(0.006144 / sum(row.seconds for row in result.images))


def test_an_image_restored_exactly_counts_in_no_mean_and_is_told(tmp_path, photo, monkeypatch):
    folder = tmp_path / "some"
    folder.mkdir()
    Image.fromarray(photo[:40, :40, 0]).save(folder / "a.png")
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(folder / "black.png")

    def restored(noisy):
        return noisy if noisy.shape[1] == 40 else noisy * 0

    result = measure(open_dataset(str(folder)), 25.0, "none", restored)
    rows = {row.file: row.psnr for row in result.images}
    assert rows["black.png"] == math.inf
    assert (result.mean("psnr"), result.exact) == (rows["a.png"], 1)
    monkeypatch.setattr(pipeline, "measure", lambda *_: result)
    done = CliRunner().invoke(app, ["bench", str(folder), "--sigma", "25", "--sigma", "25", "--color", "Gray"])
    assert done.output.count("1 of 2 images are restored exactly at sigma 25: of these there is no PSNR") == 1
    assert "inf" not in done.output


def test_published_figures_are_those_of_the_paper():
    assert published_psnr("Set12", "gray", 25)["MDRN"] == 30.67
    assert published_psnr("Set12", "gray", 50)["MDRN (2B) + HADS"] == 27.43
    assert published_psnr("Kodak24", "color", 70)["MDRN+"] == 28.01
    assert published_psnr("Set12", "gray", 33) == {}
    assert published_psnr("Set12", "color", 50) == {}


def test_sets_are_found_by_name_and_folders_by_path(sets, monkeypatch):
    assert open_dataset("KODAK24", sets).color == "color"
    assert open_dataset("Kodak24", sets, "gray").color == "gray"
    folder = open_dataset(str(sets / "Set12"), None)
    assert (folder.name, folder.color) == ("Set12", "color")
    monkeypatch.setenv("MDRN_DATA", str(sets))
    assert len(open_dataset("Set12").files) == 2


def test_what_cannot_be_found_is_said(sets):
    for name, data in (("Set12", None), ("BSD68", sets)):
        with pytest.raises(FetchError, match="offline"):
            open_dataset(name, data)
    with pytest.raises(UsageError, match="no benchmark set"):
        open_dataset("Set13", sets)
    with pytest.raises(UsageError, match="is a file"):
        open_dataset(str(next((sets / "Set12").iterdir())))
    (sets / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        open_dataset(str(sets / "empty"))


def test_json_is_one_object(public, tiny_weights):
    about = json.loads(bench("Set12", "--data", public, "--sigma", 50, "--model", tiny_weights(), "--json"))
    assert (about["schema"], about["dataset"], about["color"]) == ("mdrn.bench/1", "Set12", "gray")
    (result,) = about["results"]
    assert result["published"]["MDRN"] == 27.56
    assert [row["file"] for row in result["images"]] == ["0.png", "1.png"]
    assert result["psnr"] == pytest.approx(np.mean([row["psnr"] for row in result["images"]]), abs=1e-3)
    assert {"sigma", "model", "ensemble", "ssim", "noisy_psnr", "seconds", "megapixels_per_second"} <= result.keys()


def test_means_are_of_the_images_that_have_the_figure(tmp_path, photo, tiny_weights):
    for side in (9, 48):
        Image.fromarray(photo[:side, :side]).save(tmp_path / f"{side}.png")
    arguments = [tmp_path, "--sigma", 20, "--color", "gray", "--model", tiny_weights()]
    (result,) = json.loads(bench(*arguments, "--json"))["results"]
    large, small = result["images"]
    assert (small["ssim"], result["ssim"]) == (None, large["ssim"])
    assert (result["model"], result["trained_sigma"]) == (str(arguments[-1]), 50)
    (tmp_path / "48.png").unlink()
    (row,) = csv.DictReader(io.StringIO(bench(*arguments, "--csv")))
    assert (row["SSIM"], row["model"], row["trained at"]) == ("", str(arguments[-1]), "50")


def test_csv_and_markdown_and_table(public, tiny_weights):
    arguments = ["Set12", "--data", public, "--sigma", 50, "--model", tiny_weights(blocks=8)]
    (row,) = csv.DictReader(io.StringIO(bench(*arguments, "--csv")))
    assert (row["set"], row["MDRN"], row["color"], row["ensemble"]) == ("Set12", "27.56", "gray", "false")
    assert float(row["ours - MDRN"]) == pytest.approx(float(row["PSNR"]) - 27.56, abs=0.011)
    markdown = bench(*arguments, "--markdown").splitlines()
    assert markdown[1].startswith("| --- |")
    table = bench(*arguments)
    assert "27.56" in table
    assert len(row["PSNR"].partition(".")[2]) == 4
    assert f"{float(row['PSNR']):.2f}" in table


def test_names_of_folders_are_shown_as_they_are_and_do_nothing(tmp_path, photo, tiny_weights):
    folder = tmp_path / "evil\033[31m[old]"
    folder.mkdir()
    Image.fromarray(photo[:40, :40]).save(folder / "a.png")
    table = bench(folder, "--color", "gray", "--sigma", 50, "--model", tiny_weights())
    assert "\033" not in table
    assert "[old]" in table


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("how", ["--json", "--csv", "--markdown", None])
def test_figures_that_cannot_be_written_are_an_error_of_its_own(public, tiny_weights, how, monkeypatch, capsys):
    arguments = ["bench", "Set12", "--data", public, "--sigma", 50, "--model", tiny_weights(), *filter(None, [how])]
    with suppress(OSError), Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["mdrn", *map(str, arguments)])
        patch.setattr(sys, "stdout", full)
        assert run(app) == 1
    assert "cannot write stdout (No space left on device)" in capsys.readouterr().err


def test_published_figures_are_shown_of_the_public_images_alone(public, photo, tiny_weights):
    arguments = ["--color", "gray", "--sigma", 50, "--model", tiny_weights(), "--json"]
    (public / "Set12").rename(public / "other name")
    (result,) = json.loads(bench(public / "other name", *arguments))["results"]
    assert result["published"]["MDRN"] == 27.56, "a set is known by its content"
    (public / "Set12").mkdir()
    Image.fromarray(photo[:40, :40]).save(public / "Set12" / "mine.png")
    (result,) = json.loads(bench(public / "Set12", *arguments))["results"]
    assert result["published"] == {}, "and not by its name"
    Image.fromarray(photo[:40, :40]).save(public / "other name" / "mine.png")
    (result,) = json.loads(bench(public / "other name", *arguments))["results"]
    assert (result["published"], len(result["images"])) == ({}, 3), "a folder with more in it is no set"


def test_what_is_restored_exactly_is_held_against_nothing():
    exact = ImageRow("a.png", math.inf, 1.0, 20.0, 25.0, 0.0, 1.0, 0.1)
    result = Result("Set12", "gray", 25.0, "any", False, (exact,), {"MDRN": 30.67}, reference="MDRN")
    assert result.gap is None


@pytest.mark.parametrize(
    ("blocks", "how", "reference", "gap"),
    [(2, [], "MDRN (2B)", 27.35), (2, ["--ensemble"], None, None), (1, [], None, None)],
)
def test_a_network_is_held_against_the_papers_of_its_size(public, tiny_weights, blocks, how, reference, gap):
    arguments = ["Set12", "--data", public, "--sigma", 50, "--model", tiny_weights(blocks=blocks), *how]
    (result,) = json.loads(bench(*arguments, "--json"))["results"]
    assert result["reference"] == reference
    (row,) = csv.DictReader(io.StringIO(bench(*arguments, "--csv")))
    assert [name for name in row if name.startswith("ours")] == ([f"ours - {reference}"] if reference else [])
    if reference:
        assert float(row[f"ours - {reference}"]) == pytest.approx(float(row["PSNR"]) - gap, abs=0.011)


def test_the_best_of_two_blocks_is_distilled_and_held_against_that(public):
    arguments = ["Set12", "--data", public, "--sigma", 15, "--sigma", 50, "--model", "mdrn-2b"]
    rows = list(csv.DictReader(io.StringIO(bench(*arguments, "--csv"))))
    name = "ours - MDRN (2B) + HADS"
    assert [key for key in rows[0] if key.startswith("ours")] == [name]
    for row, published in zip(rows, (32.96, 27.43), strict=True):
        assert float(row[name]) == pytest.approx(float(row["PSNR"]) - published, abs=0.011)


def test_each_noise_level_is_held_against_a_reference_of_its_own(capsys):
    """At one the best may be distilled, at another none such there."""
    image = ImageRow("a.png", 27.0, 0.9, 20.0, 25.0, 0.0, 1.0, 0.1)
    published = {"MDRN (2B) + HADS": 32.96, "MDRN (2B)": 27.35}
    names = [f"ours - {reference}" for reference in published]
    results = [
        Result("Set12", "gray", level, "any", False, (image,), published, reference=reference)
        for level, reference in zip((15.0, 50.0), published, strict=True)
    ]
    show(results, as_json=False, as_csv=True, as_markdown=False)
    first, second = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [name for name in first if name.startswith("ours")] == names
    gaps = [[row[name] for name in names] for row in (first, second)]
    assert (gaps[0][1], gaps[1][0]) == ("", "")
    assert float(gaps[0][0]) == pytest.approx(27.0 - 32.96, abs=0.011)
    assert float(gaps[1][1]) == pytest.approx(27.0 - 27.35, abs=0.011)


def test_a_distilled_network_that_has_no_record_is_known_by_its_run(public, tmp_path):
    made = tiny_checkpoint(blocks=2)
    for mode, reference in (("hads", "MDRN (2B) + HADS"), (None, "MDRN (2B)")):
        file = tmp_path / f"{mode}.safetensors"
        record = {"distillation": {"mode": mode} if mode else None}
        save_checkpoint(file, replace(made, record=record), torch.float32)
        about = json.loads(bench("Set12", "--data", public, "--sigma", 50, "--model", file, "--json"))
        assert about["results"][0]["reference"] == reference


def test_a_network_that_gives_no_numbers_gets_no_figure(sets, tmp_path):
    broken = tiny_checkpoint()
    for tensor in broken.state.values():
        tensor.fill_(3e38)
    save_checkpoint(tmp_path / "w.safetensors", broken, torch.float32)
    done = run_mdrn("bench", sets / "Set12", "--color", "gray", "--sigma", 50, "--model", tmp_path / "w.safetensors")
    assert done.returncode == 1
    assert "values that are not finite" in done.stderr
    assert "Warning" not in done.stderr


def test_gray_images_measured_in_color_are_told_of(tmp_path, photo, tiny_weights):
    (tmp_path / "mixed").mkdir()
    Image.fromarray(photo[:32, :32]).save(tmp_path / "mixed" / "a.png")
    Image.fromarray(photo[:32, :32, 1]).save(tmp_path / "mixed" / "b.png")
    how = ["bench", tmp_path / "mixed", "--sigma", 50, "--model"]
    told = "1 of 2 images are gray, and measured in color"
    assert told in run_mdrn(*how, tiny_weights("color")).stderr
    assert told not in run_mdrn(*how, tiny_weights("gray"), "--color", "gray").stderr


@pytest.mark.parametrize(
    ("network", "ensemble", "reference"),
    [
        (("gray", 2, 50.0, "hads"), False, "MDRN (2B) + HADS"),
        (("gray", 2, 50.0, "hads"), True, None),
        (("gray", 8, 50.0, "hmds"), False, "MDRN + HMDS (25)"),
        (("color", 8, 70.0, "hmds"), False, "MDRN + HMDS (50)"),
        (("color", 8, 70.0, None), False, "MDRN"),
        (("gray", 2, 50.0, "hmds"), False, None),
        (("gray", 8, 50.0, "hads"), False, None),
        (("color", 8, 50.0, "hmds"), False, None),  # of that level the paper has none
        (("color", 8, 70.0, "hmds"), True, "MDRN+"),
        (("color", 8, 15.0, None, "camera"), False, None),
    ],
)
def test_networks_are_held_against_the_papers(network, ensemble, reference):
    color, blocks, sigma, distilled, *noise = network
    engine = Engine(tiny_checkpoint(color, sigma, blocks=blocks), "cpu", "float32")
    assert reference_of(Denoiser(engine, sigma, sigma, "any", "", distilled, *noise), ensemble) == reference


def test_what_is_averaged_over_eight_orientations_is_told_to_be(capsys):
    image = ImageRow("a.png", 28.0, 0.9, 20.0, 70.0, 0.0, 1.0, 0.1)
    results = [Result("some", "color", 50.0, "any", ensemble, (image,), {}) for ensemble in (False, True)]
    show(results, as_json=False, as_csv=True, as_markdown=False)
    plain, mean = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert [(row["model"], row["ensemble"]) for row in (plain, mean)] == [("any", "false"), ("any", "true")]
    show(results, as_json=False, as_csv=False, as_markdown=True)
    assert "| any+ |" in capsys.readouterr().out
    show(results, as_json=False, as_csv=False, as_markdown=True)
    assert [row.split(" | ")[1] for row in capsys.readouterr().out.splitlines()[2:4]] == ["any", "any+"]
    show(results, as_json=False, as_csv=False, as_markdown=False)
    assert "any, any x8" in capsys.readouterr().out


def test_published_figures_of_hmds_are_shown(capsys):
    image = ImageRow("a.png", 28.0, 0.9, 20.0, 70.0, 0.0, 1.0, 0.1)
    published = published_psnr("Kodak24", "color", 70.0)
    held = Result("Kodak24", "color", 70.0, "any", False, (image,), published, reference="MDRN + HMDS (50)")
    show([held], as_json=False, as_csv=True, as_markdown=False)
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["MDRN + HMDS (50)"], row["ours - MDRN + HMDS (50)"]) == ("28.00", "+0.0000")


def test_a_set_that_lies_here_is_found_without_being_told_where(public, tiny_weights, monkeypatch):
    monkeypatch.chdir(public)
    arguments = ["Set12", "--sigma", 50, "--model", tiny_weights(), "--json"]
    about = json.loads(bench(*arguments))
    assert (about["verified"], about["color"]) == (True, "gray")
    next((public / "Set12").iterdir()).unlink()
    about = json.loads(bench(*arguments))
    assert (about["verified"], len(about["results"][0]["images"])) == (False, 1)


def test_the_mean_over_orientations_is_held_against_its_own_kind(public, tiny_weights):
    arguments = ["Set12", "--data", public, "--sigma", 50, "--model", tiny_weights(blocks=8), "--ensemble"]
    (row,) = csv.DictReader(io.StringIO(bench(*arguments, "--csv")))
    assert float(row["ours - MDRN+"]) == pytest.approx(float(row["PSNR"]) - 27.60, abs=0.011)
    assert "ours - MDRN" not in row
    assert "ours - MDRN+" in bench(*arguments)


def test_saved_pictures_are_shown_as_their_sources_are(tmp_path, photo, tiny_weights):
    """Turned by the same EXIF, in the same colors."""
    (tmp_path / "turned").mkdir()
    exif, profile = Image.Exif(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(photo[:40, :48]).save(tmp_path / "turned" / "a.jpg", exif=exif, icc_profile=profile)
    arguments = [tmp_path / "turned", "--sigma", 50, "--model", tiny_weights("color"), "--save", tmp_path / "out"]
    assert run_mdrn("bench", *arguments).returncode == 0
    with Image.open(tmp_path / "out" / "sigma-50" / "a.png") as saved:
        assert (saved.size, saved.getexif()[ExifTags.Base.Orientation]) == ((48, 40), 6)
        assert saved.info["icc_profile"] == profile
    compared = run_mdrn("compare", tmp_path / "turned" / "a.jpg", tmp_path / "out" / "sigma-50" / "a.png")
    assert compared.returncode == 0, compared.stderr


def test_a_folder_that_cannot_be_made_is_told_before_any_work(tmp_path, photo, monkeypatch):
    (tmp_path / "images").mkdir()
    Image.fromarray(photo[:40, :40]).save(tmp_path / "images" / "a.png")
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("mdrn_cli.cli.bench._measure", lambda *_: pytest.fail("something is measured"))
    for folder, kind in ((tmp_path / "file", UsageError), (tmp_path / "file" / "deeper", MdrnError)):
        arguments = ["bench", tmp_path / "images", "--color", "color", "--sigma", 50, "--save", folder]
        assert isinstance(CliRunner().invoke(app, list(map(str, arguments))).exception, kind)
    assert (tmp_path / "file").read_text() == "mine"


def test_pictures_of_one_name_are_told_apart_and_never_replaced_unasked(tmp_path, photo, tiny_weights):
    for k, name in enumerate(("x.png", "a/x.png", "b/x.png")):
        path = tmp_path / "nest" / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photo[k * 64 : k * 64 + 40, :40]).save(path)
    arguments = [
        "bench",
        tmp_path / "nest",
        "--sigma",
        50,
        "--model",
        tiny_weights("color"),
        "--save",
        tmp_path / "out",
    ]
    done = run_mdrn(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert [row["file"] for row in result["images"]] == ["a/x.png", "b/x.png", "x.png"]
    saved = tmp_path / "out" / "sigma-50"
    contents = {path.relative_to(saved).as_posix(): path.read_bytes() for path in saved.rglob("*.png")}
    assert contents.keys() == {"a/x.png", "b/x.png", "x.png"}
    assert len(set(contents.values())) == 3

    (tmp_path / "mine.png").write_text("mine")
    (saved / "b" / "x.png").unlink()
    (saved / "b" / "x.png").symlink_to(tmp_path / "mine.png")
    (saved / "a" / "x.png").unlink()
    again = run_mdrn(*arguments)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    assert not (saved / "a" / "x.png").exists(), "refused before any work"
    assert (saved / "b" / "x.png").read_text() == "mine"
    assert run_mdrn(*arguments, "--overwrite").returncode == 0
    assert (tmp_path / "mine.png").read_bytes() == contents["b/x.png"], "the file behind the link"

    (saved / "x.png").unlink()
    (saved / "x.png").mkdir()
    folder = run_mdrn(*arguments, "--overwrite")
    assert (folder.returncode, "is not a file" in folder.stderr) == (2, True)

    Image.fromarray(photo[:40, :40]).save(tmp_path / "nest" / "x.bmp")
    clash = run_mdrn(*arguments, "--overwrite")
    assert (clash.returncode, "2 results" in clash.stderr) == (2, True)
    idle = run_mdrn(*arguments[:-2], "--overwrite")
    assert (idle.returncode, "--overwrite goes with --save" in idle.stderr) == (2, True)
    within = run_mdrn(*arguments[:-1], tmp_path / "nest" / "out")
    assert (within.returncode, "next time" in within.stderr) == (2, True)
    assert not (tmp_path / "nest" / "out").exists()


def test_what_was_measured_and_how_is_told(sets, tiny_weights):
    (result,) = json.loads(bench("Set12", "--data", sets, "--sigma", 25, "--device", "cpu", "--json"))["results"]
    assert result["sha256"] == {record.name: record.sha256 for record in load_manifest()}[result["model"]]
    assert (result["device"], result["precision"] in ("float32", "bfloat16")) == ("cpu", True)
    file = tiny_weights()
    (result,) = json.loads(bench("Set12", "--data", sets, "--sigma", 50, "--model", file, "--json"))["results"]
    assert result["sha256"] == sha256_of(file)


def test_a_table_too_wide_for_the_terminal_is_several(sets, monkeypatch):
    monkeypatch.setattr("mdrn_cli.cli.benchresults.stdout", Console(width=80))
    levels = (5, 10, 15, 20, 25, 30, 35, 40, 50)
    text = bench("Set12", "--data", sets, *(word for level in levels for word in ("--sigma", level)))
    assert all(f"sigma {level} " in text for level in levels)
    assert text.count("megapixels/s") > 1
    assert "…" not in text


class Room:
    """What a network of 64 features tells of its memory, on a CPU."""

    def __init__(self, bytes_per_pixel):
        self.bytes_per_pixel = bytes_per_pixel

    def tile_memory(self, limit, pictures):
        return limit - 300e6 - pictures


@pytest.mark.parametrize("bytes_per_pixel", [4608, 2304])  # float32, bfloat16
def test_images_are_taken_whole_where_memory_allows(monkeypatch, bytes_per_pixel):
    def side(memory, height, width):
        monkeypatch.setattr(pipeline, "half_of_memory", lambda: memory)
        return tile_by_memory(Room(bytes_per_pixel))(np.empty((3, height, width), np.float32))

    for memory in (0, 2e9, 64e9):
        assert side(memory, 512, 768) == side(memory, 768, 512) == 0
    assert side(8e9, 800, 1200) == 0
    assert side(8e9, 3000, 4000) == 1024
    small = side(1e9, 3000, 4000)
    assert small % 8 == 0
    assert 512 <= small <= math.isqrt(PUBLIC_PIXELS)


def test_large_images_are_measured_in_tiles(sets, tiny_weights, monkeypatch):
    tiles = []

    def denoise(noisy, _function, tile, _ensemble):
        tiles.append(tile)
        return noisy

    monkeypatch.setattr(pipeline, "denoise_pixels", denoise)
    monkeypatch.setattr(pipeline, "half_of_memory", lambda: 0.0)
    arguments = ["Set12", "--data", sets, "--sigma", 50, "--model", tiny_weights()]
    bench(*arguments)
    assert tiles == [0, 0]
    monkeypatch.setattr(pipeline, "PUBLIC_PIXELS", 200 * 200)
    Image.new("L", (240, 180)).save(sets / "Set12" / "0.png")
    for option, expected in (("auto", 200), (0, 0), (192, 192)):
        tiles.clear()
        bench(*arguments, "--tile", option)
        assert tiles[0] == expected
    done = CliRunner().invoke(app, ["bench", *map(str, arguments), "--tile", "some"])
    assert "neither auto nor" in done.exception.message
    for size in ("128", "300"):  # before anything is opened or computed
        tiles.clear()
        done = CliRunner().invoke(app, ["bench", *map(str, arguments), "--tile", size])
        assert isinstance(done.exception, UsageError)
        assert not tiles


def test_errors(sets, tiny_weights):
    assert run_mdrn("bench", "Nowhere", "--data", sets).returncode == 2
    assert run_mdrn("bench", "BSD68", "--data", sets).returncode == 5
    nowhere = run_mdrn("bench", "Set12", "--data", sets / "none")
    assert (nowhere.returncode, f"no folder {sets / 'none'}" in nowhere.stderr) == (2, True)
    both = run_mdrn("bench", "Set12", "--data", sets, "--json", "--csv")
    assert both.returncode == 2
    unavailable = run_mdrn("bench", "Set12", "--data", sets, "--model", "mdrn-9b")
    assert unavailable.returncode == 5
    (sets / "Set12" / "2.png").write_text("damaged")
    bad = run_mdrn("bench", "Set12", "--data", sets, "--sigma", 50, "--model", tiny_weights())
    assert bad.returncode == 4
    assert "2.png" in bad.stderr


def test_a_damaged_image_is_told_of_before_anything_is_measured(sets, photo, tiny_weights, monkeypatch):
    Image.fromarray(photo).save(sets / "Set12" / "9.jpg")
    whole = (sets / "Set12" / "9.jpg").read_bytes()
    (sets / "Set12" / "9.jpg").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(pipeline, "measure", lambda *_: pytest.fail("measured"))
    done = CliRunner().invoke(app, ["bench", "Set12", "--data", str(sets), "--model", str(tiny_weights())])
    assert isinstance(done.exception, InputError)


@pytest.mark.parametrize(
    ("end", "form"),
    [(KeyboardInterrupt(), "--json"), (MdrnError("no more"), "--csv"), (MdrnError("no more"), "--markdown")],
)
def test_what_was_measured_is_shown_when_a_run_ends_early(sets, tiny_weights, monkeypatch, end, form):
    def last(dataset, sigma, *rest):
        if sigma == 50:
            raise end
        return measure(dataset, sigma, *rest)

    monkeypatch.setattr(pipeline, "measure", last)
    done = CliRunner().invoke(app, ["bench", "Set12", "--data", str(sets), "--model", str(tiny_weights()), form])
    assert done.exit_code
    assert "2 of 3 noise levels were measured" in done.stderr
    if form == "--json":
        assert [result["sigma"] for result in json.loads(done.stdout)["results"]] == [15.0, 25.0]
    else:
        assert len(done.stdout.splitlines()) == (4 if form == "--markdown" else 3)


def test_default_levels_are_the_paper_s_and_a_stretched_network_is_named_so(sets, tiny_weights):
    done = run_mdrn("bench", "Set12", "--data", sets, "--model", tiny_weights(sigma=15.0), "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [(result["sigma"], result["trained_sigma"]) for result in results] == [(15, 15), (25, 15), (50, 15)]
    shown = run_mdrn("bench", "Set12", "--data", sets, "--model", tiny_weights(sigma=15.0)).stdout
    assert "".join(shown.split()).count("trainedat15,stretched") == 2


def test_of_images_without_truth_no_protocol_is_stated(public, monkeypatch, tiny_weights):
    real = replace(datasets.benchmark_sets()["Set12"], clean=False)
    monkeypatch.setattr(datasets, "benchmark_sets", lambda: {"Set12": real})
    about = json.loads(bench("Set12", "--data", public, "--sigma", 50, "--model", tiny_weights(), "--json"))
    (result,) = about["results"]
    assert (about["clean"], about["protocol"], result["psnr"]) == (False, None, None)
    assert result["noise_before"] is not None
