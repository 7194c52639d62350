"""tools/train_plan.py: runs one after another, each from another."""

import json
import sys

import pytest
from conftest import tool_module

from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.trainconfig import TrainConfig
from mdrn_cli.training import run_train

train_plan = tool_module("train_plan")

PLAN = """
[all]
data = "{photos}"
features = 8
patch_size = 16
batch_size = 2
iterations = 2
optimizer = "adamw"

[[run]]
name = "large"
blocks = 2
sigma = 25.0

[[run]]
name = "impossible"
blocks = 1
sigma = 25.0
init = "large"

[[run]]
name = "mistyped"
sigmma = 25.0

[[run]]
name = "untaught"
mode = "hads"

[[run]]
name = "small"
blocks = 1
sigma = 25.0
mode = "hads"
teacher = "large"
teacher_sigma = 25.0
"""


@pytest.fixture
def carried_out(tmp_path, photo_folder, monkeypatch):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.format(photos=photo_folder))

    def run():
        monkeypatch.setattr(sys, "argv", ["train_plan.py", str(plan), "--output", str(tmp_path / "runs")])
        return train_plan.main()

    return run


def test_runs_begin_from_runs_and_one_that_cannot_is_told_and_left(carried_out, tmp_path, capsys):
    assert carried_out() == 1
    told = capsys.readouterr().out
    assert "impossible" in told
    assert told.count("failed: ") == 3
    runs = tmp_path / "runs"
    assert {folder.name for folder in runs.iterdir() if (folder / "finished").exists()} == {"large", "small"}
    taught = load_checkpoint(runs / "small" / "last.safetensors").record["distillation"]
    assert {file.name for file in (runs / "large").glob("*.safetensors")} == {"last.safetensors"}, "and no state"
    assert taught["teacher"] == str(runs / "large" / "last.safetensors")


def test_no_run_begins_from_one_that_is_not_finished(carried_out, tmp_path, capsys):
    carried_out()
    (tmp_path / "runs" / "large" / "finished").unlink()
    (tmp_path / "runs" / "small" / "finished").unlink()
    (tmp_path / "plan.toml").write_text((tmp_path / "plan.toml").read_text().replace("blocks = 2", "blocks = 0"))
    capsys.readouterr()
    assert carried_out() == 1
    assert "the run large is not finished" in capsys.readouterr().out
    assert not (tmp_path / "runs" / "small" / "finished").exists()


@pytest.mark.parametrize(
    "wrong", ["", "[[run]]\nsigma = 25.0", "run = 3", "[[run", '[[run]]\nname="a"\n[[run]]\nname="a"', None]
)
def test_a_plan_that_is_none_is_told(carried_out, tmp_path, capsys, wrong):
    plan = tmp_path / "plan.toml"
    plan.write_text(wrong) if wrong is not None else plan.unlink()
    with pytest.raises(SystemExit) as ended:
        carried_out()
    assert (ended.value.code, f"{plan} is no plan: " in capsys.readouterr().err) == (2, True)


def test_a_plan_of_nothing_ends_at_once(carried_out, tmp_path):
    (tmp_path / "plan.toml").write_text("run = []")
    assert carried_out() == 0


def test_a_plan_that_is_none_while_it_is_changed_goes_on_as_it_was(carried_out, tmp_path, capsys, monkeypatch):
    plan, train = tmp_path / "plan.toml", train_plan.train

    def changing(*arguments):
        plan.write_text(plan.read_text() + "\n[[run]]\n")
        return train(*arguments)

    monkeypatch.setattr(train_plan, "train", changing)
    assert carried_out() == 1
    assert "the plan as it was, for it is none now" in capsys.readouterr().out
    assert (tmp_path / "runs" / "small" / "finished").exists()


def test_what_is_finished_is_not_done_again(carried_out, capsys):
    carried_out()
    capsys.readouterr()
    carried_out()
    again = capsys.readouterr().out
    assert "large" not in again.replace("'large'", "")
    assert "impossible" in again, "which may have been mended"


def test_what_was_cut_off_goes_on_and_nothing_else_is_replaced(carried_out, tmp_path, photo_folder, capsys):
    large, plan = tmp_path / "runs" / "large", tmp_path / "plan.toml"
    options = {"data": str(photo_folder), "features": 8, "patch_size": 16, "batch_size": 2, "iterations": 3}
    config = TrainConfig.from_dict(options | {"optimizer": "adamw", "blocks": 2, "sigma": 25.0})
    run_train(config, large, False, lambda _: None)
    weights = (large / "last.safetensors").read_bytes()
    carried_out()
    assert "a larger budget" in capsys.readouterr().out
    of_plan = plan.read_text()
    plan.write_text(of_plan.replace("iterations = 2", "iterations = 4").replace("sigma = 25.0", "sigma = 15.0"))
    carried_out()
    assert "something else" in capsys.readouterr().out
    assert (large / "last.safetensors").read_bytes() == weights
    plan.write_text(of_plan.replace("iterations = 2", "iterations = 4"))
    carried_out()
    assert json.loads((large / "environment.json").read_text())["earlier"]
    assert load_checkpoint(large / "last.safetensors").record["iteration"] == 4
    assert (large / "finished").exists()
