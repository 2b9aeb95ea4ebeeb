"""Opening a media file and decoding one of its streams, damaged packets and bad seeks included."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvAudioStream
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream as AvVideoStream

from av2tsam_cli.errors import MediaError

AvStream = AvVideoStream | AvAudioStream

MAX_DAMAGED_PACKETS = 250
"""Damaged packets in a row after which a stream counts as unreadable (some ten seconds)."""
SEEK_MARGINS_S = (0.5, 10.0)
"""How far ahead of the wanted time a seek aims; the second is tried where the first lands late."""
TIME_TOLERANCE_S = 1e-6
"""Times closer than this are one time: a container's ticks are longer, rounding is shorter."""
APPLE_DOUBLE_MAGIC = b"\x00\x05\x16\x07"
TEXT_FORMATS = frozenset({"tty"})
"""Formats under which FFmpeg would render a text file as a moving picture."""

log = logging.getLogger(__name__)


@contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """Open a media file for reading.

    Raises:
        MediaError: The file is missing, is no media file or is cut short.
    """
    _check_file(path)
    try:
        # An absolute path: FFmpeg takes "a:b.mp4" for a protocol.
        container = av.open(str(path.absolute()), mode="r", metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(_explain(path, error)) from error
    with container:
        if container.format.name in TEXT_FORMATS:
            raise MediaError(f"{path}: is a text file, not a video; name a video file")
        yield container


def stream_at(container: InputContainer, index: int) -> AvStream:
    """The audio or video stream at a position among all streams of the file."""
    stream = container.streams[index]
    if not isinstance(stream, AvVideoStream | AvAudioStream):
        raise TypeError(f"stream {index} holds neither pictures nor sound")
    return stream


def frame_time_s(frame: VideoFrame | AudioFrame) -> float | None:
    """Seconds on the file's own clock; None where the file gives the frame no time."""
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base)


def decode_from(
    path: Path, index: int, from_s: float | None, *, threads: int = 0
) -> Iterator[VideoFrame | AudioFrame]:
    """Decode one stream from the last point a decoder can start at before a time.

    A seek that fails or lands too late is tried from further ahead, and at last the file is read
    from its beginning: slower, never wrong. The caller discards what comes before `from_s`.

    Args:
        path: The file.
        index: Position of the stream among all streams of the file.
        from_s: Seconds on the file's own clock; None for the beginning.
        threads: Threads of the decoder; 0 for as many as suit it.

    Raises:
        MediaError: The file cannot be opened, or too many packets in a row are damaged.
    """
    if from_s is not None:
        frames = _decode_after_seek(path, index, from_s, threads=threads)
        if (first := next(frames, None)) is not None:
            yield first
            yield from frames
            return
    with open_media(path) as container:
        yield from _decode(container, _prepared(container, index, threads=threads), path)


def _decode_after_seek(
    path: Path, index: int, from_s: float, *, threads: int
) -> Iterator[VideoFrame | AudioFrame]:
    """Frames from a point at or before a time; none where no seek can be trusted to lead there."""
    for margin_s in SEEK_MARGINS_S:
        with open_media(path) as container:
            stream = _prepared(container, index, threads=threads)
            if not _seek(container, stream, from_s - margin_s):
                return
            frames = _decode(container, stream, path)
            first = next(frames, None)
            first_s = None if first is None else frame_time_s(first)
            if first is not None and first_s is not None and first_s <= from_s + TIME_TOLERANCE_S:
                yield first
                yield from frames
                return


def _prepared(container: InputContainer, index: int, *, threads: int) -> AvStream:
    stream = stream_at(container, index)
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all  # not even read from the disk, where the format allows
    stream.codec_context.thread_type = ThreadType.AUTO
    stream.codec_context.thread_count = threads
    return stream


def _seek(container: InputContainer, stream: AvStream, target_s: float) -> bool:
    """Seek to the last key frame before a time; False where reading on is as good."""
    begin = stream.start_time or 0
    if stream.time_base is None:
        return False
    target = int(target_s / stream.time_base)
    if target <= begin:
        return False
    try:
        container.seek(target, stream=stream, backward=True)
    except (av.FFmpegError, OSError):
        return False
    return True


def _decode(
    container: InputContainer, stream: AvStream, path: Path
) -> Iterator[VideoFrame | AudioFrame]:
    """Decode to the end, skipping damaged packets."""
    damaged = in_a_row = 0
    for packet in _packets(container, stream):
        frames = None if packet is None else _decode_packet(packet)
        if frames is None:
            damaged, in_a_row = damaged + 1, in_a_row + 1
            if in_a_row > MAX_DAMAGED_PACKETS:
                raise MediaError(
                    f"{path}: more than {MAX_DAMAGED_PACKETS} damaged packets in a row; "
                    "re-encode the file, or cut the damaged part off with --start or --end"
                )
            continue
        if frames:
            in_a_row = 0
        yield from frames
    if damaged:
        log.warning("%s: %d damaged packets of %s skipped", path, damaged, stream.type)


def _packets(container: InputContainer, stream: AvStream) -> Iterator["Packet[AvStream] | None"]:
    """Packets of a stream to the end of the file; None for one that cannot even be read."""
    while True:
        packets = container.demux(stream)
        try:
            yield from packets  # type: ignore[misc]
        except (av.FFmpegError, OSError):
            yield None
        else:
            return


def _decode_packet(packet: "Packet[AvStream]") -> list[VideoFrame | AudioFrame] | None:
    try:
        return list(packet.decode())  # type: ignore[arg-type]
    except av.FFmpegError:
        return None


def _check_file(path: Path) -> None:
    if not path.exists():
        raise MediaError(f"{path}: there is no such file; check the path")
    if path.is_dir():
        raise MediaError(f"{path}: is a folder; name a video file in it")
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise MediaError(f"{path}: cannot be opened ({error.strerror})") from error
    if not head:
        raise MediaError(f"{path}: is empty; copy or record it again")
    if head == APPLE_DOUBLE_MAGIC:
        raise MediaError(
            f"{path}: holds macOS metadata (AppleDouble), no video; "
            f"use the file named {path.name.removeprefix('._')}"
        )


def _explain(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] in {b"ftyp", b"mdat", b"free", b"wide"}:
        return f"{path}: is cut short (its index, moov, is missing); copy or record it again"
    reason = getattr(error, "strerror", None) or str(error)
    return f"{path}: is no media file that can be read ({reason}); convert it to MP4, or check it"
