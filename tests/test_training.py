"""One fit(): it learns, survives SIGKILL, skips what is not finite and leaves a run folder behind."""

import csv
import errno
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import run_mdrn, silent, tiny_config
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from mdrn_cli.checkpoint import load_checkpoint, save_checkpoint
from mdrn_cli.configfile import format_config, read_config, tomllib
from mdrn_cli.errors import DeviceError, MdrnError, UsageError
from mdrn_cli.files import write_atomically
from mdrn_cli.fit import fit
from mdrn_cli.levels import check_sigma
from mdrn_cli.losses import reconstruction_loss
from mdrn_cli.optim import FUSED_ON
from mdrn_cli.patches import PatchSampler
from mdrn_cli.photographs import PhotoFolder, read_photographs
from mdrn_cli.runstate import saved_config, saved_sources
from mdrn_cli.trainconfig import PRESETS, TrainConfig
from mdrn_cli.training import initial_model, plain_loss, run_train, run_with


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_l1_is_the_mean_absolute_difference():
    a, b = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[0.5, 3.0]]]])
    assert reconstruction_loss(a, b).item() == pytest.approx(1.25)


def test_rmse_is_the_root_of_each_image_s_mean_square_averaged():
    clean = torch.zeros(2, 1, 1, 2)
    denoised = torch.tensor([[[[3.0, 4.0]]], [[[0.0, 0.0]]]])
    assert reconstruction_loss(denoised, clean, "rmse").item() == pytest.approx(12.5**0.5 / 2)
    denoised.requires_grad_(True)
    reconstruction_loss(denoised, clean, "rmse").backward()
    assert torch.isfinite(denoised.grad).all(), "also where an image has no difference"


@pytest.mark.parametrize(("optimizer", "loss"), [("muon", "l1"), ("muon", "rmse"), ("adamw", "l1"), ("adam", "l1")])
def test_training_learns_and_fills_the_run_folder(photo_folder, tmp_path, optimizer, loss):
    run = tmp_path / "run"
    config = tiny_config(
        photo_folder,
        val=str(photo_folder),
        iterations=60,
        optimizer=optimizer,
        loss=loss,
        validate_every=2,
        save_every=60,
        batch_size=4,
        learning_rate=3e-3,
        ema=0.9,
    )
    reports = []
    counters, photos = run_train(config, run, False, reports.append)
    assert counters.iteration == 60
    assert len(photos.files) == 4
    noisy_psnr = 20 * math.log10(255 / 50)
    assert counters.best_psnr > noisy_psnr + 1
    assert reports[-1].fraction == 1
    assert reports[-1].psnr is not None
    best, last = load_checkpoint(run / "best.safetensors"), load_checkpoint(run / "last.safetensors")
    assert best.config == last.config == config.network
    assert (last.sigma, last.record["iteration"], last.record["seed"]) == (50.0, 60, 0)
    assert rows(run)[-1]["iteration"] == "60"
    assert float(rows(run)[-1]["psnr"]) > noisy_psnr
    sample = Image.open(sorted((run / "samples").iterdir())[-1])
    assert sample.size == (3 * 128, 96)


def test_a_time_budget_ends_the_run_and_its_schedule(photo_folder, tmp_path):
    began = time.monotonic()
    config = tiny_config(photo_folder, iterations=None, time_budget=1.5, save_every=60)
    counters, _ = run_train(config, tmp_path / "run", False, silent)
    assert 1.5 <= counters.elapsed < 10
    assert time.monotonic() - began < 30
    assert counters.iteration > 3


def test_progress_is_of_the_steps_since_the_run_went_on(photo_folder, tmp_path, monkeypatch):
    """Those of before may have been those of another machine."""
    told = []
    monkeypatch.setattr("mdrn_cli.fit.REPORT_EVERY", 1)
    for iterations, seconds in ((4, 10), (8, 30)):
        clock = itertools.count(1000, seconds)
        monkeypatch.setattr("mdrn_cli.fit.time", SimpleNamespace(monotonic=lambda clock=clock: next(clock)))
        run_train(tiny_config(photo_folder, iterations=iterations), tmp_path / "run", iterations == 8, told.append)
    assert [progress.elapsed for progress in told] == [10, 20, 30, 40, 70, 100, 130, 160]
    assert [progress.rate for progress in told] == pytest.approx([1 / 10] * 4 + [1 / 30] * 4)
    assert [progress.fraction for progress in told[4:]] == [5 / 8, 6 / 8, 7 / 8, 1]
    left = [30, 20, 10, 0, 70 * 3 / 5, 100 * 2 / 6, 130 * 1 / 7, 0]
    assert [progress.remaining for progress in told] == pytest.approx(left)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_resumed_equals_uninterrupted(photo_folder, tmp_path, optimizer):
    """After an error in the middle; tests/test_faults.py does the same with SIGKILL."""
    config = tiny_config(photo_folder, iterations=10, optimizer=optimizer)
    run_train(config, tmp_path / "whole", False, silent)

    class StopError(Exception):
        pass

    sampler_photos = run_photos(photo_folder)
    model = initial_model(config).to(memory_format=torch.channels_last)
    sampler = PatchSampler(sampler_photos, config.patch_size, torch.device("cpu"))
    inner, calls = plain_loss(config.sigma, config.loss), []

    def interrupted(network, clean, generator, done):
        calls.append(1)
        if len(calls) == 6:
            raise StopError
        return inner(network, clean, generator, done)

    (tmp_path / "halves").mkdir()
    with pytest.raises(StopError):
        fit(config, model, interrupted, sampler, None, tmp_path / "halves", False, silent)
    run_train(config, tmp_path / "halves", True, silent)
    assert same_weights(tmp_path / "whole" / "last.safetensors", tmp_path / "halves" / "last.safetensors")


