"""A child process that runs the model, and is replaced when it crashes or hangs.

Decoders are written in C and can crash or hang. A worker therefore leaves the work to a child
process: it can stop the child, and sees how the child ended.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from typing import cast

from av2tsam_cli import __version__
from av2tsam_cli.cluster.resources import own_cores
from av2tsam_cli.cluster.tasks import Note, Outcome, Task, load_model, run_task
from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.files import remove_newly_dead_parts
from av2tsam_cli.job import JobRunner, SegmentJob
from av2tsam_cli.process import tune_process
from av2tsam_cli.signals import explain_death, handle_signals

RETRIES = 2
"""How often an input is tried again after the process that worked on it has died."""
PATIENCE_S = 5.0
"""Seconds that a process has to remove its unfinished outputs before it is killed."""
CHECK_EVERY_S = 0.5
"""Seconds between two checks whether the parent is still running."""


@dataclass(frozen=True)
class Setup:
    """The settings of a worker."""

    job: SegmentJob
    """What to do with the inputs."""
    timeout_s: float | None = None
    """Time limit for one input, not counting the time to load the model; None for no limit."""
    cpus: int = 1
    """CPU cores of the worker."""
    folder: Path = field(default_factory=Path.cwd)
    """The working directory, on machines that have this folder."""
    version: str = __version__
    """Version of av2tsam."""
    details: bool = False
    """Whether to report details as well as warnings."""


class Child:
    """Runs tasks in a child process, which is started when it is needed."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._is_loaded = False  # the model, by the process that is running

    def run(self, task: Task, lost: int = 0) -> Outcome:
        """Run a task; if the process dies, try again.

        Args:
            task: The task.
            lost: Number of earlier attempts that were lost; there are at most 1 + RETRIES in all.
        """
        error = lost_error(task)
        for attempt in range(lost, 1 + RETRIES):
            try:
                return self._attempt(replace(task, retry=attempt > 0))
            except (EOFError, OSError):  # the connection was closed
                error = self._explain_end(task.source.path)
                self._remove_unfinished(task)
        return Outcome.failed(error)

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._is_loaded = False
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _attempt(self, task: Task) -> Outcome:
        """Run a task once.

        Raises:
            EOFError: The process has died.
            OSError: The process has died.
        """
        job_notes: tuple[Note, ...] = ()
        connection = self.start()
        if not self._is_loaded:
            loaded = cast("Outcome", connection.recv())
            if loaded.error is not None:
                self.close()
                return loaded
            self._is_loaded, job_notes = True, loaded.job_notes
        connection.send(task)
        limit_s = self.setup.timeout_s if task.HAS_LIMIT else None
        if connection.poll(limit_s):
            return replace(cast("Outcome", connection.recv()), job_notes=job_notes)
        self.close()
        self._remove_unfinished(task)
        return Outcome.failed(
            Av2tsamError(
                f"{task.source.path}: stopped after {limit_s:g} s; raise `timeout_per_item`, or "
                "check whether the file is damaged"
            )
        )

    def start(self) -> Connection:
        """Start the process unless it is running; it loads the model before its first task."""
        if self._connection is not None:
            return self._connection
        ours, theirs = socketpair()
        with theirs:
            number = theirs.fileno()
            # -P: Python files in the current folder, which may be anybody's, must not be imported.
            command = [
                sys.executable,
                "-P",
                "-c",
                f"from {__name__} import main; main()",
                str(number),
            ]
            self._process = subprocess.Popen(command, pass_fds=[number])  # noqa: S603 - our own code
        self._connection = Connection(ours.detach())
        self._connection.send(self.setup)
        return self._connection

    def _remove_unfinished(self, task: Task) -> None:
        """Remove unfinished outputs of a task whose process was killed."""
        job = self.setup.job
        remove_newly_dead_parts([*job.output_folders(task.source), job.staging_folder])

    def _explain_end(self, source: Path) -> Av2tsamError:
        """Return the error for an input whose processing killed the process."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):  # it may still be writing a core dump
                self._process.wait(PATIENCE_S)
        self.close()
        code = 0 if self._process is None else self._process.returncode
        if code < 0:
            return explain_death(source, signal.Signals(-code))
        return Av2tsamError(f"{source}: the process that worked on it ended (exit code {code})")


def lost_error(task: Task) -> Av2tsamError:
    """Return the error for a task whose workers were lost at every attempt."""
    return Av2tsamError(
        f"{task.source.path}: the worker was lost {1 + RETRIES} times, perhaps because memory ran "
        "out or machines went down; use fewer `workers`, or a smaller `batch_size`"
    )


def main() -> None:
    """Load the model and run the tasks that the parent sends, until the parent ends."""
    tune_process()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    connection = Connection(int(sys.argv[1]))
    with suppress(KeyboardInterrupt, EOFError, OSError), handle_signals(_interrupt):
        setup = cast("Setup", connection.recv())
        if setup.details:
            logging.getLogger("av2tsam_cli").setLevel(logging.INFO)
        with (
            own_cores(setup.cpus),  # before libraries count the cores
            closing(JobRunner(setup.job, note=lambda _: None)) as runner,
        ):
            connection.send(load_model(runner))
            while True:
                connection.send(run_task(runner, cast("Task", connection.recv())))


def _interrupt(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the cleanup
    raise KeyboardInterrupt


def _end_with_parent(parent: int) -> None:
    """Wait until the parent has ended or was killed, then let this process clean up and end."""
    while os.getppid() == parent:
        time.sleep(CHECK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.kill(os.getpid(), signal.SIGKILL)
