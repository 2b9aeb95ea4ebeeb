"""The number of workers, and the CPUs and GPUs of each."""

import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated

from av2tsam_cli.errors import UsageError
from av2tsam_cli.options import Option, Panel, check_values

CPUS_WITHOUT_GPU = 4
"""Default CPUs per worker on machines without GPUs."""
SHORTEST_PART_S = 5
"""Seconds of the shortest part that an input can be cut into; each part adds some work."""
ADDRESS = re.compile(r"local|auto|(ray://)?[^/\s]+:\d+")
"""Addresses of Ray."""


@dataclass(frozen=True)
class WorkerOptions:
    """The workers of a job. Values are checked on construction."""

    workers: Annotated[
        int | None,
        Option(
            "number of workers",
            panel=Panel.CLUSTER,
            metavar="N",
            default="one per GPU, else one per 4 CPUs",
            minimum=1,
        ),
    ] = None
    """Number of workers; None for one per GPU, or one per `CPUS_WITHOUT_GPU` CPUs."""
    gpus_per_worker: Annotated[
        float | None,
        Option(
            "GPUs per worker; with 0.5, two workers share one",
            panel=Panel.CLUSTER,
            metavar="N",
            default="1 if there are any",
        ),
    ] = None
    """GPUs per worker, or a share of one; None for one if there are any."""
    cpus_per_worker: Annotated[
        int | None,
        Option(
            "CPUs per worker",
            panel=Panel.CLUSTER,
            metavar="N",
            default="an equal share",
            minimum=1,
        ),
    ] = None
    """CPUs per worker; None for an equal share."""
    timeout_per_item: Annotated[
        float | None,
        Option(
            "give up on an input after this time",
            panel=Panel.CLUSTER,
            metavar="SECONDS",
            default="never",
        ),
    ] = None
    """Seconds after which an input fails, not counting the time to load the model; None for no
    limit."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: A value is out of range.
        """
        check_values(self)
        gpus, limit_s = self.gpus_per_worker, self.timeout_per_item
        if gpus is not None and not (gpus >= 0 and (gpus < 1 or gpus == int(gpus))):
            raise UsageError(
                f"`gpus_per_worker` must be a whole number or a fraction below 1, not {gpus:g}"
            )
        if limit_s is not None and not 0 < limit_s < math.inf:
            raise UsageError(f"`timeout_per_item` must be above 0, not {limit_s:g}")


@dataclass(frozen=True)
class RayOptions(WorkerOptions):
    """Where and how Ray processes inputs. Values are checked on construction."""

    ray: Annotated[
        str | None,
        Option(
            "process inputs with Ray: local, auto for the cluster of this machine, HOST:PORT or "
            "ray://HOST:PORT",
            panel=Panel.CLUSTER,
            metavar="ADDRESS",
        ),
    ] = None
    """`local` to start Ray on this machine, `auto` for the cluster that it has joined, or the
    address of a cluster; None to process inputs in this process."""
    split: Annotated[
        int | None,
        Option(
            "cut each input into parts of this length for several workers",
            panel=Panel.CLUSTER,
            metavar="SECONDS",
            minimum=SHORTEST_PART_S,
        ),
    ] = None
    """Length of the parts into which an input is cut for several workers, in seconds; None to
    segment it in one piece."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: A value is out of range, or needs `ray`.
        """
        super().__post_init__()
        if self.ray is None:
            for field in fields(self):
                if getattr(self, field.name) is not None:
                    raise UsageError(f"`{field.name}` has no effect without `ray`; set it too")
        elif not ADDRESS.fullmatch(self.ray):
            raise UsageError(
                f"`ray` must be local, auto, HOST:PORT or ray://HOST:PORT, not {self.ray!r}"
            )


@dataclass(frozen=True)
class Resources:
    """The number of workers of a job, and the CPUs and GPUs of each."""

    workers: int
    """Number of workers."""
    cpus: int
    """CPUs per worker."""
    gpus: float
    """GPUs per worker, or a share of one."""


@dataclass(frozen=True)
class Machine:
    """A machine of a cluster."""

    cpus: int
    """Number of its CPUs."""
    gpus: int = 0
    """Number of its GPUs."""

    def capacity(self, cpus: int, gpus: float) -> int:
        """Return how many workers with these CPUs and GPUs it has room for."""
        room = self.cpus // cpus
        return min(room, int(self.gpus / gpus)) if gpus else room


def choose_resources(
    options: WorkerOptions, device: str, machines: Sequence[Machine], items: int | None = None
) -> Resources:
    """Choose the number of workers, and the CPUs and GPUs of each, for a machine or cluster.

    Args:
        options: The options.
        device: The device of the model, such as `auto` or `cpu`.
        machines: The machines, on one of which each worker must fit.
        items: Number of inputs, if known; there are never more workers than inputs.

    Raises:
        UsageError: GPUs are requested, but there are none, or `device` does not use them.
    """
    all_cpus, all_gpus = sum(each.cpus for each in machines), sum(each.gpus for each in machines)
    wanted = options.gpus_per_worker
    if device == "cpu" and wanted:
        raise UsageError("`gpus_per_worker` has no effect with `device` cpu; drop one of them")
    if device == "cuda" and wanted == 0:
        raise UsageError("`device` cuda needs GPUs; drop `gpus_per_worker` 0")
    needs_gpu = bool(wanted) or (wanted is None and device == "cuda")
    if needs_gpu and not all_gpus:
        raise UsageError("Ray found no GPU; start its nodes with GPUs, or set `device` to cpu")
    gpus = 0.0 if device == "cpu" or not all_gpus else (1.0 if wanted is None else wanted)
    if options.workers is not None:
        workers = options.workers
    elif gpus:
        workers = max(1, sum(int(each.gpus / gpus) for each in machines))
    else:
        workers = max(1, all_cpus // (options.cpus_per_worker or CPUS_WITHOUT_GPU))
    workers = workers if items is None else min(workers, items)

    def rank(cpus: int) -> tuple[int, int]:
        """Rank a number of CPUs per worker by the workers that fit with it, then by itself."""
        return min(workers, sum(each.capacity(cpus, gpus) for each in machines)), cpus

    most = max(1, all_cpus // workers)
    cpus = options.cpus_per_worker or max(range(1, most + 1), key=rank)
    return Resources(workers, cpus, gpus)


@contextmanager
def own_cores(count: int) -> Iterator[None]:
    """Limit this process to CPU cores that no other worker on this machine uses.

    Threads of several workers on the same cores would slow each other down. If too few cores are
    free, or they cannot be reserved, there is no limit. Only on Linux.
    """
    if sys.platform != "linux":
        yield
        return
    from filelock import FileLock, Timeout

    folder = Path(gettempdir()) / f"av2tsam-cores-{os.getuid()}"
    with ExitStack() as locks:  # the system releases them if the process is killed
        taken: list[int] = []
        with suppress(OSError):  # the disk is full, or the folder belongs to somebody else
            folder.mkdir(mode=0o700, exist_ok=True)
            with FileLock(folder / "all"):
                for core in sorted(os.sched_getaffinity(0)):
                    if len(taken) < count:
                        with suppress(Timeout):
                            locks.enter_context(FileLock(folder / f"{core}", timeout=0))
                            taken.append(core)
        if len(taken) == count:
            os.sched_setaffinity(0, taken)
        else:
            locks.close()
        yield
