"""The GPUs or CPU cores of processes that share the inputs of a command."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from av2tsam_cli.errors import UsageError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def assign_devices(count: int, device: str) -> Callable[[int], None]:
    """Return a function that limits a process to its own GPU or CPU cores.

    Each process must call it with its index before it imports torch.

    Args:
        count: Number of processes.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        UsageError: The machine has too few GPUs.
    """
    gpus = _gpus() if device in {"auto", "cuda"} else []
    if count == 1:
        return lambda _: None
    if not gpus and device in {"auto", "cpu"}:
        return partial(_limit_to_cores, count=count)
    if count > len(gpus):
        raise UsageError(f"`devices` {count}: this machine has only {max(1, len(gpus))}")
    return partial(_limit_to_gpu, gpus=gpus)


def _gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, without importing torch."""
    if (visible := os.environ.get(VISIBLE)) is not None:
        return [each.strip() for each in visible.split(",") if each.strip() not in {"", "-1"}]
    count = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return [str(index) for index in range(count)]


def _limit_to_gpu(index: int, gpus: list[str]) -> None:
    os.environ[VISIBLE] = gpus[index]


def _limit_to_cores(index: int, count: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= count:
        os.sched_setaffinity(0, cores[index::count])
