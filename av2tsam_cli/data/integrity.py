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

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from av2tsam_cli.errors import MediaError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = b"\0\0\0\rIHDR"
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_TAIL = 1024
"""Bytes at the end of a JPEG that are searched for its end marker; some cameras append data."""
MAX_PIXELS = 8192 * 8192
"""Largest image: twice a frame of an 8K video, and less than Pillow suspects to be a decompression
bomb, a small file that fills the memory when it is decoded."""
MAX_MISSING_S = 1.0
"""Seconds by which sound or frames may end early without a note or an error. Missing sound is read
as silence, and a missing frame as the last one."""
WAV_FLOAT, WAV_EXTENSIBLE = 3, 0xFFFE
FLOAT_TYPES = {32: "<f4", 64: "<f8"}
"""Types of a WAV's float samples by their bits."""
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
        MediaError: It is not an image, is truncated, is too large, or a checksum is wrong.
    """
    if data.startswith(PNG_SIGNATURE):
        height, width = _check_png(path, memoryview(data))
    elif data.startswith(JPEG_START):
        height, width = _check_jpeg(path, data)
    else:
        raise MediaError(f"{path}: not an image; copy or extract it again")
    if not height * width:
        raise MediaError(f"{path}: corrupted (no pixels); copy or extract it again")
    if height * width > MAX_PIXELS:
        raise MediaError(
            f"{path}: is {width} x {height} pixels, too large for a frame or mask; extract it "
            "again at the size of the video"
        )
    return height, width


def _check_jpeg(path: Path, data: bytes) -> tuple[int, int]:
    """Check that a JPEG ends with its end marker, and return its height and width."""
    if JPEG_END not in data[-JPEG_TAIL:]:
        raise _truncated(path)
    try:
        with JpegImageFile(BytesIO(data)) as image:
            return image.height, image.width
    except (OSError, SyntaxError) as error:
        raise MediaError(f"{path}: corrupted ({error}); copy or extract it again") from error


def _check_png(path: Path, data: memoryview) -> tuple[int, int]:
    """Check all chunks of a PNG; each is a length, a name, its content and a checksum."""
    begin = len(PNG_SIGNATURE)
    if data[begin : begin + 8] != PNG_HEADER:
        raise MediaError(f"{path}: corrupted (no header); copy or extract it again")
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
    """Check the header of a WAV, and whether the file contains all the sound it announces.

    Returns:
        Seconds of sound; None if the header does not specify the byte rate.

    Raises:
        MediaError: It is not a WAV, has no sound, is truncated, or has samples that are not finite.
    """
    if data[:4] not in {b"RIFF", b"RF64"} or data[8:12] != b"WAVE":
        raise MediaError(f"{path}: not a WAV file; extract the sound again")
    wav_format = b""
    for name, begin, size in _wav_chunks(data):
        if name == b"fmt ":
            wav_format = data[begin : begin + size]
        if name == b"data":
            stored = _stored_bytes(path, len(data) - begin, size)
            return _check_samples(path, wav_format, memoryview(data)[begin : begin + stored])
    raise _truncated(path)


def _wav_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, offset and announced size of each chunk after the header."""
    begin = 12
    while begin + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, begin)
        yield name, begin + 8, size
        begin += 8 + size + size % 2


def _stored_bytes(path: Path, present: int, announced: int) -> int:
    """Return the size of a data chunk, given its present and announced bytes."""
    if present and announced in UNKNOWN_SIZES:
        return present
    if present < announced or not present:
        raise MediaError(
            f"{path}: truncated, it contains {present} of {announced} bytes of sound; copy or "
            "extract it again"
        )
    return announced


def _check_samples(path: Path, wav_format: bytes, stored: memoryview) -> float | None:
    """Check that samples are finite if they are floats, and return their seconds, if known."""
    # A format chunk: type, channels, rate, bytes per second, alignment, bits, and if the type is
    # "extensible" the size of the rest, valid bits, speakers, type.
    fields = wav_format[:26].ljust(26, b"\0")
    kind, bytes_per_s, bits, extended = struct.unpack("<H6xI2xH8xH", fields)
    is_float = (extended if kind == WAV_EXTENSIBLE else kind) == WAV_FLOAT
    if is_float and bits in FLOAT_TYPES:
        sample_type = np.dtype(FLOAT_TYPES[bits])
        samples = np.frombuffer(stored, sample_type, len(stored) // sample_type.itemsize)
        if not np.isfinite(samples).all():
            raise MediaError(
                f"{path}: contains samples that are not numbers (NaN or infinite); extract the "
                "sound again"
            )
    return len(stored) / bytes_per_s if bytes_per_s else None


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


def _truncated(path: Path) -> MediaError:
    return MediaError(f"{path}: truncated; copy or extract it again")
