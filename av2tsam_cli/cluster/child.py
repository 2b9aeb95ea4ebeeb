"""A process with the model, which another one starts, watches and replaces.

Decoders are written in C, and can crash or hang. The process of a worker therefore only waits: it
learns how its child ended, and can end it.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socketpair
from typing import cast

from av2tsam_cli import __version__
from av2tsam_cli.cluster.resources import own_cores
from av2tsam_cli.cluster.tasks import Note, Outcome, Task, do_task, load_model
from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.files import remove_newly_dead_parts
from av2tsam_cli.job import JobRunner, SegmentJob
from av2tsam_cli.process import tune_process
from av2tsam_cli.signals import explain_death, handle_signals

RETRIES = 2
"""How often an input is tried again after a process that worked on it has died."""
PATIENCE_S = 5.0
"""Seconds for which a process that is ended can remove its unfinished outputs."""
WATCHED_EVERY_S = 0.5
"""Seconds between two looks at whether the parent is still running."""


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know."""

    job: SegmentJob
    """What to do with the inputs."""
    timeout_s: float | None = None
    """Seconds that one input may take, without loading the model; None for no limit."""
    cpus: int = 1
    """CPU cores of the worker."""
    folder: Path = field(default_factory=Path.cwd)
    """What relative paths start from, on machines that have this folder too."""
    version: str = __version__
    """Version of av2tsam."""
    details: bool = False
    """Whether to report details, and not only warnings."""


class Child:
    """Does tasks in a child process, which is started when it is needed."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._is_loaded = False  # the model, by the process that is running

    def do(self, task: Task, lost: int = 0) -> Outcome:
        """Do a task; if the process dies, try again.

        Args:
            task: The task.
            lost: How many attempts were lost before; there are at most 1 + RETRIES in all.
        """
        error = lost_error(task)
        for attempt in range(lost, 1 + RETRIES):
            try:
                return self._attempt(replace(task, again=attempt > 0))
            except (EOFError, OSError):  # the other end of the connection is gone
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
        """Do a task.

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
                "check whether it is damaged"
            )
        )

    def start(self) -> Connection:
        """Start the process unless it is running; it loads the model before it takes a task."""
        if self._connection is not None:
            return self._connection
        ours, theirs = socketpair()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-c", f"from {__name__} import main; main()", str(number)]
            self._process = subprocess.Popen(command, pass_fds=[number])  # noqa: S603 - ourselves
        self._connection = Connection(ours.detach())
        self._connection.send(self.setup)
        return self._connection

    def _remove_unfinished(self, task: Task) -> None:
        """Remove what a process that was killed left of the outputs of a task."""
        job = self.setup.job
        remove_newly_dead_parts([*job.output_folders(task.source), job.staging_folder])

    def _explain_end(self, source: Path) -> Av2tsamError:
        """Return the error for an input at which the process died."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):  # it may still write a core dump
                self._process.wait(PATIENCE_S)
        self.close()
        code = 0 if self._process is None else self._process.returncode
        if code < 0:
            return explain_death(source, signal.Signals(-code))
        return Av2tsamError(f"{source}: the process that worked on it ended (exit code {code})")


def lost_error(task: Task) -> Av2tsamError:
    """Return the error for a task that was begun often enough, and lost with its workers."""
    return Av2tsamError(
        f"{task.source.path}: lost with its worker, {1 + RETRIES} times, perhaps because memory "
        "ran out or machines went away; use fewer `workers`, or a smaller `batch_size`"
    )


def main() -> None:
    """Load the model and do the tasks that the parent sends, until it ends."""
    tune_process()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    connection = Connection(int(sys.argv[1]))
    with suppress(KeyboardInterrupt, EOFError, OSError), handle_signals(_interrupt):
        setup = cast("Setup", connection.recv())
        if setup.details:
            logging.getLogger("av2tsam_cli").setLevel(logging.INFO)
        with (
            own_cores(setup.cpus),  # before a library counts them
            JobRunner(setup.job, note=lambda _: None) as runner,
        ):
            connection.send(load_model(runner))
            while True:
                connection.send(do_task(runner, cast("Task", connection.recv())))


def _interrupt(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the cleanup
    raise KeyboardInterrupt


def _end_with_parent(parent: int) -> None:
    """Wait until the parent has ended, perhaps killed, and let this process clean up and end."""
    while os.getppid() == parent:
        time.sleep(WATCHED_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_S)
    os.kill(os.getpid(), signal.SIGKILL)
