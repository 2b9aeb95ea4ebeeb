"""Ray: connect to it, and run tasks on its workers with Ray Data."""

import io
import logging
import os
import pickle
import platform
import shutil
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from av2tsam_cli import __version__
from av2tsam_cli.cluster.child import PATIENCE_S, Child, Setup, lost_error
from av2tsam_cli.cluster.resources import Resources
from av2tsam_cli.cluster.split import PartTask
from av2tsam_cli.cluster.tasks import Outcome, Task
from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.files import has_parts, remove_dead_parts
from av2tsam_cli.signals import SIGNAL_NAMES

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.data import Dataset

    from av2tsam_cli.parts import PartResult

LOCAL, AUTO = "local", "auto"
"""Addresses: Ray is started on this machine and ends with the command; the cluster that this
machine belongs to."""
MOST_BLOCKS = 10_000
"""Most blocks of a data set; Ray needs about a millisecond for each before the first begins."""
TASKS_AHEAD = 2
"""Tasks that a worker has, the one at work included, so that it never waits for the next one."""
REACHED_WITHIN_S = 10.0
"""Seconds within which a cluster must answer."""
OBJECT_STORE_BYTES = 200 << 20
"""Memory that a local Ray shares between processes; tasks and outcomes are small."""


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        Av2tsamError: It is not.
    """
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise Av2tsamError("`ray` needs Ray Data; install it with: pip install 'av2tsam[ray]'")


@contextmanager
def connected(address: str, cpus: int) -> Iterator[None]:
    """Start Ray on this machine, or connect to a cluster, while the block runs.

    This changes settings of the process: the command line uses it, the library does not.

    Args:
        address: `local`, `auto`, `HOST:PORT` or `ray://HOST:PORT`.
        cpus: CPUs that workers need if Ray is started; more than there are is allowed.

    Raises:
        Av2tsamError: Ray cannot be started or reached.
    """
    import ray

    # Ray would print what the outcomes say better, and send statistics of its use to its makers.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

    options: dict[str, Any] = {}
    if address == LOCAL:
        options = {
            "num_cpus": max(cpus, os.cpu_count() or 1),
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    try:
        if address not in {LOCAL, AUTO}:  # Ray itself would try for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=REACHED_WITHIN_S).close()
        with _stderr_closed(), _handlers_kept():  # it prints that it is to print nothing
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (OSError, RuntimeError, ValueError, TimeoutError) as error:
        reason = "none is running" if address == AUTO else " ".join(str(error).split())
        raise Av2tsamError(
            f"`ray` {address}: cannot be reached ({reason}); start Ray there with 'ray start', "
            "check the address, or set RAY_AUTH_MODE=token if it wants a token"
        ) from error
    try:
        _quiet_data()
        with redirect_stdout(cast("TextIO", _OneThread(sys.stdout))):
            yield
    except ray.exceptions.RayError as error:
        *_, reason = str(error).strip().splitlines()
        raise Av2tsamError(
            f"`ray` {address}: failed ({reason}); check that av2tsam is installed on all machines"
        ) from error
    finally:
        with redirect_stdout(io.StringIO()):  # it prints the errors that it has not printed yet
            ray.shutdown()


class _OneThread:
    """A stream to which only one thread can write; Ray prints errors to stdout from another one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.current_thread()

    def write(self, text: str) -> int:
        """Write a text, if this is the thread."""
        return self._stream.write(text) if threading.current_thread() is self._thread else len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Restore the handlers of signals at the end of the block; Ray replaces that of SIGTERM."""
    numbers = [getattr(signal, name) for name in SIGNAL_NAMES]
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Drop what is written to the file of stderr while the block runs, also by C libraries."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - not a path of the user
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _quiet_data() -> None:
    """Let Ray Data print nothing, and go on without the tasks of workers that are lost."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1


def total_resources() -> tuple[int, int]:
    """Return the CPUs and the GPUs of the cluster, or of this machine."""
    import ray

    found = ray.cluster_resources()
    return int(found.get("CPU", 1)), int(found.get("GPU", 0))


