"""Check whether a file is complete, by the sizes that its structure declares.

Nothing is decoded: only the headers of boxes, chunks, elements, tags and packets are read.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from struct import unpack
from typing import BinaryIO, NamedTuple, cast

EBML = b"\x1a\x45\xdf\xa3"
"""First bytes of Matroska and WebM files."""
SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
"""Matroska's elements for the whole content, and for some seconds of media."""
MATROSKA_PARTS = frozenset(
    {
        *{0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367},
        *{CLUSTER, 0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF},
    }
)
"""Elements of a segment (index, information, tracks, tags ...) and of a cluster (time, blocks ...),
and elements for unused space and checksums (RFC 9559)."""
TRACKS, TRACK, TRACK_NUMBER, SIMPLE_BLOCK = 0x1654AE6B, 0xAE, 0xD7, 0xA3
"""Elements for the description of all tracks, of one track, for its number, and for a packet."""
MAX_HEADER_BYTES = 12
"""Bytes of the longest header of an element: 4 for its kind, 8 for its size."""
MP4_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot"})
"""Possible types of the first box of MP4 and MOV files."""
FRAGMENTED = b"mvex"
"""The box in the index of an MP4 whose media follow in fragments."""
FRAGMENT = b"moof"
"""The box before the media of a fragment, with their index."""
RIFF = b"RIFF"
"""First bytes of AVI and WAV files."""
UNKNOWN_LENGTH = 0xFFFFFFFF
"""Length of a RIFF chunk that was written to a pipe."""
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
"""First bytes of WMV and other ASF files."""
FLV = b"FLV"
"""First bytes of FLV files."""
FLV_TAGS = frozenset({8, 9, 18})
"""Types of FLV tags, for sound, pictures and data."""
FLV_SIZE = b"\x08filesize\x00"
"""The bytes before the file size in the metadata of an FLV: a key and a type of AMF."""
OGG = b"OggS"
"""First bytes of each page of an Ogg file."""
TS_PACKETS = {188: 188, 192: 188, 204: 204}
"""Sizes of packets of transport streams (plain, with a preceding time, with error correction), each
with the number of bytes from the sync byte to the end of the packet."""
TS_SYNC = 0x47
"""The sync byte of each packet of a transport stream."""
TS_PACKETS_NEEDED, TS_PACKETS_CHECKED = 5, 32
"""Minimum and maximum number of packets at the end of a file whose sync bytes are checked."""
PACK, PROGRAM_END = b"\x00\x00\x01\xba", 0xB9
"""First bytes of a pack of a program stream, and the code for the end of the stream."""
TAIL_BYTES = 1 << 20
"""Bytes at the end to search for the last packets of a file without an index."""
INDEX_BYTES = 1 << 22
"""Bytes of an index to search; the descriptions of tracks come before their long tables."""
ENCRYPTED = (b"encv", b"enca")
"""Sample entries of encrypted video and sound."""


@dataclass(frozen=True)
class Structure:
    """The completeness of a file, according to its structure."""

    cut_short: bool = False
    """Whether the file certainly ends too early. False is not certain: many formats declare no
    sizes, and a file can be cut between two of its parts."""
    broken_parts: int = 0
    """Places in the middle where the structure is broken, and content is lost."""
    declares_duration: bool = False
    """Whether the file stores its duration; otherwise, FFmpeg derives it from the existing data."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is known to be missing."""
        return not self.cut_short and not self.broken_parts


