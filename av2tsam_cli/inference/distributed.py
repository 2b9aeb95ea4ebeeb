"""Processes that share work, started by Lightning Fabric or torchrun, and their communication."""

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from av2tsam_cli.errors import Av2tsamError, UsageError

if TYPE_CHECKING:  # importing it takes seconds, and a single process that evaluates needs none
    from lightning_fabric.fabric import Fabric

T = TypeVar("T")

FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

# Buffers never change, and processes whose shares have more parts would wait for the others to
# exchange them. PyTorch 2.15 deprecates the option's old name.
_BUFFERS = "forward_sync_buffers"
_KEEP_BUFFERS: dict[str, Any] = {
    _BUFFERS
    if _BUFFERS in signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}


class OtherProcessFailed(Av2tsamError):  # noqa: N818 - describes what happened elsewhere
    """Another process failed; it reports the error itself."""


@dataclass(frozen=True)
class Processes:
    """The processes that share some work, as one of them sees them."""

    rank: int = 0
    """Number of this process, from 0."""
    count: int = 1
    """Number of processes."""

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes results."""
        return self.rank == 0

    def gather(self, item: T) -> list[T]:
        """Return the items of all processes by rank, in every process."""
        if self.count == 1:
            return [item]
        items: list[T] = [item] * self.count
        torch.distributed.all_gather_object(items, item)
        return items


def process_rank() -> int:
    """Return the rank of this process, even before the processes are connected."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def start_processes(kind: str, devices: int) -> Processes:
    """Start the other processes, or join those that torchrun has started.

    Args:
        kind: `cpu`, `cuda` or `mps`.
        devices: Number of processes, each with its own device; torchrun's setting takes precedence.

    Raises:
        UsageError: The machine has fewer devices.
        Av2tsamError: Lightning Fabric is needed but not installed.
    """
    if _process_counts(kind, devices) == (1, 1):
        return Processes()
    fabric = start_fabric(kind, devices)
    return Processes(fabric.global_rank, fabric.world_size)


def require_fabric() -> None:
    """Check that Lightning Fabric is installed.

    Raises:
        Av2tsamError: It is not.
    """
    if find_spec("lightning_fabric") is None:
        raise Av2tsamError(
            "training and multi-process evaluation need Lightning Fabric; install it with: "
            "pip install 'av2tsam[train]'"
        )


def start_fabric(kind: str, devices: int, precision: str = "fp32") -> "Fabric":
    """Start or join the processes of a training.

    Args:
        kind: `cpu`, `cuda` or `mps`.
        devices: Number of processes, each with its own device; torchrun's setting takes precedence.
        precision: `fp32`, or `bf16` or `fp16` mixed with fp32.

    Raises:
        UsageError: The machine has fewer devices.
        Av2tsamError: Lightning Fabric is not installed.
    """
    require_fabric()
    from lightning_fabric.fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    local, machines = _process_counts(kind, devices)
    is_distributed = local * machines > 1
    with _log_level("lightning_fabric", logging.ERROR):
        fabric = Fabric(
            accelerator=kind,
            devices=local,
            num_nodes=machines,
            precision=FABRIC_PRECISION[precision],  # type: ignore[arg-type]
            strategy=DDPStrategy(**_KEEP_BUFFERS) if is_distributed else "auto",
        )
        fabric.launch()
    if is_distributed:
        atexit.register(_disconnect)
    return fabric


@contextmanager
def _log_level(name: str, level: int) -> Iterator[None]:
    """Set the level of a logger while the block runs."""
    logger = logging.getLogger(name)
    previous = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(previous)


def _disconnect() -> None:
    """Leave the process group before Python exits.

    If Python's own shutdown destroys the group, a thread of it that releases a tensor at that time
    aborts the process with "terminate called without an active exception"
    (pytorch/pytorch#179291).
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _process_counts(kind: str, devices: int) -> tuple[int, int]:
    """Return the number of processes per machine, and the number of machines.

    Raises:
        UsageError: This machine has fewer devices.
    """
    machines = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        machines = int(os.environ["WORLD_SIZE"]) // devices
    available = {"cpu": devices, "cuda": torch.cuda.device_count()}.get(kind, 1)
    if devices > available:
        raise UsageError(f"`devices` {devices}: this machine has only {available}")
    return devices, machines


def sum_over_processes(fabric: "Fabric", tensor: Tensor) -> Tensor:
    """Return the sum of the processes' tensors, in every process."""
    if fabric.world_size == 1:
        return tensor
    total = fabric.all_reduce(tensor.to(fabric.device), reduce_op="sum")
    return cast("Tensor", total).to(tensor.device)


def any_process(fabric: "Fabric", *flags: bool) -> list[bool]:
    """Return, for each flag, whether it is set in any process."""
    return [count > 0 for count in sum_over_processes(fabric, torch.tensor(flags).float()).tolist()]
