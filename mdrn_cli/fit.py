"""One `fit()` for every kind of training run (paper, section 4.2): steps, until the budget is spent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch

from mdrn_cli.checkpoint import Checkpoint, save_checkpoint
from mdrn_cli.errors import MdrnError, SharedError
from mdrn_cli.interrupts import interruption, stop_requests
from mdrn_cli.model import MDRN
from mdrn_cli.parallel import Group
from mdrn_cli.patches import PatchSampler
from mdrn_cli.runfolder import VALIDATED_ON, best_psnr, save_sample, without_links
from mdrn_cli.runlog import Progress, Report, RunLog
from mdrn_cli.runstate import Counters, is_alone, load_state, save_state, saved_config, saved_sources
from mdrn_cli.steps import StepLoss, Stepper
from mdrn_cli.trainconfig import TrainConfig
from mdrn_cli.validation import Validator
from mdrn_cli.weights import BEST_FILE, LAST_FILE

REPORT_EVERY = 20
FEW_SKIPPED = 5
"""Steps that may have been skipped one after another at the end of a run, of a short one half of all."""


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
    sources: Mapping[str, str] | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> Counters:
    """Train `model` until its budget of iterations or time is spent; see `run_with` of training.py for the arguments.

    `prepare` is called in the first process before anything but state and weights is written into the folder: where no
    run is resumed, after the first save of these, so that a run that fails before costs nothing of the one it was to
    replace.

    All processes of the group hold the same weights and draw from the same random stream; each computes the gradient
    of its share of the batch, and all step by the mean. So a run does not depend on how many they are, but for
    rounding.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the step under way and a save, unless steps are being skipped;
            TerminatedError on SIGTERM and SIGHUP.
        SharedError: more than `max_skipped` steps in a row were not finite, or more than a few at the end, the state in
            the folder being then that of the last save, from before.
        MdrnError: no step was; or the first process cannot write into the folder, or the others cannot be reached.
    """
    group = group or Group()
    stepper = Stepper(config, model, step_loss, sampler, group)
    alone = not resume or is_alone(folder)
    if resume:
        load_state(folder, stepper.state)
        if validator and alone:
            # A kill after a validation, before the next save, leaves a best that the state does not know of.
            stepper.state.counters.best_psnr = best_psnr(folder, validator.digest)
    stepper.state.sources = sources or {}
    counters = stepper.state.counters
    if stepper.warms_up and share_done(config, counters) < 1:
        stepper.warm_up(share_done(config, counters))
    with (
        group.ending_together(),
        stop_requests(insistent=group.size == 1) as stop_requested,
        closing(_Run(config, stepper, validator, folder, group, stop_requested, prepare)) as run,
    ):
        if resume:
            run.take_over()
        changed = resume and (saved_config(folder) != asdict(config) or saved_sources(folder) != stepper.state.sources)
        if group.agree(0.0, changed or not alone)[1]:  # all have read what the first is to replace
            run.save()  # else a kill before the next save would undo what extends the run
        while not run.over and not run.stopping:
            run.step()
            validating, saving = run.validation_due(), run.save_due()
            reporting = validating or counters.iteration % REPORT_EVERY == 0 or run.over
            if reporting or saving:
                run.collect()
                run.begin()  # at once something is there to be resumed
            if reporting:
                progress = run.progress(run.validate() if validating else None)
                if run.log:
                    run.log.append(progress)
                    report(progress)
            if saving:
                run.save()
        run.collect()
        run.finish()
    if run.stopping:
        raise interruption(stop_requested())
    if run.nothing_finite:
        raise MdrnError(
            f"nothing was learned: none of {counters.iteration} steps was finite", "lower the learning rate"
        )
    return counters


def share_done(config: TrainConfig, counters: Counters) -> float:
    """Share of a run's budget that is spent; a little above 1 where the last step took longer than was left."""
    if config.iterations is not None:
        return counters.iteration / config.iterations
    return counters.elapsed / (config.time_budget or math.inf)


