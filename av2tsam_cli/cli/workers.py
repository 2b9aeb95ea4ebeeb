"""Process the inputs of a command on workers of Ray, on this machine or on many."""

import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated

from av2tsam_cli.cli.batch import Batch
from av2tsam_cli.cli.console import Console
from av2tsam_cli.cluster.child import Setup
from av2tsam_cli.cluster.engine import connected, require_ray, run_tasks, total_resources
from av2tsam_cli.cluster.resources import WorkerOptions, choose_resources
from av2tsam_cli.cluster.tasks import Note, Outcome, Task
from av2tsam_cli.errors import UsageError
from av2tsam_cli.job import Input, SegmentJob
from av2tsam_cli.options import Option, Panel

ADDRESS = re.compile(r"local|auto|(ray://)?[^/\s]+:\d+")
"""Where Ray is."""


@dataclass(frozen=True)
class RayOptions(WorkerOptions):
    """Whether inputs are processed on workers of Ray."""

    ray: Annotated[
        str | None,
        Option(
            "process inputs on workers: local, auto for the cluster of this machine, HOST:PORT or "
            "ray://HOST:PORT",
            panel=Panel.CLUSTER,
            metavar="ADDRESS",
        ),
    ] = None
    """`local` to start Ray on this machine, `auto` for the cluster that it belongs to, or the
    address of a cluster; None to process inputs in this process."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: A value is out of range, or needs `ray`.
        """
        super().__post_init__()
        if self.ray is None:
            for field in fields(WorkerOptions):
                if getattr(self, field.name) is not None:
                    raise UsageError(f"`{field.name}` has no effect without `ray`; set it too")
        elif not ADDRESS.fullmatch(self.ray):
            raise UsageError(
                f"`ray` must be local, auto, HOST:PORT or ray://HOST:PORT, not {self.ray!r}"
            )


class WorkersRun:
    """Does a job for the pending inputs of a batch on the workers of Ray."""

    def __init__(
        self,
        inputs: Sequence[Input],
        job: SegmentJob,
        console: Console,
        batch: Batch,
        options: RayOptions,
    ) -> None:
        self.inputs = {each.path: each for each in inputs}
        self.job, self.console, self.batch = job, console, batch
        self.options = options
        self._job_notes: set[Note] = set()

    def run(self) -> int:
        """Process the inputs and return the exit code."""
        options = self.options
        require_ray()
        needed = (options.workers or 1) * (options.cpus_per_worker or 1)
        with self.batch.interruptible(), connected(str(options.ray), needed):
            self._run()
        return self.batch.exit_code

    def _run(self) -> None:
        pending = self.batch.pending
        cpus, gpus = total_resources()
        resources = choose_resources(
            self.options, self.job.model.device, cpus=cpus, gpus=gpus, items=len(pending)
        )
        self.console.detail(
            f"{resources.workers} workers with {resources.cpus} CPUs and {resources.gpus:g} GPUs"
        )
        setup = Setup(
            self.job,
            timeout_s=self.options.timeout_per_item,
            cpus=resources.cpus,
            details=self.console.wants_details,
        )
        tasks = [Task(self.inputs[source]) for source in pending]
        with self.console.progress("inputs", len(tasks), "videos") as update:
            for done, (task, outcome) in enumerate(run_tasks(tasks, setup, resources), start=1):
                self._report(task.source.path, outcome)
                if update is not None:
                    update(done)
                if outcome.ends_job:
                    break

    def _report(self, source: Path, outcome: Outcome) -> None:
        for note in (*outcome.job_notes, *outcome.notes):
            if note not in self._job_notes:
                level, text = note
                (self.console.note if level >= logging.WARNING else self.console.detail)(text)
        self._job_notes.update(outcome.job_notes)
        if outcome.error is not None:
            self.batch.fail(outcome.error, *(self.batch.pending if outcome.ends_job else [source]))
        elif outcome.result is None:
            text = f"skipped, {outcome.outputs[0]} is complete and made with the same options"
            self.console.note(f"{source}: {text}")
            self.batch.finish(source, {"outputs": outcome.outputs}, status="skipped")
        else:
            self.batch.finish(source, asdict(outcome.result))
