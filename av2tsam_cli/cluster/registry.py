"""The state that the workers of a job share."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from av2tsam_cli.parts import PartResult


class Registry:
    """Counts the attempts at each task, and collects the results of parts; an actor of Ray.

    When a worker is lost, Ray gives its tasks to other workers, without a limit. So the workers
    count the attempts here.
    """

    def __init__(self) -> None:
        self._attempts: Counter[object] = Counter()
        self._workers: dict[str, ActorHandle[object]] = {}
        self._results: dict[Path, dict[int, PartResult]] = {}
        self._last_part: dict[Path, int] = {}
        self._failed: set[Path] = set()

    def begin(self, key: object, name: str, worker: "ActorHandle[object]") -> int:
        """Record that a worker starts a task; return how often it was started before."""
        self._workers[name] = worker
        self._attempts[key] += 1
        return self._attempts[key] - 1

    def finish(self, key: object, *, is_done: bool) -> None:
        """Record that a task has finished, successfully or not.

        If the worker is lost before it has finished all tasks of the block, Ray runs this one
        again, although its output may exist.
        """
        self._attempts[key] = int(is_done)

    def collect(
        self, folder: Path, number: int, count: int, result: "PartResult"
    ) -> "dict[int, PartResult] | None":
        """Store the result of a part; return all results if the worker should join the parts.

        This is the worker that finishes the last part. If it is lost, the worker that segments this
        part again joins them.

        Args:
            folder: The folder of the parts.
            number: The number of the part.
            count: The number of parts.
            result: The result.
        """
        results = self._results.setdefault(folder, {})
        results[number] = result
        if len(results) < count or self._last_part.setdefault(folder, number) != number:
            return None
        return results

    def mark_failed(self, folder: Path) -> None:
        """Record that a part has failed, so that the other parts in the folder are skipped."""
        self._failed.add(folder)

    def is_needed(self, folder: Path) -> bool:
        """Return whether the parts in a folder are needed, because none has failed."""
        return folder not in self._failed

    def workers(self) -> "list[ActorHandle[object]]":
        """Return the workers that have started a task."""
        return list(self._workers.values())


def start_registry() -> "ActorHandle[Registry]":
    """Start the registry of a job on this machine: if it goes down, so does the job."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Registry)
    return actor.options(scheduling_strategy=here).remote()
