"""Which device, which precision and how many CPU threads the network gets."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

import torch

from av2tsam_cli.errors import UsageError
from av2tsam_cli.model.cpu import Capabilities, cpu_capabilities, has_fast_bf16

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

T = TypeVar("T")

log = logging.getLogger(__name__)


def choose_device(wanted: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `mps` into a device.

    Raises:
        UsageError: The device that was asked for is not here.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(kind for kind, here in present.items() if here))
    if not present.get(wanted, False):
        here = ", ".join(kind for kind, is_here in present.items() if is_here)
        raise UsageError(f"--device {wanted}: not available here; use auto or one of: {here}")
    return torch.device(wanted)


def choose_precision(
    wanted: str, device: torch.device, capabilities: Capabilities | None = None
) -> str:
    """Turn `auto` into the precision that is fast and safe on the device.

    bf16 works on every CPU. On one without instructions for it a warning says that it is slow.

    Args:
        wanted: `auto`, `fp32`, `bf16` or `fp16`.
        device: The device that the network runs on.
        capabilities: What the CPU supports; None for this machine's CPU.

    Raises:
        UsageError: The device does not support this precision.
    """
    fast = _has_fast_bf16(device, cpu_capabilities() if capabilities is None else capabilities)
    if wanted == "auto":
        return "bf16" if fast else "fp32"
    if wanted not in PRECISIONS:
        raise UsageError(f"--precision {wanted}: use auto or one of: {', '.join(PRECISIONS)}")
    if wanted == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16: not on the CPU; use bf16 or fp32")
    if wanted == "bf16" and device.type == "cpu" and not fast:
        log.warning("bf16 is slower than fp32 on this CPU, which has no instructions for it")
    return wanted


def _has_fast_bf16(device: torch.device, capabilities: Capabilities) -> bool:
    if device.type == "cpu":
        return has_fast_bf16(capabilities)
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@contextlib.contextmanager
def torch_threads(count: int) -> Generator[None, None, None]:
    """Run the block with `count` CPU threads in PyTorch, on the calling thread only.

    Other threads keep their number, and so do threads that start while the block runs. Enter it
    around the work itself; a generator must not yield to its caller inside the block.
    """
    before = torch.get_num_threads()
    _set_torch_threads(count)
    try:
        yield
    finally:
        _set_torch_threads(before)


own_threads = torch_threads

_set_threads_lock = threading.Lock()


def _set_torch_threads(count: int) -> None:
    """Set the number for the calling thread and leave the default for new threads unchanged.

    `torch.set_num_threads` sets both, so a short-lived thread sets the default back.
    """
    if count == torch.get_num_threads():
        return
    with _set_threads_lock:
        default = _run_in_new_thread(torch.get_num_threads)
        torch.set_num_threads(count)
        _run_in_new_thread(lambda: torch.set_num_threads(default))


def _run_in_new_thread(function: Callable[[], T]) -> T:
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]
