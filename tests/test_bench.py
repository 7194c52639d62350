"""`mdrn bench`: DESIGN section 3, beside the published figures."""

import csv
import io
import json
import math

import numpy as np
import pytest
from conftest import run_mdrn
from PIL import Image

from mdrn_cli.bench import measure
from mdrn_cli.datasets import open_dataset, published_psnr
from mdrn_cli.errors import FetchError, InputError, UsageError
from mdrn_cli.metrics import psnr, to_uint8
from mdrn_cli.noise import add_noise


@pytest.fixture
def sets(tmp_path, photo):
    """A folder that looks like the benchmark sets, with two small images in each."""
    for name in ("Set12", "Kodak24"):
        (tmp_path / name).mkdir()
        for k in range(2):
            Image.fromarray(photo[k * 64 : k * 64 + 48, :64]).save(tmp_path / name / f"{k}.png")
    return tmp_path


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
    (sets / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        open_dataset(str(sets / "empty"))


def test_json_is_one_object(sets, tiny_weights):
    done = run_mdrn("bench", "Set12", "--data", sets, "--sigma", 50, "--model", tiny_weights(), "--json")
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    assert (about["schema"], about["dataset"], about["color"]) == ("mdrn.bench/1", "Set12", "gray")
    (result,) = about["results"]
    assert result["published"]["MDRN"] == 27.56
    assert [row["file"] for row in result["images"]] == ["0.png", "1.png"]
    assert result["psnr"] == pytest.approx(np.mean([row["psnr"] for row in result["images"]]), abs=1e-3)
    assert {"sigma", "model", "ensemble", "ssim", "noisy_psnr", "seconds", "megapixels_per_second"} <= result.keys()


def test_csv_and_markdown_and_table(sets, tiny_weights):
    arguments = ["bench", "Set12", "--data", sets, "--sigma", 50, "--model", tiny_weights()]
    (row,) = csv.DictReader(io.StringIO(run_mdrn(*arguments, "--csv").stdout))
    assert row["MDRN"] == "27.56"
    assert float(row["ours - MDRN"]) == pytest.approx(float(row["PSNR"]) - 27.56, abs=0.011)
    markdown = run_mdrn(*arguments, "--markdown").stdout.splitlines()
    assert markdown[1].startswith("| --- |")
    table = run_mdrn(*arguments).stdout
    assert "27.56" in table
    assert row["PSNR"] in table


def test_errors(sets, tiny_weights):
    assert run_mdrn("bench", "Nowhere", "--data", sets).returncode == 2
    assert run_mdrn("bench", "BSD68", "--data", sets).returncode == 5
    both = run_mdrn("bench", "Set12", "--data", sets, "--json", "--csv")
    assert both.returncode == 2
    unavailable = run_mdrn("bench", "Set12", "--data", sets, "--model", "mdrn-9b")
    assert unavailable.returncode == 5
    (sets / "Set12" / "2.png").write_text("damaged")
    bad = run_mdrn("bench", "Set12", "--data", sets, "--sigma", 50, "--model", tiny_weights())
    assert bad.returncode == 4
    assert "2.png" in bad.stderr


def test_default_levels_are_the_paper_s_and_a_stretched_network_is_named_so(sets, tiny_weights):
    done = run_mdrn("bench", "Set12", "--data", sets, "--model", tiny_weights(sigma=15.0), "--json")
    assert done.returncode == 0, done.stderr
    models = {result["sigma"]: result["model"] for result in json.loads(done.stdout)["results"]}
    assert list(models) == [15.0, 25.0, 50.0]
    assert "stretched" not in models[15.0]
    assert "trained at 15, stretched" in models[50.0]
