"""`av2tsam doctor`: what this installation is and can do."""

import os
import platform
from importlib import metadata

from av2tsam_cli import __version__
from av2tsam_cli.cli.console import print_json, print_text
from av2tsam_cli.cli.models import installed
from av2tsam_cli.cli.options import Debug, Json, new_app

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
)
DECODERS = ("h264", "hevc", "vp9", "av1", "prores", "aac", "mp3", "opus", "flac")
ENCODERS = ("libx264", "libvpx-vp9", "aac", "libopus")


app = new_app()


@app.command()
def doctor(*, json: Json = False, debug: Debug = False) -> int:  # noqa: ARG001 - see run_command
    """Show versions, devices, codecs and models; exit code 1 where `segment` misses something."""
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
    if json:
        print_json({**report, "missing": wanting})
    else:
        rows = {**report, "missing": wanting}
        print_text("".join(f"{key:<18} {_shown(value)}\n" for key, value in rows.items()))
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
        return ", ".join(value) or "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "missing" if value is None else str(value)
