"""Facts about the machine that every benchmark reports, and functions to measure time."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from av2tsam_cli import __version__
from av2tsam_cli.inference.device import PRECISIONS

MIB = 2**20
PEAK_SIDE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
"""Side of the square matrices whose product gives the peak of a kind of device."""


def facts(device: torch.device | None = None) -> dict[str, object]:
    """Return the machine and the versions; with a device, also what it computes with."""
    found: dict[str, object] = {
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av2tsam": __version__,
    }
    if device is None:
        return found
    found |= {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        found |= {"tf32": torch.backends.cuda.matmul.allow_tf32}
    else:
        found |= {"cpu_capability": torch.backends.cpu.get_cpu_capability()}
    return found


def cpu_name() -> str:
    """Return the name of the processor, from Linux or else from Python."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """Return the wall time of one call, with the device synchronised before and after."""
    wait_for(device)
    start_s = time.perf_counter()
    step()
    wait_for(device)
    return time.perf_counter() - start_s


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def median_of(step: Callable[[], object], runs: int, device: torch.device) -> float:
    """Return the median wall time of `runs` calls, after one call to warm up."""
    step()
    return statistics.median(seconds(step, device) for _ in range(runs))


def peak_flops(device: torch.device, precision: str, runs: int = 20) -> float:
    """Return the operations per second of a large matrix product, as the peak of this machine.

    This is the fastest of the runs, not their median: a peak lowered by other programs would make
    a network look closer to it than it is.
    """
    side = PEAK_SIDE[device.type]
    factors = torch.randn(2, side, side, device=device).to(PRECISIONS[precision])
    return 2 * side**3 / min(seconds(lambda: factors[0] @ factors[1], device) for _ in range(runs))


def peak_rss_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
