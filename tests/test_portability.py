"""What other systems and file systems do than the one that the tests run on, made to happen here."""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import run_mdrn, tiny_checkpoint, tiny_config
from PIL import Image

from mdrn_cli.cache import Cache, Item, cache_root, library_folder
from mdrn_cli.checkpoint import load_checkpoint, save_checkpoint
from mdrn_cli.cli.boundary import with_patterns_expanded
from mdrn_cli.devices import free_memory
from mdrn_cli.errors import FetchError, MdrnError, MdrnWarning, UsageError
from mdrn_cli.files import write_atomically
from mdrn_cli.formats import find_images
from mdrn_cli.hardware import half_of_memory
from mdrn_cli.locks import locked
from mdrn_cli.photographs import read_photographs
from mdrn_cli.places import Places
from mdrn_cli.runfolder import alone_in, holds
from mdrn_cli.training import run_train

LOCK = "x.lock"


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_does_without(tmp_path, monkeypatch, code):
    def none(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    for wait in (True, False):
        with locked(tmp_path / LOCK, wait) as free:
            assert free
    with alone_in(tmp_path / "run"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_results_are_worth_more_than_what_is_told_of_them(tmp_path, photo, tiny_weights):
    """As where stderr is a log on a full disk."""
    for k in range(3):
        Image.fromarray(photo[:32, :32]).save(tmp_path / f"{k}.png")
    how = ["denoise", tmp_path, "-o", tmp_path / "out", "--sigma", "25", "--model", tiny_weights("color")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "mdrn_cli", *map(str, how)], stderr=full, check=False)
        wrong = subprocess.run([sys.executable, "-m", "mdrn_cli", "denoise", "none"], stderr=full, check=False)
        command = [sys.executable, "-m", "mdrn_cli", "denoise", "--help"]
        helped = [
            subprocess.run(asked, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
            for asked in (command, command[:3])
        ]
    assert (done.returncode, wrong.returncode) == (0, 4)
    for each in helped:
        assert each.returncode == 1
        assert each.stderr.startswith("error: cannot write stdout (No space left on device)\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]


def test_photographs_on_another_drive_are_told_apart_too(photo_folder, monkeypatch):
    """Of Windows, from whose drives no path leads to another."""
    photos = read_photographs(photo_folder, "gray")
    here = photos.digest(photo_folder)

    def relpath(path, start):
        raise ValueError(f"path is on mount {path}, start on mount {start}")

    monkeypatch.setattr("mdrn_cli.photographs.os.path.relpath", relpath)
    there = photos.digest(photo_folder)
    assert there != here
    assert there == photos.digest(photo_folder)


def test_what_another_program_has_open_is_waited_for(tmp_path, monkeypatch):
    """As scanners of files do on Windows: what was fetched, or decoded, is not lost for it."""
    refused, replace = [], Path.replace

    def busy(path, target):
        if len(refused) % 3 < 2:
            refused.append(path)
            error = PermissionError(13, "in use")
            error.winerror = 32
            raise error
        refused.append(path)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", busy)
    (tmp_path / "a.bin").write_bytes(b"content")
    item = Item("a.bin", hashlib.sha256(b"content").hexdigest(), 7, (str(tmp_path / "a.bin"),), "CC0")
    assert Cache(tmp_path / "cache").fetch(item).read_bytes() == b"content"
    assert len(refused) == 3


def test_a_whole_part_that_cannot_be_put_in_place_is_taken_the_next_time(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(b"content")
    item = Item("a.bin", hashlib.sha256(b"content").hexdigest(), 7, (str(tmp_path / "a.bin"),), "CC0")
    cache, put = Cache(tmp_path / "cache"), "mdrn_cli.cache.put_in_place"

    def fails(*_paths):
        raise PermissionError(13, "in use")

    with monkeypatch.context() as patch:
        patch.setattr(put, fails)
        with pytest.raises(FetchError, match="in use"):
            cache.fetch(item)
    part = cache.path(item).with_name("a.bin.part")
    assert part.read_bytes() == b"content"
    with monkeypatch.context() as patch:
        patch.setattr(put, fails)
        with pytest.raises(FetchError):
            cache.store(item, part)
    assert part.read_bytes() == b"content", "of a cache that is imported, too"
    assert cache.fetch(item).read_bytes() == b"content"


def test_a_lock_that_cannot_be_made_is_told(tmp_path):
    with pytest.raises(OSError, match="No such file"), locked(tmp_path / "none" / LOCK):
        pass


def test_a_lock_is_waited_for_or_not(tmp_path):
    order = []

    def second() -> None:
        with locked(tmp_path / LOCK) as free:
            order.append(("second", free))

    with locked(tmp_path / LOCK):
        with locked(tmp_path / LOCK, wait=False) as free:
            assert not free
        waiting = threading.Thread(target=second)
        waiting.start()
        waiting.join(0.2)
        order.append(("first", True))
    waiting.join()
    assert order == [("first", True), ("second", True)]


@pytest.mark.parametrize("spelled", ["best.safetensors", "BEST.safetensors", "Samples/00000001.png"])
def test_weights_in_a_run_folder_are_in_it_however_they_are_spelled(tmp_path, monkeypatch, spelled):
    """Where the file system makes no difference: a run would begin from weights that it removes first."""
    monkeypatch.setattr(Places, "_ignores_case", lambda *_: True)
    assert holds(tmp_path, tmp_path / spelled)
    assert not holds(tmp_path, tmp_path / "other" / spelled)


def test_a_copy_by_a_hard_link_is_no_part_of_the_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").touch()
    (tmp_path / "kept.safetensors").hardlink_to(tmp_path / "run" / "best.safetensors")
    assert not holds(tmp_path / "run", tmp_path / "kept.safetensors")


def test_what_lies_in_a_folder_tells_whether_case_matters_there(tmp_path, monkeypatch):
    """A memory card may differ from the folder that it is mounted in."""
    folder = tmp_path / "12"
    folder.mkdir()
    (folder / "a.jpg").touch()
    (folder / "7").touch()
    assert Places().of(folder / "b.png") != Places().of(folder / "B.png")
    real = Path.stat
    monkeypatch.setattr(
        Path, "stat", lambda self, **how: real(self.with_name(self.name.replace("A.JPG", "a.jpg")), **how)
    )
    assert Places().of(folder / "b.png") == Places().of(folder / "B.png")


def test_two_files_of_one_name_but_for_case_tell_that_it_matters(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "A.JPG").symlink_to("a.jpg")
    assert Places().of(tmp_path / "b.png") != Places().of(tmp_path / "B.png")


def test_folders_without_numbers_are_told_apart_by_their_names(tmp_path, monkeypatch):
    """As on some network drives of Windows."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    real = Path.stat

    def without_number(self, **how):
        about = real(self, **how)
        return SimpleNamespace(st_dev=about.st_dev, st_ino=0, st_mode=about.st_mode)

    monkeypatch.setattr(Path, "stat", without_number)
    assert Places().of(tmp_path / "a" / "1.png") != Places().of(tmp_path / "b" / "1.png")
    assert Places().of(tmp_path / "a" / "1.png") == Places().of(tmp_path / "b" / ".." / "a" / "1.png")
    assert not Places().within(tmp_path / "b", tmp_path / "a")


def test_a_junction_is_a_link(tmp_path, monkeypatch):
    for name in ("plain", "junction"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").touch()
    real = Path.lstat

    def lstat(self):
        about = real(self)
        tag = 0xA0000003 if self.name == "junction" else 0
        return SimpleNamespace(st_mode=about.st_mode, st_reparse_tag=tag)

    monkeypatch.setattr(Path, "lstat", lstat)
    others = []
    assert find_images(tmp_path, on_other=others.append) == [tmp_path / "plain" / "a.png"]
    assert others == [tmp_path / "junction"]


def test_a_file_that_another_program_has_open_is_tried_again(tmp_path, monkeypatch):
    refused, real = [], Path.replace

    def busy(self, target):
        if len(refused) < 2:
            error = PermissionError(errno.EACCES, "it is being used by another process")
            error.winerror = 32
            refused.append(error)
            raise error
        return real(self, target)

    def still_busy(_self, _target):
        raise refused[0]

    monkeypatch.setattr(Path, "replace", busy)
    write_atomically(tmp_path / "x.png", b"whole")
    assert (tmp_path / "x.png").read_bytes() == b"whole"
    assert len(refused) == 2
    monkeypatch.setattr("mdrn_cli.files._PATIENCE", 0.1)
    del refused[1:]
    monkeypatch.setattr(Path, "replace", still_busy)
    with pytest.raises(MdrnError, match=r"cannot write .*x\.png"):
        write_atomically(tmp_path / "x.png", b"other")
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]


def test_a_network_that_was_read_does_not_change_with_its_file(tmp_path):
    """Nor is the file held: Windows would not replace it."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, tiny_checkpoint(), torch.float32)
    checkpoint = load_checkpoint(path)
    before = {name: tensor.clone() for name, tensor in checkpoint.state.items()}
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert all(torch.equal(checkpoint.state[name], tensor) for name, tensor in before.items())


def test_patterns_that_the_shell_leaves_stand_for_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.jpg", "c[1].jpg", "c1.jpg", ".hidden.jpg"):
        (tmp_path / name).touch()
    assert with_patterns_expanded(["denoise", "?.jpg", "--in-place"]) == ["denoise", "a.jpg", "b.jpg", "--in-place"]
    assert with_patterns_expanded(["c[1]*.jpg", "*.tif"]) == ["c[1].jpg", "*.tif"]
    assert with_patterns_expanded([str(tmp_path / "a*")]) == [str(tmp_path / "a.jpg")]
    (tmp_path / "*.jpg").touch()
    assert with_patterns_expanded(["*.jpg"]) == ["*.jpg"]


def homeless(*_):
    raise RuntimeError("Could not determine home directory.")


def test_a_user_without_a_home_has_no_cache_and_needs_none(tmp_path, monkeypatch):
    monkeypatch.delenv("MDRN_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert not cache_root().exists()
    assert Cache().root == cache_root()
    assert not library_folder("fonts").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "mdrn"
    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.setenv("MDRN_HOME", "~/networks")
    with pytest.raises(UsageError, match="no such home is known") as caught:
        cache_root()
    assert "in full" in caught.value.hint


def test_on_an_older_torch_a_gpu_of_apple_has_half_of_the_memory(monkeypatch):
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 1000)
    monkeypatch.delattr(torch.mps, "recommended_max_memory")
    assert free_memory(torch.device("mps")) == half_of_memory() - 1000


@pytest.mark.parametrize(
    "error", [OSError("needs a writable directory"), TypeError("Descriptors cannot"), ImportError("numpy.core failed")]
)
def test_a_run_goes_on_where_its_plots_cannot_be_made(tmp_path, photo_folder, monkeypatch, error):
    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr("mdrn_cli.runlog.draw_curves", fail)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", fail)
    with pytest.warns(MdrnWarning) as told:
        run_train(tiny_config(photo_folder, iterations=1), tmp_path / "run", False, lambda _progress: None)
    assert [str(each.message) for each in told] == [f"plots of this run are not complete: {error}"]
    assert (tmp_path / "run" / "last.safetensors").is_file()


def test_a_run_goes_on_where_what_plots_fails_midway(tmp_path, photo_folder, monkeypatch):
    class Full:
        def __init__(self, *_arguments, **_options):
            pass

        def add_scalar(self, *_arguments):
            raise OSError("No space left on device")

        close = add_scalar

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", Full)
    with pytest.warns(MdrnWarning, match="No space left") as told:
        run_train(tiny_config(photo_folder, iterations=2), tmp_path / "run", False, lambda _progress: None)
    assert len(told) == 1
    assert (tmp_path / "run" / "last.safetensors").is_file()


def test_a_home_that_is_not_known_is_one_error_line():
    done = run_mdrn("cache", "list", env={"MDRN_HOME": "~nobody-of-that-name/networks"})
    assert (done.returncode, done.stderr.count("\n")) == (2, 2)
    assert "nobody-of-that-name" in done.stderr