def run_tasks(
    tasks: Sequence[Task], setup: Setup, resources: Resources
) -> Generator[tuple[Task, Outcome], None, None]:
    """Do tasks on workers, and yield each with its outcome as soon as that is known.

    If the iteration ends early, the workers are stopped, and what is unfinished is removed.

    Args:
        tasks: The tasks.
        setup: What the workers need to know.
        resources: The workers.
    """
    from ray.util.client import ray as client

    registry = start_registry()
    left = dict(enumerate(tasks))
    run = _run_there if client.is_connected() else _run_here
    try:
        for place, outcome in run(tasks, setup, resources, registry):
            yield left.pop(place), outcome
    except BaseException:  # an interruption, or the caller needs no more outcomes
        written = [setup.job.output_folders(task.source) for task in left.values()]
        _stop(registry, {setup.folder / folder for folders in written for folder in folders})
        raise
    for task in left.values():
        yield task, Outcome.failed(lost_error(task))


def _run_here(
    tasks: Sequence[Task], setup: Setup, resources: Resources, registry: "ActorHandle[Registry]"
) -> Iterator[tuple[int, Outcome]]:
    """Yield the outcomes of tasks, with their places."""
    from ray.data import from_items

    rows = [{"place": place, "task": pickle.dumps(task)} for place, task in enumerate(tasks)]
    dataset = from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS))
    for row in on_workers(dataset, Worker, (setup,), registry, resources).iter_rows():
        yield row["place"], pickle.loads(row["outcome"])  # noqa: S301 - from our own worker


def _run_there(
    tasks: Sequence[Task], setup: Setup, resources: Resources, registry: "ActorHandle[Registry]"
) -> Iterator[tuple[int, Outcome]]:
    """Do the same from within a cluster, because Ray Data cannot through a Ray client."""
    import ray

    arguments = pickle.dumps((tasks, setup, resources))
    driver = ray.remote(num_cpus=0)(_Driver).remote(arguments, registry)
    while (done := pickle.loads(ray.get(driver.next.remote()))) is not None:  # noqa: S301 - ours
        yield done


class _Driver:
    """Runs tasks for a Ray client, as an actor of the cluster."""

    def __init__(self, arguments: bytes, registry: "ActorHandle[Registry]") -> None:
        _quiet_data()
        tasks, setup, resources = pickle.loads(arguments)  # noqa: S301 - ours
        self._outcomes = _run_here(tasks, setup, resources, registry)

    def next(self) -> bytes:
        """Return the place and the outcome of the next task that is done; None after the last."""
        return pickle.dumps(next(self._outcomes, None))


def on_workers(
    dataset: "Dataset",
    worker: type,
    arguments: Sequence[object],
    registry: "ActorHandle[Registry]",
    resources: Resources,
    *,
    most_cpus: float = float("inf"),
) -> "Dataset":
    """Return the data set of what workers return for the rows of another one.

    Args:
        dataset: The rows.
        worker: A class that is called with a row, and returns one.
        arguments: What its constructor gets before the registry.
        registry: What counts the attempts.
        resources: The workers.
        most_cpus: Most CPUs that all of them reserve, so that some are left for other steps.
    """
    from ray.data import ActorPoolStrategy

    return dataset.map(
        worker,
        fn_constructor_args=(*arguments, registry),
        compute=ActorPoolStrategy(
            size=resources.workers, max_tasks_in_flight_per_actor=TASKS_AHEAD
        ),
        num_cpus=min(resources.cpus, most_cpus / resources.workers),
        num_gpus=resources.gpus or None,
    )


