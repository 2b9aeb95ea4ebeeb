"""Segment the videos of a Ray dataset, as a step in a user's own pipeline."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av2tsam_cli.cluster.child import Setup
from av2tsam_cli.cluster.connection import list_machines, require_ray
from av2tsam_cli.cluster.engine import Worker, map_on_workers
from av2tsam_cli.cluster.registry import Registry, start_registry
from av2tsam_cli.cluster.resources import WorkerOptions, choose_resources
from av2tsam_cli.cluster.tasks import Task
from av2tsam_cli.files import output_name
from av2tsam_cli.job import Input, SegmentJob
from av2tsam_cli.network import input_path
from av2tsam_cli.options import Device, ModelOptions, Precision
from av2tsam_cli.segment_options import SegmentOptions
from av2tsam_cli.stores import output_path

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.data import Dataset


def segment_dataset(
    dataset: "Dataset",
    out: str | Path,
    *,
    path: str = "path",
    name: str | None = None,
    skip_existing: bool = False,
    model: str | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int | None = None,
    timeout_per_item: float | None = None,
    **options: Any,
) -> "Dataset":
    """Segment the videos of a Ray dataset, and return the dataset with the outcome of each.

    Like other operations of Ray Data, this is lazy and streams: rows are processed when the result
    is needed, while earlier steps are still running. A video that fails does not stop the others.

    Args:
        dataset: A row for each video.
        out: Folder for the outputs, or its URL.
        path: The column with the paths or URLs of the videos.
        name: The column with the names of the outputs in the folder, without suffixes; None to
            name them after the videos, which must then have different names.
        skip_existing: Whether to skip videos whose output is complete and made with these options.
        model: See `segment_video`.
        device: See `segment_video`.
        precision: See `segment_video`.
        workers: Number of processes, each with its own model; None for one per GPU, or one per
            four CPUs.
        gpus_per_worker: GPUs per worker, or a share of one; None for one if there are any.
        cpus_per_worker: CPUs per worker; None for an equal share.
        timeout_per_item: Seconds after which a video fails; None for no limit.
        **options: The options of `segment_video`, such as `format`.

    Returns:
        The rows with four more columns: `status`, which is `done`, `skipped` or `failed`; `error`,
        "" unless it failed; `output`, the path of the main output, or ""; and `result`, the fields
        of `SegmentResult` as JSON, or "" if it was skipped or failed.

    Raises:
        UsageError: An option is unknown or has a wrong value.
        Av2tsamError: Ray is not installed.
    """
    require_ray()
    job = SegmentJob(
        output_path(out),
        SegmentOptions(**options),
        ModelOptions(model, device, precision),
        skip_existing=skip_existing,
    )
    machines = list_machines()
    chosen = WorkerOptions(workers, gpus_per_worker, cpus_per_worker, timeout_per_item)
    resources = choose_resources(chosen, device, machines)
    setup = Setup(job, timeout_s=timeout_per_item, cpus=resources.cpus)
    return map_on_workers(
        dataset,
        _RowWorker,
        (setup, path, name),
        start_registry(),
        resources,
        max_cpus=max(
            0.5, sum(each.cpus for each in machines) - 1
        ),  # other steps would wait forever without a CPU
    )


class _RowWorker(Worker):
    """Segments the video of a row, and adds columns to it."""

    def __init__(
        self,
        setup: Setup,
        path: str,
        name: str | None,
        registry: "ActorHandle[Registry]",
    ) -> None:
        super().__init__(setup, registry)
        self.path, self.name = path, name

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with the outcome of its video."""
        source = input_path(row[self.path], allow_url=self.child.setup.job.options.allow_url)
        name = output_name(source) if self.name is None else row[self.name]
        task = Task(Input(source, Path(name)))
        outcome = self.run(task.source, task)
        result = None if outcome.result is None else asdict(outcome.result)
        return {
            **row,
            "status": outcome.status,
            "error": "" if outcome.error is None else str(outcome.error),
            "output": str(outcome.outputs[0]) if outcome.outputs else "",
            "result": "" if result is None else json.dumps(result, default=str),
        }
