"""Device, numeric precision and CPU threads."""

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


def choose_device(device: str) -> torch.device:
    """Return a device by name; `auto` is the first available of `cuda`, `mps` and `cpu`.

    Raises:
        UsageError: The device is not available.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device == "auto":
        return torch.device(available[0])
    if device not in available:
        raise UsageError(
            f"`device` {device}: not available; use auto or one of: {', '.join(available)}"
        )
    return torch.device(device)


def choose_precision(
    precision: str, device: torch.device, capabilities: Capabilities | None = None
) -> str:
    """Return a numeric precision; `auto` is bf16 if that is fast on the device, else fp32.

    bf16 works on every CPU. A warning is logged if it is slow on the CPU.

    Args:
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        device: The device that the network runs on.
        capabilities: What the CPU supports; None for this machine's CPU.

    Raises:
        UsageError: The device does not support the precision.
    """
    fast = _has_fast_bf16(device, cpu_capabilities() if capabilities is None else capabilities)
    if precision == "auto":
        return "bf16" if fast else "fp32"
    if precision not in PRECISIONS:
        raise UsageError(f"`precision` {precision}: use auto or one of: {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("`precision` fp16: not supported on the CPU; use bf16 or fp32")
    if precision == "bf16" and device.type == "cpu" and not fast:
        log.warning(
            "`precision` bf16: about five times slower than fp32 on this CPU, which has no "
            "instructions for it; use auto or fp32"
        )
    return precision


def _has_fast_bf16(device: torch.device, capabilities: Capabilities) -> bool:
    if device.type == "cpu":
        return has_fast_bf16(capabilities)
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def free_memory(device: torch.device) -> int:
    """Return the bytes of a CUDA device that new tensors can use, including PyTorch's cache."""
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + cached


@contextlib.contextmanager
def own_stream(device: torch.device) -> Generator[None, None, None]:
    """Run the GPU work of this thread in parallel to other threads; no effect on a CPU.

    Otherwise, the threads share one queue, in which a short computation waits for all networks
    before it. Use results of other threads only when their work is done, see `mark_work`.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.stream(torch.cuda.Stream(device, priority=-1)):  # type: ignore[no-untyped-call]
        yield


def mark_work(device: torch.device) -> Callable[[], None]:
    """Return a function that waits until the GPU work that this thread has started is done."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


@contextlib.contextmanager
def torch_threads(count: int) -> Generator[None, None, None]:
    """Run the block with `count` CPU threads in PyTorch, on the calling thread only.

    Other threads, and threads that start while the block runs, are not affected. Put only the work
    itself into the block; a generator must not yield inside it.
    """
    before = torch.get_num_threads()
    _set_torch_threads(count)
    try:
        yield
    finally:
        _set_torch_threads(before)


_set_threads_lock = threading.Lock()


def _set_torch_threads(count: int) -> None:
    """Set the number for the calling thread, without changing the default for new threads.

    `torch.set_num_threads` sets both, so a short-lived thread restores the default.
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