def read_structure(path: Path) -> Structure:
    """Check whether a file is complete, as far as its format shows it.

    MP4, MOV, AVI, WAV, ASF, Matroska, WebM, Ogg, FLV, transport and program streams are checked;
    other formats, and files that were deleted, are taken for complete.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        opened = path.open("rb")
    except FileNotFoundError:
        return Structure()
    with opened as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(16)
        if head.startswith(EBML):
            return _matroska(file, size)
        if head.startswith(FLV):
            return _flv(file, size)
        if head[4:8] in MP4_BOXES:
            fragmented = FRAGMENTED in (mp4_index(path) or b"")
            return Structure(_mp4_end(file, size) > size, declares_duration=not fragmented)
        for magic, end in {RIFF: _riff_end, ASF: _asf_end}.items():
            if head.startswith(magic):
                return Structure(end(file, size) > size, declares_duration=True)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
    kinds = {OGG: _is_ogg_cut, PACK: _is_program_cut}
    return Structure(kinds.get(head[:4], _is_transport_cut)(tail))


def mp4_index(path: Path) -> bytes | None:
    """Return the beginning of an MP4's index, the `moov` box; None if there is none.

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
    """Return the end of the last box. A box begins with its size and its type, 4 bytes each."""
    end, kind = 0, b""
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a large box: the size follows the type
            length = int.from_bytes(head[8:], "big")
        if length < 8 or not head[4:8].isalnum():
            return size  # the last box, without a declared size, or data that some cameras append
        end += length
        kind = head[4:8]
    return end + (kind == FRAGMENT)  # the media of the fragment are missing


def _riff_end(file: BinaryIO, size: int) -> int:
    """Return the end of the last RIFF chunk; a long AVI has several."""
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != RIFF or length in {0, UNKNOWN_LENGTH}:  # other data, or not finished
            return size
        end += 8 + length + length % 2
    return end - 1 if end == size + 1 else end  # the last byte, of padding, may be left out


def _asf_end(file: BinaryIO, size: int) -> int:
    """Return the end of the last object; an object begins with its type and its size."""
    end = 0
    while end + 24 <= size:
        file.seek(end + 16)
        length = int.from_bytes(file.read(8), "little")
        if length < 24:  # a broadcast, whose size is unknown, or other data
            return size
        end += length
    return end


def _flv(file: BinaryIO, size: int) -> Structure:
    """Follow the tags of an FLV. A tag begins with its type and size, and ends with its size.

    Data after the last tag only count as a damaged part if the metadata declare the file's size.
    """
    file.seek(0)
    head = file.read(4096)
    position = head.find(FLV_SIZE)
    declared = 0.0
    if position >= 0:
        [declared] = unpack(">d", head[position + len(FLV_SIZE) :][:8].ljust(8, b"\0"))
    end, broken = int.from_bytes(head[5:9], "big") + 4, 0
    while end < size:
        file.seek(end)
        tag = file.read(4)
        if tag[0] & 0x1F not in FLV_TAGS:
            broken = int(end < declared)
            end = size
        else:
            end += 11 + int.from_bytes(tag[1:], "big") + 4
    is_cut = end > size and end != size + 4  # some writers leave out the size after the last tag
    return Structure(is_cut or size < declared, broken, declares_duration=declared > 0)


def _is_ogg_cut(tail: bytes) -> bool:
    """Return whether the last page, whose header lists the sizes of its segments, is incomplete."""
    begin = tail.rfind(OGG)
    if begin < 0:
        return False
    sizes = tail[begin + 27 :][: tail[begin + 26]] if len(tail) > begin + 26 else b""
    return begin + 27 + len(sizes) + sum(sizes) > len(tail)


def _is_program_cut(tail: bytes) -> bool:
    """Return whether the last packet of a program stream (MPEG-PS) is incomplete."""
    begin = len(tail)
    while (begin := tail.rfind(PACK, 0, begin)) >= 0:
        end = _program_end(tail, begin)
        if end is not None:
            return end > len(tail)
    return False


def _program_end(data: bytes, begin: int) -> int | None:
    """Return the end of the packets that follow a pack; None if it is not a pack, but payload."""
    end = begin
    while end < len(data):
        head = data[end : end + 14]
        if not PACK.startswith(head[:3]):
            return None
        if len(head) < 6:
            return end + 6 if head[3:] != bytes([PROGRAM_END]) else end + 4
        if head[3] < PROGRAM_END:
            return None
        if head[3] == PROGRAM_END:
            end += 4
        elif head[3] == PACK[3]:
            is_mpeg2 = head[4] >> 6 == 1
            end += 14 + (head[13] & 7 if len(head) == 14 else 0) if is_mpeg2 else 12
        else:
            end += 6 + int.from_bytes(head[4:6], "big")
    return end


