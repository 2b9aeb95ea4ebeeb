"""Whether a WAV holds what its header promises: FFmpeg reads a cut one without a word."""

import struct
from pathlib import Path
from typing import BinaryIO

from av2tsam_cli.errors import MediaError

UNKNOWN_SIZES = frozenset({0, 0xFFFFFFFF})
"""What programs that write into a pipe put in place of a size."""


def check_wav(path: Path) -> float | None:
    """Look at a WAV's header, and at whether the file is as long as it says.

    Returns:
        Seconds of sound; None where the header does not say.

    Raises:
        MediaError: The file is missing, empty, no WAV, or cut short.
    """
    try:
        with path.open("rb") as file:
            return _duration_s(path, file)
    except FileNotFoundError as error:
        raise MediaError(f"{path}: is missing; copy or extract it again") from error
    except (OSError, struct.error) as error:
        raise MediaError(f"{path}: is damaged ({error}); copy or extract it again") from error


def _duration_s(path: Path, file: BinaryIO) -> float | None:
    riff, _, kind = struct.unpack("<4sI4s", file.read(12))
    if riff not in {b"RIFF", b"RF64"} or kind != b"WAVE":
        raise MediaError(f"{path}: is no WAV; extract the sound again")
    bytes_per_s = 0
    while True:
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            break
        body = file.read(size + size % 2)
        if name == b"fmt ":
            bytes_per_s = struct.unpack_from("<I", body, 8)[0]
    begin = file.tell()
    held = file.seek(0, 2) - begin
    if size in UNKNOWN_SIZES and held:
        return None
    if held < size or not held:
        raise MediaError(
            f"{path}: is cut short, it holds {held} of {size} bytes of sound; copy or extract it "
            "again"
        )
    return size / bytes_per_s if bytes_per_s else None
