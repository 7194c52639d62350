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
"""Results that may wait to be written: enough to keep the network busy without taking more memory."""
PLANNED, DONE, SKIPPED, FAILED = "planned", "done", "skipped", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: the job.
        status: "done", "skipped" or "failed"; "planned" in a dry run.
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
    """The outcome of a job if it is known before it is run: skipped or failed; else None."""
    if job.problem:
        return Outcome(job, FAILED, job.problem)
    return Outcome(job, SKIPPED) if job.skip else None


def finished_future(outcome: Outcome) -> Future[Outcome]:
    """A finished future of an outcome."""
    future: Future[Outcome] = Future()
    future.set_result(outcome)
    return future


class CallbackError(BaseException):
    """Carries an error of `on_outcome`, raised while a picture was being restored, whose failure it must not become."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Pending:
    """Outcomes of results that are being written, in order; `on_outcome` gets each once, as soon as it is known."""

    def __init__(self, on_outcome: OnOutcome | None, fail_fast: bool) -> None:
        self._given_up = False
        self._on_outcome, self._fail_fast = on_outcome, fail_fast
        self._waiting: deque[Future[Outcome]] = deque()
        self._told = 0

    def add(self, outcome: Future[Outcome]) -> None:
        """Append an outcome, which is known once its result is written or the job has failed."""
        self._waiting.append(outcome)

    def is_given_up(self) -> bool:
        """Whether a failure has ended the run, by `fail_fast`."""
        return self._given_up

    def finished(self, everything: bool) -> Iterator[Outcome]:
        """Yield the outcomes that are known, and wait for more until at most LOOKAHEAD are left or one ends the run.

        Args:
            everything: wait for all of them.
        """
        while not self._given_up and self._waiting:
            if not (everything or len(self._waiting) > LOOKAHEAD or self._waiting[0].done()):
                return
            outcome = self._next()
            self._given_up = self._fail_fast and outcome.status == FAILED
            yield outcome

    def under_way(self) -> Iterator[Outcome]:
        """Cancel what is not being written yet, and yield the outcomes of the rest."""
        self._waiting = deque(write for write in self._waiting if not write.cancel())
        while self._waiting:
            yield self._next()

    def tell(self) -> None:
        """Call `on_outcome` with what is known by now; for use while a picture is being restored."""
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
        """Cancel what is not being written yet."""
        for write in self._waiting:
            write.cancel()

    def _next(self) -> Outcome:
        """Wait for the first outcome and remove it."""
        outcome = _released(self._waiting[0].result())  # if interrupted it stays, for `under_way` to wait for
        self._waiting.popleft()
        if self._told:
            self._told -= 1
        elif self._on_outcome:
            self._on_outcome(outcome)
        return outcome


def _released(outcome: Outcome) -> Outcome:
    """The same outcome; the frames of its error are cleared, as they keep the picture's pixels in memory."""
    error: BaseException | None = outcome.error
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    return outcome


def exit_code(outcomes: Sequence[Outcome], jobs: int) -> int:
    """The exit code of outcomes and the number of jobs, of which some may not have been tried; see `exit_code_of`."""
    return exit_code_of([outcome.error for outcome in outcomes if outcome.error], jobs)
