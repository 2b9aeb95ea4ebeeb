"""Whether a file ends before it should, according to the sizes that its own structure declares."""

from pathlib import Path
from typing import BinaryIO

EBML = b"\x1a\x45\xdf\xa3"
"""What Matroska and WebM files begin with."""
MP4_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot"})
"""What MP4 and MOV files can begin with."""
INDEX_BYTES = 1 << 22
"""Largest part of an index that is searched; tracks are described before their long tables."""
ENCRYPTED = (b"encv", b"enca")
"""Sample entries of encrypted video and sound."""


def is_cut_short(path: Path) -> bool:
    """Return whether a file is shorter than its structure says.

    True is certain only for the formats that declare sizes: MP4, MOV, AVI, Matroska and WebM. For
    others, and for recordings whose sizes were never filled in, the answer is False.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head[:4] == EBML:
            return _matroska_end(file) > size
        if head[:4] == b"RIFF":
            return _riff_end(file, size) > size
        if head[4:] in MP4_BOXES:
            return _mp4_end(file, size) > size
    return False


def mp4_index(path: Path) -> bytes | None:
    """Return the beginning of an MP4's index, its `moov` box; None if it has none.

    Raises:
        OSError: The file cannot be read.
    """
    position, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while position + 8 <= size:
            file.seek(position)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:], "big")
            if head[4:8] == b"moov":
                file.seek(position)
                return file.read(min(length, INDEX_BYTES))
            if length < 8:
                return None
            position += length
    return None


def is_encrypted(index: bytes) -> bool:
    """Return whether an MP4's index declares encrypted video or sound (ISO/IEC 23001-7)."""
    return any(kind in index for kind in ENCRYPTED)


def _mp4_end(file: BinaryIO, size: int) -> int:
    """Return where the last box ends. A box begins with its size and its type, 4 bytes each."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a large box: the size follows the type
            length = int.from_bytes(head[8:], "big")
        if length < 8 or not head[4:8].isalnum():
            return size  # the last box, whose end is not declared, or data that some cameras append
        end += length
    return end


def _riff_end(file: BinaryIO, size: int) -> int:
    """Return where the last RIFF chunk ends; a long AVI has several."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or not length:  # other data, or a recording that was not finished
            return size
        end += 8 + length + length % 2
    return end - 1 if end == size + 1 else end  # the last byte may be padding that was left out


def _matroska_end(file: BinaryIO) -> int:
    """Return where the first segment ends; 0 if its size is unknown."""
    file.seek(4)
    header = _ebml_size(file)
    if header is None:
        return 0
    file.seek(header + 4, 1)  # over the header's content and the segment's identifier
    length = _ebml_size(file)
    return 0 if length is None else file.tell() + length


def _ebml_size(file: BinaryIO) -> int | None:
    """Read a size of 1 to 8 bytes, whose leading zero bits tell how many; None if unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(first + file.read(extra), "big")
    mask = (1 << 7 * (extra + 1)) - 1
    return None if value & mask == mask else value & mask
