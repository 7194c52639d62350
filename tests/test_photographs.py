"""Photographs are read once, into memory or into a map that is shared and reused."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_mdrn
from PIL import Image

from mdrn_cli import photographs
from mdrn_cli.deep import encode_deep_png
from mdrn_cli.errors import InputError, MdrnError
from mdrn_cli.hardware import half_of_memory, memory_to_use
from mdrn_cli.image import read_size, read_uint8
from mdrn_cli.metadata import Metadata
from mdrn_cli.patches import PatchSampler
from mdrn_cli.photographs import PhotoFolder, Reading, each_photograph, read_photographs
from mdrn_cli.restore import DenoiseOptions
from mdrn_cli.tiffwriting import encode_tiff


def pictures(photos: PhotoFolder) -> list[np.ndarray]:
    """Each photograph, uint8 (H, W, C)."""
    ends = np.cumsum([height * width for height, width in photos.shapes])
    parts = np.split(photos.pixels, ends[:-1])
    return [part.reshape(*shape, -1) for part, shape in zip(parts, photos.shapes, strict=True)]


def test_reading_takes_nested_folders_and_lists_what_it_cannot_read(photo_folder):
    (photo_folder / "broken.jpg").write_bytes(b"not an image")
    (photo_folder / "notes.txt").write_text("not even named like one")
    calls = []
    read = read_photographs(photo_folder, "gray", reading=Reading(file=lambda *a: calls.append(a)))
    assert len(read.files) == 4
    assert all(p.shape == (96, 128, 1) and p.dtype == np.uint8 for p in pictures(read))
    assert [path.name for path, _ in read.unreadable] == ["broken.jpg"]
    assert calls[-1] == (5, 5)
    expected = np.asarray(Image.open(read.files[0]).convert("L"))
    assert np.array_equal(pictures(read)[0][:, :, 0], expected)


def deep_file(path: Path, pixels: np.ndarray, depth: str) -> Path:
    """A file of 16 bits or floats that shows 8-bit pixels (H, W, C)."""
    data = pixels.astype(np.uint16) * 257 if depth == "uint16" else (pixels / 255).astype(np.float32)
    encode = encode_deep_png if path.suffix == ".png" else encode_tiff
    path.write_bytes(encode(data, Metadata())[0])
    return path


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("suffix", "depth"), [(".png", "uint16"), (".tif", "uint16"), (".tif", "float32")])
def test_photographs_of_more_than_8_bits_are_what_they_show(tmp_path, photo, channels, suffix, depth):
    gray = np.asarray(Image.fromarray(photo[:40, :60]).convert("L"))[:, :, None]
    colors = gray if channels < 3 else photo[:40, :60]
    pixels = np.dstack([colors, np.full_like(gray, 200)]) if channels in (2, 4) else colors
    file = deep_file(tmp_path / f"deep{suffix}", pixels, depth)
    assert read_size(file) == (60, 40)
    assert np.array_equal(read_uint8(file, "color"), np.broadcast_to(colors, (40, 60, 3)))
    assert np.abs(read_uint8(file, "gray").astype(int) - gray).max() <= (channels > 2)
    plans = []
    read = read_photographs(tmp_path, "color", reading=Reading(planned=lambda *a: plans.append(a)))
    assert (plans, read.unreadable) == ([(1, 40 * 60 * 3, None)], [])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("color", ["gray", "color"])
def test_photographs_of_8_bits_are_what_pillow_converts_them_to(tmp_path, photo, mode, color):
    image = Image.fromarray(photo[:40, :60]).convert(mode)
    for suffix in (".png", ".tif"):
        file = tmp_path / f"plain{suffix}"
        image.save(file)
        with Image.open(file) as opened:
            expected = np.asarray(opened.convert("L" if color == "gray" else "RGB"))
        assert np.array_equal(read_uint8(file, color), expected.reshape(40, 60, -1))


def test_integers_that_are_no_photograph_are_refused_not_clipped(tmp_path):
    Image.fromarray(np.full((40, 60), 70000, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="pixels of type"):
        read_uint8(tmp_path / "a.tif", "gray")


@pytest.mark.parametrize("memory", [0, 1e9])
def test_a_link_to_nothing_is_named_and_skipped(photo_folder, memory):
    (photo_folder / "gone.png").symlink_to(photo_folder / "nowhere.png")
    (photo_folder / "round.png").symlink_to(photo_folder / "round.png")
    read = read_photographs(photo_folder, "gray", memory)
    assert len(read.files) == 4
    assert [path.name for path, _ in read.unreadable] == ["gone.png", "round.png"]


@pytest.mark.parametrize("left", ["", '{"shapes": [[9', "[]", '{"shapes": 5}', '{"shapes": [["a", "b"]]}'])
def test_a_map_whose_index_is_damaged_is_made_anew(photo_folder, left):
    first = read_photographs(photo_folder, "gray", 0)
    first.map.with_suffix(".json").write_text(left)
    again = read_photographs(photo_folder, "gray", 0)
    assert np.array_equal(again.pixels, first.pixels)
    assert again.files == first.files


def test_a_map_that_another_process_removes_is_made_anew(photo_folder, monkeypatch):
    first = read_photographs(photo_folder, "gray", 0)
    before, inner = first.pixels.copy(), np.memmap

    def removed_first(path, *arguments, **options):
        monkeypatch.setattr(np, "memmap", inner)
        path.unlink()
        return inner(path, *arguments, **options)

    monkeypatch.setattr(np, "memmap", removed_first)
    assert np.array_equal(read_photographs(photo_folder, "gray", 0).pixels, before)
    assert np.memmap is inner


def test_a_folder_without_photographs_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no readable image"):
        read_photographs(tmp_path, "gray")
    with pytest.raises(InputError, match="no folder"):
        read_photographs(tmp_path / "none", "gray")


@pytest.mark.parametrize("color", ["gray", "color"])
def test_what_does_not_fit_is_mapped_and_the_same(photo_folder, tmp_path, color):
    (photo_folder / "broken.jpg").write_bytes(b"not an image")
    in_memory, plans, decoded = read_photographs(photo_folder, color), [], []
    reading = Reading(planned=lambda *a: plans.append(a), file=lambda *a: decoded.append(a))
    size = in_memory.pixels.nbytes
    assert read_photographs(photo_folder, color, size, reading).map is None
    mapped = read_photographs(photo_folder, color, size - 1, reading)
    assert mapped.map.is_relative_to(tmp_path / "home")
    assert mapped.map.stat().st_size == size == 4 * 96 * 128 * (1 if color == "gray" else 3)
    assert plans == [(4, size, None), (4, size, mapped.map)], "told before anything is decoded"
    assert len(decoded) == 10
    assert np.array_equal(mapped.pixels, in_memory.pixels)
    assert (mapped.shapes, mapped.files) == (in_memory.shapes, in_memory.files)
    assert mapped.unreadable == in_memory.unreadable

    draws = [
        PatchSampler(photos, 32, torch.device("cpu"), resident).sample(4, torch.Generator().manual_seed(1))
        for photos, resident in ((in_memory, True), (mapped, False))
    ]
    assert torch.equal(*draws)


def test_a_map_is_reused_until_a_file_changes(photo_folder):
    first = read_photographs(photo_folder, "gray", 0)
    decoded = []
    reading = Reading(file=lambda *a: decoded.append(a))
    again = read_photographs(photo_folder, "gray", 0, reading)
    assert (again.map, decoded) == (first.map, [])
    assert np.array_equal(again.pixels, first.pixels)
    assert read_photographs(photo_folder, "color", 0).map != first.map
    with first.map.open("ab") as file:
        file.write(b"x")
    assert np.array_equal(read_photographs(photo_folder, "gray", 0, reading).pixels, again.pixels), "damaged: made anew"
    assert len(decoded) == 4
    Image.new("L", (96, 96)).save(photo_folder / "0.png")
    changed = read_photographs(photo_folder, "gray", 0, reading)
    assert changed.map != first.map
    assert pictures(changed)[changed.files.index(photo_folder / "0.png")].max() == 0


def test_two_at_once_make_one_map(photo_folder):
    decoded, maps = [], []
    reading = Reading(file=lambda *a: decoded.append(a))
    threads = [
        threading.Thread(target=lambda: maps.append(read_photographs(photo_folder, "gray", 0, reading)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 4, "each file once"
    assert len({photos.map for photos in maps}) == 1
    assert all(np.array_equal(photos.pixels, maps[0].pixels) for photos in maps)


def test_a_full_disk_is_said_and_leaves_nothing(photo_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(photographs.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 1000}))
    with pytest.raises(MdrnError, match="too little space") as caught:
        read_photographs(photo_folder, "gray", 0)
    assert "--cache-memory" in caught.value.hint
    assert not [path for path in (tmp_path / "home").rglob("*") if path.suffix in (".bin", ".part", ".json")]


def test_validation_photographs_come_one_at_a_time(photo_folder, tmp_path):
    (photo_folder / "broken.jpg").write_bytes(b"not an image")
    named = []
    photos = each_photograph(photo_folder, "color", lambda *a: named.append(a))
    assert [photo.shape for photo in photos] == [(96, 128, 3)] * 4
    assert [(path.name, "not an image" in reason) for path, reason in named] == [("broken.jpg", True)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no readable image"):
        list(each_photograph(tmp_path / "empty", "gray"))


def test_the_default_is_half_of_the_memory_that_a_container_may_use(monkeypatch, tmp_path):
    limits = tmp_path / "memory.max", tmp_path / "memory" / "memory.limit_in_bytes"
    limits[1].parent.mkdir()
    monkeypatch.setattr("mdrn_cli.hardware._OWN_GROUPS", tmp_path / "none")
    monkeypatch.setattr("mdrn_cli.hardware._GROUPS", tmp_path)
    whole = half_of_memory()
    assert whole == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    for file in limits:
        file.write_text("1000000\n")
        assert half_of_memory() == 500_000
        assert memory_to_use() == DenoiseOptions().memory == 800_000
        file.write_text("max\n" if file == limits[0] else f"{2**63 - 4096}\n")
        assert half_of_memory() == whole
    assert memory_to_use() == min(2 * 2**30, int(1.6 * whole))


@pytest.mark.parametrize("version", ["0::/jobs/7", "4:cpuset,memory:/jobs/7", "4:memory:/jobs/7/../x"])
def test_a_job_of_a_cluster_may_use_no_more_than_the_groups_around_it(monkeypatch, tmp_path, version):
    own, name = tmp_path / "own", "memory.max" if version[0] == "0" else "memory.limit_in_bytes"
    own.write_text(f"9:pids:/elsewhere\n1:name=systemd:/elsewhere\n{version}\n")
    root = tmp_path if version[0] == "0" else tmp_path / "memory"
    (root / "jobs" / "7").mkdir(parents=True)
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / name).write_text("1000")
    monkeypatch.setattr("mdrn_cli.hardware._OWN_GROUPS", own)
    monkeypatch.setattr("mdrn_cli.hardware._GROUPS", tmp_path)
    (root / "jobs" / name).write_text("3000000")
    assert half_of_memory() == 1_500_000
    (root / "jobs" / "7" / name).write_text("2000000")
    assert half_of_memory() == 1_000_000
    (root / name).write_text("500000")
    assert half_of_memory() == 250_000


def test_a_photograph_that_grows_while_others_are_read_is_left_out(photo_folder, monkeypatch):
    sizes = {}

    def of_the_first_read(path):
        sizes[path] = read_size(path)
        if path.name == "2.png":
            Image.new("L", (999, 999)).save(path)
        return sizes[path]

    monkeypatch.setattr("mdrn_cli.photographs.read_size", of_the_first_read)
    read = read_photographs(photo_folder, "gray")
    assert [(path.name, "changed" in reason) for path, reason in read.unreadable] == [("2.png", True)]
    assert len(read.files) == len(sizes) - 1


def test_the_command_says_what_validation_is_not(photo_folder, tmp_path):
    """Photographs that are trained on, and each that is broken once."""
    (photo_folder / "broken.jpg").write_bytes(b"not an image")
    arguments = ["--data", photo_folder, "--val", photo_folder, "--smoke", "--blocks", 1, "--patch-size", 16]
    done = run_mdrn("train", *arguments, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "4 photographs of --data, which are trained on, are validated on" in done.stderr
    assert done.stderr.count("warning: skipped") == 1
    assert done.stderr.count("broken.jpg") == 1


def test_the_command_states_memory_and_what_it_leaves_out(photo_folder, tmp_path):
    Image.new("L", (20, 200)).save(photo_folder / "thin.png")
    (photo_folder / "broken.jpg").write_bytes(b"not an image")
    arguments = ["--data", photo_folder, "--blocks", 1, "--iterations", 1, "--batch-size", 1, "--patch-size", 32]
    done = run_mdrn("train", *arguments, "--cache-memory", "10KB", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "5 photographs, 53152 bytes decoded, mapped from" in done.stderr
    assert done.stderr.count("warning: skipped") == 1
    assert "broken.jpg" in done.stderr
    assert "1 photographs are smaller than a patch of 32 pixels" in done.stderr
    assert done.stderr.index("decoded") < done.stderr.index("1 iteration in")


def test_photographs_to_validate_on_are_not_trained_on(photo_folder, tmp_path):
    told = []
    photos = read_photographs(
        photo_folder, "gray", reading=Reading(held_out=told.append), held_out=photo_folder / "deeper"
    )
    assert [file.name for file in photos.files] == ["0.png", "2.png"]
    assert told == [2]
    link = tmp_path / "link"
    link.symlink_to(photo_folder / "deeper", target_is_directory=True)
    done = run_mdrn(
        "train", "--data", photo_folder, "--val", link, "--blocks", 1, "--patch-size", 16, "--smoke", tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    assert "2 photographs to validate on are inside --data, and not trained on" in done.stderr
    assert "2 photographs, " in done.stderr


def test_nor_are_files_that_they_are_links_to_or_links_to_these(photo_folder, tmp_path):
    archive = tmp_path / "archive.png"
    archive.write_bytes((photo_folder / "0.png").read_bytes())
    (photo_folder / "val").mkdir()
    (photo_folder / "val" / "of-the-archive.png").symlink_to(archive)
    (photo_folder / "val" / "of-data.png").symlink_to(photo_folder / "2.png")
    told = []
    photos = read_photographs(
        photo_folder, "gray", reading=Reading(held_out=told.append), held_out=photo_folder / "val"
    )
    assert told == [3]
    assert sorted(file.name for file in photos.files) == ["0.png", "1.png", "3.png"]


def test_where_none_is_left_to_train_on_that_is_said(photo_folder):
    done = run_mdrn(
        "train", "--data", photo_folder / "deeper", "--val", photo_folder, "--smoke", photo_folder.parent / "run"
    )
    assert done.returncode != 0
    assert "is inside" in done.stderr
