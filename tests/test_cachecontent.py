"""`mdrn cache`: what the cache holds, and that nothing else is ever removed."""

import hashlib
import json
import os

import pytest
from conftest import run_mdrn
from filelock import FileLock
from typer.testing import CliRunner

from mdrn_cli.cache import Cache, Item, library_folder
from mdrn_cli.cachecontent import kept_in, remove
from mdrn_cli.cli import app
from mdrn_cli.cli.cache import clear
from mdrn_cli.errors import MdrnError, UsageError
from mdrn_cli.photographs import read_photographs


def store(cache, folder, name, content):
    (folder / name).write_bytes(content)
    return cache.store(Item(name, hashlib.sha256(content).hexdigest(), len(content), (), "CC0"), folder / name)


@pytest.fixture
def full(tmp_path, photo_folder):
    """A cache with a checkpoint, two images and a map of photographs."""
    cache = Cache()
    store(cache, tmp_path, "lab.safetensors", b"weights")
    for name in ("01.png", "02.png"):
        store(cache, tmp_path, name, name.encode())
    read_photographs(photo_folder, "gray", memory=0)
    return cache


def mdrn(*arguments):
    return CliRunner().invoke(app, ["cache", *arguments])


def counts(cache):
    kinds = [kept.kind for kept in kept_in(cache)]
    return {kind: kinds.count(kind) for kind in kinds}


def test_the_cache_is_listed_by_kind(full, photo_folder):
    about = json.loads(mdrn("list", "--json").stdout)
    assert (about["schema"], about["folder"]) == ("mdrn.cache/1", str(full.root))
    assert [kept["name"] for kept in about["kept"]] == [
        "lab.safetensors",
        *sorted(("01.png", "02.png"), key=lambda name: hashlib.sha256(name.encode()).hexdigest()),
        str(photo_folder),
    ]
    assert about["kept"][-1]["bytes"] > 4 * 96 * 128
    assert (about["dry_run"], about["bytes"], about["removed"]) == (False, 0, [])
    shown = mdrn("list").stdout.splitlines()
    assert shown[0] == str(full.root)
    assert [line.split(",")[0] for line in shown[1:4]] == ["checkpoints: 1", "sets: 2", "photographs: 1"]
    assert str(photo_folder) in shown[4]


def test_parts_of_file_systems_without_locks_are_known():
    """Of names of their own, as no lock keeps processes from each other."""
    cache, token = Cache(), "0123456789abcdef"
    folder, photographs = cache.root / "files" / ("a" * 64), cache.root / "photographs"
    for file in (folder / f"lab.safetensors.{token}.part", photographs / f"{'b' * 64}.bin.{token}.part"):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"half")
    (photographs / f"{'b' * 64}.part").write_bytes(b"half")  # as versions before called it
    assert [(kept.kind, kept.name, kept.bytes) for kept in kept_in(cache)] == [
        ("checkpoints", "lab.safetensors", 4),
        ("photographs", "", 8),
    ]
    assert all(map(remove, kept_in(cache)))
    assert kept_in(cache) == []


def test_what_was_removed_is_told_though_something_could_not_be(full, monkeypatch, capsys):
    def fail_for_images(kept):
        if kept.kind == "sets":
            raise MdrnError(f"cannot remove {kept.name}")
        return remove(kept)

    monkeypatch.setattr("mdrn_cli.cachecontent.remove", fail_for_images)
    with pytest.raises(MdrnError, match="cannot remove"):
        clear(everything=True, as_json=True)
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert {kept["kind"] for kept in told["removed"]} == {"checkpoints", "photographs"}
    assert [kept["kind"] for kept in told["kept"]] == ["sets", "sets"]
    assert said.err.count("cannot remove") == 1, "the other one is told by whoever called"
    assert counts(full) == {"sets": 2}


