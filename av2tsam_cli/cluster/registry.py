"""What the workers of a job have to know of each other."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from av2tsam_cli.parts import PartResult


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
        self._begun.pop(key, None)

    def collect(
        self, folder: Path, number: int, count: int, result: "PartResult"
    ) -> "dict[int, PartResult] | None":
        """Add the result of a part, and return those of all to the worker that shall join them.

        That is the one with the last part, also if it is lost and another one has that part again.

        Args:
            folder: The folder of the parts.
            number: The number of the part.
            count: How many parts there are.
            result: The result.
        """
        results = self._results.setdefault(folder, {})
        results[number] = result
        if len(results) < count or self._last.setdefault(folder, number) != number:
            return None
        return results

    def give_up(self, folder: Path) -> None:
        """Take note that a part failed, so that the others in its folder are not needed."""
        self._given_up.add(folder)

    def is_needed(self, folder: Path) -> bool:
        """Return whether no part in a folder has failed."""
        return folder not in self._given_up

    def workers(self) -> "list[ActorHandle[object]]":
        """Return the workers that have begun a task."""
        return list(self._workers.values())


def start_registry() -> "ActorHandle[Registry]":
    """Start the registry of a job, on the machine of this process, which is lost last."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Registry)
    return actor.options(scheduling_strategy=here).remote()
