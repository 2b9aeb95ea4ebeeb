"""The GPUs, or the CPU cores, of processes that share the inputs of a command."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from av2tsam_cli.errors import UsageError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def assign_devices(count: int, device: str) -> Callable[[int], None]:
    """Return a function that limits a process to its own GPU, or to its own CPU cores.

    The process calls it with its number, from 0 on, before it imports torch.

    Args:
        count: Number of processes.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        UsageError: There are fewer devices.
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
    numbers = sorted(int(path.name[6:]) for path in Path("/dev").glob("nvidia[0-9]*"))
    return [str(place) for place in range(len(numbers))]


def _limit_to_gpu(number: int, gpus: list[str]) -> None:
    os.environ[VISIBLE] = gpus[number]


def _limit_to_cores(number: int, count: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= count:
        os.sched_setaffinity(0, cores[number::count])
