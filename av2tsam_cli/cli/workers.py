"""Process the inputs of a command with Ray workers, on one machine or many."""

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from av2tsam_cli.cli.batch import Batch
from av2tsam_cli.cli.console import Console
from av2tsam_cli.cli.progress import Unit
from av2tsam_cli.cluster.child import Setup
from av2tsam_cli.cluster.connection import connected, list_machines, require_ray
from av2tsam_cli.cluster.engine import remove_everywhere, run_tasks
from av2tsam_cli.cluster.resources import RayOptions, choose_resources
from av2tsam_cli.cluster.split import CutTask, PartTask, parts_folder
from av2tsam_cli.cluster.tasks import Note, Outcome, Task
from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.job import Input, SegmentJob, skip_message, summary


class WorkersRun:
    """Processes the pending inputs of a batch with Ray workers."""

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
        self._pending: set[Path] = set()  # `Batch.pending` is slow
        self._began_s = time.monotonic()

    def run(self) -> int:
        """Process the inputs and return the exit code."""
        options = self.options
        require_ray()
        needed = (options.workers or 1) * (options.cpus_per_worker or 1)
        with (
            self.batch.interruptible(),
            connected(str(options.ray), needed) as self._check_interrupted,
        ):
            self._pending = set(self.batch.pending)
            inputs = [self.inputs[source] for source in self.batch.pending]
            if options.split is None:
                self._run_tasks([Task(each) for each in inputs], "segment", "videos")
            else:
                self._run_in_parts(inputs, options.split)
        return self.batch.exit_code

    def _run_in_parts(self, inputs: Sequence[Input], seconds: int) -> None:
        """Cut inputs into parts, segment the parts, and join them."""
        folders = {each.path: parts_folder(self.job, each) for each in inputs}
        cuts = [CutTask(each, seconds=seconds, folder=folders[each.path]) for each in inputs]
        self._began_s = time.monotonic()
        try:
            parts = self._run_tasks(cuts, "listen", "videos")
            self._run_tasks(parts, "segment", "parts")
            for source in sorted(self._pending):
                self.batch.fail(
                    Av2tsamError(f"{source}: a machine with its parts was lost; run again"), source
                )
        finally:
            if self.batch.exit_code or self._pending:  # otherwise, they are removed already
                remove_everywhere({Path.cwd() / folder for folder in folders.values()})

    def _run_tasks(self, tasks: Sequence[Task], name: str, unit: Unit) -> list[PartTask]:
        """Run tasks, report their outcomes, and return the tasks that follow from them."""
        following: list[PartTask] = []
        if not tasks:
            return following
        machines = list_machines()
        resources = choose_resources(self.options, self.job.model.device, machines, len(tasks))
        if not any(each.capacity(resources.cpus, resources.gpus) for each in machines):
            self.console.note(
                f"waiting for a machine with {resources.cpus} CPUs and {resources.gpus:g} GPUs for "
                "each worker; the cluster has none now"
            )
        self.console.detail(
            f"{name}: workers: {resources.workers}; for each, CPUs: {resources.cpus}, "
            f"GPUs: {resources.gpus:g}"
        )
        setup = Setup(
            self.job,
            timeout_s=self.options.timeout_per_item,
            cpus=resources.cpus,
            details=self.console.wants_details,
        )
        with (
            self.console.progress(name, len(tasks), unit) as update,
            closing(run_tasks(tasks, setup, resources)) as outcomes,
        ):
            for done, (task, outcome) in enumerate(outcomes, start=1):
                self._check_interrupted()
                self._report(task, outcome)
                if isinstance(outcome.value, tuple):
                    following += outcome.value
                if update is not None:
                    update(done)
                if outcome.ends_job:
                    return []
        return following

    def _report(self, task: Task, outcome: Outcome) -> None:
        """Report the outcome of an input, unless it is known or other parts remain."""
        source, result = task.source.path, outcome.result
        for note in (*outcome.job_notes, *outcome.notes):
            if note not in self._job_notes:
                level, text = note
                (self.console.note if level >= logging.WARNING else self.console.detail)(text)
        self._job_notes.update(outcome.job_notes)
        if outcome.value is not None or source not in self._pending:
            return
        if outcome.error is not None:
            failed = list(self._pending) if outcome.ends_job else [source]
            self._pending.difference_update(failed)
            self.batch.fail(outcome.error, *failed)
            return
        self._pending.remove(source)
        if result is None:
            self.console.note(f"{source}: {skip_message(outcome.outputs[0])}")
            self.batch.finish(source, {"outputs": outcome.outputs}, status="skipped")
        elif isinstance(task, PartTask):  # the last part, whose worker has joined all parts
            result = replace(result, wall_s=time.monotonic() - self._began_s)
            self.console.note(summary(result))
            self.batch.finish(source, asdict(result))
        else:
            self.batch.finish(source, asdict(result))