class _Run:
    """What goes on around the steps of one `fit()`: clock and budget, validating, saving, reporting. Its clock starts
    when it is made. Whatever decides how the run goes on is the same in all processes of the group.

    Attributes:
        stopping: whether a process has been asked to stop.
        begun: whether the folder is the run's.
        log: of the run in the first process, once it has begun.
    """

    def __init__(
        self,
        config: TrainConfig,
        stepper: Stepper,
        validator: Validator | None,
        folder: Path,
        group: Group,
        stop_requested: Callable[[], int],
        prepare: Callable[[], None],
    ) -> None:
        self.config, self.stepper, self.validator, self.folder, self.group = config, stepper, validator, folder, group
        self.stop_requested, self.stopping = stop_requested, False
        self.prepare, self.begun = prepare, False
        self.log: RunLog | None = None
        self.counters = stepper.state.counters
        self.started = time.monotonic() - self.counters.elapsed
        self.first_iteration, self.first_elapsed = self.counters.iteration, self.counters.elapsed
        self.saved = self.counters.elapsed

    @property
    def over(self) -> bool:
        """Whether the budget is spent."""
        return share_done(self.config, self.counters) >= 1

    @property
    def nothing_finite(self) -> bool:
        """Whether there were steps, and every one was skipped."""
        return self.counters.skipped == self.counters.iteration > 0

    @property
    def diverged(self) -> bool:
        """Whether the run, if it ends now, does so in more skipped steps than a few."""
        return self.counters.consecutive_skipped > min(FEW_SKIPPED, self.counters.iteration / 2)

    def take_over(self) -> None:
        """Make the folder, which holds state and weights of the run, ready."""
        self.begun = True
        if self.group.first:
            self.prepare()
            self.log = RunLog(self.folder, self.first_iteration)

    def begin(self) -> None:
        """Take the folder over, unless it is the run's or nothing is learned that could replace what is in it."""
        ends_well = (self.over or self.stopping) and not self.diverged
        if not self.begun and (ends_well or not self.counters.consecutive_skipped):
            if self.group.first:
                without_links(self.folder)
            self.save(anyway=True)  # each file at once in the place of another run's
            self.take_over()
            self.save(anyway=True)  # which tells that nothing of another run is left

    def close(self) -> None:
        """Of the log."""
        if self.log:
            self.log.close()

    def step(self) -> None:
        self.stepper.step(share_done(self.config, self.counters))
        self.tick()

    def tick(self) -> None:
        """Read the clock; where it ends the budget, it does so in all processes at the same step."""
        elapsed = time.monotonic() - self.started
        self.counters.elapsed, self.stopping = self.group.agree(elapsed, self.stop_requested() != 0)

    def collect(self) -> None:
        """Wait for the counts of the steps so far.

        Raises:
            SharedError: too many in a row were not finite.
        """
        self.stepper.collect()
        if self.counters.consecutive_skipped > self.config.max_skipped:
            raise self._divergence()

    def _divergence(self) -> SharedError:
        kept = f"{self.folder} keeps the last good state; " if self.begun else ""
        return SharedError(
            f"training diverged: {self.counters.consecutive_skipped} steps in a row were not finite "
            f"(iteration {self.counters.iteration})",
            f"{kept}lower the learning rate",
        )

    def validation_due(self) -> bool:
        return self.config.val is not None and (
            self.counters.elapsed - self.counters.validated >= self.config.validate_every or self.over
        )

    def validate(self) -> float | None:
        """PSNR in dB in the first process, while the others wait."""
        value = None
        if self.validator and self.begun:
            value, pictures = self.validator(self.stepper.averaged, self.stepper.device, self.stepper.dtype)
            save_sample(self.folder, self.counters.iteration, pictures)
            if value > (-math.inf if self.counters.best_psnr is None else self.counters.best_psnr):  # NaN is not
                self.counters.best_psnr = value
                self.save_weights(BEST_FILE)
        self.tick()
        self.counters.validated = self.counters.elapsed
        return value

    def save_due(self) -> bool:
        return self.counters.elapsed - self.saved >= self.config.save_every

    def finish(self) -> None:
        """Save the end of the run, also one whose last steps were skipped, which has changed nothing. If they were more
        than a few it has diverged, and the last good state stays.

        Raises:
            SharedError: it has, and nobody has asked it to stop.
        """
        if self.nothing_finite:
            return
        if self.diverged:
            if not self.stopping:
                raise self._divergence()
            return
        self.begin()
        self.save(anyway=True)

    def save(self, anyway: bool = False) -> None:
        # A state is only kept while steps are finite: it is what a diverged run falls back on.
        if self.counters.consecutive_skipped and not anyway:
            return
        self.saved = self.counters.elapsed
        if self.group.first:
            save_state(self.folder, self.stepper.state, asdict(self.config), alone=self.begun)
            self.save_weights(LAST_FILE)

    def save_weights(self, name: str) -> None:
        record = asdict(self.config) | asdict(self.counters)
        if self.validator:
            record[VALIDATED_ON] = self.validator.digest
        averages = self.stepper.averaged.state_dict()
        checkpoint = Checkpoint(self.config.network, self.config.sigma, averages, record)
        save_checkpoint(self.folder / name, checkpoint, torch.float32)

    def progress(self, value: float | None) -> Progress:
        """Where the run stands, with the means of the losses since this was asked last."""
        counters, fraction = self.counters, share_done(self.config, self.counters)
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
            learning_rate=self.stepper.learning_rate,
            psnr=value,
            best_psnr=counters.best_psnr,
            skipped=counters.skipped,
            reconstruction=reconstruction if self.config.distillation else None,
        )