@pytest.mark.parametrize("seed", [0, -1])
def test_a_run_goes_on_on_a_device_with_other_random_numbers(photo_folder, tmp_path, seed):
    config, run = tiny_config(photo_folder, iterations=5, seed=seed), tmp_path / "run"
    run_train(config, run, False, silent)
    with safe_open(run / "state.safetensors", framework="pt") as file:
        about = file.metadata()
    of_cuda = torch.zeros(16, dtype=torch.uint8)  # as long as the state of a generator there
    (run / "state.safetensors").write_bytes(save(load_file(run / "state.safetensors") | {"rng": of_cuda}, about))
    counters, _ = run_train(replace(config, iterations=10), run, True, silent)
    assert counters.iteration == 10
    run_train(replace(config, iterations=10), tmp_path / "whole", False, silent)
    assert not same_weights(run / "last.safetensors", tmp_path / "whole" / "last.safetensors")


def test_compiling_takes_nothing_from_the_budget_and_changes_nothing(photo_folder, tmp_path, monkeypatch):
    calls, clock = [], [0.0]
    monkeypatch.setattr("mdrn_cli.fit.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def compiled(function):
        def run(noisy):
            if not calls:
                clock[0] += 60.0
            calls.append(noisy.shape)
            return function(noisy)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    config = tiny_config(photo_folder, iterations=3)
    run_train(config, tmp_path / "plain", False, silent)
    assert not calls
    counters, _ = run_train(replace(config, compile=True), tmp_path / "compiled", False, silent)
    assert len(set(calls)) == 1
    assert len(calls) == 4
    assert counters.elapsed == 0
    assert same_weights(tmp_path / "plain" / "last.safetensors", tmp_path / "compiled" / "last.safetensors")


def test_where_nothing_can_be_compiled_that_is_told(photo_folder, tmp_path, monkeypatch):
    def fail(_noisy):
        raise torch._dynamo.exc.TorchDynamoException("no C compiler\nat all")

    monkeypatch.setattr(torch, "compile", lambda _function: fail)
    with pytest.raises(MdrnError, match=r"cannot be compiled here \(no C compiler\)") as caught:
        run_train(replace(tiny_config(photo_folder), compile=True), tmp_path / "run", False, silent)
    assert "--no-compile" in caught.value.hint


def run_photos(folder: Path) -> PhotoFolder:
    return read_photographs(folder, "gray")


def fit_with(config: TrainConfig, folder: Path, losses) -> None:
    """fit() under a loss that multiplies the plain one by what `losses` gives for the step."""
    folder.mkdir()
    plain, step = plain_loss(config.sigma, config.loss), iter(losses)
    sampler = PatchSampler(run_photos(Path(config.data)), config.patch_size, torch.device("cpu"))
    return fit(
        config,
        initial_model(config),
        lambda *a: plain(*a) * next(step),
        sampler,
        None,
        folder,
        False,
        silent,
    )


@pytest.mark.parametrize("fused_on", [FUSED_ON, ()], ids=["fused", "not fused"])
def test_steps_that_are_not_finite_are_skipped_and_counted(photo_folder, tmp_path, monkeypatch, fused_on):
    monkeypatch.setattr("mdrn_cli.optim.FUSED_ON", fused_on)  # on MPS they are not
    config = tiny_config(photo_folder, iterations=6)
    counters = fit_with(config, tmp_path / "run", [1, math.nan, 1, math.inf, math.nan, 1])
    assert (counters.skipped, counters.consecutive_skipped) == (3, 0)
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").record["skipped"] == 3


def test_too_many_in_a_row_end_the_run_with_the_last_good_state(photo_folder, tmp_path):
    config = tiny_config(photo_folder, iterations=50, max_skipped=5)
    with pytest.raises(MdrnError, match="diverged"):
        fit_with(config, tmp_path / "run", [1, 1, 1] + [math.nan] * 47)
    last = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert last.record["iteration"] == 3
    assert (tmp_path / "run" / "state.safetensors").is_file()


def test_a_run_saves_as_soon_as_it_has_learned_something(photo_folder, tmp_path):
    config = tiny_config(photo_folder, iterations=50, max_skipped=5, save_every=1e9)
    with pytest.raises(MdrnError, match="diverged") as caught:
        fit_with(config, tmp_path / "run", [1] * 20 + [math.nan] * 30)
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").record["iteration"] == 20
    assert "keeps the last good state" in caught.value.hint


def test_a_hint_at_a_state_is_given_only_where_there_is_one(photo_folder, tmp_path):
    config = tiny_config(photo_folder, iterations=50, max_skipped=5)
    with pytest.raises(MdrnError, match="diverged") as caught:
        fit_with(config, tmp_path / "run", [math.nan] * 50)
    assert caught.value.hint == "lower the learning rate"


def test_a_run_without_a_finite_step_has_learned_nothing(photo_folder, tmp_path):
    with pytest.raises(MdrnError, match="none of 3 steps was finite"):
        fit_with(tiny_config(photo_folder, iterations=3), tmp_path / "run", [math.nan] * 3)
    assert not (tmp_path / "run" / "last.safetensors").exists()


@pytest.mark.parametrize("save_every", [60.0, 0.0])
def test_a_run_that_ends_in_skipped_steps_keeps_what_it_has_learned(photo_folder, tmp_path, save_every):
    """Also where an earlier state has been saved."""
    config = tiny_config(photo_folder, iterations=4, save_every=save_every)
    counters = fit_with(config, tmp_path / "run", [1, 1, math.nan, math.nan])
    assert (counters.iteration, counters.skipped) == (4, 2)
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").record["iteration"] == 4


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_running_out_of_memory_is_a_device_error(photo_folder, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("mdrn_cli.training.plain_loss", lambda *_: fail)
    with pytest.raises(DeviceError, match="out of memory") as caught:
        run_train(tiny_config(photo_folder), tmp_path / "run", False, silent)
    assert "--batch-size" in caught.value.hint


def test_a_run_is_resumed_without_its_first_weights_and_from_another_folder(
    photo_folder, tmp_path, tiny_weights, monkeypatch
):
    init = tiny_weights("gray", 25.0)
    monkeypatch.chdir(tmp_path)
    config = tiny_config("photos", val="photos", init=init.name, iterations=2)
    run_train(config, Path("run"), False, silent)
    init.unlink()
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    saved = TrainConfig.from_dict(saved_config(tmp_path / "run"))
    assert (saved.data, saved.val, saved.init) == (str(photo_folder), str(photo_folder), str(init))
    assert run_train(saved.extended(4, None), tmp_path / "run", True, silent)[0].iteration == 4
    assert settings_of(tmp_path / "run")["data"] == str(photo_folder)


def test_a_run_of_before_with_relative_paths_is_resumed_where_it_was_begun(photo_folder, tmp_path, monkeypatch):
    run_train(tiny_config(photo_folder, iterations=2), tmp_path / "run", False, silent)
    path, saved = tmp_path / "run" / "state.safetensors", saved_config(tmp_path / "run")
    change_state(path, config=json.dumps(saved | {"data": "photos", "init": "gone.safetensors"}))
    monkeypatch.chdir(tmp_path)
    config = TrainConfig.from_dict(saved_config(tmp_path / "run")).extended(3, None)
    assert run_train(config, tmp_path / "run", True, silent)[0].iteration == 3
    assert saved_config(tmp_path / "run")["data"] == str(photo_folder)


def change_state(path: Path, **metadata: str) -> None:
    """Write a state again with some of its metadata changed; none at all without arguments."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata() | metadata if metadata else None
    path.write_bytes(save(load_file(path), about))


@pytest.mark.parametrize("name", ["best.safetensors", "samples/../last.safetensors"])
def test_a_run_does_not_replace_the_one_it_begins_from(photo_folder, tmp_path, name):
    run = tmp_path / "run"
    config = tiny_config(photo_folder, val=str(photo_folder), iterations=1)
    run_train(config, run, False, silent)
    with pytest.raises(UsageError, match="would be replaced"):
        run_train(replace(config, init=str(run / name)), run, False, silent)
    assert (run / "best.safetensors").is_file()
    run_train(replace(config, init=str(run / name)), tmp_path / "next", False, silent)


def test_best_weights_are_not_replaced_by_worse_ones_after_a_kill(photo_folder, tmp_path):
    """Killed after a validation, before the next save: the state does not know of the best weights."""
    run = tmp_path / "run"
    config = tiny_config(photo_folder, val=str(photo_folder), iterations=1)
    run_train(config, run, False, silent)
    best = load_checkpoint(run / "best.safetensors")
    known = {**best.record, "best_psnr": 99.0}
    save_checkpoint(run / "best.safetensors", replace(best, record=known), torch.float32)
    counters, _ = run_train(config.extended(2, None), run, True, silent)
    assert counters.best_psnr == 99.0
    assert load_checkpoint(run / "best.safetensors").record["best_psnr"] == 99.0
    (run / "best.safetensors").write_bytes(b"damaged")
    counters, _ = run_train(config.extended(3, None), run, True, silent)
    assert load_checkpoint(run / "best.safetensors").record["best_psnr"] == counters.best_psnr < 99


def test_an_extension_survives_a_kill_before_the_first_save(photo_folder, tmp_path, monkeypatch):
    config = tiny_config(photo_folder, iterations=2)
    run_train(config, tmp_path / "run", False, silent)

    def killed(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("mdrn_cli.training.plain_loss", lambda *_: killed)
    with pytest.raises(ZeroDivisionError):
        run_train(config.extended(5, None), tmp_path / "run", True, silent)
    assert saved_config(tmp_path / "run")["iterations"] == 5


def test_a_damaged_state_is_told_from_none(photo_folder, tmp_path):
    run = tmp_path / "run"
    run_train(tiny_config(photo_folder, iterations=1), run, False, silent)
    path, whole = run / "state.safetensors", (run / "state.safetensors").read_bytes()
    with pytest.raises(MdrnError, match="no run to resume") as none:
        saved_config(tmp_path / "none")
    assert none.value.hint == "there is no such folder"
    path.write_bytes(whole[:-9])
    with pytest.raises(MdrnError, match="is damaged") as caught:
        saved_config(run)
    assert f"--init {run / 'last.safetensors'}" in caught.value.hint
    path.write_bytes(whole)
    change_state(path)
    with pytest.raises(MdrnError, match="does not tell the options"):
        saved_config(run)
    with pytest.raises(MdrnError, match="does not fit this run"):
        run_train(tiny_config(photo_folder, iterations=2), run, True, silent)
    save_file({"a": torch.zeros(1)}, path, dict.fromkeys(("config", "sources"), "[" * 100_000 + "]" * 100_000))
    with pytest.raises(MdrnError, match="is damaged"):
        saved_config(run)
    assert saved_sources(run) == {}


def test_options_of_another_version_are_an_error():
    known = asdict(TrainConfig("photos", iterations=1))
    with pytest.raises(MdrnError, match="unexpected keyword argument 'novel'"):
        TrainConfig.from_dict(known | {"novel": 3})
    del known["data"]
    with pytest.raises(MdrnError, match="missing 1 required positional argument: 'data'"):
        TrainConfig.from_dict(known)


def test_starting_from_another_checkpoint(photo_folder, tmp_path, tiny_weights):
    """Other sigma, other color mode, more blocks: the run begins with the adapted weights."""
    init = tiny_weights("gray", 25.0)
    config = tiny_config(photo_folder, init=str(init), blocks=2, sigma=50.0)
    gray = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(initial_model(config)(gray), load_checkpoint(init).build()(gray))
    run_train(replace(config, color="color", iterations=2), tmp_path / "run", False, silent)
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").config.color == "color"


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": None},
        {"time_budget": 5.0},
        {"sigma": 0.0},
        {"optimizer": "sgd"},
        {"batch_size": 0},
        {"ema": 1.0},
        {"loss": "l3"},
        {"schedule": "staircase"},
        {"iterations": -1},
        {"iterations": True},
        {"iterations": 2.5},
        {"batch_size": 2.5},
        {"patch_size": 32.0},
        {"seed": "a"},
        {"seed": 2**64},
        {"data": 5},
        {"val": ["x"]},
        {"compile": "no"},
        {"compile": 1},
        {"warmup": "a"},
        {"warmup": -0.1},
        {"warmup": 1.1},
        {"halvings": -1},
        {"learning_rate": math.inf},
        {"muon_learning_rate": 0.0},
        {"muon_learning_rate": -0.1},
        {"clip": math.nan},
        {"save_every": -1.0},
        {"precision": "float8"},
        {"color": "grey"},
        {"blocks": 0},
        {"features": 7},
        {"distillation": "hads"},
    ],
)
def test_a_config_that_makes_no_sense_is_a_usage_error(photo_folder, wrong):
    with pytest.raises(UsageError):
        tiny_config(photo_folder, **wrong)


def test_a_level_below_1_is_taken_for_one_on_another_scale(photo_folder):
    with pytest.raises(UsageError) as caught:
        tiny_config(photo_folder, sigma=0.2)
    assert "did you mean 51?" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        check_sigma(0.9)  # 230 would be refused as well
    assert caught.value.hint == "sigma is on the 0-255 scale"


def test_whole_numbers_are_numbers(photo_folder):
    config = tiny_config(photo_folder, sigma=50, time_budget=60, iterations=None, clip=math.inf, warmup=0)
    assert TrainConfig.from_dict(asdict(config)) == config


@pytest.mark.parametrize(
    "text", ["photos", "😀", "a\x7fb", 'quote"back\\slash', "line\nbreak\ttab\x01", "\u2028\u0085é", "", "Infinity"]
)
def test_a_configuration_written_is_read_back(tmp_path, text):
    values = {"data": text, "clip": math.inf, "seed": -(2**63), "learning_rate": 1e-5, "compile": False, "val": None}
    (tmp_path / "c.toml").write_text(format_config(values), encoding="utf-8")
    del values["val"]
    assert read_config(tmp_path / "c.toml", values) == values


def test_a_path_that_is_not_unicode_is_left_out_of_the_configuration(tmp_path):
    (tmp_path / "c.toml").write_text(format_config({"data": "a\udcff", "seed": 3}), encoding="utf-8")
    assert read_config(tmp_path / "c.toml", ["data", "seed"]) == {"seed": 3}


def test_the_paper_s_preset_has_nothing_that_the_paper_has_not(photo_folder):
    config = tiny_config(photo_folder, **PRESETS["paper"])
    assert (config.warmup, config.clip, config.ema, config.batch_size) == (0.0, math.inf, 0.0, 16)


def test_without_a_limit_gradients_are_as_they_are(photo_folder, tmp_path):
    counters = fit_with(tiny_config(photo_folder, iterations=3, clip=math.inf), tmp_path / "run", [1, math.inf, 1])
    assert counters.skipped == 1
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").record["clip"] == math.inf


def test_command_line_errors(photo_folder, tmp_path):
    run = tmp_path / "run"
    without_data = run_mdrn("train", "-o", run, "--iterations", 1)
    assert without_data.returncode == 2
    assert "error: no photographs" in without_data.stderr
    assert run_mdrn("train", "-o", run, "--data", photo_folder).returncode == 2
    nothing = run_mdrn("train", "--resume", "-o", run)
    assert nothing.returncode == 1
    assert "no run to resume" in nothing.stderr
    bad = run_mdrn("train", "-o", run, "--data", photo_folder, "--time-budget", "1 fortnight")
    assert bad.returncode == 2
    assert "fortnight" in bad.stderr


def test_a_finished_run_is_not_overwritten_by_accident(photo_folder, tmp_path):
    run_train(tiny_config(photo_folder, iterations=1), tmp_path / "run", False, silent)
    again = run_mdrn("train", "-o", tmp_path / "run", "--data", photo_folder, "--iterations", 1)
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_training_needs_nothing_beyond_a_plain_torch_image(photo_folder, tmp_path):
    """torch, numpy, pillow, typer, rich, requests and safetensors, that is."""
    absent = ["platformdirs", "pyvips", "skimage", "scipy", "pandas", "cv2", "tensorboard", "matplotlib", "yaml"]
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "from mdrn_cli.cli import app\n"
        f"app(['train','--data',{str(photo_folder)!r},'--blocks','1','--iterations','1','--patch-size','32',"
        f"'--batch-size','1','-o',{str(tmp_path / 'run')!r}], standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / "events").exists()


@pytest.mark.curves
def test_the_run_folder_tells_what_was_run(photo_folder, tmp_path):
    run = tmp_path / "run"
    run_train(tiny_config(photo_folder, val=str(photo_folder), iterations=25), run, False, silent)
    settings = tomllib.loads((run / "config.toml").read_text())
    assert (settings["blocks"], settings["iterations"], settings["device"]) == (1, 25, "cpu")
    assert "time_budget" not in settings
    environment = json.loads((run / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["precision"] == "float32"
    assert list((run / "events").iterdir())
    with Image.open(run / "curves.png") as curves:
        assert len(np.unique(np.asarray(curves.convert("L")))) > 10


def test_curves_are_drawn_at_each_validation_and_at_the_end_unless_that_was_one(photo_folder, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("mdrn_cli.runlog.draw_curves", lambda metrics, _output: drawn.append(metrics.read_text()))
    config = tiny_config(photo_folder, val=str(photo_folder), iterations=2, validate_every=0.0)
    run_train(config, tmp_path / "run", False, silent)
    assert [text.count("\n") for text in drawn] == [2, 3]
    run_train(tiny_config(photo_folder, iterations=2), tmp_path / "other", False, silent)
    assert len(drawn) == 3


@pytest.mark.parametrize("told", [None, "of-the-user"])
def test_curves_leave_the_user_s_own_folders_alone(tmp_path, told):
    (tmp_path / "metrics.csv").write_text("iteration,loss,psnr\n1,0.5,\n")
    script = "from mdrn_cli.runlog import draw_curves; from pathlib import Path\n"
    script += "draw_curves(Path('metrics.csv'), Path('curves.png'))"
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL"))}
    ours |= {"HOME": str(tmp_path / "user"), "MDRN_HOME": str(tmp_path / "cache")}
    ours |= {"MPLCONFIGDIR": str(tmp_path / told)} if told else {}
    paths = [str(Path(__file__).parents[1]), ours.get("PYTHONPATH", "")]
    ours["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    (tmp_path / "user").mkdir()
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=ours, check=True)
    assert (tmp_path / "curves.png").is_file()
    assert not list((tmp_path / "user").iterdir())
    assert list((tmp_path / (told or "cache/matplotlib")).iterdir())


def test_halving_goes_down_in_steps(photo_folder, tmp_path):
    run = tmp_path / "run"
    config = tiny_config(photo_folder, iterations=100, schedule="halving", halvings=4, warmup=0.0, learning_rate=1e-3)
    run_train(replace(config, optimizer="adam", save_every=60), run, False, silent)
    with (run / "metrics.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5])


def options(folder, **more):
    flags = {"data": folder, "blocks": 1, "patch-size": 32, "batch-size": 1, "precision": "float32", **more}
    return [part for name, value in flags.items() for part in (f"--{name}", value)]


def settings_of(run):
    return tomllib.loads((run / "config.toml").read_text())


def test_flags_win_over_the_file_and_the_file_over_the_preset(photo_folder, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('learning_rate = 0.002\nbatch_size = 3\ntime_budget = "1h"\noptimizer = "adamw"\n')
    run = tmp_path / "run"
    done = run_mdrn("train", *options(photo_folder, iterations=1), "-o", run, "--preset", "paper", "--config", file)
    assert done.returncode == 0, done.stderr
    settings = settings_of(run)
    assert settings["batch_size"] == 1, "a flag"
    assert settings["iterations"] == 1
    assert "time_budget" not in settings, "the budget given replaces that of the file"
    assert settings["optimizer"] == "adamw", "of the file"
    assert settings["learning_rate"] == 0.002
    assert (settings["loss"], settings["schedule"], settings["ema"]) == ("l1", "halving", 0.0), "of the preset"
    again = run_mdrn("train", "--config", run / "config.toml", "-o", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert same_weights(run / "last.safetensors", tmp_path / "again" / "last.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat = 1", "did you mean learning_rate"),
        ("mode = 'hads'", "unknown key 'mode'"),
        ("not toml at all", "not TOML"),
        ("batch_size = 'many'", "batch size must be a whole number, not 'many'"),
        ("loss = 'l3'", "l3"),
        ("validate_every = 'abc'", "c.toml: validate_every: 'abc' is not a duration"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(photo_folder, tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    arguments = ["--data", photo_folder, "--iterations", 1, "-o", tmp_path / "run", "--config", tmp_path / "c.toml"]
    done = run_mdrn("train", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_overwrite_replaces_the_run_and_nothing_else(photo_folder, tmp_path):
    run = tmp_path / "run"
    assert run_mdrn("train", *options(photo_folder, iterations=3), "-o", run).returncode == 0
    (run / "notes.txt").write_text("mine")
    refused = run_mdrn("train", *options(photo_folder, iterations=1), "-o", run)
    assert (refused.returncode, "not empty" in refused.stderr) == (2, True)
    assert run_mdrn("train", *options(photo_folder, iterations=1), "-o", run, "--overwrite").returncode == 0
    assert settings_of(run)["iterations"] == 1
    assert (run / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["config.toml", "best.safetensors", "samples/00000001.png"])
def test_overwrite_replaces_no_file_that_no_run_has_left(photo_folder, tmp_path, name):
    project = tmp_path / "project"
    (project / name).parent.mkdir(parents=True)
    (project / name).write_text("mine")
    refused = run_mdrn("train", *options(photo_folder, iterations=1), "-o", project, "--overwrite")
    assert (refused.returncode, "is not the folder of a run" in refused.stderr) == (2, True)
    assert (project / name).read_text() == "mine"


def test_overwrite_leaves_other_files_in_the_folders_of_a_run(photo_folder, finished):
    (finished / "samples").mkdir(exist_ok=True)
    for name in ("mine.png", "00000001.png"):
        (finished / "samples" / name).write_text("something")
    assert run_mdrn("train", *options(photo_folder, iterations=1), "-o", finished, "--overwrite").returncode == 0
    assert [path.name for path in (finished / "samples").iterdir()] == ["mine.png"]


@pytest.mark.parametrize("option", ["data", "val"])
def test_photographs_where_a_run_keeps_its_own_pictures_are_refused(photo_folder, tmp_path, option):
    samples = shutil.copytree(photo_folder, tmp_path / "run" / "samples")
    before = {path: path.read_bytes() for path in samples.rglob("*") if path.is_file()}
    folders = {"data": photo_folder, "val": photo_folder, option: samples}
    given = [word for name, folder in folders.items() for word in (f"--{name}", folder)]
    refused = run_mdrn("train", *given, "--smoke", "-o", tmp_path / "run", "--overwrite")
    assert (refused.returncode, "keeps files of its own" in refused.stderr) == (2, True)
    assert {path: path.read_bytes() for path in samples.rglob("*") if path.is_file()} == before


def test_a_run_folder_that_is_a_file_is_refused(photo_folder, tmp_path):
    (tmp_path / "run").write_text("mine")
    refused = run_mdrn("train", *options(photo_folder, iterations=1), "-o", tmp_path / "run", "--overwrite")
    assert (refused.returncode, "is no folder" in refused.stderr) == (2, True)


def test_a_request_that_makes_no_sense_costs_no_run(photo_folder, tmp_path):
    run = tmp_path / "run"
    run_train(tiny_config(photo_folder, iterations=1), run, False, silent)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    (tmp_path / "c.toml").write_text("compile = 'no'\n")
    for wrong in (["--precision", "float8"], ["--config", tmp_path / "c.toml"]):
        done = run_mdrn("train", "--data", photo_folder, "--iterations", 1, "--overwrite", "-o", run, *wrong)
        assert done.returncode == 2
        assert "photographs" not in done.stderr, "nothing is read"
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def _out_of_memory(*_arguments):
    raise MemoryError


def _not_finite(*arguments):
    return math.nan * plain_loss(50.0, "l1")(*arguments)


@pytest.mark.parametrize(("loss", "told"), [(_out_of_memory, "memory"), (_not_finite, "diverged|finite")])
@pytest.mark.parametrize("iterations", [3, 50])
def test_a_run_that_fails_at_once_costs_nothing_of_the_one_it_was_to_replace(
    photo_folder, finished, loss, told, iterations
):
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    config = tiny_config(photo_folder, iterations=iterations, max_skipped=5, val=str(photo_folder), save_every=0.0)
    with pytest.raises(MdrnError, match=told) as caught:
        run_with(lambda _device: loss, config, finished, False, silent, None)
    assert "keeps" not in caught.value.hint, "what is there is of another run"
    assert {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("iterations", [20, 40])
def test_a_run_that_diverges_before_it_has_saved_costs_nothing_either(photo_folder, finished, iterations):
    """One good step is not enough: at the next report the weights may be spoilt."""
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    config = tiny_config(photo_folder, iterations=iterations, val=str(photo_folder), save_every=1e9)
    losses = iter([1.0] + [math.nan] * 50)
    loss = plain_loss(50.0, "l1")
    with pytest.raises(MdrnError, match="diverged"):
        run_with(lambda _device: lambda *a: loss(*a) * next(losses), config, finished, False, silent, None)
    assert {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("name", ["state.safetensors", "last.safetensors"])
def test_a_run_that_cannot_save_costs_nothing_of_the_one_it_was_to_replace(photo_folder, finished, monkeypatch, name):
    def full(path, content):
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, content)

    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    monkeypatch.setattr("mdrn_cli.runstate.write_atomically", full)
    monkeypatch.setattr("mdrn_cli.checkpoint.write_atomically", full)
    with pytest.raises(MdrnError, match="No space"):
        run_train(tiny_config(photo_folder, iterations=3), finished, False, silent)
    after = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    if name == "last.safetensors":  # the new run has a state to go on from then
        assert after.pop("state.safetensors") != before.pop("state.safetensors")
    assert after == before


def test_what_is_left_of_a_replaced_run_is_not_taken_for_its_successors(photo_folder, finished, monkeypatch):
    """A kill between the first save and the removal of all else."""

    def killed(*_):
        raise KeyboardInterrupt

    val = str(photo_folder)
    first = tiny_config(photo_folder, iterations=3, val=val, sigma=5.0)  # whose best nothing of 50 comes up to
    run_train(first, finished, False, silent)
    config = tiny_config(photo_folder, iterations=3, val=val)
    with monkeypatch.context() as patch:
        patch.setattr("mdrn_cli.training.clear", killed)
        with pytest.raises(KeyboardInterrupt):
            run_train(config, finished, False, silent)
    assert load_checkpoint(finished / "best.safetensors").sigma == 5
    run_train(replace(config, iterations=4), finished, True, silent)
    assert load_checkpoint(finished / "best.safetensors").sigma == 50
    assert [row["iteration"] for row in csv.DictReader((finished / "metrics.csv").open())] == ["4"]


def test_a_run_replaces_links_not_what_they_lead_to(photo_folder, finished):
    kept = {}
    for name in ("state.safetensors", "last.safetensors"):
        archived = finished.parent / f"archived-{name}"
        (finished / name).rename(archived)
        (finished / name).symlink_to(archived)
        kept[archived] = archived.read_bytes()
    run_train(tiny_config(photo_folder, iterations=1), finished, False, silent)
    assert not any((finished / name.name.removeprefix("archived-")).is_symlink() for name in kept)
    assert {archived: archived.read_bytes() for archived in kept} == kept


def test_a_short_run_whose_last_step_is_skipped_is_validated(photo_folder, tmp_path):
    losses, loss = iter([1.0, 1.0, math.nan]), plain_loss(50.0, "l1")
    config = tiny_config(photo_folder, iterations=3, val=str(photo_folder))
    counters, _ = run_with(
        lambda _device: lambda *a: loss(*a) * next(losses), config, tmp_path / "run", False, silent, None
    )
    assert counters.best_psnr
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_a_run_whose_last_steps_are_all_skipped_has_diverged(photo_folder, tmp_path):
    config = tiny_config(photo_folder, iterations=40, save_every=1e9)
    with pytest.raises(MdrnError, match="diverged: 10 steps in a row") as caught:
        fit_with(config, tmp_path / "run", [1] * 30 + [math.nan] * 10)
    assert "keeps the last good state" in caught.value.hint
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").record["iteration"] == 20


@pytest.mark.parametrize("more", [["--config", "c.toml"], ["--preset", "paper"], ["--overwrite"], ["--smoke"]])
def test_what_a_run_being_resumed_cannot_take_is_refused(tmp_path, more):
    done = run_mdrn("train", "--resume", "-o", tmp_path / "run", *more)
    assert done.returncode == 2
    assert f"so not with {more[0]}" in done.stderr


def test_a_damaged_validation_photograph_is_named(photo_folder, tmp_path):
    (photo_folder / "broken.png").write_bytes(b"not an image")
    whole = tmp_path / "whole"
    whole.mkdir()
    Image.new("L", (40, 40)).save(whole / "a.png")
    done = run_mdrn("train", *options(whole, val=photo_folder), "-o", tmp_path / "run", "--smoke")
    assert done.returncode == 0, done.stderr
    assert f"warning: skipped {photo_folder / 'broken.png'}" in done.stderr


def test_smoke_is_two_iterations_a_validation_and_a_save(photo_folder, tmp_path):
    run = tmp_path / "run"
    done = run_mdrn("train", *options(photo_folder, val=photo_folder), "-o", run, "--smoke")
    assert done.returncode == 0, done.stderr
    assert "2 iterations" in done.stderr
    assert (run / "best.safetensors").is_file()
    assert (run / "state.safetensors").is_file()


def test_a_finished_run_is_extended_by_a_larger_budget(photo_folder, tmp_path):
    run = tmp_path / "run"
    assert run_mdrn("train", *options(photo_folder, iterations=20), "-o", run).returncode == 0
    for wrong in (["--iterations", 10], ["--time-budget", "1h"], ["--sigma", 25]):
        assert run_mdrn("train", "--resume", "-o", run, *wrong).returncode == 2
    finished = "it had been finished: a larger --iterations"
    assert finished in run_mdrn("train", "--resume", "-o", run).stderr
    longer = run_mdrn("train", "--resume", "-o", run, "--iterations", 40)
    assert longer.returncode == 0
    assert finished not in longer.stderr
    assert settings_of(run)["iterations"] == 40
    with (run / "metrics.csv").open() as file:
        rates = {int(row["iteration"]): float(row["learning_rate"]) for row in csv.DictReader(file)}
    assert list(rates) == [20, 40]
    assert rates[20] < rates[40] * 10, "the schedule of the larger budget has begun where the run stood"
