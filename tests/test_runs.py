"""Command lines of `mdrn train` and `mdrn distill`: run folders, teachers, what is said and what is refused."""

import pytest
from conftest import run_mdrn, tiny_config

from mdrn_cli.runfolder import saved_config
from mdrn_cli.training import run_train


def silent(_progress) -> None:
    pass


@pytest.fixture
def finished(photo_folder, tmp_path):
    """The folder of a run of one iteration."""
    run = tmp_path / "run"
    run_train(tiny_config(photo_folder, iterations=1), run, False, silent)
    return run


def test_the_run_folder_is_named_as_argument_or_option(finished):
    given = ([finished], ["--output", finished], [finished, "-o", finished])
    for iterations, folder in enumerate(given, 2):
        done = run_mdrn("train", "--resume", "--iterations", iterations, *folder)
        assert done.returncode == 0, done.stderr
        assert saved_config(finished)["iterations"] == iterations


@pytest.mark.parametrize("command", ["train", "distill"])
@pytest.mark.parametrize("how", [["--resume"], ["--data", "photos", "--mode", "hads", "--smoke"]])
def test_a_run_folder_is_needed_and_one_alone(command, how):
    how = how if command == "distill" else [part for part in how if part not in ("--mode", "hads")]
    missing = run_mdrn(command, *how)
    assert (missing.returncode, "--output RUN" in missing.stderr) == (2, True)
    two = run_mdrn(command, *how, "one", "--output", "two")
    assert (two.returncode, "two run folders, one and --output two" in two.stderr) == (2, True)
