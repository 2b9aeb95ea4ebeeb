"""Check images, WAVs and MP4s for truncation and corruption without decoding them.

Lengths and checksums are compared, which is much faster than decoding. For WAVs it is also the only
way, because FFmpeg reads truncated ones without an error.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from os import SEEK_END
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from av2tsam_cli.errors import MediaError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_TAIL = 1024
"""Bytes at the end of a JPEG that are searched for its end marker; some cameras append data."""
MAX_MISSING_S = 1.0
"""Seconds by which sound or frames may end early. Missing sound is read as silence, and a missing
frame as the last one; files that end earlier count as truncated."""
UNKNOWN_SIZES = frozenset({0, 0xFFFFFFFF})
"""Placeholders for the size of a WAV that was written to a pipe."""


def check_image(path: Path, data: bytes) -> tuple[int, int]:
    """Check a PNG or JPEG and return its size.

    Args:
        path: Path of the file, for messages.
        data: Content of the file.

    Returns:
        Height and width in pixels.

    Raises:
        MediaError: It is not an image, is truncated, or a checksum is wrong.
    """
    if data.startswith(PNG_SIGNATURE):
        return _check_png(path, memoryview(data))
    if not data.startswith(JPEG_START):
        raise MediaError(f"{path}: not an image; copy or extract it again")
    if JPEG_END not in data[-JPEG_TAIL:]:
        raise _truncated(path)
    try:
        with Image.open(BytesIO(data)) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise MediaError(f"{path}: corrupted ({error}); copy or extract it again") from error


def _check_png(path: Path, data: memoryview) -> tuple[int, int]:
    """Check all chunks of a PNG; each is a length, a name, its content and a checksum."""
    begin = len(PNG_SIGNATURE)
    name = b""
    while name != b"IEND":
        if begin + 12 > len(data):
            raise _truncated(path)
        (size,) = struct.unpack_from(">I", data, begin)
        end = begin + 8 + size
        if end + 4 > len(data):
            raise _truncated(path)
        name = bytes(data[begin + 4 : begin + 8])
        if zlib.crc32(data[begin + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise MediaError(f"{path}: corrupted (wrong checksum); copy or extract it again")
        begin = end + 4
    width, height = struct.unpack_from(">II", data, len(PNG_SIGNATURE) + 8)
    return height, width


def check_wav(path: Path, data: bytes) -> float | None:
    """Check the header of a WAV and whether the file contains all the sound it announces.

    Returns:
        Seconds of sound; None if the header does not specify the byte rate.

    Raises:
        MediaError: It is not a WAV, has no sound, or is truncated.
    """
    if data[:4] not in {b"RIFF", b"RF64"} or data[8:12] != b"WAVE":
        raise MediaError(f"{path}: not a WAV file; extract the sound again")
    bytes_per_s = 0
    for name, begin, size in _wav_chunks(data):
        if name == b"fmt " and begin + 12 <= len(data):
            (bytes_per_s,) = struct.unpack_from("<I", data, begin + 8)
        if name == b"data":
            return _sound_s(path, len(data) - begin, size, bytes_per_s)
    raise _truncated(path)


def _wav_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, offset and announced size of each chunk after the header."""
    begin = 12
    while begin + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, begin)
        yield name, begin + 8, size
        begin += 8 + size + size % 2


def _sound_s(path: Path, present: int, announced: int, bytes_per_s: int) -> float | None:
    """Return the seconds of sound in a data chunk, given its present and announced bytes."""
    if present and announced in UNKNOWN_SIZES:
        announced = present
    if present < announced or not present:
        raise MediaError(
            f"{path}: truncated, it contains {present} of {announced} bytes of sound; copy or "
            "extract it again"
        )
    return announced / bytes_per_s if bytes_per_s else None


def check_mp4(path: Path) -> None:
    """Check that the boxes of an MP4 extend exactly to the end of the file and include its index.

    Raises:
        MediaError: The file is truncated or not an MP4.
    """
    with path.open("rb") as file:
        length = file.seek(0, SEEK_END)
        begin, names = 0, set()
        while begin < length:
            file.seek(begin)
            size, name, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            names.add(name)
            # A size of 1 means that a 64-bit size follows, 0 means up to the end of the file.
            step = large if size == 1 else size or length - begin
            if step < 8 or begin + step > length:
                raise _truncated(path)
            begin += step
    if b"moov" not in names:
        raise MediaError(f"{path}: truncated, its index (moov) is missing; copy it again")


def check_size(path: Path, size: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Check that an image has the size of its frame.

    Raises:
        MediaError: The sizes differ.
    """
    if size != expected:
        raise MediaError(
            f"{path}: is {size[1]} x {size[0]} pixels but its frame is {expected[1]} x "
            f"{expected[0]}; extract it again"
        )


def check_duration(path: Path, duration_s: float | None, seconds: int) -> None:
    """Check that sound is at most `MAX_MISSING_S` shorter than its video.

    Raises:
        MediaError: It is shorter.
    """
    if duration_s is not None and duration_s < seconds - MAX_MISSING_S:
        raise MediaError(
            f"{path}: truncated, it ends at {duration_s:.2f} s of {seconds} s; extract the sound "
            "again"
        )


def _truncated(path: Path) -> MediaError:
    return MediaError(f"{path}: truncated; copy or extract it again")
