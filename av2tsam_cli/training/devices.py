"""Where a training runs: Lightning Fabric's devices, precision and processes."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from types import FrameType
from typing import Any, cast

import torch
from lightning_fabric.fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from av2tsam_cli.errors import Av2tsamError, UsageError
from av2tsam_cli.inference import choose_device, choose_precision
from av2tsam_cli.training.options import TrainOptions

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
    """Another process of this training has failed, and says itself why."""


def rank_of_process() -> int:
    """This process's number among those that train together, before they have met."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def make_fabric(options: TrainOptions) -> Fabric:
    """Choose device and precision, and start or join the other processes.

    Raises:
        UsageError: A device or a precision is not to be had here.
    """
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    devices = int(os.environ["LOCAL_WORLD_SIZE"]) if under_torchrun else options.devices
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", "1")) if under_torchrun else 1
    _check_count(device, devices)
    many = devices * nodes > 1
    fabric = Fabric(
        accelerator=device.type,
        devices=devices,
        num_nodes=nodes,
        precision=FABRIC_PRECISION[precision],  # type: ignore[arg-type]
        strategy=DDPStrategy(**_SYNC_NO_BUFFERS) if many else "auto",
    )
    fabric.launch()
    return fabric


def _check_count(device: torch.device, devices: int) -> None:
    here = torch.cuda.device_count() if device.type == "cuda" else devices
    if devices > here or (device.type == "mps" and devices > 1):
        raise UsageError(f"--devices {devices}: there are only {min(here, devices)} here")


def summed(fabric: Fabric, tensor: Tensor) -> Tensor:
    """The sum of the processes' tensors, in each of them."""
    if fabric.world_size == 1:
        return tensor
    total = fabric.all_reduce(tensor.to(fabric.device), reduce_op="sum")
    return cast("Tensor", total).to(tensor.device)


def said_by_any(fabric: Fabric, *flags: bool) -> list[bool]:
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
