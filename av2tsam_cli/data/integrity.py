"""Whether a file is whole and fits its video, from its lengths and checksums, without decoding it.

Much faster than decoding, and for WAVs the only way: FFmpeg reads a cut one without a word.
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
"""Bytes at the end of a JPEG in which its end is looked for; some cameras write on behind it."""
SHORT_S = 1.0
"""Sound or pictures that end more than this early are damaged; what is missing of less is silence,
or the last picture again."""
UNKNOWN_SIZES = frozenset({0, 0xFFFFFFFF})
"""What programs that write a WAV into a pipe put in place of a size."""


def check_picture(path: Path, data: bytes) -> tuple[int, int]:
    """Look at the frame of a PNG or JPEG.

    Args:
        path: Its name, for the message.
        data: The whole file.

    Returns:
        Height and width in pixels.

    Raises:
        MediaError: It is no picture, is cut short, or a checksum is wrong.
    """
    if data.startswith(PNG_SIGNATURE):
        return _check_png(path, memoryview(data))
    if not data.startswith(JPEG_START):
        raise MediaError(f"{path}: is no picture; copy or extract it again")
    if JPEG_END not in data[-JPEG_TAIL:]:
        raise _cut(path)
    try:
        with Image.open(BytesIO(data)) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise MediaError(f"{path}: is damaged ({error}); copy or extract it again") from error


def _check_png(path: Path, data: memoryview) -> tuple[int, int]:
    """Walk over the chunks: length, name, content, checksum."""
    begin = len(PNG_SIGNATURE)
    name = b""
    while name != b"IEND":
        if begin + 12 > len(data):
            raise _cut(path)
        (size,) = struct.unpack_from(">I", data, begin)
        end = begin + 8 + size
        if end + 4 > len(data):
            raise _cut(path)
        name = bytes(data[begin + 4 : begin + 8])
        if zlib.crc32(data[begin + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise MediaError(f"{path}: is damaged (wrong checksum); copy or extract it again")
        begin = end + 4
    width, height = struct.unpack_from(">II", data, len(PNG_SIGNATURE) + 8)
    return height, width


def check_wav(path: Path, data: bytes) -> float | None:
    """Look at a WAV's header, and at whether the file is as long as it says.

    Returns:
        Seconds of sound; None where the header does not say.

    Raises:
        MediaError: It is no WAV, holds no sound, or is cut short.
    """
    if data[:4] not in {b"RIFF", b"RF64"} or data[8:12] != b"WAVE":
        raise MediaError(f"{path}: is no WAV; extract the sound again")
    bytes_per_s = 0
    for name, begin, size in _wav_chunks(data):
        if name == b"fmt " and begin + 12 <= len(data):
            (bytes_per_s,) = struct.unpack_from("<I", data, begin + 8)
        if name == b"data":
            return _sound_s(path, len(data) - begin, size, bytes_per_s)
    raise _cut(path)


def _wav_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and promised size of each chunk behind the header."""
    begin = 12
    while begin + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, begin)
        yield name, begin + 8, size
        begin += 8 + size + size % 2


def _sound_s(path: Path, held: int, promised: int, bytes_per_s: int) -> float | None:
    """Seconds of sound, where as many bytes are held as were promised, or nobody promised any."""
    if held and promised in UNKNOWN_SIZES:
        promised = held
    if held < promised or not held:
        raise MediaError(
            f"{path}: is cut short, it holds {held} of {promised} bytes of sound; copy or extract "
            "it again"
        )
    return promised / bytes_per_s if bytes_per_s else None


def check_mp4(path: Path) -> None:
    """Look whether the boxes of an MP4 fill the file to its end, its index among them.

    Raises:
        MediaError: They do not; or it is no MP4.
    """
    with path.open("rb") as file:
        length = file.seek(0, SEEK_END)
        begin, names = 0, set()
        while begin < length:
            file.seek(begin)
            size, name, large = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            names.add(name)
            # 1 stands for a size of 64 bits, 0 for the rest of the file.
            step = large if size == 1 else size or length - begin
            if step < 8 or begin + step > length:
                raise _cut(path)
            begin += step
    if b"moov" not in names:
        raise MediaError(f"{path}: is cut short (its index, moov, is missing); copy it again")


def check_size(path: Path, size: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Refuse a picture of another size than its frame.

    Raises:
        MediaError: It is.
    """
    if size != wanted:
        (height, width), (rows, columns) = size, wanted
        raise MediaError(
            f"{path}: is of another size ({width} x {height}) than its frame ({columns} x {rows}); "
            "extract it again"
        )


def check_long_enough(path: Path, duration_s: float | None, seconds: int) -> None:
    """Refuse sound that ends more than a second before its video does.

    Raises:
        MediaError: It does, or there is none at all.
    """
    if duration_s is not None and duration_s < seconds - SHORT_S:
        raise MediaError(
            f"{path}: is shorter than its video, {duration_s:.2f} of {seconds} s; extract the "
            "sound again"
        )


def _cut(path: Path) -> MediaError:
    return MediaError(f"{path}: is cut short; copy or extract it again")
