"""Start processes that share work, on one or more machines, and communicate between them.

Lightning Fabric starts processes on one machine, torchrun on one or more.
"""

import atexit
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
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

# Buffers never change, and to synchronise them would make some processes wait for others. PyTorch
# 2.15 deprecates the old name of the option.
_BUFFERS = "forward_sync_buffers"
_KEEP_BUFFERS: dict[str, Any] = {
    _BUFFERS
    if _BUFFERS in signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}


TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others before it fails."""
CONTACT_S = 30.0
"""Interval at which a busy process tells the waiting ones that it is still working, in seconds."""


class OtherProcessFailed(Av2tsamError):  # noqa: N818 - describes what happened elsewhere
    """Another process failed; has the message and exit code of its error."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ConnectionLost(Av2tsamError):  # noqa: N818 - describes what happened elsewhere
    """Another process, its machine or the network failed."""


@dataclass(frozen=True)
class _Failure:
    """An error of a process, as reported to the others."""

    process: str
    """The process and its machine, such as `process 4 on node2`."""
    message: str
    """The error message."""
    exit_code: int
    """The exit code of the error."""


@dataclass(frozen=True)
class Processes:
    """The processes that share some work, as seen by one of them."""

    rank: int = 0
    """Index of this process."""
    count: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Index of this process on its machine."""

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes results."""
        return self.rank == 0

    def gather(self, item: T) -> list[T]:
        """Return the items of all processes, in the order of their ranks, in every process.

        Raises:
            ConnectionLost: Another process has ended.
        """
        if self.count == 1:
            return [item]
        items: list[T] = [item] * self.count
        with connection_errors():
            torch.distributed.all_gather_object(items, item)
        return items

    def from_first(self, get: Callable[[], T]) -> T:
        """Call a function in the first process, and return its result in every process.

        Raises:
            OtherProcessFailed: In the other processes, if the function raised an error.
            ConnectionLost: Another process has ended.
        """
        found: list[Any] = [None]
        with self.together():
            if self.first:
                found = [get()]
        if self.count > 1:
            with connection_errors():
                torch.distributed.broadcast_object_list(found)
        return cast("T", found[0])

    @contextmanager
    def together(self) -> Iterator[Callable[[], None]]:
        """Run a block in every process, and continue when all processes have finished it.

        If it fails in one process, it fails in all. It may take much longer in one process than in
        the others, as long as it regularly calls the function that this yields.

        Yields:
            A function that tells the other processes that this one is still working.

        Raises:
            OtherProcessFailed: The block failed in another process.
            ConnectionLost: Another process has ended.
        """
        last_s = time.monotonic()

        def keep_contact() -> None:
            nonlocal last_s
            if self.count > 1 and time.monotonic() - last_s > CONTACT_S:
                self._exchange(working=True)
                last_s = time.monotonic()

        try:
            yield keep_contact
        except (OtherProcessFailed, ConnectionLost):
            raise
        except Exception as error:
            self._exchange(failure=_describe(error, self._description))
            raise
        while self._exchange():
            pass

    def raise_any(self, error: Exception | None) -> None:
        """Raise an error in every process if any process has one.

        Args:
            error: The error of this process; None if it has none.

        Raises:
            OtherProcessFailed: Another process has an error.
            ConnectionLost: Another process has ended.
        """
        with self.together():
            if error is not None:
                raise error

    def check_same(self, values: Mapping[str, object]) -> None:
        """Check that every process has the same values.

        Args:
            values: Values by their description, such as "`lr`" or "names of the videos".

        Raises:
            UsageError: A value differs; raised in every process.
        """
        (process, expected), *others = self.gather((self._description, values))
        for other, found in others:
            for name, value in expected.items():
                if found[name] != value:
                    raise UsageError(
                        f"{name}: differs between {process} and {other}; use the same options, "
                        "data, weights and versions in all processes"
                    )

    @property
    def _description(self) -> str:
        return f"process {self.rank} on {platform.node()}"

    def _exchange(self, *, working: bool = False, failure: _Failure | None = None) -> bool:
        """Send the state of this process to the others; return whether any is still working.

        Raises:
            OtherProcessFailed: Another process failed, and this one did not.
        """
        states = self.gather((working, failure))
        failures = [each for _, each in states if each is not None]
        if failures and failure is None:
            one = failures[0]
            raise OtherProcessFailed(f"{one.process}: {one.message}", one.exit_code)
        return any(is_working for is_working, _ in states)


