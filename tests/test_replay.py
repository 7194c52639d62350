"""Batches that come again in distillation, so that a teacher is asked once for several steps."""

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conftest import run_mdrn, tiny_checkpoint, tiny_config

from mdrn_cli import replay
from mdrn_cli.checkpoint import load_checkpoint
from mdrn_cli.distillation import distilled_loss, frozen, run_distill
from mdrn_cli.errors import UsageError
from mdrn_cli.losses import distillation_loss, reconstruction_loss
from mdrn_cli.parallel import Group
from mdrn_cli.patches import PatchSampler
from mdrn_cli.photographs import read_photographs
from mdrn_cli.replay import Batch, Memory, batch_of
from mdrn_cli.steps import BatchNoise, Stepper
from mdrn_cli.trainconfig import Distillation, TrainConfig
from mdrn_cli.training import initial_model

CPU = torch.device("cpu")


def ignored(_progress):
    """No report."""


def test_every_nth_batch_is_new_and_the_others_are_earlier_ones_in_any_orientation():
    steps = [batch_of(step, 4, seed=3) for step in range(4000)]
    new = [batch for batch in steps if batch.new]
    assert [batch.number for batch in new] == list(range(1000))
    assert {batch.turn for batch in new} == {0}
    assert [batch.new for batch in steps[:9]] == [True, False, False, False] * 2 + [True]
    again = [(step, batch) for step, batch in enumerate(steps) if not batch.new]
    assert {batch.turn for _, batch in again} == set(range(8))
    ages = [step // 4 - batch.number for step, batch in again]
    assert (min(ages), max(ages)) == (0, replay.KEPT - 1)
    seeds = {batch.number: batch.seed for batch in new}
    assert len(set(seeds.values())) == 1000
    assert all(seeds[batch.number] == batch.seed for _, batch in again), "patches and noise are those it had"


def test_batches_are_of_the_seed_alone():
    ours, again, other = ([batch_of(step, 3, seed) for step in range(50)] for seed in (5, 5, -6))
    assert ours == again
    assert not any(one.seed == two.seed for one, two in zip(ours, other, strict=True))


@pytest.mark.parametrize("turn", range(8))
def test_what_is_turned_is_turned_back(turn):
    x, batch = torch.rand(2, 3, 4, 6), Batch(0, turn, False, 1)
    assert torch.equal(batch.upright(batch.turned(x)), x)
    assert torch.equal(batch.turned(batch.upright(x)), x)


def test_the_orientations_are_eight():
    x = torch.rand(1, 1, 4, 4)
    turned = [Batch(0, turn, False, 1).turned(x) for turn in range(8)]
    assert torch.equal(turned[0], x)
    assert not any(torch.equal(turned[a], turned[b]) for a in range(8) for b in range(a))


class Asked:
    """A teacher that counts how often it is asked."""

    def __init__(self, teacher):
        self.teacher, self.times = teacher, 0

    def __call__(self, noisy):
        self.times += 1
        return self.teacher(noisy)


def test_a_teacher_is_asked_again_for_what_it_has_forgotten_alone(monkeypatch):
    monkeypatch.setattr(replay, "KEPT", 2)
    teacher = Asked(lambda noisy: (noisy * 2, (noisy,)))
    memory, noisy = Memory(teacher), torch.rand(1, 1, 4, 4)
    image, features = memory(noisy, Batch(0, 0, True, 1))
    assert torch.equal(image, noisy * 2)
    assert torch.equal(features[0], noisy)
    turned = Batch(0, 3, False, 1)
    image, features = memory(turned.turned(noisy), turned)
    assert torch.allclose(image, turned.turned(noisy) * 2, atol=1e-3)
    assert features is None
    assert teacher.times == 1
    for number in (1, 2):
        memory(noisy, Batch(number, 0, True, 1))
    assert set(memory.images) == {1, 2}, "memory is bounded"
    afresh = Memory(teacher)
    assert torch.equal(afresh(turned.turned(noisy), turned)[0], image), "as of a run that is resumed"
    assert teacher.times == 4


def test_what_comes_again_is_held_against_the_turned_image_alone():
    student, teacher = tiny_checkpoint(seed=1).build(), tiny_checkpoint(seed=2).build()
    asked = Asked(teacher.forward_features)
    distillation = Distillation("hads", "", 50.0, weight=0.5, soft_target=1.0, teacher_every=2)
    step = distilled_loss(50.0, "rmse", distillation, asked)
    clean, new, again = torch.rand(2, 1, 16, 16), Batch(0, 0, True, 9), Batch(0, 5, False, 9)

    def taken(batch):
        return step(
            student.forward_features,
            batch.turned(clean),
            BatchNoise(batch.generator(CPU), 2, slice(None), CPU, batch),
            0.0,
        )

    first, second = taken(new), taken(again)
    assert asked.times == 1
    noisy = clean + torch.randn(clean.shape, generator=new.generator(CPU)) * 50 / 255
    (ours, features), (image, wanted) = (net.forward_features(noisy) for net in (student, teacher))
    assert first.reconstruction.item() == pytest.approx(reconstruction_loss(ours, image, "rmse").item(), rel=1e-4)
    assert first.total.item() == pytest.approx(
        (first.reconstruction + 0.5 * distillation_loss(features, wanted)).item(), rel=1e-4
    )
    turned = student.forward_features(again.turned(noisy))[0]
    expected = reconstruction_loss(turned, again.turned(image), "rmse")
    assert second.reconstruction.item() == pytest.approx(expected.item(), rel=1e-3)
    assert second.total is second.reconstruction


def teaching(tiny_weights, every=3):
    return Distillation("hads", str(tiny_weights("gray", 50.0, 2)), 50.0, soft_target=0.9, teacher_every=every)


def test_the_teacher_of_a_run_is_asked_once_for_several_steps(photo_folder, tiny_weights):
    distillation = teaching(tiny_weights)
    config = tiny_config(photo_folder, distillation=distillation)
    teacher = Asked(frozen(load_checkpoint(Path(distillation.teacher)).build(), CPU).forward_features)
    loss = distilled_loss(config.sigma, config.loss, distillation, teacher)
    seen = []

    def step_loss(network, clean, draw_noise, done):
        seen.append((draw_noise.batch, clean, draw_noise(clean)))
        return loss(network, clean, BatchNoise(**{**vars(draw_noise), "generator": generator_after(draw_noise)}), done)

    def generator_after(draw_noise):
        """That of the step, as it was before the noise was drawn here."""
        generator = draw_noise.batch.generator(CPU)
        sampler.sample(config.batch_size, generator)
        return generator

    sampler = PatchSampler(read_photographs(photo_folder, config.color), config.patch_size, CPU)
    stepper = Stepper(config, initial_model(config), step_loss, sampler, Group())
    before = stepper.state.generator.get_state()
    for step in range(12):
        stepper.step(step / 12)
    stepper.collect()
    assert stepper.state.counters.skipped == 0
    assert teacher.times == 4
    assert torch.equal(stepper.state.generator.get_state(), before)
    first = {batch.number: (clean, noise) for batch, clean, noise in seen if batch.new}
    counts = Counter(batch.number for batch, _, _ in seen if not batch.new)
    assert sum(counts.values()) == 8
    for batch, clean, noise in seen:
        assert torch.equal(clean, batch.turned(first[batch.number][0]))
        assert torch.equal(noise, batch.turned(first[batch.number][1]))
    assert not torch.equal(first[0][0], first[1][0])


@pytest.mark.parametrize("mode", ["hads", "hmds"])
def test_a_run_that_is_resumed_gives_what_one_without_a_break_does(photo_folder, tmp_path, tiny_weights, mode):
    one_rate = {"schedule": "halving", "halvings": 0}
    one_weight = replace(teaching(tiny_weights), final_weight=0.1)
    if mode == "hmds":
        teacher = {"teacher": str(tiny_weights("gray", 25.0)), "teacher_sigma": 25.0}
        one_weight = replace(one_weight, mode=mode, shared_noise=False, **teacher)
    config = tiny_config(photo_folder, iterations=11, **one_rate, distillation=one_weight)
    run_distill(config, tmp_path / "whole", False, ignored)
    run_distill(replace(config, iterations=5), tmp_path / "parts", False, ignored)
    run_distill(config, tmp_path / "parts", True, ignored)
    whole, parts = (load_checkpoint(tmp_path / run / "last.safetensors").state for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    run_distill(replace(config, distillation=replace(one_weight, teacher_every=1)), tmp_path / "each", False, ignored)
    each = load_checkpoint(tmp_path / "each" / "last.safetensors").state
    assert not all(torch.equal(whole[name], each[name]) for name in whole)


def test_of_large_batches_fewer_are_kept():
    assert replay.most_kept(4 * 3 * 192**2) == replay.KEPT
    assert replay.most_kept(64 * 3 * 256**2) == 42
    assert replay.most_kept(2**40) == replay.LEAST_KEPT
    again = [step // 2 - batch_of(step, 2, 0, kept=8).number for step in range(500)]
    assert max(again) == 7


def test_an_older_run_asks_at_every_step():
    saved = asdict(tiny_config("photos", distillation=Distillation("hads", "t", 50.0)))
    del saved["distillation"]["teacher_every"]
    assert TrainConfig.from_dict(saved).distillation.teacher_every == 1


def test_without_soft_targets_there_is_nothing_to_come_again():
    for wrong in (0, -1, 1001, 1.5, True):
        with pytest.raises(UsageError, match="teacher every must be"):
            Distillation("hads", "", 50.0, soft_target=0.9, teacher_every=wrong)
    with pytest.raises(UsageError, match="no target"):
        Distillation("hads", "", 50.0, teacher_every=2)


def test_the_command_takes_it_and_the_weights_tell(photo_folder, tmp_path):
    arguments = ["distill", "--mode", "hads", "--sigma", 50, "--blocks", 1]
    arguments += ["--data", photo_folder, "--iterations", 2, "--batch-size", 1, "--patch-size", 32]
    arguments += ["--precision", "float32", "--output", tmp_path / "run", "--teacher-every", 2]
    refused = run_mdrn(*arguments)
    assert (refused.returncode, "give --soft-target" in refused.stderr) == (2, True), refused.stderr
    done = run_mdrn(*arguments, "--soft-target", 0.9)
    assert done.returncode == 0, done.stderr
    record = load_checkpoint(tmp_path / "run" / "last.safetensors").record
    assert record["distillation"]["teacher_every"] == 2
    assert "teacher_every = 2" in (tmp_path / "run" / "config.toml").read_text()
