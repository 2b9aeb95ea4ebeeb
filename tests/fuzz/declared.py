"""Small files whose headers declare sizes, rates and durations that no memory or time can hold."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SIDES = (16_000, 32_768)
"""Widths and heights. FFmpeg itself rejects the second, but allocates a gigabyte for the first."""
RATE_HZ = 1_000_000_000
CHANNELS = 65_535


@dataclass(frozen=True)
class Declared:
    """A file with a header that was changed."""

    clip: str
    """Name of the valid file."""
    what: str
    """What it declares."""
    data: bytes
    """Its content."""
    readable: bool = False
    """Whether it may be readable nevertheless, as a duration is only declared."""


def declared(clips: Mapping[str, bytes]) -> list[Declared]:
    """Return the files.

    Args:
        clips: The valid files by name.
    """
    return [*_pictures(clips), *_sounds(clips), *_times(clips)]


def _pictures(clips: Mapping[str, bytes]) -> Iterator[Declared]:
    for side in SIDES:
        for name, mark, offset, kind in (
            ("pictures.gif", b"GIF89a", 6, "<HH"),
            ("mjpeg-pcm.avi", b"\xff\xc0\x00\x11\x08", 5, ">HH"),
            ("mjpeg-float.mov", b"\xff\xc0\x00\x11\x08", 5, ">HH"),
            ("qtrle-adpcm.mov", b"rle \0\0", 28, ">HH"),
            ("prores-pcm.mov", b"icpf", 12, ">HH"),
            ("raw-adpcm.avi", b"strf", 12, "<ii"),
            ("huffyuv-pcm8.avi", b"strf", 12, "<ii"),
        ):
            data = _set(clips[name], mark, offset, struct.pack(kind, side, side))
            yield Declared(name, f"{side} x {side}", data)
        size = struct.pack(">II", side, side)
        for name in ("pictures.apng", "png-pcm24.mov"):
            yield Declared(name, f"{side} x {side}", _png(_set(clips[name], b"IHDR", 4, size)))
        y4m = clips["raw.y4m"].replace(b"W64 H48", b"W%d H%d" % (side, side))
        yield Declared("raw.y4m", f"{side} x {side}", y4m)
        matroska = b"\xb0\x82%b\xba\x82%b\xec\x80" % (2 * (struct.pack(">H", side),))
        data = _set(clips["ffv1-flac.mkv"], b"\xb0\x81\x40\xba\x81\x30", 0, matroska)
        yield Declared("ffv1-flac.mkv", f"{side} x {side}", data)
    side, mark = SIDES[0], b"\x9d\x01\x2a"  # the fields of these have 14 bits
    data = _set(clips["vp8.ivf"], mark, 3, struct.pack("<HH", side, side))
    yield Declared("vp8.ivf", f"{side} x {side}", data)
    canvas = (side - 1).to_bytes(3, "little") * 2
    yield Declared(
        "pictures.webp", f"{side} x {side}", _set(clips["pictures.webp"], b"VP8X", 12, canvas)
    )


def _sounds(clips: Mapping[str, bytes]) -> Iterator[Declared]:
    extended = bytes.fromhex("401cee6b280000000000")  # 10^9 in the 80 bits of AIFF
    for name, mark, offset, field in (
        ("sound.wav", b"fmt ", 12, struct.pack("<I", RATE_HZ)),
        ("sound.au", b".snd", 16, struct.pack(">I", RATE_HZ)),
        ("sound.aiff", b"COMM", 16, extended),
        ("sound.caf", b"desc", 12, struct.pack(">d", RATE_HZ)),
        ("mpeg4-alac.mp4", b"alac\0\0\0\0\0\0\x10\0", 28, struct.pack(">I", RATE_HZ)),
    ):
        yield Declared(name, f"{RATE_HZ} Hz", _set(clips[name], mark, offset, field))
    for name, mark, offset, kind in (
        ("sound.wav", b"fmt ", 10, "<H"),
        ("sound.au", b".snd", 20, ">I"),
        ("sound.aiff", b"COMM", 8, ">H"),
        ("sound.caf", b"desc", 36, ">I"),
        ("prores-pcm.mov", b"sowt", 20, ">H"),
    ):
        field = struct.pack(kind, CHANNELS)
        yield Declared(name, f"{CHANNELS} channels", _set(clips[name], mark, offset, field))


def _times(clips: Mapping[str, bytes]) -> Iterator[Declared]:
    for name, mark, offset, field in (
        ("h264-aac.mp4", b"mdhd", 16, struct.pack(">II", 1, 0xFFFF_FFFF)),
        ("h264-aac.mp4", b"mdhd", 16, struct.pack(">II", 0xFFFF_FFFF, 1)),
        ("h264-aac.mp4", b"mvhd", 16, struct.pack(">II", 1, 0xFFFF_FFFF)),
        ("h264-aac.mp4", b"stts", 8, struct.pack(">III", 1, 0xFFFF_FFFF, 0x7FFF_FFFF)),
        ("h264-aac.mp4", b"stsz", 8, struct.pack(">II", 1, 0xFFFF_FFFF)),
        ("vp9-opus.mkv", b"\x44\x89\x88", 3, struct.pack(">d", 1e300)),
        ("vp9-opus.mkv", b"\x44\x89\x88", 3, struct.pack(">d", float("nan"))),
        ("vp9-opus.mkv", b"\x2a\xd7\xb1\x83", 4, b"\xff\xff\xff"),
        ("h264-aac.flv", b"duration\0", 9, struct.pack(">d", 1e300)),
        ("mjpeg-pcm.avi", b"strh", 28, struct.pack("<II", 1, 1_000_000_000)),
        ("mjpeg-pcm.avi", b"strh", 28, struct.pack("<II", 1_000_000_000, 1)),
        ("mjpeg-pcm.avi", b"strh", 40, struct.pack("<I", 0xFFFF_FFFF)),
    ):
        what = f"{mark!r}: {field.hex()}"
        yield Declared(name, what, _set(clips[name], mark, offset, field), readable=True)
    for rate in (b"F1000000:1", b"F1:1000000", b"F0:0"):
        y4m = clips["raw.y4m"].replace(b"F12:1", rate)
        yield Declared("raw.y4m", rate.decode(), y4m, readable=True)


def _set(data: bytes, mark: bytes, offset: int, field: bytes) -> bytes:
    """Overwrite a field wherever its mark is."""
    changed, at = bytearray(data), data.find(mark)
    assert at >= 0
    while at >= 0:
        changed[at + offset : at + offset + len(field)] = field
        at = data.find(mark, at + 1)
    return bytes(changed)


def _png(data: bytes) -> bytes:
    """Correct the checksums of PNG's headers, of 13 bytes after `IHDR`."""
    changed, at = bytearray(data), data.find(b"IHDR")
    while at >= 0:
        changed[at + 17 : at + 21] = zlib.crc32(changed[at : at + 17]).to_bytes(4, "big")
        at = data.find(b"IHDR", at + 1)
    return bytes(changed)
