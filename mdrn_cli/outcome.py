"""What becomes of jobs: their outcomes, those that are waited for, and the exit code of a run."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from mdrn_cli.errors import MdrnError, exit_code_of
from mdrn_cli.naming import Job
from mdrn_cli.restore import Facts

LOOKAHEAD = 1
"""Results waiting to be written: enough to keep the network busy, and no more memory."""
PLANNED, DONE, SKIPPED, FAILED = "planned", "done", "skipped", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        status: "done", "skipped" or "failed"; "planned" of one that is only looked at.
        error: why it failed.
        facts: what was done.
        warnings: what could not be kept as it was.
        seconds: from reading begun to result written, not counting time spent on other jobs and on loading networks.
    """

    job: Job
    status: str
    error: MdrnError | None = None
    facts: Facts | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


OnOutcome = Callable[[Outcome], None]
"""Called with each outcome, once it is known."""


def foresee(job: Job) -> Outcome | None:
    """What becomes of a job, where that is known before it is run: skipped or failed."""
    if job.problem:
        return Outcome(job, FAILED, job.problem)
    return Outcome(job, SKIPPED) if job.skip else None


def known(outcome: Outcome) -> Future[Outcome]:
    """An outcome for which there is nothing to wait."""
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    return future


class CallbackError(BaseException):
    """What `on_outcome` has raised amidst a picture, whose failure it is not."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Pending:
    """Outcomes of results that are being written, in their order; each is told of once, as soon as it is known."""

    def __init__(self, on_outcome: OnOutcome | None, fail_fast: bool) -> None:
        self._given_up = False
        self._on_outcome, self._fail_fast = on_outcome, fail_fast
        self._waiting: deque[Future[Outcome]] = deque()
        self._told = 0

    def add(self, outcome: Future[Outcome]) -> None:
        """The next one, known once its result is written or the job has failed."""
        self._waiting.append(outcome)

    def is_given_up(self) -> bool:
        """Whether one has failed that ends the run."""
        return self._given_up

    def finished(self, everything: bool) -> Iterator[Outcome]:
        """Those that are known, and more until no more wait than may, or until one ends the run.

        Args:
            everything: wait for all.
        """
        while not self._given_up and self._waiting:
            if not (everything or len(self._waiting) > LOOKAHEAD or self._waiting[0].done()):
                return
            outcome = self._next()
            self._given_up = self._fail_fast and outcome.status == FAILED
            yield outcome

    def under_way(self) -> Iterator[Outcome]:
        """Those that can no longer be held back; the others are given up."""
        self._waiting = deque(write for write in self._waiting if not write.cancel())
        while self._waiting:
            yield self._next()

    def tell(self) -> None:
        """Tell of those that have come to be known; in the midst of a picture."""
        while self._told < len(self._waiting) and self._waiting[self._told].done():
            outcome = self._waiting[self._told]
            if outcome.exception():  # raised when its turn comes
                return
            self._told += 1
            if self._on_outcome:
                try:
                    self._on_outcome(_released(outcome.result()))
                except Exception as error:
                    raise CallbackError(error) from error

    def cancel(self) -> None:
        """Give up those that are not being written yet."""
        for write in self._waiting:
            write.cancel()

    def _next(self) -> Outcome:
        """Wait for the first one, and take it out."""
        outcome = _released(self._waiting[0].result())  # may be interrupted, and is waited for by `under_way` then
        self._waiting.popleft()
        if self._told:
            self._told -= 1
        elif self._on_outcome:
            self._on_outcome(outcome)
        return outcome


def _released(outcome: Outcome) -> Outcome:
    """The same, without what the frames of its failure hold: the pixels of its picture."""
    error: BaseException | None = outcome.error
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    return outcome


def exit_code(outcomes: Sequence[Outcome], jobs: int) -> int:
    """The exit code of outcomes and the number of jobs, of which some may not have been tried; see `exit_code_of`."""
    return exit_code_of([outcome.error for outcome in outcomes if outcome.error], jobs)
