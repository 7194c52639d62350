"""Benchmark sets: recognised by content, fetched once, run without truth."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, rounded, run_mdrn
from PIL import Image
from server import Site, serving
from typer.testing import CliRunner

from mdrn_cli import datasets
from mdrn_cli.cache import Cache, Item
from mdrn_cli.cli import app
from mdrn_cli.datasets import BenchmarkSet, benchmark_sets, find_set, open_dataset
from mdrn_cli.errors import FetchError, UsageError


@pytest.fixture
def small_set(tmp_path, photo, monkeypatch) -> tuple[BenchmarkSet, dict[str, bytes]]:
    """A set of three files that takes the place of Set12, and their content."""
    contents = {}
    for k in range(3):
        path = tmp_path / "source.png"
        Image.fromarray(photo[k * 50 : k * 50 + 40, :60]).save(path)
        contents[f"{k:02d}.png"] = path.read_bytes()
    path.unlink()
    items = tuple(
        Item(name, hashlib.sha256(content).hexdigest(), len(content), (), "CC0") for name, content in contents.items()
    )
    known = BenchmarkSet("Set12", "gray", True, "some/where", "CC0", items)
    monkeypatch.setattr(datasets, "benchmark_sets", lambda: {"Set12": known})
    return known, contents


def test_the_index_names_every_file_of_every_set():
    known = benchmark_sets()
    sizes = {name: len(entry.items) for name, entry in known.items()}
    assert sizes == {
        "Set12": 12,
        "BSD68": 68,
        "CBSD68": 68,
        "Kodak24": 24,
        "McMaster": 18,
        "RNI6": 6,
        "RNI15": 15,
        "Urban100": 100,
    }
    for entry in known.values():
        assert entry.licence
        for item in entry.items:
            assert "/" not in item.name
            assert item.sources[0].startswith("https://")
            assert entry.source.split("/")[2] in item.sources[0], "the commit is pinned"
    assert not known["RNI6"].clean
    assert known["Urban100"].color == "both"


def test_a_set_is_recognised_by_content_under_any_name(small_set, tmp_path):
    known, contents = small_set
    folder = tmp_path / "data" / "test" / "my pictures"
    folder.mkdir(parents=True)
    for k, content in enumerate(contents.values()):
        (folder / f"renamed-{k}.png").write_bytes(content)
    (folder / "notes.txt").write_text("more beside")
    found = find_set(known, tmp_path / "data")
    assert (found.state, found.missing) == ("on disk", ())
    assert [path.read_bytes() for path in found.files] == list(contents.values())
    for opened in (open_dataset("set12", tmp_path / "data"), open_dataset(str(folder))):
        assert (opened.name, opened.color, opened.verified) == ("Set12", "gray", True)


def test_a_folder_of_the_name_with_other_content_is_used_but_not_passed_off(small_set, tmp_path):
    known, contents = small_set
    folder = tmp_path / "data" / "Set12"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    Image.new("L", (60, 40)).save(folder / "00.png")
    opened = open_dataset("Set12", tmp_path / "data")
    assert (opened.verified, len(opened.files)) == (False, 3)
    assert find_set(known, tmp_path / "data").state == "on disk, other files"
    assert open_dataset(str(folder)).verified is None


def test_a_whole_cache_comes_before_a_folder_of_the_name_with_other_content(small_set, tmp_path):
    known, contents = small_set
    folder = tmp_path / "data" / "Set12"
    folder.mkdir(parents=True)
    Image.new("L", (60, 40)).save(folder / "00.png")
    for item in known.items:
        (tmp_path / item.name).write_bytes(contents[item.name])
        Cache().store(item, tmp_path / item.name)
    opened = open_dataset("Set12", tmp_path / "data")
    assert (opened.verified, [path.read_bytes() for path in opened.files]) == (True, list(contents.values()))
    assert [opened.path_of(path).as_posix() for path in opened.files] == list(contents), (
        "names, not folders of the cache"
    )
    verified = CliRunner().invoke(app, ["data", "verify", "Set12", "--data", str(tmp_path / "data")])
    assert (verified.exit_code, verified.stdout.split("\t")[1]) == (0, "cached")


def test_what_cannot_be_read_beside_a_set_is_passed_over(small_set, tmp_path, request):
    known, contents = small_set
    for folder in ("lost+found", "listed", "Set12", "pictures"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    pictures, listed = tmp_path / "data" / "pictures", tmp_path / "data" / "listed"
    for name, content in contents.items():
        (pictures / name).write_bytes(content)
    pictures.chmod(0o777)
    (pictures / "none.png").symlink_to("nowhere")
    for file in (pictures / "locked.png", listed / "00.png"):
        file.write_bytes(contents["00.png"])
    closed = {
        pictures / "locked.png": 0,
        listed: 0o744,
        tmp_path / "data" / "lost+found": 0,
        tmp_path / "data" / "Set12": 0,
    }
    for path, mode in closed.items():
        path.chmod(mode)
    request.addfinalizer(lambda: [path.chmod(0o700) for path in closed])
    request.getfixturevalue("_unprivileged")
    found = find_set(known, Path("data"))
    assert (found.state, [path.name for path in found.files]) == ("on disk", list(contents))
    (pictures.relative_to(tmp_path) / "00.png").unlink()
    assert find_set(known, Path("data")).state == "missing"
    assert open_dataset("data/pictures").verified is None


def test_a_folder_of_sets_that_is_not_there_is_refused(small_set, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no folder"):
        find_set(small_set[0], tmp_path / "none")
    monkeypatch.setenv("MDRN_DATA", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no folder"):
        open_dataset("Set12")
    monkeypatch.setenv("MDRN_DATA", "")
    assert find_set(small_set[0]).state == "missing"


def test_bench_warns_of_a_folder_that_is_not_the_public_set(tmp_path, photo, tiny_weights):
    (tmp_path / "Set12").mkdir()
    Image.fromarray(photo[:40, :40]).save(tmp_path / "Set12" / "a.png")
    done = run_mdrn("bench", "Set12", "--data", tmp_path, "--sigma", 50, "--model", tiny_weights())
    assert done.returncode == 0
    assert "not byte for byte" in done.stderr


def test_a_set_is_fetched_once_then_taken_from_the_cache(small_set, monkeypatch):
    known, contents = small_set
    monkeypatch.delenv("MDRN_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "*")
    with serving(Site({f"/{name}": content for name, content in contents.items()})) as site:
        items = tuple(replace(item, sources=(f"{site.base}/{item.name}",)) for item in known.items)
        monkeypatch.setattr(datasets, "benchmark_sets", lambda: {"Set12": replace(known, items=items)})
        seen = []
        opened = open_dataset("Set12", on_bytes=seen.append)
        assert sum(seen) == known.bytes
        assert [path.name for path in opened.files] == list(contents)
        assert opened.verified
        site.requests.clear()
        open_dataset("Set12")
        assert site.requests == []
        opened.files[1].write_bytes(b"damaged")
        assert find_set(known).state == "partly cached"
        open_dataset("Set12")
        assert [path for path, _ in site.requests] == ["/01.png"]
    monkeypatch.setenv("MDRN_OFFLINE", "1")
    assert open_dataset("Set12").verified
    assert find_set(known).state == "cached"


def test_offline_says_what_is_missing_and_how_to_bring_it(small_set):
    with pytest.raises(FetchError, match="3 of 3 files of Set12") as caught:
        open_dataset(small_set[0].name)
    assert "MDRN_DATA" in caught.value.hint


def test_data_commands(tmp_path):
    listed = json.loads(run_mdrn("data", "list", "--json").stdout)["sets"]
    assert {entry["state"] for entry in listed} == {"missing"}
    assert all(entry["source"] and entry["licence"] for entry in listed)
    dry = run_mdrn("data", "fetch", "Set12", "--dry-run").stdout.splitlines()
    assert len(dry) == 12
    assert dry[0].split("\t")[:2] == ["01.png", "38267"]
    assert run_mdrn("data", "fetch", "Set12", "--offline").returncode == 5
    measured = run_mdrn("weights", "measure", "mdrn-2b-gray-25", "--offline", env={"MDRN_OFFLINE": ""})
    assert (measured.returncode, "offline" in measured.stderr) == (5, True)
    assert run_mdrn("data", "verify", "Set12").returncode == 5
    assert run_mdrn("data", "verify").returncode == 0
    assert run_mdrn("data", "verify", "Set13").returncode == 2
    assert not (tmp_path / "home").exists()


def test_a_set_that_is_none_is_named_as_it_was_given():
    done = CliRunner().invoke(app, ["data", "verify", "Nope"])
    assert done.exception.message == "no benchmark set 'Nope'"


def test_one_set_that_cannot_be_had_keeps_no_other(monkeypatch):
    brought = []

    def fetch_set(known, _items, _on_bytes):
        if known.name in ("BSD68", "Urban100"):
            raise FetchError(f"cannot fetch {known.name}")
        brought.append(known.name)

    monkeypatch.setattr(datasets, "fetch_set", fetch_set)
    done = CliRunner().invoke(app, ["data", "fetch", "set12", "Urban100", "BSD68", "SET12", "Kodak24"])
    assert isinstance(done.exception, FetchError)
    assert done.exception.message == "cannot fetch Urban100"
    assert "2 in the cache, 2 failed, 0 on disk elsewhere" in done.output
    assert "error: cannot fetch BSD68" in done.output
    assert brought == ["Set12", "Kodak24"]


def test_data_list_says_where_a_set_lies(small_set, tmp_path):
    known, contents = small_set
    assert CliRunner().invoke(app, ["data", "list"]).stdout.splitlines()[0].endswith(", missing")
    for item in known.items:
        (tmp_path / item.name).write_bytes(contents[item.name])
        Cache().store(item, tmp_path / item.name)
    listed = json.loads(CliRunner().invoke(app, ["data", "list", "--json"]).stdout)["sets"]
    assert [(entry["state"], entry["path"]) for entry in listed] == [("cached", str(Cache().root / "files"))]
    listed = json.loads(CliRunner().invoke(app, ["data", "list", "--data", str(tmp_path), "--json"]).stdout)["sets"]
    assert [(entry["state"], entry["path"]) for entry in listed] == [("on disk", str(tmp_path))]


@pytest.mark.shared
def test_the_shared_sets_are_the_public_ones():
    for name in ("Set12", "BSD68", "CBSD68", "Kodak24", "RNI6", "RNI15"):
        assert find_set(benchmark_sets()[name], SHARED).state == "on disk"


@pytest.fixture
def real_noise(tmp_path, photo):
    """A set without truth: two photographs with noise in them."""
    folder = tmp_path / "sets" / "RNI6"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(2):
        clean = np.asarray(Image.fromarray(photo[200:300, 200 + k : 300 + k]).convert("L"), float)
        noisy = rounded(clean + rng.normal(0, 50, clean.shape))
        Image.fromarray(noisy).save(folder / f"{k}.png")
    return tmp_path / "sets"


def test_sets_without_truth_report_noise_before_and_after_and_pictures(real_noise, tmp_path):
    arguments = ["bench", "RNI6", "--data", real_noise]
    without = run_mdrn(*arguments)
    assert without.returncode == 2
    assert "--sigma" in without.stderr
    done = run_mdrn(*arguments, "--sigma", 50, "--save", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["psnr"] is None
    assert result["noise_before"] > 30
    assert result["noise_after"] < 10
    assert sorted(p.name for p in (tmp_path / "out" / "sigma-50").iterdir()) == ["0.png", "1.png"]
    table = run_mdrn(*arguments, "--sigma", 50).stdout
    assert "before" in table
    assert "PSNR" not in table


def test_a_folder_of_gray_images_is_measured_as_gray(tmp_path, photo):
    for number, mode in enumerate(("L", "LA", "I;16", "1")):
        image = Image.fromarray(photo[:16, :16]).convert("L")
        (image.convert("I").point(lambda value: 257 * value) if mode == "I;16" else image).convert(mode).save(
            tmp_path / f"{number}.png"
        )
    assert open_dataset(str(tmp_path)).color == "gray"
    assert open_dataset(str(tmp_path), color="color").color == "color"
    Image.fromarray(photo[:16, :16]).save(tmp_path / "one.png")
    assert open_dataset(str(tmp_path)).color == "color"
    (tmp_path / "one.png").write_bytes(b"none")
    assert open_dataset(str(tmp_path)).color == "color"
