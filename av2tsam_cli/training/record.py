"""What `run.json` and checkpoints store about a run: options, versions, machine, code, data."""

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from av2tsam_cli import __version__
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.training.callback import EpochRow
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.start import StartingPoint
from av2tsam_cli.training.videos import Videos

PACKAGES = (
    "torch",
    "lightning-fabric",
    "numpy",
    "safetensors",
    "opencv-python",
    "pillow",
    "av",
)
GIT_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class WeightsDigest:
    """Hashes of a network's weights: names, types, shapes and values."""

    all: str
    """SHA-256 of all weights."""
    frozen: str
    """SHA-256 of those that training does not change."""


def digest_weights(network: Av2tSam) -> WeightsDigest:
    """Hash the weights of a network."""
    tensors = network.state_dict()
    # Hashing releases the GIL, so threads share the work.
    with ThreadPoolExecutor() as pool:
        hashes = dict(zip(tensors, pool.map(_hash_tensor, tensors.values()), strict=True))
    trained = {name for name, _ in network.trained_parameters()}
    frozen = {name: value for name, value in hashes.items() if name not in trained}
    return WeightsDigest(_combine(hashes), _combine(frozen))


def _hash_tensor(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(raw.data).hexdigest()}"


def _combine(hashes: Mapping[str, str]) -> str:
    lines = "\n".join(f"{name} {value}" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def run_record(
    *,
    options: TrainOptions,
    start: StartingPoint,
    weights: WeightsDigest,
    videos: Videos,
    device: torch.device,
    processes: int,
) -> dict[str, Any]:
    """Return what `run.json` stores when a run starts.

    Args:
        options: The options, with `auto` and defaults resolved.
        start: The network and where its weights come from.
        weights: Hashes of the weights before the first step.
        videos: The videos of both splits.
        device: The device that the network is on.
        processes: Number of processes.
    """
    network = start.network
    return {
        "options": options.to_json(),
        "seed": options.seed,
        "started": utc_now(),
        "processes": processes,
        "environment": environment(device),
        "code": git_state(Path(__file__).parents[1]),
        "data": {
            "root": videos.root.resolve(),
            "state": git_state(videos.root),
            "videos": {
                "train": len(videos.train),
                "val": len(videos.val),
                "test": len(videos.test),
            },
            "sha256": videos.digests,
            **videos.deviations,
        },
        "start": {**start.to_json(), "sha256": weights.all},
        "network": {
            **describe_network(network),
            "parameters": sum(p.numel() for p in network.parameters()),
            "learning": sum(p.numel() for p in network.parameters() if p.requires_grad),
        },
    }


def checkpoint_metadata(
    options: TrainOptions, videos: Videos, network: Av2tSam, row: EpochRow | None
) -> dict[str, object]:
    """Return a checkpoint's metadata; `row` has the scores of its epoch, None if interrupted."""
    metrics = None
    if row is not None:
        metrics = {
            "split": "val",
            "protocol": "avsbench",
            "miou": row.val_miou,
            "f_score": row.val_f_score,
            "epoch": row.epoch,
            "step": row.step,
        }
    return {
        **describe_network(network),
        "training": options.to_json(),
        "data": {"name": options.data, "subset": options.subset, "videos": len(videos.train)},
        "metrics": metrics,
    }


def describe_network(network: Av2tSam) -> dict[str, object]:
    """Return a network's preset, encoders, projector and whether it has adapters."""
    config = network.config
    return {
        "preset": config.name,
        "encoders": {"image": config.sam.kind, "clap": config.clap.kind},
        "projector": config.projector,
        "adapter": config.adapter,
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Return the versions of Python and packages, the platform and the device."""
    return {
        "python": platform.python_version(),
        "av2tsam": __version__,
        **{name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def _version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed under this name."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of a folder's repository, and whether files of the folder differ from it.

    None if no repository tracks the folder, or git is not installed. Whether files differ is None
    if finding out would run a program that the repository names: a data set may be from anywhere.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or not _git(folder, "ls-files", "--", "."):
        return None
    if _git(folder, "config", "--local", "--includes", "--get-regexp", r"^filter\."):
        return {"commit": commit, "changed": None}
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--", "."))}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output, or None if it fails or is not installed."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        completed = subprocess.run(  # noqa: S603 - git with fixed arguments, no shell
            [git, "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip()


def utc_now() -> str:
    """Return the time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
