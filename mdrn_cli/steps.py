"""The steps of training (paper, section 4.2): loss, gradient, update and count, all on the device."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdrn_cli.devices import compute_type
from mdrn_cli.engine import in_type
from mdrn_cli.errors import MdrnError, told_by
from mdrn_cli.model import MDRN, Network
from mdrn_cli.optim import make_optimizers, step_where
from mdrn_cli.parallel import Group
from mdrn_cli.patches import PatchSampler
from mdrn_cli.recording import Recording
from mdrn_cli.replay import Batch, batch_of, most_kept
from mdrn_cli.runstate import Counters, RunState
from mdrn_cli.trainconfig import TrainConfig
from mdrn_cli.validation import autocast

DrawNoise = Callable[[Tensor], Tensor]
"""Standard normal noise of the shape of a batch, other at each call: `BatchNoise`, or another to warm up, in tests."""


class Terms(NamedTuple):
    """A loss that has more terms than reconstruction: their weighted sum, to go down, and the reconstruction loss."""

    total: Tensor
    reconstruction: Tensor


@dataclass(frozen=True)
class BatchNoise:
    """Standard normal noise of this process's `part` of a step's patches, other noise at each call.

    Attributes:
        generator: what it is drawn from.
        count: of all patches of the step.
        part: of these.
        device: where it is to lie.
        batch: that the step learns from, where batches come again.
    """

    generator: torch.Generator
    count: int
    part: slice
    device: torch.device
    batch: Batch | None = None

    def __call__(self, clean: Tensor) -> Tensor:
        """For `clean`, (N, C, H, W)."""
        whole = (self.count, *clean.shape[1:])
        noise = torch.randn(whole, generator=self.generator, device=self.generator.device)[self.part].to(self.device)
        return self.batch.turned(noise) if self.batch else noise


StepLoss = Callable[[Network, Tensor, DrawNoise, "float | Tensor"], "Tensor | Terms"]
"""(network, clean (N, C, H, W) in [0, 1], noise, share of the run done) -> scalar loss, a mean over the batch."""


def computing(model: MDRN, config: TrainConfig, device: torch.device) -> MDRN:
    """The model that computes for a run's model: on CUDA a copy in the type computed in; elsewhere, or if the model is
    to be compiled, the model itself, under autocast."""
    if device.type != "cuda" or config.compile:
        return model
    return in_type(copy.deepcopy(model), device, compute_type(device, config.precision))


def network_of(model: MDRN, config: TrainConfig) -> Network:
    """A model as a function that losses call."""
    features: Network = model.forward_features
    return torch.compile(features) if config.compile else features


def rate_factor(config: TrainConfig, done: float) -> float:
    """Learning rate relative to its peak after a share `done` of the run: linear warm-up, then down by the schedule."""
    done = min(done, 1.0)
    rise = min(1.0, (done + 1e-3) / config.warmup) if config.warmup else 1.0
    if config.schedule == "halving":
        return rise * 0.5 ** math.floor(done * (config.halvings + 1))
    return rise * 0.5 * (1 + math.cos(math.pi * done))


def _terms(loss: Tensor | Terms) -> Terms:
    """The terms of a loss that may be reconstruction alone."""
    return loss if isinstance(loss, Terms) else Terms(loss, loss)


@torch.no_grad()
def copy_all(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Copy the second of each pair to the first, grouped by type, for which torch needs few kernels."""
    by_type: dict[tuple[torch.dtype, torch.dtype], list[tuple[Tensor, Tensor]]] = {}
    for into, source in pairs:
        by_type.setdefault((into.dtype, source.dtype), []).append((into, source))
    for alike in by_type.values():
        torch._foreach_copy_([into for into, _ in alike], [source for _, source in alike])


