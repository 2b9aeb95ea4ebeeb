"""Run tasks on workers, with Ray Data."""

import math
import os
import pickle
import platform
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
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

MAX_BLOCKS = 10_000
"""Limit of the blocks of a dataset; Ray needs about a millisecond for each before it starts."""
TASKS_AHEAD = 2
"""Tasks assigned to a worker, including the current one, so that it need not wait for the next."""
OUTCOMES_AHEAD = 50
"""Outcomes of a worker that the command has not read yet, after which the worker waits."""


def run_tasks(
    tasks: Sequence[Task], setup: Setup, resources: Resources
) -> Generator[tuple[Task, Outcome], None, None]:
    """Run tasks on workers, and yield each task with its outcome as soon as it is done.

    If the iteration ends early, the workers are stopped, and unfinished outputs are removed.

    Args:
        tasks: The tasks.
        setup: The settings of the workers.
        resources: The number of workers, and the CPUs and GPUs of each.
    """
    from ray.util.client import ray as client

    registry = start_registry()
    remaining = dict(enumerate(tasks))
    run = _run_through_client if client.is_connected() else _run_with_ray_data
    try:
        for index, outcome in run(tasks, setup, resources, registry):
            yield remaining.pop(index), outcome
    except BaseException:  # interrupted, or the caller stopped the iteration
        _stop(registry, setup, remaining.values())
        raise
    for task in remaining.values():
        yield task, Outcome.failed(lost_error(task))


def _run_with_ray_data(
    tasks: Sequence[Task], setup: Setup, resources: Resources, registry: "ActorHandle[Registry]"
) -> Iterator[tuple[int, Outcome]]:
    """Yield the indices and outcomes of tasks, in the order in which they are done."""
    from ray.data import from_items

    rows = [{"index": index, "task": pickle.dumps(task)} for index, task in enumerate(tasks)]
    dataset = from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS))
    # Outcomes are returned one by one, even if tasks share a block. By default, Ray would then make
    # a worker wait after every second outcome, which slows down runs that skip most inputs.
    dataset.context.target_max_block_size = 1
    dataset.context._max_num_blocks_in_streaming_gen_buffer = OUTCOMES_AHEAD
    ahead = min(TASKS_AHEAD, math.ceil(len(tasks) / resources.workers))
    mapped = map_on_workers(dataset, Worker, (setup,), registry, resources, tasks_ahead=ahead)
    for row in mapped.iter_rows():
        task, outcome = tasks[row["index"]], pickle.loads(row["outcome"])  # noqa: S301 - ours
        if isinstance(task, PartTask) and outcome.outputs:
            # Not by the worker: if it is lost before it reports, another one joins the parts again.
            shutil.rmtree(setup.folder / task.folder, ignore_errors=True)
        yield row["index"], outcome


def _run_through_client(
    tasks: Sequence[Task], setup: Setup, resources: Resources, registry: "ActorHandle[Registry]"
) -> Iterator[tuple[int, Outcome]]:
    """Run `_run_with_ray_data` in an actor, because Ray Data does not work in a Ray client."""
    import ray

    arguments = pickle.dumps((tasks, setup, resources))
    driver = ray.remote(num_cpus=0)(_Driver).remote(arguments, registry)
    while (done := pickle.loads(ray.get(driver.next.remote()))) is not None:  # noqa: S301 - ours
        yield done


class _Driver:
    """Runs tasks for a Ray client, as an actor in the cluster."""

    def __init__(self, arguments: bytes, registry: "ActorHandle[Registry]") -> None:
        quiet_data()
        tasks, setup, resources = pickle.loads(arguments)  # noqa: S301 - ours
        self._outcomes = _run_with_ray_data(tasks, setup, resources, registry)

    def next(self) -> bytes:
        """Return the index and outcome of the next task that is done; None after the last one."""
        return pickle.dumps(next(self._outcomes, None))


