"""A run goes on with what it began with, or says that it does not; and it is alone in its folder."""

import shutil
from dataclasses import replace

import pytest
from conftest import run_mdrn, tiny_config
from filelock import FileLock
from PIL import Image

from mdrn_cli.distillation import found_again, run_distill
from mdrn_cli.errors import UsageError
from mdrn_cli.manifest import load_manifest
from mdrn_cli.photographs import Reading, read_photographs
from mdrn_cli.runfolder import LOCK_FILE, alone_in, is_empty, saved_config, saved_sources
from mdrn_cli.trainconfig import Distillation
from mdrn_cli.training import run_train
from mdrn_cli.weights import BUNDLED


def silent(_progress):
    pass


@pytest.fixture
def taught(photo_folder, tmp_path, tiny_weights):
    """The folder of a distillation of one iteration, and its teacher."""
    teacher, run = tiny_weights("gray", 25.0), tmp_path / "taught"
    config = tiny_config(photo_folder, iterations=1, distillation=Distillation("hmds", str(teacher), 25.0))
    run_distill(config, run, False, silent)
    return run, teacher, config


def test_photographs_may_have_moved(finished, photo_folder, tmp_path):
    moved = tmp_path / "elsewhere"
    photo_folder.rename(moved)
    lost = run_mdrn("train", "--resume", finished, "--iterations", 2)
    assert lost.returncode != 0
    done = run_mdrn("train", "--resume", finished, "--iterations", 2, "--data", moved, "--val", moved)
    assert done.returncode == 0, done.stderr
    assert "not those" not in done.stderr
    assert saved_config(finished)["data"] == saved_config(finished)["val"] == str(moved)


def test_other_photographs_are_told_of(finished, photo_folder):
    Image.open(next(photo_folder.glob("*.png"))).rotate(90, expand=True).save(photo_folder / "new.png")
    for iterations, told in ((2, True), (3, False)):
        done = run_mdrn("train", "--resume", finished, "--iterations", iterations)
        assert done.returncode == 0, done.stderr
        assert ("the photographs are not those that the run began with" in done.stderr) is told


def test_a_run_of_an_earlier_version_goes_on_without_a_word(finished, monkeypatch):
    monkeypatch.setattr("mdrn_cli.training.saved_sources", lambda _folder: {})
    told = []
    config = tiny_config(saved_config(finished)["data"], iterations=2)
    run_train(config, finished, True, silent, Reading(changed=lambda: told.append(1)))
    assert not told


def test_another_teacher_is_refused_and_the_same_one_may_have_moved(taught, tmp_path, tiny_weights):
    run, teacher, config = taught
    shutil.copy(teacher, tmp_path / "moved.safetensors")
    other = tiny_weights("gray", 25.0, 2)
    other.replace(teacher)
    with pytest.raises(UsageError, match="not the teacher that the run began with"):
        run_distill(replace(config, iterations=2), run, True, silent)
    refused = run_mdrn("distill", "--resume", run, "--iterations", 2)
    assert (refused.returncode, "--teacher" in refused.stderr) == (2, True)
    done = run_mdrn("distill", "--resume", run, "--iterations", 2, "--teacher", tmp_path / "moved.safetensors")
    assert done.returncode == 0, done.stderr
    assert saved_config(run)["distillation"]["teacher"] == str(tmp_path / "moved.safetensors")


def test_a_bundled_teacher_is_found_wherever_the_package_lies(photo_folder, tmp_path):
    (record,) = (record for record in load_manifest() if record.name == "mdrn-2b-gray-25")
    installed = tmp_path / "other-environment" / record.file
    installed.parent.mkdir()
    shutil.copy(BUNDLED / record.file, installed)
    teaching = Distillation("hmds", str(installed), 25.0)
    config = tiny_config(photo_folder, features=64, iterations=1, patch_size=16, distillation=teaching)
    run = tmp_path / "run"
    run_distill(config, run, False, silent)
    assert found_again(config, run) == config
    shutil.rmtree(installed.parent)
    found = found_again(config, run)
    assert found.distillation.teacher == str(BUNDLED / record.file)
    run_distill(replace(found, iterations=2), run, True, silent)


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


def test_where_none_is_left_to_train_on_that_is_said(photo_folder):
    done = run_mdrn(
        "train", "--data", photo_folder / "deeper", "--val", photo_folder, "--smoke", photo_folder.parent / "run"
    )
    assert done.returncode != 0
    assert "is inside" in done.stderr


def test_a_folder_has_one_run_at_a_time(finished, photo_folder):
    with alone_in(finished):
        for arguments in (["--resume", finished], ["--data", photo_folder, "--overwrite", "--smoke", finished]):
            refused = run_mdrn("train", *arguments)
            assert (refused.returncode, f"another run is under way in {finished}" in refused.stderr) == (2, True)
    assert run_mdrn("train", "--resume", finished, "--iterations", 2).returncode == 0


def test_a_lock_alone_is_no_run(tmp_path):
    with pytest.raises(RuntimeError), alone_in(tmp_path / "run"):
        raise RuntimeError
    (tmp_path / "run" / LOCK_FILE).touch()
    assert is_empty(tmp_path / "run")


def test_a_file_system_without_locks_does_without(tmp_path, monkeypatch):
    def unsupported(_lock):
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "_acquire", unsupported)
    with alone_in(tmp_path):
        pass


def test_what_cannot_be_begun_is_told_before_photographs_are_decoded(photo_folder, tmp_path, monkeypatch, tiny_weights):
    def decoded(*_):
        pytest.fail("photographs were decoded")

    monkeypatch.setattr("mdrn_cli.training.open_data", decoded)
    (tmp_path / "empty").mkdir()
    large = tiny_weights("gray", 25.0, 2)
    for changes in ({"val": str(tmp_path / "empty")}, {"init": str(large)}):
        with pytest.raises(Exception, match=r"no readable image|blocks"):
            run_train(tiny_config(photo_folder, **changes), tmp_path / "run", False, silent)


def test_sources_of_what_is_no_run_are_none(tmp_path, finished):
    assert {*saved_sources(finished)} == {"photographs"}
    assert saved_sources(tmp_path) == {}
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    assert saved_sources(tmp_path) == {}
