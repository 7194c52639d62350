"""Photographs are read once, into memory or into a map that is shared and reused."""

import threading

import numpy as np
import pytest
import torch
from conftest import run_mdrn
from PIL import Image

from mdrn_cli import photographs
from mdrn_cli.errors import InputError, MdrnError
from mdrn_cli.patches import PatchSampler
from mdrn_cli.photographs import Reading, each_photograph, half_of_memory, read_photographs


def test_reading_takes_nested_folders_and_lists_what_it_cannot_read(photo_folder):
    (photo_folder / "broken.jpg").write_bytes(b"not an image")
    (photo_folder / "notes.txt").write_text("not even named like one")
    calls = []
    read = read_photographs(photo_folder, "gray", reading=Reading(file=lambda *a: calls.append(a)))
    assert len(read.photos) == 4
    assert all(p.shape == (96, 128, 1) and p.dtype == np.uint8 for p in read.photos)
    assert [path.name for path, _ in read.unreadable] == ["broken.jpg"]
    assert calls[-1] == (5, 5)
    expected = np.asarray(Image.open(read.files[0]).convert("L"))
    assert np.array_equal(read.photos[0][:, :, 0], expected)


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
    assert changed.photos[changed.files.index(photo_folder / "0.png")].max() == 0


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
    assert [photo.shape for photo in each_photograph(photo_folder, "color")] == [(96, 128, 3)] * 4
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no readable image"):
        list(each_photograph(tmp_path / "empty", "gray"))


def test_the_default_is_a_part_of_the_memory():
    assert 1e8 < half_of_memory() < 1e14


def test_the_command_states_memory_and_what_it_leaves_out(photo_folder, tmp_path):
    Image.new("L", (20, 200)).save(photo_folder / "thin.png")
    (photo_folder / "broken.jpg").write_bytes(b"not an image")
    arguments = ["--data", photo_folder, "--blocks", 1, "--iterations", 1, "--batch-size", 1, "--patch-size", 32]
    done = run_mdrn("train", *arguments, "--cache-memory", "10KB", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "5 photographs, 53152 bytes decoded, mapped from" in done.stderr
    assert "broken.jpg" in done.stderr
    assert "1 photographs are smaller than a patch of 32 pixels" in done.stderr
    assert done.stderr.index("decoded") < done.stderr.index("1 iterations in")
