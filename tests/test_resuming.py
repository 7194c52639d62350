"""A run goes on with what it began with, or says that it does not; and it is alone in its folder."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import run_mdrn, silent, tiny_checkpoint, tiny_config
from PIL import Image

from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.distillation import found_again, run_distill
from mdrn_cli.errors import MdrnError, UsageError
from mdrn_cli.manifest import load_manifest
from mdrn_cli.model import MDRN
from mdrn_cli.photographs import Reading
from mdrn_cli.runfolder import LOCK_FILE, alone_in, is_empty
from mdrn_cli.runstate import saved_config, saved_sources
from mdrn_cli.trainconfig import Distillation
from mdrn_cli.training import run_train
from mdrn_cli.validation import Validator
from mdrn_cli.weights import BEST_FILE, BUNDLED


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
    assert (lost.returncode, "give --data" in lost.stderr) == (4, True)
    done = run_mdrn("train", "--resume", finished, "--iterations", 2, "--data", moved, "--val", moved)
    assert done.returncode == 0, done.stderr
    assert "not those" not in done.stderr
    assert saved_config(finished)["data"] == saved_config(finished)["val"] == str(moved)


def test_intervals_may_be_others(finished, photo_folder):
    arguments = ["train", "--resume", finished, "--iterations", 2, "--save-every", "2m", "--validate-every", "3m"]
    idle = run_mdrn(*arguments)
    assert (idle.returncode, "does nothing without --val" in idle.stderr) == (2, True)
    done = run_mdrn(*arguments, "--val", photo_folder)
    assert done.returncode == 0, done.stderr
    assert [saved_config(finished)[key] for key in ("save_every", "validate_every")] == [120.0, 180.0]


def test_an_edit_of_the_file_that_tells_of_the_options_is_told_to_have_no_effect(finished):
    file = finished / "config.toml"
    before = file.read_text()
    for old, new, told in (
        ("batch_size = 2", "batch_size = 3", True),
        ("", "# mine\n", False),
        ("seed = 0", "sed = 0", False),
        ("seed", "[", False),
    ):
        assert old in before
        file.write_text(before.replace(old, new, 1))
        done = run_mdrn("train", "--resume", finished)
        assert done.returncode == 0, done.stderr
        assert ("edited; the run goes on with what it began with: batch_size = 2" in done.stderr) is told, done.stderr
        assert file.read_text() == before


def test_other_photographs_are_told_of(finished, photo_folder):
    Image.open(next(photo_folder.glob("*.png"))).rotate(90, expand=True).save(photo_folder / "new.png")
    for iterations, told in ((2, True), (3, False)):
        done = run_mdrn("train", "--resume", finished, "--iterations", iterations)
        assert done.returncode == 0, done.stderr
        assert ("the photographs are not those that the run began with" in done.stderr) is told


def test_the_best_weights_are_chosen_anew_by_other_photographs_to_validate_on(photo_folder, tmp_path):
    """Figures of other photographs are not to be compared: to this network a plain one is hard."""
    flat, told = tmp_path / "flat", []
    flat.mkdir()
    Image.new("L", (64, 64), 128).save(flat / "a.png")
    reading = Reading(validated_otherwise=lambda: told.append(1))
    config = tiny_config(photo_folder, iterations=1, val=str(photo_folder), learning_rate=1e-9, muon_learning_rate=1e-9)
    run_train(config, tmp_path / "run", False, silent)
    easy = load_checkpoint(tmp_path / "run" / BEST_FILE).record
    for iterations, val, count in ((2, photo_folder, 0), (3, flat, 1), (4, flat, 1)):
        run_train(replace(config, iterations=iterations, val=str(val)), tmp_path / "run", True, silent, reading)
        assert len(told) == count
    best = load_checkpoint(tmp_path / "run" / BEST_FILE).record
    assert best["best_psnr"] < easy["best_psnr"]
    assert best["iteration"] >= 3


def test_a_run_that_is_interrupted_again_and_again_is_validated_nevertheless(photo_folder, tmp_path):
    """The time since the last validation goes on where the run does."""
    config = tiny_config(photo_folder, val=str(photo_folder), iterations=None, time_budget=100.0, validate_every=4.0)
    run, seen = tmp_path / "run", []
    for slot in (1, 2, 3):

        def stop(progress, slot=slot):
            seen.append(progress.psnr)
            if progress.elapsed > 2 * slot:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_train(config, run, slot > 1, stop)
    assert any(value is not None for value in seen)


def test_weights_that_give_no_numbers_are_never_the_best():
    model = MDRN(tiny_checkpoint().config)
    validator = Validator([np.zeros((32, 32, 1), np.uint8)], 50.0)
    how = torch.device("cpu"), torch.float32
    assert math.isfinite(validator(model, *how)[0])
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    value, pictures = validator(model, *how)
    assert math.isnan(value)
    assert {picture.shape for picture in pictures} == {(32, 32, 1)}


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


def test_a_folder_has_one_run_at_a_time(finished, photo_folder):
    with alone_in(finished):
        for arguments in (["--resume", finished], ["--data", photo_folder, "--overwrite", "--smoke", finished]):
            refused = run_mdrn("train", *arguments)
            assert (refused.returncode, f"another run is under way in {finished}" in refused.stderr) == (2, True)
    assert run_mdrn("train", "--resume", finished, "--iterations", 2).returncode == 0


def test_a_lock_alone_is_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(RuntimeError), alone_in(tmp_path / "run"):
        raise RuntimeError
    (tmp_path / "run" / LOCK_FILE).touch()
    assert is_empty(tmp_path / "run")


def test_a_run_that_wrote_nothing_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), alone_in(tmp_path / "run"):
        raise RuntimeError
    assert not (tmp_path / "run").exists()
    with alone_in(tmp_path / "run"):
        (tmp_path / "run" / "config.toml").touch()
    assert not is_empty(tmp_path / "run")


def test_what_cannot_be_begun_is_told_before_photographs_are_decoded(photo_folder, tmp_path, monkeypatch, tiny_weights):
    def decoded(*_):
        pytest.fail("photographs were decoded")

    monkeypatch.setattr("mdrn_cli.training.open_data", decoded)
    (tmp_path / "empty").mkdir()
    large = tiny_weights("gray", 25.0, 2)
    for changes in ({"val": str(tmp_path / "empty")}, {"init": str(large)}):
        with pytest.raises(Exception, match=r"no readable image|blocks"):
            run_train(tiny_config(photo_folder, **changes), tmp_path / "run", False, silent)
    with alone_in(tmp_path / "taken"), pytest.raises(UsageError, match="another run is under way"):
        run_train(tiny_config(photo_folder), tmp_path / "taken", False, silent)
    (tmp_path / "file").touch()
    with pytest.raises(MdrnError, match="cannot write"):
        run_train(tiny_config(photo_folder), tmp_path / "file" / "run", False, silent)


def test_sources_of_what_is_no_run_are_none(tmp_path, finished):
    assert {*saved_sources(finished)} == {"photographs"}
    assert saved_sources(tmp_path) == {}
    (tmp_path / "state.safetensors").write_bytes(b"nothing")
    assert saved_sources(tmp_path) == {}
