"""`av2tsam doctor`: what this installation is and can do."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata

from av2tsam_cli import __version__
from av2tsam_cli.cli.console import print_json, print_text
from av2tsam_cli.cli.models import installed
from av2tsam_cli.cli.options import Parser

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "av",
    "opencv-python",
    "librosa",
    "open-clip-torch",
    "laion-clap",
    "segment-anything",
    "transformers",
)
DECODERS = ("h264", "hevc", "vp9", "av1", "prores", "aac", "mp3", "opus", "flac")
ENCODERS = ("libx264", "libvpx-vp9", "aac", "libopus")


def run(argv: Sequence[str]) -> int:
    """Run the command; 1 where something that `segment` needs is missing."""
    parser = Parser(
        "av2tsam doctor",
        description="Show versions, devices, codecs and models of this installation.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse(argv)
    report: dict[str, object] = {
        "av2tsam": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in PACKAGES},
        **_devices(),
        **_codecs(),
        "models": [name for name, path in installed().items() if path is not None],
    }
    wanting = _wanting(report)
    if arguments.json:
        print_json({**report, "missing": wanting})
    else:
        print_text("".join(f"{key:<18} {_shown(value)}\n" for key, value in report.items()))
        print_text(f"{'missing':<18} {_shown(wanting) or 'nothing'}\n")
    return 1 if wanting else 0


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, object]:
    import torch

    cuda = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    return {
        "cpu": f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "cuda": cuda,
        "mps": torch.backends.mps.is_available(),
    }


def _codecs() -> dict[str, object]:
    import av

    return {
        "ffmpeg": ".".join(str(part) for part in av.library_versions["libavformat"]),
        "decoders": [name for name in DECODERS if _has_codec(name, "r")],
        "encoders": [name for name in ENCODERS if _has_codec(name, "w")],
    }


def _has_codec(name: str, mode: str) -> bool:
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    try:
        Codec(name, mode)  # type: ignore[arg-type]
    except UnknownCodecError:
        return False
    return True


def _wanting(report: dict[str, object]) -> list[str]:
    """What `segment` cannot do without."""
    packages = [name for name in PACKAGES if report[name] is None]
    encoders = [name for name in ENCODERS if name not in str(report["encoders"])]
    return [*packages, *encoders, *([] if report["models"] else ["a model"])]


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return {True: "yes", False: "no", None: "missing"}.get(value, str(value))  # type: ignore[call-overload, no-any-return]
