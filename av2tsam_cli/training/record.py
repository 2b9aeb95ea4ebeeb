"""What a result depends on besides its options: versions, machine, and the state of the code."""

import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from av2tsam_cli.model.av2tsam import Av2tSam

PACKAGES = (
    "av2tsam",
    "torch",
    "lightning-fabric",
    "numpy",
    "safetensors",
    "opencv-python",
    "pillow",
    "av",
)
GIT_TIMEOUT_S = 20.0


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and machine."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def described(network: Av2tSam) -> dict[str, object]:
    """Preset and encoders."""
    config = network.config
    return {
        "preset": config.name,
        "encoders": {"image": config.sam.kind, "clap": config.clap.kind},
        "projector": config.projector,
        "adapter": config.adapter,
    }


def code_state() -> dict[str, Any] | None:
    """`git_state` of this package's own code."""
    return git_state(Path(__file__).parents[1])


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that tracks a folder, and whether files in it differ from that.

    None where there is no such repository, or no git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or not _git(folder, "ls-files", "--", "."):
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--", "."))}


def _git(folder: Path, *words: str) -> str | None:
    """What git prints; None where it fails or is not there."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - git with fixed words, no shell
            [git, "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