def map_on_workers(
    dataset: "Dataset",
    worker: type,
    arguments: Sequence[object],
    registry: "ActorHandle[Registry]",
    resources: Resources,
    *,
    tasks_ahead: int = TASKS_AHEAD,
    max_cpus: float = float("inf"),
) -> "Dataset":
    """Map a dataset with workers.

    Args:
        dataset: The rows.
        worker: A callable class that maps a row to a row.
        arguments: Arguments of its constructor before the registry.
        registry: Counts the attempts.
        resources: The number of workers, and the CPUs and GPUs of each.
        tasks_ahead: Tasks assigned to a worker at a time. With 1, the worker that starts first does
            not take the only task of another one.
        max_cpus: Limit of the CPUs that all workers reserve, to leave some for other steps.
    """
    from ray.data import ActorPoolStrategy

    return dataset.map(
        worker,
        fn_constructor_args=(*arguments, registry),
        compute=ActorPoolStrategy(
            size=resources.workers, max_tasks_in_flight_per_actor=tasks_ahead
        ),
        num_cpus=min(resources.cpus, max_cpus / resources.workers),
        num_gpus=resources.gpus or None,
    )


def _stop(registry: "ActorHandle[Registry]", setup: Setup, tasks: Iterable[Task]) -> None:
    """Kill the workers, and remove the unfinished outputs of tasks on all machines."""
    import ray

    with suppress(ray.exceptions.RayError):  # the cluster is gone
        for worker in ray.get(registry.workers.remote(), timeout=PATIENCE_S):
            ray.kill(worker)
        folders = {folder for task in tasks for folder in setup.job.output_folders(task.source)}
        _on_all_machines(_remove_unfinished, {setup.folder / folder for folder in folders})


def remove_everywhere(folders: set[Path]) -> None:
    """Remove folders and their contents, on all machines."""
    import ray

    with suppress(ray.exceptions.RayError):
        _on_all_machines(_remove, folders)


def _on_all_machines(function: Callable[[set[Path]], None], folders: set[Path]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0)(function)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    strategies = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    ray.get(
        [remote.options(scheduling_strategy=strategy).remote(folders) for strategy in strategies],
        timeout=2 * PATIENCE_S,
    )


def _remove(folders: set[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unfinished(folders: set[Path]) -> None:
    """Remove unfinished outputs of this machine's workers from folders, once they have ended."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        remove_newly_dead_parts(folders)
        if time.monotonic() > end_s or not any(map(has_parts, folders)):
            return
        time.sleep(0.1)


class Worker:
    """Runs the tasks of a dataset in a child process; each actor of Ray has one."""

    def __init__(self, setup: Setup, registry: "ActorHandle[Registry]") -> None:
        """Prepare a worker.

        Args:
            setup: The settings of the worker.
            registry: Counts the attempts.
        """
        with suppress(OSError):  # this machine may not have the folder
            os.chdir(setup.folder)
        self.child, self.registry = Child(setup), registry

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Run the task of a row."""
        task: Task = pickle.loads(row["task"])  # noqa: S301 - from our own driver
        return {"index": row["index"], "outcome": pickle.dumps(self.run(row["index"], task))}

    def run(self, key: object, task: Task) -> Outcome:
        """Run a task, and count the attempts."""
        import ray

        if self.child.setup.version != __version__:
            error = Av2tsamError(
                f"{platform.node()}: has av2tsam {__version__}, but the command was started with "
                f"{self.child.setup.version}; install the same version on all machines"
            )
            return Outcome.failed(error, ends_job=True)
        here = ray.get_runtime_context()
        begun = self.registry.begin.remote(key, here.get_actor_id(), here.current_actor)
        with suppress(OSError):  # `run` will try again
            self.child.start()  # while waiting for the registry
        lost = ray.get(begun)
        outcome = (
            self._run_part(task, lost) if isinstance(task, PartTask) else self.child.run(task, lost)
        )
        self.registry.finish.remote(key, is_done=outcome.status == "done")
        return outcome

    def _run_part(self, task: PartTask, lost: int) -> Outcome:
        """Segment a part of a video; join all parts if this was the last one."""
        import ray

        if not ray.get(self.registry.is_needed.remote(task.folder)):
            return Outcome("skipped", value=())  # the part that failed is reported
        outcome = self.child.run(task, lost)
        if outcome.value is not None:
            number, count = task.part.number, task.count
            collected = self.registry.collect.remote(task.folder, number, count, outcome.value)
            results = ray.get(collected)
            if results is None:
                return outcome
            outcome = self.child.run(task.join(results), lost)
        if outcome.error is not None:
            self.registry.mark_failed.remote(task.folder)
        return outcome
