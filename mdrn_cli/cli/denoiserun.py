"""What `mdrn denoise` does and shows once it is known what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mdrn_cli.cli.compare import write_sheet
from mdrn_cli.cli.console import echo, print_error, print_warning, printable, progress_bar
from mdrn_cli.cli.outcomes import plan_line, show, show_summary, summarized, write_report
from mdrn_cli.errors import MdrnError
from mdrn_cli.interrupts import INTERRUPTIONS

if TYPE_CHECKING:
    from mdrn_cli.encoding import SaveOptions
    from mdrn_cli.naming import Job
    from mdrn_cli.outcome import Outcome
    from mdrn_cli.picture import Picture
    from mdrn_cli.restore import DenoiseOptions

AUTO = "auto"


@dataclass(frozen=True)
class Run:
    """A run, as the command line asks for it."""

    options: DenoiseOptions
    save: SaveOptions
    fail_fast: bool
    report: Path | None
    compare: Path | None
    quiet: bool
    as_json: bool

    def __call__(self, jobs: list[Job]) -> int:
        """Do the jobs, show and report what became of each, and tell the exit code; the error of an only job, and
        what ends the run before its time, are raised."""
        outcomes: list[Outcome] = []
        compared: list[tuple[Picture, Picture]] = []
        try:
            self._do(jobs, outcomes, compared)
        except (*INTERRUPTIONS, MdrnError, BrokenPipeError) as ended:
            try:
                self._sum_up(outcomes, len(jobs))  # what was done before, if only that it was nothing
            except MdrnError as error:  # the end of the run stays what has ended it
                if str(error) != str(ended):
                    print_error(error)
            except BrokenPipeError:
                if left := len(jobs) - len(outcomes):
                    print_warning(f"nobody reads standard output; {left} of {len(jobs)} inputs not tried")
            raise
        self._sum_up(outcomes, len(jobs))
        if self.compare and compared:
            (before, after), *_ = compared
            write_sheet(self.compare, (("before", before), ("after", after)), [job.source for job in jobs])
        return _code(outcomes, len(jobs))

    def _sum_up(self, outcomes: Sequence[Outcome], jobs: int) -> None:
        summary = summarized(outcomes, jobs)
        try:
            if self.report:
                write_report(self.report, outcomes, summary)
        finally:
            show_summary(summary, jobs, self.as_json, self.quiet)

    def foresee(self, jobs: list[Job]) -> int:
        """Show what a call would do; what would end it before any picture does so here."""
        from mdrn_cli.outcome import PLANNED, Outcome, foresee
        from mdrn_cli.restore import Restorer

        Restorer(self.options)  # loads no network, but tells of a model that is not there
        if self.options.device not in (AUTO, "cpu"):  # which there are anywhere
            from mdrn_cli.devices import pick_device

            pick_device(self.options.device)
        outcomes = [foresee(job) or Outcome(job, PLANNED) for job in jobs]
        summary = summarized(outcomes, len(jobs), dry_run=True)
        if self.report:
            write_report(self.report, outcomes, summary)
        for outcome in outcomes:
            if self.as_json or outcome.error:
                show(outcome, self.as_json, alone=len(jobs) == 1)
            else:
                echo(plan_line(outcome.job))
        show_summary(summary, len(jobs), self.as_json, quiet=True)
        return _code(outcomes, len(jobs))

    def _do(self, jobs: list[Job], outcomes: list[Outcome], compared: list[tuple[Picture, Picture]]) -> None:
        """Do the jobs, each outcome kept and shown as it arrives."""
        from mdrn_cli.batch import run_jobs

        with progress_bar("{task.fields[unit]}", self.quiet) as bar:
            files = bar.add_task("images", total=len(jobs), unit="images", visible=len(jobs) > 1)
            tiles = bar.add_task("", total=None, unit="tiles")

            def on_start(job: Job) -> None:
                bar.reset(tiles, description=printable(job.source.name), total=None)

            def on_tile(done: int, total: int) -> None:
                bar.update(tiles, completed=done, total=total)

            def on_restored(before: Picture, after: Picture) -> None:
                compared.append((before, after))

            def on_outcome(outcome: Outcome) -> None:
                outcomes.append(outcome)
                bar.advance(files)
                show(outcome, self.as_json, alone=len(jobs) == 1, quiet=self.quiet)

            for _ in run_jobs(
                jobs,
                self.options,
                on_start=on_start,
                on_tile=on_tile,
                fail_fast=self.fail_fast,
                save=self.save,
                on_restored=on_restored if self.compare else None,
                on_outcome=on_outcome,
            ):
                pass


def _code(outcomes: Sequence[Outcome], jobs: int) -> int:
    """The exit code of a run; the error of an only job is raised."""
    from mdrn_cli.outcome import exit_code

    if jobs == 1 and outcomes[0].error:
        raise outcomes[0].error
    return exit_code(outcomes, jobs)
