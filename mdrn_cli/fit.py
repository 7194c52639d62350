"""One `fit()` for every kind of training run (paper, section 4.2): steps, until the budget is spent."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._triton import has_triton

from mdrn_cli.checkpoint import Checkpoint, save_checkpoint
from mdrn_cli.engine import compute_type
from mdrn_cli.errors import MdrnError, SharedError
from mdrn_cli.interrupts import interruption, stop_requests
from mdrn_cli.model import MDRN
from mdrn_cli.optim import make_optimizers
from mdrn_cli.parallel import Group
from mdrn_cli.patches import PatchSampler
from mdrn_cli.runfolder import (
    BEST_FILE,
    LAST_FILE,
    STATE_FILE,
    Counters,
    RunState,
    load_state,
    save_sample,
    save_state,
    saved_config,
)
from mdrn_cli.runlog import RunLog
from mdrn_cli.trainconfig import TrainConfig
from mdrn_cli.validation import Validator, autocast

REPORT_EVERY = 20

Network = Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]
"""`MDRN.forward_features`, compiled or not."""
DrawNoise = Callable[[Tensor], Tensor]
"""Standard normal noise of the shape of a batch, other noise at each call."""


class Terms(NamedTuple):
    """A loss that has more terms than reconstruction: their weighted sum, to go down, and the reconstruction loss."""

    total: Tensor
    reconstruction: Tensor


StepLoss = Callable[[Network, Tensor, DrawNoise, float], "Tensor | Terms"]
"""(network, clean (N, C, H, W) in [0, 1], noise, share of the run done) -> scalar loss, a mean over the batch."""


@dataclass(frozen=True)
class Progress:
    """A moment of a run, for display.

    Attributes:
        iteration: steps so far.
        fraction: share of the run done, 0 to 1.
        elapsed: seconds of training so far.
        remaining: seconds to go, estimated.
        loss: mean over the steps since the last report.
        rate: iterations a second of this process.
        psnr: validation PSNR in dB at this moment, None between validations.
        best_psnr: highest so far, None before the first.
        skipped: non-finite steps so far.
        reconstruction: as `loss`, of the reconstruction loss alone; None where that is the whole loss.
    """

    iteration: int
    fraction: float
    elapsed: float
    remaining: float
    loss: float
    rate: float
    psnr: float | None
    best_psnr: float | None
    skipped: int
    reconstruction: float | None = None


Report = Callable[[Progress], None]


def fit(
    config: TrainConfig,
    model: MDRN,
    step_loss: StepLoss,
    sampler: PatchSampler,
    validator: Validator | None,
    folder: Path,
    resume: bool,
    report: Report,
    group: Group | None = None,
) -> Counters:
    """Train `model` until its budget of iterations or time is spent; see `run_train` of training.py for the arguments.

    All processes of the group hold the same weights and draw from the same random stream; each computes the gradient
    of its share of the batch, and all step by the mean. So a run does not depend on how many they are, but for
    rounding.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the step under way and a save; TerminatedError on SIGTERM.
        SharedError: more than `max_skipped` steps in a row were not finite, the state in the folder being then that of
            the last save, from before.
        MdrnError: no step was; or the first process cannot write into the folder, or the others cannot be reached.
    """
    group = group or Group()
    run = _Run(config, model, step_loss, sampler, validator, folder, group)
    if resume:
        load_state(folder, run.state)
    if run.compiled and run.fraction() < 1:
        run.compile()
    with (
        group.ending_together(),
        closing(RunLog(folder, run.counters.iteration)) if group.first else nullcontext() as log,
        stop_requests(insistent=group.size == 1) as stop_requested,
    ):
        run.start_clock(stop_requested)
        if resume and saved_config(folder) != asdict(config):
            run.save()  # else a kill before the next save would undo what extends the run
        while run.fraction() < 1 and not run.stopping:
            run.step()
            validating, saving = run.validation_due(), run.save_due()
            reporting = validating or run.counters.iteration % REPORT_EVERY == 0 or run.fraction() >= 1
            if reporting or saving:
                run.collect()
            if reporting:
                progress = run.progress(run.validate() if validating else None)
                if log:
                    log.append(run.metrics_row(progress))
                    report(progress)
            if saving:
                run.save()
        run.collect()
        run.finish()
    if run.stopping:
        raise interruption(stop_requested())
    if run.nothing_finite:
        raise MdrnError(
            f"nothing was learned: none of {run.counters.iteration} steps was finite", "lower the learning rate"
        )
    return run.counters


def compiles(config: TrainConfig, device: torch.device) -> bool:
    """Whether a run compiles its networks: unless it says, on CUDA where there is Triton, which that needs."""
    return config.compile if config.compile is not None else device.type == "cuda" and has_triton()


def network_of(model: MDRN, compiled: bool) -> Network:
    """A model as losses call it."""
    features: Network = model.forward_features
    return torch.compile(features) if compiled else features


def _terms(loss: Tensor | Terms) -> Terms:
    """The terms of a loss that may be reconstruction alone."""
    return loss if isinstance(loss, Terms) else Terms(loss, loss)


class _Run:
    """The moving parts of one `fit()`, in one process of its group. Whatever decides how the run goes on is the same
    in all of them."""

    def __init__(
        self,
        config: TrainConfig,
        model: MDRN,
        step_loss: StepLoss,
        sampler: PatchSampler,
        validator: Validator | None,
        folder: Path,
        group: Group,
    ) -> None:
        device = sampler.device
        self.config, self.folder, self.device = config, folder, device
        self.group, self.part, self.stopping = group, group.share(config.batch_size), False
        self.step_loss, self.sampler, self.validator = step_loss, sampler, validator
        self.dtype = compute_type(device, config.precision)
        self.model = model
        self.compiled = compiles(config, device)
        self.network = network_of(model, self.compiled)
        self.averaged = copy.deepcopy(model).eval().requires_grad_(False)
        optimizers = make_optimizers(model, config.optimizer, config.learning_rate, config.muon_learning_rate)
        generator = torch.Generator(device).manual_seed(config.seed)
        self.state = RunState(model, self.averaged.state_dict(), optimizers, generator, Counters())
        self.peak_rates = [group["lr"] for group in self.groups()]
        self.parameters: list[Tensor] = list(model.parameters())
        self.averaged_parameters: list[Tensor] = list(self.averaged.parameters())
        self.tally = self._no_tally()

    @property
    def counters(self) -> Counters:
        return self.state.counters

    @property
    def nothing_finite(self) -> bool:
        """Whether there were steps, and every one was skipped."""
        return self.counters.skipped == self.counters.iteration > 0

    def groups(self) -> list[dict[str, Any]]:
        # Asked for anew each time: resuming replaces an optimizer's groups.
        return [group for optimizer in self.state.optimizers for group in optimizer.param_groups]

    def compile(self) -> None:
        """Have the networks compiled, which takes a minute and happens in a first step; here one of other random
        numbers that leaves no trace, so that it takes nothing from the budget and the schedule.

        Raises:
            MdrnError: they cannot be.
        """
        other = torch.Generator(self.device).manual_seed(self.config.seed)
        clean = self.sampler.sample(self.config.batch_size, other, self.part)
        try:
            with autocast(self.device, self.dtype):
                loss = _terms(self.step_loss(self.network, clean, torch.randn_like, self.fraction())).total
                loss.backward()  # type: ignore[no-untyped-call]
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise MdrnError(f"the network cannot be compiled here ({reason})", "use --no-compile") from error
        self.model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def start_clock(self, stop_requested: Callable[[], int]) -> None:
        self.stop_requested = stop_requested
        self.started = time.monotonic() - self.counters.elapsed
        self.first_iteration, self.first_elapsed = self.counters.iteration, self.counters.elapsed
        self.saved = self.validated = self.counters.elapsed

    def fraction(self) -> float:
        """Share of the budget spent."""
        if self.config.iterations is not None:
            return self.counters.iteration / self.config.iterations
        return self.counters.elapsed / (self.config.time_budget or math.inf)

    def rate_factor(self) -> float:
        """Learning rate now, relative to its peak: linear warm-up, then down as the schedule says."""
        config, done = self.config, min(self.fraction(), 1.0)
        rise = min(1.0, (done + 1e-3) / config.warmup) if config.warmup else 1.0
        if config.schedule == "halving":
            return rise * 0.5 ** math.floor(done * (config.halvings + 1))
        return rise * 0.5 * (1 + math.cos(math.pi * done))

    def step(self) -> None:
        config, counters = self.config, self.counters
        factor = self.rate_factor()
        for group, peak in zip(self.groups(), self.peak_rates, strict=True):
            group["lr"] = peak * factor
        clean = self.sampler.sample(config.batch_size, self.state.generator, self.part)
        with autocast(self.device, self.dtype):
            terms = _terms(self.step_loss(self.network, clean, self.draw_noise, self.fraction()))
        terms.total.backward()  # type: ignore[no-untyped-call]
        loss, reconstruction = (term.detach().clone() for term in terms)
        self.group.average([loss, reconstruction, *(p.grad for p in self.parameters if p.grad is not None)])
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.clip)
        finite = (loss + norm).isfinite()
        self._update(finite)
        self._tally(loss, reconstruction, finite)
        self.model.zero_grad(set_to_none=True)
        counters.iteration += 1
        self.tick()

    def draw_noise(self, clean: Tensor) -> Tensor:
        whole = (self.config.batch_size, *clean.shape[1:])
        return torch.randn(whole, generator=self.state.generator, device=self.device)[self.part]

    def tick(self) -> None:
        """Read the clock; where it ends the budget, it does so in all processes at the same step."""
        elapsed = time.monotonic() - self.started
        self.counters.elapsed, self.stopping = self.group.agree(elapsed, self.stop_requested() != 0)

    def _update(self, finite: Tensor) -> None:
        """Move weights and their average, unless the step was not finite; the device decides, nobody waits."""
        for optimizer in self.state.optimizers:
            optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            optimizer.step()
        done = self.counters.iteration
        decay = min(self.config.ema, (1 + done) / (10 + done))
        with torch.no_grad():
            gains = torch._foreach_sub(self.parameters, self.averaged_parameters)
            torch._foreach_mul_(gains, (1 - decay) * finite.float())
            torch._foreach_add_(self.averaged_parameters, gains)

    def _tally(self, loss: Tensor, reconstruction: Tensor, finite: Tensor) -> None:
        """Count on the device: sums and number of losses, steps skipped, and of these the ones in a row."""
        good, bad = finite.float(), (~finite).float()
        sums = [torch.where(finite, term, 0).float() for term in (loss, reconstruction)]
        total = torch.stack([*sums, good, bad, bad])
        self.tally = (self.tally + total) * torch.stack([torch.ones_like(bad)] * 4 + [bad])

    def collect(self) -> None:
        """Bring the device's counts into the counters.

        Raises:
            SharedError: too many steps in a row were not finite.
        """
        counters = self.counters
        loss, reconstruction, steps, skipped, in_a_row = self.tally.tolist()
        counters.loss_sum += loss
        counters.reconstruction_sum += reconstruction
        counters.loss_steps += int(steps)
        counters.skipped += int(skipped)
        counters.consecutive_skipped = int(in_a_row)
        self.tally = self._no_tally()
        if counters.consecutive_skipped > self.config.max_skipped:
            kept = f"{self.folder} keeps the last good state; " if (self.folder / STATE_FILE).is_file() else ""
            raise SharedError(
                f"training diverged: {counters.consecutive_skipped} steps in a row were not finite "
                f"(iteration {counters.iteration})",
                f"{kept}lower the learning rate",
            )

    def _no_tally(self) -> Tensor:
        start = [0.0, 0.0, 0.0, 0.0, float(self.counters.consecutive_skipped)]
        return torch.tensor(start, device=self.device)

    def validation_due(self) -> bool:
        return self.config.val is not None and (
            self.counters.elapsed - self.validated >= self.config.validate_every or self.fraction() >= 1
        )

    def validate(self) -> float | None:
        """PSNR in dB in the first process, while the others wait."""
        value = None
        if self.validator:
            value, pictures = self.validator(self.averaged, self.device, self.dtype)
            save_sample(self.folder, self.counters.iteration, pictures)
            if self.counters.best_psnr is None or value > self.counters.best_psnr:
                self.counters.best_psnr = value
                self.save_weights(BEST_FILE)
        self.tick()
        self.validated = self.counters.elapsed
        return value

    def save_due(self) -> bool:
        return self.counters.elapsed - self.saved >= self.config.save_every

    def finish(self) -> None:
        """Save the end of the run, also one whose last steps were skipped if nothing else is kept of it."""
        self.save(anyway=not self.nothing_finite and not (self.folder / STATE_FILE).is_file())

    def save(self, anyway: bool = False) -> None:
        # A state is only kept while steps are finite: it is what a diverged run falls back on.
        if self.counters.consecutive_skipped and not anyway:
            return
        self.saved = self.counters.elapsed
        if self.group.first:
            save_state(self.folder, self.state, asdict(self.config))
            self.save_weights(LAST_FILE)

    def save_weights(self, name: str) -> None:
        record = asdict(self.config) | asdict(self.counters)
        checkpoint = Checkpoint(self.config.network, self.config.sigma, self.averaged.state_dict(), record)
        save_checkpoint(self.folder / name, checkpoint, torch.float32)

    def progress(self, value: float | None) -> Progress:
        counters, fraction = self.counters, self.fraction()
        spent = max(counters.elapsed - self.first_elapsed, 1e-9)
        sums = (counters.loss_sum, counters.reconstruction_sum)
        loss, reconstruction = (total / counters.loss_steps if counters.loss_steps else math.nan for total in sums)
        counters.loss_sum, counters.reconstruction_sum, counters.loss_steps = 0.0, 0.0, 0
        return Progress(
            iteration=counters.iteration,
            fraction=min(fraction, 1.0),
            elapsed=counters.elapsed,
            remaining=max(counters.elapsed * (1 / fraction - 1), 0.0) if fraction else math.inf,
            loss=loss,
            rate=(counters.iteration - self.first_iteration) / spent,
            psnr=value,
            best_psnr=counters.best_psnr,
            skipped=counters.skipped,
            reconstruction=reconstruction if self.config.distillation else None,
        )

    def metrics_row(self, progress: Progress) -> dict[str, Any]:
        return {
            "iteration": progress.iteration,
            "elapsed": f"{progress.elapsed:.1f}",
            "loss": f"{progress.loss:.6f}",
            "reconstruction": "" if progress.reconstruction is None else f"{progress.reconstruction:.6f}",
            "learning_rate": f"{self.groups()[-1]['lr']:.3e}",
            "psnr": "" if progress.psnr is None else f"{progress.psnr:.4f}",
            "skipped": progress.skipped,
        }
