"""`av2tsam doctor`: check the installation and show what it can do."""

import os
import platform
from collections.abc import Callable
from importlib import metadata

from av2tsam_cli import __version__
from av2tsam_cli.cli.console import explain, print_json, print_text
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.hub.locate import default_model, installed_models
from av2tsam_cli.hub.registry import BUNDLED_MODEL
from av2tsam_cli.options import Messages

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


@command(app)
def doctor(*, messages: Messages) -> int:
    """Check that 'av2tsam segment' can run; show versions, devices, codecs and models.

    The exit code is 1 if it cannot.
    """
    versions = {name: _version(name) for name in PACKAGES}
    problems = [f"{name} is not installed" for name, found in versions.items() if found is None]
    report: dict[str, object] = {
        "av2tsam": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **versions,
        **_checked(_devices, problems),
        **_checked(_codecs, problems),
        "models": installed_models(),
        "default model": default_model(),
    }
    _checked(_import_everything, problems)
    problems += [f"the FFmpeg in PyAV has no encoder {name}" for name in _missing_encoders(report)]
    if messages.json:
        print_json({**report, "ready": not problems, "problems": problems})
    else:
        rows = "".join(f"{key:<18} {_shown(value)}\n" for key, value in report.items())
        print_text(rows + _verdict(problems))
    return 1 if problems else 0


def _verdict(problems: list[str]) -> str:
    if not problems:
        return "ready: 'av2tsam segment' can run\n"
    return f"not ready: {'; '.join(problems)}\n"


def _checked(check: Callable[[], dict[str, object]], problems: list[str]) -> dict[str, object]:
    """Return the results of a check; if it fails, add the reason to `problems`."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a broken package may raise anything
        if (reason := explain(error)) not in problems:
            problems.append(reason)
        return {}


def _import_everything() -> dict[str, object]:
    """Import everything that 'av2tsam segment' needs, by loading the bundled model."""
    import av2tsam_cli.pipeline
    from av2tsam_cli.inference.loading import load_model

    load_model(BUNDLED_MODEL, device="cpu")
    return {"pipeline": av2tsam_cli.pipeline}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, object]:
    import torch

    from av2tsam_cli.model.cpu import cpu_capabilities, has_fast_bf16

    capability = torch.backends.cpu.get_cpu_capability()
    bf16 = "with" if has_fast_bf16(cpu_capabilities()) else "without"
    return {
        "cpu": f"{os.cpu_count()} cores, {capability}, {bf16} bfloat16 instructions",
        "cuda": [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())],
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


def _missing_encoders(report: dict[str, object]) -> list[str]:
    present = report.get("encoders", ENCODERS)  # a missing PyAV is already reported
    return [name for name in ENCODERS if name not in str(present)]


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not installed" if value is None else str(value)
