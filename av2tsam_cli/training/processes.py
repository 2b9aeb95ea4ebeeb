"""Several processes that share one piece of work, by Lightning Fabric."""

import logging
import os
from dataclasses import dataclass
from typing import TypeVar

import torch

from av2tsam_cli.errors import UsageError

T = TypeVar("T")


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


def start_processes(kind: str, devices: int) -> Processes:
    """Start the other processes, or join those that `torchrun` has started.

    Args:
        kind: `cpu`, `cuda` or `mps`.
        devices: Processes, each with a device of its own; `torchrun` overrules it.

    Raises:
        UsageError: There are not so many devices here.
    """
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    here = {"cpu": devices, "cuda": torch.cuda.device_count()}.get(kind, 1)
    if devices > here:
        raise UsageError(f"--devices {devices}: there are only {here} here")
    if devices * nodes == 1:
        return Processes()
    from lightning_fabric import Fabric  # takes seconds to import

    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    fabric = Fabric(accelerator=kind, devices=devices, num_nodes=nodes, strategy="ddp")
    fabric.launch()
    return Processes(fabric.global_rank, fabric.world_size)
