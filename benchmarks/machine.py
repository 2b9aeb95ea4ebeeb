"""What every benchmark says of the machine, and how it takes its times."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from av2tsam_cli.inference.device import PRECISIONS

MIB = 2**20
PEAK_SIDE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
"""Side of the matrices whose product is taken for a kind of device's peak."""


def facts(device: torch.device | None = None) -> dict[str, object]:
    """The machine and the versions, and with a device what calculates there."""
    said: dict[str, object] = {
        "machine": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av2tsam": version("av2tsam"),
    }
    if device is None:
        return said
    said |= {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        said |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        said |= {"tf32": torch.backends.cuda.matmul.allow_tf32}
    else:
        said |= {"cpu_capability": torch.backends.cpu.get_cpu_capability()}
    return said


def cpu_name() -> str:
    """Name of the processor, as Linux gives it; elsewhere what Python knows."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, once the device has caught up."""
    wait_for(device)
    began_s = time.perf_counter()
    step()
    wait_for(device)
    return time.perf_counter() - began_s


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def median_of(step: Callable[[], object], runs: int, device: torch.device) -> float:
    """Median wall time of `runs` calls, after one more to warm up."""
    step()
    return statistics.median(seconds(step, device) for _ in range(runs))


def peak_flops(device: torch.device, precision: str, runs: int = 20) -> float:
    """Operations per second of a large matrix product: what this machine can do at best.

    It is the fastest of the runs and not their median: what else the machine does at that moment
    would make a network look closer to the peak than it is.
    """
    side = PEAK_SIDE[device.type]
    factors = torch.randn(2, side, side, device=device).to(PRECISIONS[precision])
    return 2 * side**3 / min(seconds(lambda: factors[0] @ factors[1], device) for _ in range(runs))


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
