"""A student under a frozen teacher (section 3.2)."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import run_mdrn, tiny_checkpoint, tiny_config
from safetensors import safe_open
from safetensors.torch import load_file, save

from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.distillation import check_teacher, distilled_loss, find_teacher, frozen, run_distill
from mdrn_cli.errors import UsageError, WeightsError
from mdrn_cli.losses import distillation_loss, reconstruction_loss
from mdrn_cli.runstate import saved_config
from mdrn_cli.trainconfig import Distillation
from mdrn_cli.training import run_train

CPU = torch.device("cpu")


def test_the_loss_is_the_sum_over_groups_of_mean_absolute_differences():
    ours = [torch.zeros(2, 3, 4, 5)] * 3
    theirs = [torch.full((2, 3, 4, 5), value) for value in (1.0, -2.0, 0.5)]
    assert distillation_loss(ours, theirs).item() == pytest.approx(3.5)
    with pytest.raises(ValueError, match="zip"):
        distillation_loss(ours, theirs[:2])


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Recorder:
    """A network that remembers what it was given."""

    def __init__(self, model):
        self.model, self.inputs = model, []

    def forward_features(self, noisy):
        self.inputs.append(noisy)
        return self.model.forward_features(noisy)


def asked(distillation, sigma, done=0.0):
    """Inputs of student and teacher in one step, and its loss with the parts it should be made of."""
    student, teacher = Recorder(tiny_checkpoint(seed=1).build()), Recorder(tiny_checkpoint(seed=2).build())
    clean = torch.rand(2, 1, 16, 16)
    step = distilled_loss(sigma, "l1", distillation, teacher.forward_features)
    loss, told = step(student.forward_features, clean, torch.randn_like, done)
    (ours,), (theirs,) = student.inputs, teacher.inputs
    denoised, features = student.model.forward_features(ours)
    parts = reconstruction_loss(denoised, clean), distillation_loss(features, teacher.model.forward_features(theirs)[1])
    assert told.item() == pytest.approx(parts[0].item(), rel=1e-5)
    return clean, ours, theirs, loss, parts


def test_hads_gives_both_the_same_noisy_input_and_adds_the_weighted_loss():
    _, ours, theirs, loss, (reconstruction, distilled) = asked(Distillation("hads", "", 50.0, weight=0.3), 50.0)
    assert torch.equal(ours, theirs)
    assert loss.item() == pytest.approx((reconstruction + 0.3 * distilled).item(), rel=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_hmds_gives_the_teacher_the_same_patch_under_less_noise(shared):
    clean, ours, theirs, _, _ = asked(Distillation("hmds", "", 25.0, shared_noise=shared), 50.0)
    student_noise, teacher_noise = (ours - clean) * 255, (theirs - clean) * 255
    assert student_noise.std().item() == pytest.approx(50, rel=0.15)
    assert teacher_noise.std().item() == pytest.approx(25, rel=0.15)
    assert torch.allclose(student_noise / 2, teacher_noise, atol=1e-3) == shared


@pytest.mark.parametrize(("done", "weight"), [(0.0, 0.4), (0.5, 0.3), (1.0, 0.2)])
def test_the_weight_goes_from_start_to_end_in_a_straight_line(done, weight):
    distillation = Distillation("hads", "", 50.0, weight=0.4, final_weight=0.2)
    _, _, _, loss, (reconstruction, distilled) = asked(distillation, 50.0, done)
    assert loss.item() == pytest.approx((reconstruction + weight * distilled).item(), rel=1e-5)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_image_of_the_teacher_has_a_share_in_the_target(share):
    student, teacher = tiny_checkpoint(seed=1).build(), tiny_checkpoint(seed=2).build()
    clean, noise = torch.rand(2, 1, 16, 16), torch.randn(2, 1, 16, 16)
    step = distilled_loss(50.0, "rmse", Distillation("hads", "", 50.0, soft_target=share), teacher.forward_features)
    _, told = step(student.forward_features, clean, lambda _: noise, 0.0)
    ours, theirs = (network(clean + noise * 50 / 255) for network in (student, teacher))
    target = (1 - share) * clean + share * theirs
    assert told.item() == pytest.approx(reconstruction_loss(ours, target, "rmse").item(), rel=1e-4)


def test_one_forward_pass_each_and_the_teacher_is_frozen():
    teacher = frozen(tiny_checkpoint(seed=2).build().train(), CPU)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    buffers = {name: tensor.clone() for name, tensor in teacher.named_buffers()}
    student = tiny_checkpoint(seed=1).build().train()
    heads = []
    for network in (student, teacher):
        network.head.register_forward_hook(lambda module, _a, _o: heads.append(module))
    step = distilled_loss(50.0, "l1", Distillation("hads", "", 50.0), teacher.forward_features)
    step(student.forward_features, torch.rand(1, 1, 16, 16), torch.randn_like, 0.0).total.backward()
    assert heads == [student.head, teacher.head]
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert student.head.weight.grad.abs().max() > 0
    assert all(torch.equal(teacher.state_dict()[name], before[name]) for name in before)
    assert all(torch.equal(dict(teacher.named_buffers())[name], buffers[name]) for name in buffers)


@pytest.mark.parametrize(
    ("teacher", "mode", "teacher_sigma", "student", "message"),
    [
        (("gray", 25.0), "hads", 25.0, {"sigma": 50.0}, "hads needs one noise level"),
        (("gray", 50.0), "hmds", 50.0, {"sigma": 50.0}, "below the student"),
        (("gray", 75.0), "hmds", 75.0, {"sigma": 50.0}, "below the student"),
        (("color", 50.0), "hads", 50.0, {"sigma": 50.0}, "is for color"),
        (("gray", 50.0), "hads", 50.0, {"sigma": 50.0, "features": 16}, "features"),
        (("gray", 25.0), "hmds", 15.0, {"sigma": 50.0}, "is for sigma 25"),
        (("gray", 50.0), "hads", 50.0, {"sigma": 50.0}, "larger than the student"),
        (("gray", 50.0), "hads", 50.0, {"sigma": 50.0, "blocks": 2}, "larger than the student"),
    ],
)
def test_a_pair_that_makes_no_sense_is_a_usage_error(teacher, mode, teacher_sigma, student, message):
    distillation = Distillation(mode, "", teacher_sigma)
    with pytest.raises(UsageError, match=message):
        check_teacher(tiny_config("x", distillation=distillation, **student), distillation, tiny_checkpoint(*teacher))


def test_a_teacher_that_has_learned_other_noise_is_refused(photo_folder, tmp_path):
    arguments = ["--mode", "hads", "--color", "color", "--teacher", "mdrn-camera-color-15", "--blocks", 1]
    done = run_mdrn("distill", "--data", photo_folder, *arguments, "--iterations", 1, "--output", tmp_path / "run")
    assert (done.returncode, "noise that is not white" in done.stderr) == (2, True), done.stderr


def test_a_teacher_of_hmds_may_be_of_any_size():
    distillation = Distillation("hmds", "", 25.0)
    for blocks in (1, 2, 3):
        check_teacher(
            tiny_config("x", distillation=distillation, blocks=2),
            distillation,
            tiny_checkpoint(sigma=25.0, blocks=blocks),
        )


def test_an_unknown_mode_or_a_negative_weight_is_a_usage_error():
    with pytest.raises(UsageError, match="mode"):
        Distillation("both", "", 50.0)
    for wrong in ({"final_weight": -1}, {"weight": math.nan}, {"weight": math.inf}, {"weight": "0.1"}):
        with pytest.raises(UsageError, match="weight"):
            Distillation("hads", "", 50.0, **wrong)
    with pytest.raises(UsageError, match="teacher must be text"):
        Distillation("hads", 5, 50.0)
    with pytest.raises(UsageError, match=r"sigma 0.2 is below 1"):
        Distillation("hads", "", 0.2)


def test_the_teacher_is_the_bundled_network_that_the_mode_asks_for(monkeypatch):
    there_are = [("mdrn", 25.0), ("mdrn-2b", 25.0), ("mdrn-2b", 15.0)]

    def find(model, _color, sigma):
        if (model, sigma) in there_are:
            return Path(f"{model}-{sigma:g}")
        if model == "auto" and (names := [name for name, level in there_are if level == sigma]):
            return Path(f"{names[0]}-{sigma:g}")
        raise WeightsError(f"no {model}")

    monkeypatch.setattr("mdrn_cli.distillation.find_weights", find)
    assert find_teacher(None, "hads", "gray", 25.0, 2) == Path("mdrn-25")
    assert find_teacher(None, "hmds", "gray", 25.0, 8) == Path("mdrn-25")
    assert find_teacher(None, "hmds", "gray", 25.0, 2) == Path("mdrn-2b-25")
    assert find_teacher(None, "hmds", "gray", 15.0, 8) == Path("mdrn-2b-15")
    assert find_teacher("mdrn-2b", "hmds", "gray", 25.0, 8) == Path("mdrn-2b-25")
    with pytest.raises(WeightsError):
        find_teacher(None, "hads", "gray", 15.0, 2)


def test_a_run_leaves_the_teachers_file_alone_and_records_it(photo_folder, tmp_path, tiny_weights):
    path = tiny_weights("gray", 25.0, 2)
    before = path.read_bytes()
    config = tiny_config(photo_folder, distillation=Distillation("hmds", str(path), 25.0))
    run_distill(config, tmp_path / "run", False, lambda _p: None)
    assert path.read_bytes() == before
    record = load_checkpoint(tmp_path / "run" / "last.safetensors").record
    assert record["distillation"]["mode"] == "hmds"
    with pytest.raises(UsageError, match="learns from a teacher"):
        run_train(config, tmp_path / "run", True, lambda _p: None)
    with pytest.raises(UsageError, match="no teacher"):
        run_distill(replace(config, distillation=None), tmp_path / "other", False, lambda _p: None)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def test_a_real_run_changes_no_bit_of_the_teacher_in_memory(photo_folder, tmp_path, tiny_weights, monkeypatch):
    asked = []

    def keeping(model, device):
        teacher = frozen(model.train().requires_grad_(True), device)
        tensors = {**teacher.state_dict(keep_vars=True), **dict(teacher.named_buffers())}
        asked.append((teacher, tensors, {name: tensor.detach().clone() for name, tensor in tensors.items()}))
        return teacher

    monkeypatch.setattr("mdrn_cli.distillation.frozen", keeping)
    teaching = Distillation("hmds", str(tiny_weights("gray", 25.0, 2)), 25.0, final_weight=0.1)
    config = tiny_config(photo_folder, val=str(photo_folder), iterations=3, distillation=teaching)
    run_distill(config, tmp_path / "run", False, lambda _p: None)
    ((teacher, tensors, before),) = asked
    assert not teacher.training
    for name, tensor in tensors.items():
        assert torch.equal(bits(tensor), bits(before[name])), name
        assert tensor.grad is None, name
        assert not tensor.requires_grad, name
    untaught = replace(config, distillation=None)
    run_train(untaught, tmp_path / "plain", False, lambda _p: None)
    ours, plain = (load_checkpoint(tmp_path / run / "last.safetensors").state for run in ("run", "plain"))
    assert not all(torch.equal(ours[name], plain[name]) for name in ours), "it was asked, and taught"


def test_the_reconstruction_loss_is_logged_beside_the_whole(photo_folder, tmp_path, tiny_weights):
    teaching = Distillation("hmds", str(tiny_weights("gray", 25.0)), 25.0, weight=1.0, final_weight=1.0)
    config = tiny_config(photo_folder, iterations=2, distillation=teaching)
    run_distill(config, tmp_path / "run", False, lambda _p: None)
    (row,) = rows(tmp_path / "run")
    assert 0 < float(row["reconstruction"]) < float(row["loss"])
    run_distill(
        replace(config, distillation=replace(teaching, weight=0.0, final_weight=0.0)),
        tmp_path / "none",
        False,
        lambda _p: None,
    )
    (row,) = rows(tmp_path / "none")
    assert row["reconstruction"] == row["loss"]
    run_train(replace(config, distillation=None), tmp_path / "plain", False, lambda _p: None)
    assert [row["reconstruction"] for row in rows(tmp_path / "plain")] == [""]


def test_a_run_of_a_version_without_reconstruction_losses_goes_on(photo_folder, tmp_path, tiny_weights):
    run = tmp_path / "run"
    teaching = Distillation("hmds", str(tiny_weights("gray", 25.0)), 25.0)
    config = tiny_config(photo_folder, iterations=2, distillation=teaching)
    run_distill(config, run, False, lambda _p: None)
    (run / "metrics.csv").write_text("iteration,elapsed,loss,learning_rate,psnr,skipped\n2,0.1,0.5,1e-3,,0\n1,0.\n")
    with safe_open(run / "state.safetensors", framework="pt") as file:
        about = file.metadata()
    counters = json.loads(about["counters"])
    del counters["reconstruction_sum"]
    about["counters"] = json.dumps(counters)
    (run / "state.safetensors").write_bytes(save(load_file(run / "state.safetensors"), about))
    run_distill(replace(config, iterations=4), run, True, lambda _p: None)
    old, new = rows(run)
    assert (old["iteration"], old["loss"], old["reconstruction"]) == ("2", "0.5", "")
    assert 0 < float(new["reconstruction"]) < float(new["loss"])


def test_the_command_distills_and_resumes(photo_folder, tmp_path):
    from mdrn_cli.checkpoint import Checkpoint, save_checkpoint
    from mdrn_cli.model import MDRN, MDRNConfig

    config = MDRNConfig("gray", 1)
    teacher = tmp_path / "teacher.safetensors"
    save_checkpoint(teacher, Checkpoint(config, 25.0, MDRN(config).state_dict(), {}), torch.float32)
    run = tmp_path / "run"
    arguments = ["distill", "--mode", "hmds", "--teacher-sigma", 25, "--teacher", teacher, "--data", photo_folder]
    arguments += ["--blocks", 1, "--iterations", 2, "--batch-size", 1, "--patch-size", 32, "--precision", "float32"]
    done = run_mdrn(*arguments, "-o", run)
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(run / "last.safetensors").record["iteration"] == 2
    assert f"teacher {teacher}: 1 blocks, sigma 25" in done.stderr
    again = run_mdrn("distill", "--resume", run)
    assert (again.returncode, f"teacher {teacher}: 1 blocks" in again.stderr) == (0, True)
    refused = run_mdrn("train", "--resume", "-o", run)
    assert refused.returncode == 2
    assert "mdrn distill --resume" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--mode", "both"], 2, "hads or hmds"),
        ([], 2, "hads or hmds"),
        (["--mode", "hmds", "--sigma", "40"], 2, "--teacher-sigma"),
        (["--mode", "hads", "--sigma", "99"], 5, "sigma 99"),
        (["--mode", "hmds", "--teacher-sigma", "50"], 2, "50 is not below 50"),
        (["--mode", "hmds", "--teacher-sigma", "99"], 2, "99 is not below 50"),
        (["--mode", "hads", "--teacher-sigma", "99", "--sigma", "50"], 2, "hads needs one noise level"),
        (["--mode", "hads", "--teacher-sigma", "99"], 5, "sigma 99"),
        (["--mode", "hads", "--color", "color", "--sigma", "40"], 5, "--teacher FILE"),
        (
            ["--mode", "hads", "--color", "color", "--teacher", "mdrn-gray-25"],
            2,
            "give --color gray, or leave --teacher",
        ),
        (["--mode", "hads", "--teacher", "none.safetensors"], 5, "none.safetensors"),
        (["--mode", "hads", "--sigma", "40"], 5, "--teacher FILE"),
        (["--mode", "hads", "--sigma", "50", "--teacher", "mdrn-2b-gray-25"], 2, "leave --teacher out"),
        (["--mode", "hads", "--teacher", "mdrn-2b-gray-25"], 2, "2 blocks are not more than 2"),
        (["--mode", "hads", "--teacher", "mdrn-2b-gray-50"], 2, "2 blocks are not more than 2"),
        (["--mode", "hmds", "--teacher-sigma", "25", "--blocks", "0"], 2, "blocks must be"),
        (["--mode", "hmds", "--teacher-sigma", "25", "--color", "grey"], 2, "'grey'"),
    ],
)
def test_what_cannot_be_distilled_is_said(photo_folder, tmp_path, arguments, code, message):
    done = run_mdrn("distill", *arguments, "--data", photo_folder, "--iterations", 1, "-o", tmp_path / "run")
    assert done.returncode == code, done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("color", "given", "levels"),
    [
        ("gray", [], (25, 50)),
        ("color", [], (50, 70)),
        ("gray", ["--teacher", "mdrn-2b-gray-15"], (15, 50)),
        ("color", ["--teacher", "mdrn-2b-color-25", "--sigma", 30], (25, 30)),
    ],
)
def test_hmds_has_the_papers_levels_unless_others_are_told(photo_folder, tmp_path, color, given, levels):
    arguments = ["distill", "--mode", "hmds", "--color", color, "--data", photo_folder, "--patch-size", 16, *given]
    done = run_mdrn(*arguments, "--batch-size", 1, "--blocks", 2, "--smoke", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    saved = saved_config(tmp_path / "run")
    assert (saved["distillation"]["teacher_sigma"], saved["sigma"]) == levels