def test_kinds_are_removed_and_nothing_else(full):
    planned = json.loads(mdrn("clear", "photographs", "--dry-run", "--json").stdout)
    assert planned["bytes"] > 4 * 96 * 128
    assert [kept["kind"] for kept in planned["kept"]] == ["checkpoints", "sets", "sets"]
    assert len(mdrn("clear", "sets", "--dry-run").stdout.splitlines()) == 2
    assert counts(full) == {"checkpoints": 1, "sets": 2, "photographs": 1}
    done = mdrn("clear", "photographs", "sets")
    assert (done.exit_code, "freed" in done.stderr) == (0, True)
    assert counts(full) == {"checkpoints": 1}
    assert mdrn("clear", "--all").exit_code == 0
    assert counts(full) == {}
    assert not [path for path in full.root.rglob("*") if path.is_file() and path.suffix not in (".lock", ".TAG")]


def test_what_libraries_make_is_listed_and_removed_too(full):
    assert library_folder("kernels") == full.root / "kernels"
    assert "libraries: 0" in mdrn("list").stdout
    (full.root / "kernels" / "ABC").mkdir()
    (full.root / "kernels" / "ABC" / "spread.cubin").write_bytes(bytes(3000))
    assert "libraries: 1, 3" in mdrn("list").stdout
    assert mdrn("clear", "libraries").exit_code == 0
    assert "libraries" not in counts(full)
    assert not (full.root / "kernels").exists()


def test_a_folder_called_as_one_of_a_library_is_its_owners(full):
    own = full.root / "kernels" / "linux" / "main.c"
    own.parent.mkdir(parents=True)
    own.write_text("int x;")
    library_folder("kernels")
    assert "libraries" not in counts(full)
    assert mdrn("clear", "--all").exit_code == 0
    assert own.read_text() == "int x;"


def test_what_is_not_mdrn_s_stays_and_no_link_is_followed(full, tmp_path):
    """As where MDRN_HOME names a folder that holds other things, too."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.png").write_bytes(b"mine")
    key = "0" * 64
    (full.root / "photographs" / "holiday.bin").write_bytes(b"mine")
    (full.root / "files" / "letters").mkdir()
    (full.root / "files" / key).symlink_to(outside)
    (full.root / "photographs" / f"{key}.bin").symlink_to(outside / "mine.png")
    (kept,) = [kept for kept in kept_in(full) if kept.name == "lab.safetensors"]
    (kept.path / "link").symlink_to(outside)
    assert mdrn("clear", "--all").exit_code == 0
    assert (outside / "mine.png").read_bytes() == b"mine"
    assert (full.root / "files" / key).is_symlink()
    left = sorted(path.name for path in (full.root / "files").iterdir())
    assert left == [key, "letters"]
    assert (full.root / "photographs" / "holiday.bin").exists()
    (full.root / "files").rename(outside / "files")
    (full.root / "files").symlink_to(outside / "files")
    (outside / "files" / ("1" * 64)).mkdir()
    assert mdrn("clear", "--all").exit_code == 0
    assert (outside / "files" / ("1" * 64)).is_dir()


def test_what_another_process_is_making_stays(full):
    (photographs,) = [kept for kept in kept_in(full) if kept.kind == "photographs"]
    with FileLock(photographs.lock):
        done = mdrn("clear", "--all")
        assert "1 left" in done.stderr
        photographs.path.with_suffix(".json").unlink()
        assert "1 left, which other processes are making: not finished\n" in mdrn("clear", "--all").stderr
    assert counts(full) == {"photographs": 1}


def test_what_makes_no_sense_is_refused(full, monkeypatch):
    for arguments in (["clear"], ["clear", "sets", "--all"], ["clear", "files"]):
        assert isinstance(mdrn(*arguments).exception, UsageError)
    assert counts(full) == {"checkpoints": 1, "sets": 2, "photographs": 1}

    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(MdrnError, match="cannot remove"):
        remove(kept_in(full)[0])


def test_an_empty_cache_is_no_error(tmp_path):
    listed = run_mdrn("cache", "list")
    assert (listed.returncode, "sets: 0" in listed.stdout) == (0, True)
    assert run_mdrn("cache", "clear", "--all").returncode == 0
    assert not (tmp_path / "home").exists()
