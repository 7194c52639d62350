"""Command lines of `mdrn train` and `mdrn distill`: run folders, teachers, what is said and what is refused."""

import csv
import inspect
import os
import signal
import time
from dataclasses import MISSING, fields

import pytest
from commands import start
from conftest import run_mdrn, silent, tiny_config
from rich.progress import Progress
from typer.testing import CliRunner

from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.cli import app, runs, runshow
from mdrn_cli.cli.distill import distill
from mdrn_cli.cli.train import train
from mdrn_cli.configfile import tomllib
from mdrn_cli.interrupts import TERMINATIONS, TerminatedError, leave_closed_terminal, stop_requests, terminable
from mdrn_cli.runlog import Progress as Moment
from mdrn_cli.runstate import Counters, saved_config
from mdrn_cli.trainconfig import CONFIG_KEYS, DISTILLATION_KEYS, Distillation, TrainConfig
from mdrn_cli.training import run_train
from mdrn_cli.validation import Validator


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


def test_a_bundled_teacher_and_a_bundled_start_go_by_name(photo_folder, tmp_path):
    arguments = ["distill", "--mode", "hmds", "--teacher-sigma", 25, "--teacher", "mdrn-2b-gray-25", "--blocks", 2]
    arguments += ["--init", "mdrn-2b-gray-50", "--data", photo_folder, "--patch-size", 16, "--batch-size", 1]
    done = run_mdrn(*arguments, "--smoke", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "teacher mdrn-2b-gray-25: 2 blocks, sigma 25\n" in done.stderr
    assert saved_config(tmp_path / "run")["init"].endswith("mdrn-2b-gray-50.safetensors")
    unknown = run_mdrn("train", "--data", photo_folder, "--init", "mdrn-2b-gray-51", "--smoke", tmp_path / "other")
    assert (unknown.returncode, "no checkpoint 'mdrn-2b-gray-51'" in unknown.stderr) == (5, True)


@pytest.mark.parametrize(("mode", "blocks"), [("hads", 2), ("hmds", 8)])
def test_a_student_has_the_size_of_the_papers_by_default(tmp_path, monkeypatch, mode, blocks):
    made = []
    monkeypatch.setattr(f"{distill.__module__}.show_run", lambda _runner, config, *_: made.append(config))
    arguments = ["distill", "--mode", mode, "--data", "photos", "--iterations", "1", str(tmp_path / "run")]
    for more, expected in (([], blocks), (["--blocks", "4"], 4)):
        done = CliRunner().invoke(app, [*arguments, *more])
        assert done.exit_code == 0, done.output
        assert made.pop().blocks == expected


def test_an_interval_of_validation_without_photographs_for_it_is_refused(photo_folder, tmp_path):
    arguments = ["--data", photo_folder, "--validate-every", "1m", "--iterations", 1]
    done = run_mdrn("train", *arguments, "--output", tmp_path / "run")
    assert (done.returncode, "--validate-every does nothing without --val" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("command", "wrong", "told"),
    [
        ("train", ["--optimizer", "adamw", "--muon-learning-rate", 0.01], "with --optimizer adamw"),
        ("train", ["--halvings", 3], "--halvings does nothing with --schedule cosine"),
        ("distill", ["--mode", "hads", "--no-shared-noise"], "--shared-noise does nothing with --mode hads"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(photo_folder, tmp_path, command, wrong, told):
    done = run_mdrn(command, "--data", photo_folder, "--smoke", *wrong, tmp_path / "run")
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "run").exists()


def smoke(photo_folder, *more):
    shape = ["--blocks", 1, "--patch-size", 16, "--batch-size", 1, "--precision", "float32"]
    return run_mdrn("train", "--data", photo_folder, *shape, "--smoke", *more)


def test_a_run_and_its_resumption_may_be_kept_from_the_network(photo_folder, tmp_path):
    run = tmp_path / "run"
    for arguments in (["--data", photo_folder, "--smoke", "--blocks", 1, "--patch-size", 16], ["--resume"]):
        done = run_mdrn("train", *arguments, "--offline", run, env={"MDRN_OFFLINE": ""})
        assert done.returncode == 0, done.stderr
    assert not [key for key in saved_config(run) if "offline" in key]


def test_smoke_validates_on_the_photographs_there_are(photo_folder, tmp_path, monkeypatch):
    done = smoke(photo_folder, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "iteration 2: PSNR" in done.stderr
    assert (tmp_path / "run" / "best.safetensors").is_file()

    seen = []

    def counting(photos, sigma):
        photos = list(photos)
        seen.append(len(photos))
        return Validator(photos, sigma)

    monkeypatch.setattr("mdrn_cli.training.OF_TRAINING", 3)
    monkeypatch.setattr("mdrn_cli.training.Validator", counting)
    (tmp_path / "link").symlink_to(photo_folder, target_is_directory=True)
    for val in (photo_folder, tmp_path / "link", photo_folder / "deeper"):
        config = tiny_config(photo_folder, val=str(val), iterations=1)
        run_train(config, tmp_path / f"run{len(seen)}", False, silent)
    assert seen == [3, 3, 2], "no more of those trained on, all of others"


@pytest.mark.parametrize(("lines", "more", "loss"), [("preset", [], "l1"), ("preset", ["--preset", "fast"], "rmse")])
def test_a_preset_may_be_given_in_the_file(photo_folder, tmp_path, lines, more, loss):
    (tmp_path / "c.toml").write_text(f'{lines} = "paper"\n')
    done = smoke(photo_folder, "--config", tmp_path / "c.toml", *more, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["loss"] == loss


@pytest.mark.parametrize("text", ['preset = "slow"', "preset = []"])
def test_a_preset_that_is_none_is_refused(photo_folder, tmp_path, text):
    (tmp_path / "c.toml").write_text(text)
    done = smoke(photo_folder, "--config", tmp_path / "c.toml", tmp_path / "run")
    assert (done.returncode, "presets are: fast, paper" in done.stderr) == (2, True)


def test_a_run_folder_among_the_photographs_is_refused(photo_folder, finished, tmp_path):
    inside = photo_folder / "runs" / "first"
    for more in ([], ["--val", tmp_path]):
        done = smoke(photo_folder, *more, inside if not more else tmp_path / "other")
        assert done.returncode == 2
        assert "its sample pictures would become photographs" in done.stderr
    finished.rename(photo_folder / "run")
    resumed = run_mdrn("train", "--resume", "--iterations", 2, photo_folder / "run")
    assert (resumed.returncode, "is inside --data" in resumed.stderr) == (2, True)


def test_options_have_the_defaults_of_what_they_set():
    """Which the command line cannot take from there: that would load torch before `--help` is answered."""
    compared = set()
    for command, settings in ((train, TrainConfig), (distill, TrainConfig), (distill, Distillation)):
        options = {name.rstrip("_"): option.default for name, option in inspect.signature(command).parameters.items()}
        for field in fields(settings):
            of_mode = command is distill and field.name in ("blocks", "sigma")
            if field.default is MISSING or field.name not in options or of_mode:
                continue
            default = options[field.name]
            if isinstance(default, str) and field.name in runs._PARSED:
                default = runs._PARSED[field.name](default)
            assert default == field.default, field.name
            compared.add(field.name)
    must_be_given, no_options = {"data", "mode", "teacher", "teacher_sigma"}, {"features", "max_skipped"}
    assert compared == {*CONFIG_KEYS, *DISTILLATION_KEYS} - must_be_given - no_options


def test_without_a_terminal_a_line_a_minute_tells_how_far_a_run_is(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(runshow.time, "monotonic", lambda: clock[0])
    bar = Progress(disable=True)
    report = runshow._reporter(bar, bar.add_task("training", total=1.0, state=""))
    for clock[0] in (1.0, 59.0, 61.0, 120.0, 122.0):
        report(Moment(int(clock[0]), 0.5, 60.0, 90.0, 0.25, 2.0, 1e-3, None, None, 0))
    told = capsys.readouterr().err.splitlines()
    assert told == [f"iteration {n}: loss 0.25000, 2.00 it/s, ETA 0:01:30" for n in (61, 122)]


@pytest.mark.parametrize(
    ("skipped", "best", "told"),
    [
        (3, 27.1234, "100 iterations (3 of them skipped) in 0:01:30, best validation PSNR 27.123 dB"),
        (0, None, "100 iterations in 0:01:30"),
    ],
)
def test_how_a_run_ended_is_told(photo_folder, tmp_path, capsys, skipped, best, told):
    def runner(*_arguments):
        return Counters(100, 90.0, skipped, best_psnr=best), None

    runshow.show_run(runner, tiny_config(photo_folder), tmp_path / "run", False)
    assert capsys.readouterr().err.splitlines() == [f"{told}; checkpoints in {tmp_path / 'run'}"]


def test_the_loss_of_the_last_steps_is_logged(photo_folder, tmp_path):
    run_train(tiny_config(photo_folder, iterations=23), tmp_path / "run", False, silent)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["20", "23"]
    assert float(rows[1]["loss"]) > 0


def test_sigterm_ends_a_run_after_a_save(photo_folder, tmp_path):
    shape = ["--blocks", 1, "--patch-size", 16, "--batch-size", 1, "--precision", "float32", "--iterations", 100000]
    run = tmp_path / "run"
    command = start("train", "--data", photo_folder, *shape, "--save-every", "1h", run, logs=tmp_path / "logs")
    deadline = time.monotonic() + 60
    while not (run / "metrics.csv").is_file() or len((run / "metrics.csv").read_text().splitlines()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    command.process.terminate()
    done = command.wait()
    assert (done.returncode, done.stderr.splitlines()[-1]) == (143, "terminated")
    assert load_checkpoint(run / "last.safetensors").record["iteration"] >= 20
    assert saved_config(run)["iterations"] == 100000


@pytest.mark.parametrize("number", TERMINATIONS)
def test_a_second_signal_ends_it_at_once(number):
    before = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored
    try:
        with stop_requests(insistent=True) as asked:
            signal.raise_signal(number)
            assert asked() == number
            with pytest.raises(TerminatedError) as raised:
                signal.raise_signal(number)
        assert raised.value.number == number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("descriptor", [1, 2])
def test_nothing_fails_to_be_told_to_a_closed_terminal(descriptor):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    before = os.dup(descriptor)
    try:
        os.dup2(slave, descriptor)
        os.close(master)
        with pytest.raises(OSError, match="Input/output"):
            os.write(descriptor, b"saved")
        leave_closed_terminal()
        os.write(descriptor, b"saved")
    finally:
        os.dup2(before, descriptor)
        os.close(before)
        os.close(slave)


def test_a_file_and_a_living_terminal_are_not_left(tmp_path):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    before = os.dup(2)
    try:
        os.dup2(slave, 2)
        leave_closed_terminal()
        assert os.isatty(2)
        with (tmp_path / "log").open("wb") as log:
            os.dup2(log.fileno(), 2)
            leave_closed_terminal()
            os.write(2, b"saved")
    finally:
        os.dup2(before, 2)
        for opened in (before, slave, master):
            os.close(opened)
    assert (tmp_path / "log").read_bytes() == b"saved"


def test_sigterm_raises_unless_it_was_to_be_ignored():
    with terminable(), pytest.raises(TerminatedError):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
        with stop_requests(insistent=True) as asked:
            signal.raise_signal(signal.SIGTERM)
            assert not asked()
            signal.raise_signal(signal.SIGINT)
            assert asked() == signal.SIGINT
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
