"""Run tasks on workers, with Ray Data."""

import os
import pickle
import platform
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av2tsam_cli import __version__
from av2tsam_cli.cluster.child import PATIENCE_S, Child, Setup, lost_error
from av2tsam_cli.cluster.connection import quiet_data
from av2tsam_cli.cluster.registry import Registry, start_registry
from av2tsam_cli.cluster.resources import Resources
from av2tsam_cli.cluster.split import PartTask
from av2tsam_cli.cluster.tasks import Outcome, Task
from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.files import has_parts, remove_newly_dead_parts

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.data import Dataset

MOST_BLOCKS = 10_000
"""Most blocks of a data set; Ray needs about a millisecond for each before the first begins."""
TASKS_AHEAD = 2
"""Tasks that a worker has, the one at work included, so that it never waits for the next one."""


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
        quiet_data()
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
        remove_newly_dead_parts(folders)
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
        with suppress(OSError):  # then `do` tries again
            self.child.start()  # while the registry answers
        lost = ray.get(begun)
        outcome = (
            self._do_part(task, lost) if isinstance(task, PartTask) else self.child.do(task, lost)
        )
        self.registry.finish.remote(key)
        return outcome

    def _do_part(self, task: PartTask, lost: int) -> Outcome:
        """Segment a part of a video; after the last one, join all."""
        import ray

        if not ray.get(self.registry.is_needed.remote(task.folder)):
            return Outcome("skipped")
        outcome = self.child.do(task, lost)
        if outcome.value is not None:
            number, count = task.part.number, task.count
            collected = self.registry.collect.remote(task.folder, number, count, outcome.value)
            results = ray.get(collected)
            if results is None:
                return outcome
            outcome = self.child.do(task.join(results), lost)
        if outcome.error is not None:
            self.registry.give_up.remote(task.folder)
        return outcome