class Stepper:
    """Takes the steps of a run, in one process of its group; nothing waits for the device but `collect` (and,
    where they are not fused, the optimizers).

    Args:
        config: the run.
        model: on the sampler's device; trained in place.
        step_loss: what goes down.
        sampler: of patches.
        group: the processes of the run.

    Attributes:
        state: all that decides how the run goes on, the average of the weights included.
        averaged: a model of these averages, for validation.

    Raises:
        UsageError: the group cannot share a batch.
    """

    def __init__(
        self, config: TrainConfig, model: MDRN, step_loss: StepLoss, sampler: PatchSampler, group: Group
    ) -> None:
        device = sampler.device
        self.config, self.step_loss, self.sampler, self.device = config, step_loss, sampler, device
        self.group, self.part = group, group.share(config.batch_size)
        self.dtype = compute_type(device, config.precision)
        self.model = model
        self.copy = computing(model, config, device)
        self.network = network_of(self.copy, config)
        self.averaged = copy.deepcopy(model).eval().requires_grad_(False)
        optimizers = make_optimizers(model, config.optimizer, config.learning_rate, config.muon_learning_rate)
        generator = torch.Generator(sampler.drawn_on).manual_seed(config.seed)
        self.state = RunState(model, self.averaged.state_dict(), optimizers, generator, Counters())
        self.peak_rates = [float(group["lr"]) for group in self._groups()]
        self.parameters: list[Tensor] = list(model.parameters())
        self.copied_parameters: list[Tensor] = list(self.copy.parameters())
        self.averaged_parameters: list[Tensor] = list(self.averaged.parameters())
        self.tally = self._no_tally()
        # What a step goes by that changes: on CUDA, where steps are recorded, it has to lie there.
        self.done, self.gain = (torch.zeros((), device=device) for _ in range(2))
        every = config.distillation.teacher_every if config.distillation else 1
        self.every = every if every > 1 else None
        recorded = device.type == "cuda" and not config.compile and group.size == 1 and sampler.pixels.is_cuda
        recorded = recorded and not self.every  # steps are not all alike
        self.recording = Recording([generator]) if recorded else None

    @property
    def learning_rate(self) -> float:
        """That of the last step, of AdamW or Adam."""
        return float(self._groups()[-1]["lr"])

    def _groups(self) -> list[dict[str, Any]]:
        # Asked for anew each time: resuming replaces an optimizer's groups.
        return [group for optimizer in self.state.optimizers for group in optimizer.param_groups]

    @property
    def warms_up(self) -> bool:
        """Whether there is something that takes its time in a first step."""
        return bool(self.config.compile) or self.device.type == "cuda"

    def warm_up(self, done: float) -> None:
        """Have networks or kernels compiled, which takes up to a minute and happens in a first step; here one of other
        random numbers that leaves no trace, so that it takes nothing from the budget and the schedule.

        Args:
            done: share of the run that is.

        Raises:
            MdrnError: they cannot be.
        """
        other = torch.Generator(self.sampler.drawn_on).manual_seed(self.config.seed)
        clean = self.sampler.sample(self.config.batch_size, other, self.part)
        try:
            self._loss(clean, torch.randn_like, done).total.backward()  # type: ignore[no-untyped-call]
        except torch._dynamo.exc.TorchDynamoException as error:
            raise MdrnError(f"the network cannot be compiled here ({told_by(error)})", "use --no-compile") from error
        self._forget_gradients()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def step(self, done: float) -> None:
        """One step, after a share `done` of the run."""
        factor = rate_factor(self.config, done)
        for group, peak in zip(self._groups(), self.peak_rates, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(peak * factor)
            else:
                group["lr"] = peak * factor
        steps = self.state.counters.iteration
        self.done.fill_(min(done, 1.0))
        self.gain.fill_(1 - min(self.config.ema, (1 + steps) / (10 + steps)))
        if self.recording:
            self.recording(self._take)
        else:
            self._take()
        self.state.counters.iteration += 1

    def _take(self) -> None:
        """The step, which reads nothing that is not on the device."""
        terms = self._loss(*self._drawn(), self.done)
        terms.total.backward()  # type: ignore[no-untyped-call]
        self._bring_gradients()
        loss, reconstruction = (term.detach().clone() for term in terms)
        self.group.average([loss, reconstruction, *(p.grad for p in self.parameters if p.grad is not None)])
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        finite = (loss + norm).isfinite()
        self._update(finite)
        self._tally(loss, reconstruction, finite)
        self._forget_gradients()

    def _loss(self, clean: Tensor, draw_noise: DrawNoise, done: float | Tensor) -> Terms:
        if self.copy is self.model:
            with autocast(self.device, self.dtype):
                return _terms(self.step_loss(self.network, clean, draw_noise, done))
        copy_all(list(zip(self.copied_parameters, self.parameters, strict=True)))
        return _terms(self.step_loss(self.network, clean, draw_noise, done))

    def _bring_gradients(self) -> None:
        """Copy gradients from the computing copy to the weights themselves, in their type."""
        if self.copy is self.model:
            return
        pairs = []
        for parameter, copied in zip(self.parameters, self.copied_parameters, strict=True):
            if copied.grad is not None:
                parameter.grad = torch.empty_like(parameter)
                pairs.append((parameter.grad, copied.grad))
        copy_all(pairs)

    def _forget_gradients(self) -> None:
        for model in (self.model, self.copy):
            model.zero_grad(set_to_none=True)

    def _drawn(self) -> tuple[Tensor, BatchNoise]:
        """Clean patches and noise of this process's part of the step."""
        count, generator, batch = self.config.batch_size, self.state.generator, None
        if self.every:
            values = count * self.copy.config.channels * self.config.patch_size**2
            batch = batch_of(self.state.counters.iteration, self.every, self.config.seed, most_kept(values))
            generator = batch.generator(self.sampler.drawn_on)
        clean = self.sampler.sample(count, generator, self.part)
        noise = BatchNoise(generator, count, self.part, self.device, batch)
        return batch.turned(clean) if batch else clean, noise

    def _update(self, finite: Tensor) -> None:
        """Move weights and their average, unless the step was not finite."""
        step_where(finite, self.state.optimizers)
        with torch.no_grad():
            gains = torch._foreach_sub(self.parameters, self.averaged_parameters)
            torch._foreach_mul_(gains, self.gain * finite.float())
            torch._foreach_add_(self.averaged_parameters, gains)

    def _tally(self, loss: Tensor, reconstruction: Tensor, finite: Tensor) -> None:
        """Count on the device: sums and number of losses, steps skipped, and of these the ones in a row."""
        good, bad = finite.float(), (~finite).float()
        sums = [torch.where(finite, term, 0).float() for term in (loss, reconstruction)]
        total = torch.stack([*sums, good, bad, bad])
        self.tally.add_(total).mul_(torch.stack([torch.ones_like(bad)] * 4 + [bad]))

    def collect(self) -> None:
        """Bring the device's counts into the counters."""
        counters = self.state.counters
        loss, reconstruction, steps, skipped, in_a_row = self.tally.tolist()
        counters.loss_sum += loss
        counters.reconstruction_sum += reconstruction
        counters.loss_steps += int(steps)
        counters.skipped += int(skipped)
        counters.consecutive_skipped = int(in_a_row)
        self.tally.copy_(self._no_tally())

    def _no_tally(self) -> Tensor:
        start = [0.0, 0.0, 0.0, 0.0, float(self.state.counters.consecutive_skipped)]
        return torch.tensor(start, device=self.device)
