"""Ray: connect to it, and run tasks on its workers with Ray Data."""

import logging
import os
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av2tsam_cli.cluster.child import RETRIES, Child, Setup
from av2tsam_cli.cluster.resources import Resources
from av2tsam_cli.cluster.tasks import Outcome, Task
from av2tsam_cli.errors import Av2tsamError

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.data import Dataset

LOCAL, AUTO = "local", "auto"
"""Addresses: Ray is started on this machine and ends with the command; the cluster that this
machine belongs to."""
MOST_BLOCKS = 10_000
"""Most blocks of a data set; Ray needs about a millisecond for each before the first begins."""
TASKS_AHEAD = 2
"""Tasks that a worker has, the one at work included, so that it never waits for the next one."""
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
        with _stderr_closed():  # its library prints that it was told to print nothing
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except (OSError, RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())
        raise Av2tsamError(
            f"`ray` {address}: cannot be reached ({reason}); start Ray there, or check the address"
        ) from error
    try:
        _quiet_data()
        yield
    finally:
        ray.shutdown()


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
) -> Iterator[tuple[Task, Outcome]]:
    """Do tasks on workers, and yield each with its outcome as soon as that is known.

    Args:
        tasks: The tasks.
        setup: What the workers need to know.
        resources: The workers.
    """
    from ray.data import from_items

    rows = [{"place": place, "task": pickle.dumps(task)} for place, task in enumerate(tasks)]
    dataset = from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS))
    left = dict(enumerate(tasks))
    for row in on_workers(dataset, Worker, (setup, Path.cwd()), resources).iter_rows():
        task = left.pop(row["place"])
        yield task, pickle.loads(row["outcome"])  # noqa: S301 - from our own worker
    for task in left.values():
        yield task, Outcome.failed(_lost(task))


def on_workers(
    dataset: "Dataset", worker: type, arguments: Sequence[object], resources: Resources
) -> "Dataset":
    """Return the data set of what workers return for the rows of another one.

    Args:
        dataset: The rows.
        worker: A class that is called with a row, and returns one.
        arguments: What its constructor gets before the count of attempts.
        resources: The workers.
    """
    import ray
    from ray.data import ActorPoolStrategy

    attempts = ray.remote(num_cpus=0, max_restarts=-1)(Attempts).remote()
    return dataset.map(
        worker,
        fn_constructor_args=(*arguments, attempts),
        compute=ActorPoolStrategy(
            size=resources.workers, max_tasks_in_flight_per_actor=TASKS_AHEAD
        ),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus or None,
    )


class Attempts:
    """Counts how often each task was begun; an actor of its own, which outlives workers.

    Ray begins a task again as often as it loses the worker.
    """

    def __init__(self) -> None:
        self._begun: Counter[object] = Counter()

    def begin(self, key: object) -> int:
        """Count the beginning of a task; return how often it was begun before."""
        self._begun[key] += 1
        return self._begun[key] - 1


class Worker:
    """Does the tasks of a data set in a child process; Ray creates it in each of its actors."""

    def __init__(self, setup: Setup, folder: Path, attempts: "ActorHandle[Attempts]") -> None:
        """Prepare to work.

        Args:
            setup: What to do.
            folder: What relative paths start from, if this machine has that folder too.
            attempts: Counts the attempts.
        """
        with suppress(OSError):
            os.chdir(folder)
        self.child, self.attempts = Child(setup), attempts

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Do the task of a row."""
        task: Task = pickle.loads(row["task"])  # noqa: S301 - from our own driver
        return {"place": row["place"], "outcome": pickle.dumps(self.do(row["place"], task))}

    def do(self, key: object, task: Task) -> Outcome:
        """Do a task, unless workers were lost too often while they did it."""
        import ray

        lost = ray.get(self.attempts.begin.remote(key))
        return Outcome.failed(_lost(task)) if lost > RETRIES else self.child.do(task, lost)


def _lost(task: Task) -> Av2tsamError:
    return Av2tsamError(
        f"{task.source.path}: lost with its worker, {1 + RETRIES} times, perhaps because memory "
        "ran out or machines went away; use fewer `workers`, or a smaller `batch_size`"
    )