class Registry:
    """Knows the workers, and how often each task was begun in vain; Ray runs it beside them.

    When a worker is lost, Ray has another one do its tasks, without a limit.
    """

    def __init__(self) -> None:
        self._begun: Counter[object] = Counter()
        self._workers: dict[str, ActorHandle[object]] = {}
        self._results: dict[Path, dict[int, PartResult]] = {}
        self._last: dict[Path, int] = {}
        self._given_up: set[Path] = set()

    def begin(self, key: object, name: str, worker: "ActorHandle[object]") -> int:
        """Count the beginning of a task by a worker; return how often it was begun before."""
        self._workers[name] = worker
        self._begun[key] += 1
        return self._begun[key] - 1

    def finish(self, key: object) -> None:
        """Forget a task that is done, which may come again if the data set contains it twice."""
        del self._begun[key]

    def collect(self, task: PartTask, result: "PartResult") -> "dict[int, PartResult] | None":
        """Add the result of a part; return those of all parts to the worker that shall join them.

        That is the one with the last part, also if it was lost and comes again.
        """
        results = self._results.setdefault(task.folder, {})
        results[task.part.number] = result
        if len(results) < task.count:
            return None
        last = self._last.setdefault(task.folder, task.part.number)
        return results if last == task.part.number else None

    def give_up(self, task: PartTask) -> None:
        """Take note that a part failed, so that the other parts of the video are not needed."""
        self._given_up.add(task.folder)

    def is_needed(self, task: PartTask) -> bool:
        """Return whether no other part of the video has failed."""
        return task.folder not in self._given_up

    def workers(self) -> "list[ActorHandle[object]]":
        """Return the workers that have begun a task."""
        return list(self._workers.values())


def start_registry() -> "ActorHandle[Registry]":
    """Start the registry of a job."""
    import ray

    return ray.remote(num_cpus=0, max_restarts=-1)(Registry).remote()


def _stop(registry: "ActorHandle[Registry]", folders: set[Path]) -> None:
    """End the workers at once, and remove what they leave in folders, on all machines."""
    import ray

    with suppress(ray.exceptions.RayError):  # the cluster is gone
        for worker in ray.get(registry.workers.remote(), timeout=PATIENCE_S):
            ray.kill(worker)
        _on_all_machines(_remove_unfinished, folders)


def remove_everywhere(folders: set[Path]) -> None:
    """Remove folders with everything in them, on all machines."""
    import ray

    with suppress(ray.exceptions.RayError):
        _on_all_machines(_remove, folders)


def _on_all_machines(function: Callable[[set[Path]], None], folders: set[Path]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0)(function)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    ray.get(
        [remote.options(scheduling_strategy=place).remote(folders) for place in places],
        timeout=2 * PATIENCE_S,
    )


def _remove(folders: set[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unfinished(folders: set[Path]) -> None:
    """Remove what workers of this machine left in folders, once they have ended."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        remove_dead_parts.cache_clear()
        for folder in folders:
            remove_dead_parts(folder)
        if time.monotonic() > end_s or not any(map(has_parts, folders)):
            return
        time.sleep(0.1)


class Worker:
    """Does the tasks of a data set in a child process; Ray creates it in each of its actors."""

    def __init__(self, setup: Setup, registry: "ActorHandle[Registry]") -> None:
        """Prepare to work.

        Args:
            setup: What to do.
            registry: What counts the attempts.
        """
        with suppress(OSError):  # this machine may not have the folder
            os.chdir(setup.folder)
        self.child, self.registry = Child(setup), registry

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Do the task of a row."""
        task: Task = pickle.loads(row["task"])  # noqa: S301 - from our own driver
        return {"place": row["place"], "outcome": pickle.dumps(self.do(row["place"], task))}

    def do(self, key: object, task: Task) -> Outcome:
        """Do a task, and count the attempts."""
        import ray

        if self.child.setup.version != __version__:
            error = Av2tsamError(
                f"{platform.node()}: has av2tsam {__version__}, and not {self.child.setup.version} "
                "as the machine that gave the command; install the same version"
            )
            return Outcome.failed(error, ends_job=True)
        here = ray.get_runtime_context()
        begun = self.registry.begin.remote(key, here.get_actor_id(), here.current_actor)
        lost = ray.get(begun)
        outcome = (
            self._do_part(task, lost) if isinstance(task, PartTask) else self.child.do(task, lost)
        )
        self.registry.finish.remote(key)
        return outcome

    def _do_part(self, task: PartTask, lost: int) -> Outcome:
        """Segment a part of a video; after the last one, join all."""
        import ray

        if not ray.get(self.registry.is_needed.remote(task)):
            return Outcome("skipped")
        outcome = self.child.do(task, lost)
        if outcome.value is not None:
            results = ray.get(self.registry.collect.remote(task, outcome.value))
            if results is None:
                return outcome
            outcome = self.child.do(task.join(results), lost)
        if outcome.error is not None:
            self.registry.give_up.remote(task)
        return outcome