def _describe(error: Exception, process: str) -> _Failure:
    if isinstance(error, Av2tsamError):
        return _Failure(process, str(error), error.exit_code)
    return _Failure(process, f"unexpected {type(error).__name__}: {error}", exit_code=1)


@contextmanager
def connection_errors() -> Iterator[None]:
    """Turn the errors that PyTorch raises if another process has ended into one line.

    Raises:
        ConnectionLost: The connection to another process was lost.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        # Gloo raises plain errors, whose message begins with the path of its source file.
        if not isinstance(error, torch.distributed.DistError) and "/gloo/" not in text:
            raise
        reason = text.partition("/gloo/")[2].partition("] ")[2] or text
        reason = reason.partition(". This is typically")[0].partition("\n")[0]
        raise ConnectionLost(
            f"lost the connection to another process ({reason[:200]}); see what it reported, "
            "and start all processes again"
        ) from error


def is_started_by_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def start_processes(kind: str, devices: int) -> Processes:
    """Start the other processes, or join those that torchrun has started.

    Further calls return the same processes.

    Args:
        kind: `cpu`, `cuda` or `mps`.
        devices: Number of processes, each with its own device; torchrun's setting takes precedence.

    Raises:
        UsageError: The machine has too few devices, or the machines run unequal numbers
            of processes.
        ConnectionLost: The other processes could not be reached.
        Av2tsamError: Lightning Fabric is needed but not installed.
    """
    if _process_counts(kind, devices) == (1, 1):
        return Processes()
    if not torch.distributed.is_initialized():
        start_fabric(kind, devices)
    return Processes(
        torch.distributed.get_rank(),
        torch.distributed.get_world_size(),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
    )


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
    """Start or join the processes of a training run.

    Args:
        kind: `cpu`, `cuda` or `mps`.
        devices: Number of processes, each with its own device; torchrun's setting takes precedence.
        precision: `fp32`, or `bf16` or `fp16` mixed with fp32.

    Raises:
        UsageError: The machine has too few devices, or the machines run unequal numbers
            of processes.
        ConnectionLost: The other processes could not be reached.
        Av2tsamError: Lightning Fabric is not installed.
    """
    require_fabric()
    from lightning_fabric.fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    local, machines = _process_counts(kind, devices)
    is_distributed = local * machines > 1
    with _log_level("lightning_fabric", logging.ERROR), connection_errors():
        fabric = Fabric(
            accelerator=kind,
            devices=local,
            num_nodes=machines,
            precision=FABRIC_PRECISION[precision],  # type: ignore[arg-type]
            strategy=(DDPStrategy(timeout=TIMEOUT, **_KEEP_BUFFERS) if is_distributed else "auto"),
            # In a Slurm or MPI job, Fabric would otherwise use the tasks of the job as processes.
            plugins=[] if is_started_by_torchrun() else LightningEnvironment(),
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

    If Python destroys the group during its shutdown while a thread of the group releases a tensor,
    the process aborts with "terminate called without an active exception"
    (pytorch/pytorch#179291).
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _process_counts(kind: str, devices: int) -> tuple[int, int]:
    """Return the number of processes per machine, and the number of machines.

    Raises:
        UsageError: This machine has too few devices, or the machines run unequal numbers
            of processes.
    """
    machines = 1
    if is_started_by_torchrun():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        machines = int(os.environ["GROUP_WORLD_SIZE"])
        if devices * machines != int(os.environ["WORLD_SIZE"]):
            raise UsageError(
                "torchrun: the machines have different numbers of processes; use the same "
                "--nproc-per-node on all of them"
            )
    available = {"cpu": devices, "cuda": torch.cuda.device_count()}.get(kind, 1)
    if devices > available:
        raise UsageError(f"`devices` {devices}: this machine has only {available}")
    return devices, machines


def sum_over_processes(fabric: "Fabric", tensor: Tensor) -> Tensor:
    """Return the sum of the tensors of all processes, in every process."""
    if fabric.world_size == 1:
        return tensor
    total = fabric.all_reduce(tensor.to(fabric.device), reduce_op="sum")
    return cast("Tensor", total).to(tensor.device)


def any_process(fabric: "Fabric", *flags: bool) -> list[bool]:
    """Return for each flag whether any process has set it."""
    return [count > 0 for count in sum_over_processes(fabric, torch.tensor(flags).float()).tolist()]