def _is_transport_cut(tail: bytes) -> bool:
    """Return whether the last packet of a transport stream (MPEG-TS) is incomplete."""
    for length, whole in TS_PACKETS.items():
        recent = tail[-TS_PACKETS_CHECKED * length :]
        for rest in [whole, *range(1, length + 1)]:  # bytes from the last sync byte on
            syncs = recent[-rest::-length]
            if len(syncs) >= TS_PACKETS_NEEDED and syncs.count(TS_SYNC) == len(syncs):
                return bool(rest != whole)
    return False


def _matroska(file: BinaryIO, size: int) -> Structure:
    """Follow the elements of the first segment and of its clusters."""
    header = _element(file, 0)
    segment = None if header is None or header.end is None else _element(file, header.end)
    if segment is None or segment.kind != SEGMENT:
        return Structure()
    stop, declared = segment.end or size, segment.end is not None
    position, broken = segment.begin, 0
    tracks: set[int] = set()
    while position < min(stop, size):
        element = _element(file, position)
        if element is not None and element.kind in MATROSKA_PARTS:
            if element.kind == TRACKS:
                tracks = _track_numbers(file, element)
            elif element.kind == SIMPLE_BLOCK and tracks and element.first not in tracks:
                broken += 1
            inside = element.kind == CLUSTER or element.end is None
            position = element.begin if inside else cast("int", element.end)
            continue
        if not declared and _is_beginning(file, position):
            position = size + 1
        elif (cluster := _find(file, CLUSTER.to_bytes(4, "big"), position + 1)) is not None:
            broken, position = broken + 1, cluster
        else:  # after a segment of unknown size, there may be other data
            broken, position = broken + declared, stop
    is_cut = stop > size or (position > size and not declared)
    return Structure(is_cut, broken, declares_duration=declared)


class _Element(NamedTuple):
    """The header of an element of Matroska."""

    kind: int
    """Its identifier."""
    begin: int
    """Start of its content."""
    end: int | None
    """End of its content; None if not declared."""
    first: int
    """The first byte of its content; 0 if there is none."""


def _element(file: BinaryIO, position: int) -> _Element | None:
    """Read the header of an element; return None if there is none, or it is incomplete."""
    file.seek(position)
    head = file.read(MAX_HEADER_BYTES)
    kind_bytes = 9 - head[0].bit_length() if head else 0
    size_bytes = 9 - head[kind_bytes].bit_length() if len(head) > kind_bytes else 0
    begin = kind_bytes + size_bytes
    if not 1 <= kind_bytes <= 4 or not 1 <= size_bytes <= 8 or len(head) < begin:
        return None
    mask = (1 << 7 * size_bytes) - 1
    size = int.from_bytes(head[kind_bytes:begin], "big") & mask
    kind = int.from_bytes(head[:kind_bytes], "big")
    end = None if size == mask else position + begin + size
    first = head[begin] if len(head) > begin else 0
    return _Element(kind, position + begin, end, first)


def _track_numbers(file: BinaryIO, tracks: _Element) -> set[int]:
    """Return the track numbers as the first byte of a block; empty if there are too many tracks."""
    numbers, position = set[int](), tracks.begin
    while position < (tracks.end or 0):
        element = _element(file, position)
        if element is None or element.end is None:
            return set()
        if element.kind == TRACK_NUMBER:
            numbers.add(element.first | 0x80)
        position = element.begin if element.kind == TRACK else element.end
    return numbers if len(numbers) < 127 else set()


def _is_beginning(file: BinaryIO, position: int) -> bool:
    """Return whether the file ends within the header of an element of a cluster."""
    file.seek(position)
    head = file.read(MAX_HEADER_BYTES)
    return len(head) < MAX_HEADER_BYTES and head[:1] in {b"\xa3", b"\xa0", b"\x1f", b"\xe7"}


def _find(file: BinaryIO, wanted: bytes, position: int) -> int | None:
    """Return the first position of some bytes from another position on; None if not found."""
    file.seek(position)
    while block := file.read(TAIL_BYTES):
        if (found := block.find(wanted)) >= 0:
            return position + found
        if len(block) < TAIL_BYTES:
            return None
        position += len(block) - len(wanted) + 1
        file.seek(position)
    return None
