"""The tasks of workers, and their outcomes."""

import logging
import pickle
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from av2tsam_cli.errors import Av2tsamError, UsageError, WeightsError
from av2tsam_cli.job import NANO_NOTE, Input, JobRunner, check_input

if TYPE_CHECKING:
    from av2tsam_cli.pipeline import SegmentResult

Status = Literal["done", "skipped", "failed"]
Note = tuple[int, str]
"""A level of `logging`, and a message."""


@dataclass(frozen=True)
class Task:
    """Segment an input."""

    source: Input
    """The input."""
    retry: bool = False
    """Whether an earlier attempt was lost, which may have written the output."""

    HAS_LIMIT: ClassVar[bool] = True
    """Whether the time limit per input applies."""

    def run(self, runner: JobRunner) -> "Outcome":
        """Run the task.

        Raises:
            Av2tsamError: See `JobRunner.plan` and `JobRunner.segment`.
        """
        check_input(self.source)
        plan = runner.plan(self.source, retry=self.retry)
        if plan is None:
            return self.skipped(runner)
        result = runner.segment(plan)
        return Outcome("done", result.outputs, result)

    def skipped(self, runner: JobRunner) -> "Outcome":
        """Return the outcome for an output that is already complete."""
        return Outcome("skipped", tuple(runner.job.outputs(self.source).values()))


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task."""

    status: Status
    """Whether the input was segmented, skipped or failed."""
    outputs: tuple[Path, ...] = ()
    """The outputs, new or existing; empty if it failed."""
    result: "SegmentResult | None" = None
    """The result; None if it was skipped or failed."""
    value: object = None
    """An intermediate result that other tasks need; see `cluster.split`."""
    error: Exception | None = None
    """The error if it failed, with the traceback as a note."""
    notes: tuple[Note, ...] = ()
    """Messages about the input."""
    job_notes: tuple[Note, ...] = ()
    """Messages about the model; the same for all workers."""
    ends_job: bool = False
    """Whether all other inputs would fail too, because the model cannot be loaded."""

    @classmethod
    def failed(cls, error: Exception, *, ends_job: bool = False) -> "Outcome":
        """Return the outcome of an input that failed."""
        portable = _portable(error)
        portable.add_note("".join(traceback.format_exception(error)).rstrip())
        return cls("failed", error=portable, ends_job=ends_job)


def load_model(runner: JobRunner) -> Outcome:
    """Load the model of a job, and return the outcome of that."""
    with _collected_notes(runner) as notes:
        try:
            runner.check_stores()
            runner.load()
        except Exception as error:  # noqa: BLE001 - it is reported
            return Outcome.failed(error, ends_job=isinstance(error, UsageError | WeightsError))
        if runner.has_fallback:
            notes.append((logging.WARNING, NANO_NOTE))
    return Outcome("done", job_notes=tuple(notes))


def run_task(runner: JobRunner, task: Task) -> Outcome:
    """Run a task; errors are returned in the outcome."""
    with _collected_notes(runner) as notes:
        try:
            outcome = task.run(runner)
        except Exception as error:  # noqa: BLE001 - it is reported for this input
            outcome = Outcome.failed(error)
    return replace(outcome, notes=tuple(notes))


@contextmanager
def _collected_notes(runner: JobRunner) -> Iterator[list[Note]]:
    """Collect the messages of the library and the job while the block runs."""
    notes: list[Note] = []
    handler, log = logging.Handler(), logging.getLogger("av2tsam_cli")
    handler.emit = lambda record: notes.append(  # type: ignore[method-assign]
        (record.levelno, record.getMessage())
    )
    runner.note = lambda text: notes.append((logging.WARNING, text))
    log.addHandler(handler)
    try:
        yield notes
    finally:
        log.removeHandler(handler)


def _portable(error: Exception) -> Exception:
    """Return an error that can be pickled, the same one if possible."""
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - its class needs more than its arguments
        copy = None
    if type(copy) is type(error) and str(copy) == str(error):
        return error
    reason = " ".join(str(error).split())
    return Av2tsamError(f"unexpected {type(error).__name__}: {reason}")
