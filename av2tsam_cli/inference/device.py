"""Which device, which precision and how many CPU threads the network gets."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Generator
from functools import cache

import torch

from av2tsam_cli.errors import UsageError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""What a CPU needs to multiply bfloat16 faster than float32, in PyTorch's names."""


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


def choose_precision(wanted: str, device: torch.device) -> str:
    """Turn `auto` into the precision that is fast and safe on the device.

    Raises:
        UsageError: The device cannot run the precision that was asked for.
    """
    if wanted == "auto":
        return "bf16" if fast_bf16(device.type) else "fp32"
    if wanted not in PRECISIONS:
        raise UsageError(f"--precision {wanted}: use auto or one of: {', '.join(PRECISIONS)}")
    if wanted == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16: not on the CPU; use bf16 or fp32")
    return wanted


def fast_bf16(kind: str) -> bool:
    """Whether a kind of device multiplies bfloat16 a good deal faster than float32.

    Of CPUs these are the ones with instructions for it; the others calculate it in float32, and
    slower. An old PyTorch that cannot tell is taken not to have them.
    """
    if kind != "cpu":
        return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name) for name in BF16_INSTRUCTIONS)


@contextlib.contextmanager
def own_threads(count: int) -> Generator[None, None, None]:
    """Give PyTorch `count` CPU threads on the calling thread, so that stages share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def keep_freed_memory() -> None:
    """Have glibc reuse what is freed: by default every large tensor is made of fresh zeroed pages.

    Seen on one machine: 20 % of the time of a full-size image encoder.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


# Of glibc's malloc.h; the largest number that mallopt takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _KEPT_BYTES = -1, -3, 2**31 - 1
