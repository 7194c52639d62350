"""tools/ablation.py: pairs of runs that differ in the teacher alone, and a document of what was measured."""

import json
import shutil
import statistics
from dataclasses import replace

import pytest
from conftest import tiny_config, tool_module

from mdrn_cli.errors import MdrnError
from mdrn_cli.trainconfig import Distillation


@pytest.fixture(scope="module")
def tool():
    return tool_module("ablation")


def test_pairs_are_run_once_measured_and_written_up(tool, photo_folder, tmp_path, tiny_weights, monkeypatch):
    teacher = Distillation("hmds", str(tiny_weights("gray", 25.0)), 25.0, weight=0.2)
    config = tiny_config(photo_folder, val=str(photo_folder), iterations=2, distillation=teacher)
    document = tmp_path / "distillation.md"

    def ablate(seeds, *more):
        tool.ablate(config, seeds, tmp_path / "runs", [str(photo_folder), *more], None, document)

    with monkeypatch.context() as patch:
        patch.setattr(tool, "draw", lambda *_: None)
        ablate(1)
    trained, inner = [], tool.train

    def counting(arm, folder):
        trained.append((arm.seed, arm.distillation is not None))
        return inner(arm, folder)

    monkeypatch.setattr(tool, "train", counting)
    ablate(2)
    assert trained == [(1, False), (1, True)], "what is finished is not run again"
    stored = document.with_suffix(".json").read_text()
    document.with_suffix(".json").write_text(stored.replace(',\n    "soft_target": 0.0', ""))
    assert "soft_target" in stored
    assert "soft_target" not in document.with_suffix(".json").read_text()
    ablate(2)
    assert len(trained) == 2, "nor is what was finished before there were soft targets"
    document.with_suffix(".json").write_text(stored)
    runs = json.loads(document.with_suffix(".json").read_text())["runs"]
    assert [(run["seed"], run["distillation"] is not None) for run in runs] == [
        (0, False),
        (0, True),
        (1, False),
        (1, True),
    ]
    values = [run["psnr"]["validation"] for run in runs if run["distillation"]]
    text = document.read_text()
    assert f"| distilled | {statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} |" in text
    assert "weight 0.2 to 0. 2 iterations" in text
    assert document.with_suffix(".png").is_file()
    monkeypatch.setattr(tool, "draw", lambda *_: None)
    other = str(tmp_path / "other")
    with pytest.raises(MdrnError):
        ablate(3, other)
    assert len(trained) == 2, "what is not there is told of before any training"
    shutil.copytree(photo_folder, other)
    ablate(2, other)
    again = json.loads(document.with_suffix(".json").read_text())["runs"]
    assert [{**run, "psnr": {**run["psnr"], other: None}} for run in runs] == [
        {**run, "psnr": {**run["psnr"], other: None}} for run in again
    ]
    assert all(run["psnr"][other] == run["psnr"]["validation"] for run in again)


def test_students_may_begin_from_a_checkpoint(tool, photo_folder, tmp_path, tiny_weights, monkeypatch):
    monkeypatch.setattr(tool, "draw", lambda *_: None)
    init = tiny_weights("gray", 25.0)
    config = tiny_config(photo_folder, val=str(photo_folder), iterations=1, init=str(init))
    config = replace(config, distillation=Distillation("hmds", str(init), 25.0))
    document = tmp_path / "distillation.md"
    tool.ablate(config, 1, tmp_path / "runs", [str(photo_folder)], None, document)
    assert f", from `{init.name}`; seeds 0." in document.read_text()
    plain = replace(config, distillation=None)
    assert tool.describe(plain) != tool.describe(replace(plain, init=None)), "runs from fresh weights are others"


def test_gains_are_means_of_differences_of_the_same_seed(tool):
    settings = {key: getattr(tiny_config("x"), key) for key in tool.SETTINGS}
    teacher = {"mode": "hads", "teacher": "t", "teacher_sigma": 50.0, "weight": 0.1, "final_weight": 0.0}
    teacher["shared_noise"] = True
    runs = [
        {"settings": settings, "distillation": how, "seed": seed, "psnr": {"Set12": value}}
        for how, values in ((None, (27.0, 26.0, 25.0)), (teacher, (27.1, 26.3)))
        for seed, value in enumerate(values)
    ]
    text = tool.markdown(runs)
    assert "| plain | 26.500 ± 0.707 |" in text, "the plain run without a partner does not count"
    assert "| gain, seed by seed | 0.200 ± 0.141 |" in text
    assert "seeds 0, 1." in text


def test_the_document_is_what_the_tool_makes_of_the_figures(tool):
    runs = json.loads(tool.DOCUMENT.with_suffix(".json").read_text())["runs"]
    assert tool.DOCUMENT.read_text(encoding="utf-8") == tool.markdown(runs)


def test_the_verdict_speaks_of_the_figures_there_are(tool):
    runs = json.loads(tool.DOCUMENT.with_suffix(".json").read_text())["runs"]
    spoken = " ".join(tool.VERDICT.split())
    for run, both in tool.pairs(runs):
        gains = [ours["psnr"]["validation"] - plain["psnr"]["validation"] for plain, ours in both]
        told = tool.mean_and_spread(gains) if len(both) > 1 else f"{run['psnr']['validation']:.3f}"
        assert told in spoken


def test_two_teachers_of_one_name_are_two(tool, photo_folder, tmp_path, tiny_weights):
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        teacher = tiny_weights("gray", 25.0).rename(tmp_path / name / "best.safetensors")
        distillation = Distillation("hmds", str(teacher), 25.0)
        runs.append(tool.describe(tiny_config(photo_folder, init=str(teacher), distillation=distillation)))
    first, second = runs
    assert (first["distillation"]["teacher"], second["settings"]["init"]) == (
        "a/best.safetensors",
        "b/best.safetensors",
    )
    assert first["distillation"]["teacher_sha256"] == second["distillation"]["teacher_sha256"]
    teacher.write_bytes(teacher.read_bytes() + b" ")
    again = tool.describe(tiny_config(photo_folder, init=str(teacher), distillation=distillation))
    assert again["distillation"] != second["distillation"]
    assert again["settings"] != second["settings"]
