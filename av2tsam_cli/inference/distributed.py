"""The processes that share one piece of work, by Lightning Fabric, and what tells them to stop."""

import atexit
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from av2tsam_cli.errors import Av2tsamError, UsageError

if TYPE_CHECKING:  # takes seconds to import, which one process alone need not wait for
    from lightning_fabric.fabric import Fabric

T = TypeVar("T")

FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

# Nothing changes them, and processes whose shares have more parts would wait for the others. The
# option's old name is warned about since torch 2.15.
_BUFFERS = "forward_sync_buffers"
_SYNC_NO_BUFFERS: dict[str, Any] = {
    _BUFFERS
    if _BUFFERS in signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}


class OtherProcessFailed(Av2tsamError):  # noqa: N818 - says which of them
    """Another process of this work has failed, and says itself why."""


@dataclass(frozen=True)
class Processes:
    """This process among those that share the work."""

    rank: int = 0
    """The number of this one."""
    count: int = 1
    """How many there are."""

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks, and writes what there is one of."""
        return self.rank == 0

    def gather(self, item: T) -> list[T]:
        """What each process holds, in the order of their numbers, in each of them."""
        if self.count == 1:
            return [item]
        everyone: list[T] = [item] * self.count
        torch.distributed.all_gather_object(everyone, item)
        return everyone


def rank_of_process() -> int:
    """This process's number among those that work together, before they have met."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def start_processes(kind: str, devices: int) -> Processes:
    """Start the other processes, or join those that `torchrun` has started.

    Args:
        kind: `cpu`, `cuda` or `mps`.
        devices: Processes, each with a device of its own; `torchrun` overrules it.

    Raises:
        UsageError: There are not so many devices here.
    """
    if _counts(kind, devices) == (1, 1):
        return Processes()
    fabric = start_fabric(kind, devices)
    return Processes(fabric.global_rank, fabric.world_size)


def start_fabric(kind: str, devices: int, precision: str = "fp32") -> "Fabric":
    """Start or join the processes of a training: devices, precision and shared gradients.

    Args:
        kind: `cpu`, `cuda` or `mps`.
        devices: Processes, each with a device of its own; `torchrun` overrules it.
        precision: `fp32`, `bf16` or `fp16`; the latter two mixed with fp32.

    Raises:
        UsageError: There are not so many devices here.
    """
    from lightning_fabric.fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    here, machines = _counts(kind, devices)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    fabric = Fabric(
        accelerator=kind,
        devices=here,
        num_nodes=machines,
        precision=FABRIC_PRECISION[precision],  # type: ignore[arg-type]
        strategy=DDPStrategy(**_SYNC_NO_BUFFERS) if here * machines > 1 else "auto",
    )
    fabric.launch()
    if here * machines > 1:
        atexit.register(_part)
    return fabric


def _part() -> None:
    """Take leave of the other processes.

    Left to Python's own end, a thread of the group that lets go of a tensor just then ends the
    process with `terminate called without an active exception` (pytorch/pytorch#179291).
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _counts(kind: str, devices: int) -> tuple[int, int]:
    """Processes on this machine, and machines.

    Raises:
        UsageError: There are not so many devices here.
    """
    machines = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        machines = int(os.environ["WORLD_SIZE"]) // devices
    present = {"cpu": devices, "cuda": torch.cuda.device_count()}.get(kind, 1)
    if devices > present:
        raise UsageError(f"--devices {devices}: there are only {present} here")
    return devices, machines


def summed(fabric: "Fabric", tensor: Tensor) -> Tensor:
    """The sum of the processes' tensors, in each of them."""
    if fabric.world_size == 1:
        return tensor
    total = fabric.all_reduce(tensor.to(fabric.device), reduce_op="sum")
    return cast("Tensor", total).to(tensor.device)


def said_by_any(fabric: "Fabric", *flags: bool) -> list[bool]:
    """Whether any of the processes says so, for each flag."""
    return [flag > 0 for flag in summed(fabric, torch.tensor(flags).float()).tolist()]


class Stop:
    """Whether the process was told to stop."""

    asked = False

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Take note of the signals instead of stopping at once; a second SIGINT does."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        for number, handler in before.items():
            if handler != signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._note)
        try:
            yield self
        finally:
            for number, handler in before.items():
                if handler is not None:  # one that is not Python's cannot be put back
                    signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # torchrun passes SIGINT on as a SIGTERM as well: only a person who insists is obeyed.
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
