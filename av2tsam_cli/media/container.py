"""Open a media file, seek, and read or decode one of its streams.

Corrupted packets are skipped. If a seek fails or ends too late, another one is tried.
"""

import heapq
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import dropwhile
from pathlib import Path
from typing import IO, Any, Literal, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvAudioStream
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream as AvVideoStream

from av2tsam_cli.errors import NOT_A_FILE, MediaError
from av2tsam_cli.media.clock import Clock, DisplayClock, may_jump
from av2tsam_cli.media.damage import DamageLog
from av2tsam_cli.media.structure import is_encrypted, mp4_index, read_structure
from av2tsam_cli.network import NetworkPath, is_remote, is_stored
from av2tsam_cli.stores import open_stored

AvStream = AvVideoStream | AvAudioStream

MAX_CORRUPTED_PACKETS = 250
"""Consecutive corrupted packets after which a stream is unreadable (about ten seconds)."""
SEEK_MARGINS_S = (0.5, 10.0)
"""Seconds before the wanted time to seek to; the second value if the first seek ends too late."""
EARLIER_S = (4.0, 64.0, float("inf"))
"""Seconds before a time to search for earlier frames, tried in this order."""
TIME_TOLERANCE_S = 1e-6
"""Times closer than this are equal: longer than rounding errors, shorter than clock ticks."""
MAX_PIXELS = 8192 * 8192
"""Maximum pixels of a picture; otherwise, a few bytes could declare more than memory holds."""
LIMITS = {"max_pixels": str(MAX_PIXELS)}
"""Options of FFmpeg's decoders, which check the size before they allocate memory."""
MAX_RATE_HZ = 768_000
"""Maximum sample rate; this is also the number of samples that fill a gap of one second."""
MAX_CHANNELS = 64
"""Maximum number of channels, as in ambisonics of the seventh order."""
UNTIMED_FORMATS = frozenset({"avi"})
"""Formats without presentation times; those of FFmpeg are guesses, and wrong with B-frames."""
PREDICTED = frozenset({PictureType.P, PictureType.B})
"""Types of pictures that depend on other pictures."""
VP8_SHOWN = 0x10
"""Bit in the first byte of a VP8 picture that is set if it is displayed (RFC 6386, section 9.1)."""
APPLE_DOUBLE_MAGIC = b"\x00\x05\x16\x07"
TEXT_FORMATS = frozenset({"tty"})
"""Formats by which FFmpeg renders text files as videos."""

NAME_FILES = frozenset(
    {"concat", "dash", "hls", "image2", "imf", "rtp", "rtsp", "sap", "sdp", "vobsub"}
    | {"webm_dash_manifest"}
)
"""Formats of playlists, scripts and series of images, which open other files or URLs."""
SINGLE_FILES = ",".join(sorted(av.formats_available - NAME_FILES))
"""All other formats, as a value of an option of FFmpeg."""
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"v=0", b"<?xml", b"<MPD")
"""First bytes of playlists and scripts."""
NETWORK = "http,https,tls,tcp,httpproxy,crypto,data"
"""FFmpeg's protocols for URLs; without `file`, so that a server cannot make it open local files."""
TIMEOUT_S = 30.0
"""Seconds to wait for a server."""

NO_PICTURE_LEFT = "truncated, it ends before its first picture or within an index; copy it again"
"""Message for a file that is truncated too early."""
ENCRYPTED_MEDIA = "encrypted (DRM); use a copy that is not protected"
"""Message for an MP4 whose streams need a key."""

log = logging.getLogger(__name__)


@contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """Open a media file for reading.

    Raises:
        MediaError: The file is missing, truncated or not a media file.
    """
    remote = is_remote(path)
    with ExitStack() as opened:
        source: str | IO[bytes] = str(path)
        if is_stored(path):
            source = opened.enter_context(open_stored(str(path)))
        elif not remote:
            _check_file(path)
            # An absolute path, because FFmpeg would read "a:b.mp4" as a protocol.
            source = os.fspath(path.absolute())
        container = opened.enter_context(_open(path, source))
        if container.format.name in TEXT_FORMATS:
            raise MediaError(f"{path}: a text file, not a video; name a video file")
        yield container


def _open(path: Path, source: str | IO[bytes]) -> InputContainer:
    try:
        return av.open(
            source,
            mode="r",
            # In some formats, opening a file decodes a picture.
            options=LIMITS | _access(path),
            metadata_errors="replace",
            timeout=TIMEOUT_S if is_remote(path) else None,
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(_explain(path, error)) from error


def _access(path: Path) -> dict[str, str]:
    """Return the options of FFmpeg that limit it to a single file, unless more is allowed."""
    if isinstance(path, NetworkPath) and path.opens_others:
        return {"protocol_whitelist": NETWORK if is_remote(path) else f"file,{NETWORK}"}
    return {"protocol_whitelist": "file", "format_whitelist": SINGLE_FILES}


def frame_time_s(frame: VideoFrame | AudioFrame) -> float | None:
    """Return the time on the file's own clock in seconds; None if the frame has none."""
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base)


def decode_from(
    path: Path,
    index: int,
    from_s: float | None,
    *,
    threads: int = 0,
    damage: DamageLog | None = None,
) -> Iterator[VideoFrame | AudioFrame]:
    """Decode one stream from the last key frame before a time.

    If a seek fails, ends too late, or ends at a picture that depends on earlier ones, a seek to an
    earlier time is tried. If this fails too, the file is decoded from its beginning, which is slow
    but correct. If the clock may jump, a seek is not possible: all packets before the time are
    read, but not decoded. The caller discards frames before `from_s`.

    Args:
        path: The file.
        index: Position of the stream among all streams of the file.
        from_s: Seconds on the file's own clock, made continuous; None for the beginning.
        threads: Threads of the decoder; 0 lets FFmpeg choose.
        damage: Counts corrupted packets; None to report them at the end.

    Raises:
        MediaError: The file cannot be opened, or too many packets in a row are corrupted.
    """
    counted = damage or DamageLog(path)
    yield from _decode_anywhere(path, index, from_s, threads, counted)
    if damage is None:
        counted.report()


def _decode_anywhere(
    path: Path, index: int, from_s: float | None, threads: int, damage: DamageLog
) -> Iterator[VideoFrame | AudioFrame]:
    if from_s is not None:
        frames = _decode_near(path, index, from_s, threads, damage)
        if (first := next(frames, None)) is not None:
            yield first
            yield from frames
            return
    with open_media(path) as container:
        yield from _decode(container, select_stream(container, index, threads=threads), damage)


def _decode_near(
    path: Path, index: int, from_s: float, threads: int, damage: DamageLog
) -> Iterator[VideoFrame | AudioFrame]:
    """Yield the frames from a point at or before a time; none if no seek succeeds."""
    delay = _display_delay(path, index)
    for margin_s in SEEK_MARGINS_S:
        with open_media(path) as container:
            stream = select_stream(container, index, threads=threads)
            skipped_s = float("-inf")
            if may_jump(container):
                skipped_s = from_s - SEEK_MARGINS_S[-1]
            elif not seek(container, stream, from_s - margin_s):
                return
            frames = _decode(container, stream, damage, from_s=skipped_s, delay=delay)
            if (first := _first_complete(frames, from_s)) is not None:
                yield first
                yield from frames
                return
            if may_jump(container):
                return


def _display_delay(path: Path, index: int) -> int | None:
    """Return the delay of a `DisplayClock` for a stream; None if the format stores times."""
    with open_media(path) as container:
        if container.format.name not in UNTIMED_FORMATS:
            return None
        stream = select_stream(container, index, threads=1)
        unused = DamageLog(path)
        begin: int | None = None
        for packet in read_packets(container, stream, unused):
            begin = packet.dts if packet is not None and begin is None else begin
            for frame in (packet and decode_packet(packet, unused)) or ():
                return None if begin is None or frame.dts is None else frame.dts - begin
    return None


def _first_complete(
    frames: Iterator[VideoFrame | AudioFrame], by_s: float
) -> VideoFrame | AudioFrame | None:
    """Return the first frame that does not depend on earlier ones; None if it comes too late.

    With periodic intra refresh, decoding can begin at any refresh, but the first pictures are then
    incomplete, and H.264 decoders do not always report this.
    """
    for frame in frames:
        time_s = frame_time_s(frame)
        if time_s is None or time_s > by_s + TIME_TOLERANCE_S:
            return None
        if isinstance(frame, AudioFrame) or (frame.key_frame and frame.pict_type not in PREDICTED):
            return frame
    return None


def select_stream(container: InputContainer, index: int, *, threads: int = 0) -> AvStream:
    """Return the stream with an index, and prepare the container to read only this one."""
    stream = container.streams[index]
    if not isinstance(stream, AvVideoStream | AvAudioStream):
        raise TypeError(f"stream {index} is neither video nor audio")
    for other in container.streams:
        if other is not stream and not (may_jump(container) and _is_timed(other)):
            other.discard = Discard.all  # not even read from the disk, where the format allows
    stream.codec_context.options = LIMITS
    stream.codec_context.thread_type = ThreadType.AUTO
    stream.codec_context.thread_count = threads
    return stream


def seek(container: InputContainer, stream: AvStream, target_s: float) -> bool:
    """Seek to the last key frame before a time.

    Returns:
        False if the seek fails, if the time is not after the start of the stream, or if the clock
        may jump, so that times cannot be found.
    """
    begin = stream.start_time or 0
    if stream.time_base is None or may_jump(container):
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
    container: InputContainer,
    stream: AvStream,
    damage: DamageLog,
    *,
    from_s: float = float("-inf"),
    delay: int | None = None,
) -> Iterator[VideoFrame | AudioFrame]:
    """Decode a stream from the first key frame after a time to its end; skip corrupted packets.

    `delay` is the delay for `DisplayClock`.
    """
    corrupted = in_a_row = 0
    decoded = False
    display = None
    packets = read_packets(container, stream, damage)
    for packet in dropwhile(lambda packet: not _may_begin(packet, from_s), packets):
        if packet is not None and display is None and container.format.name in UNTIMED_FORMATS:
            display = DisplayClock(packet, delay)
        frames = None if packet is None else decode_packet(packet, damage)
        if frames is None:
            corrupted, in_a_row = corrupted + 1, in_a_row + 1
            if in_a_row > MAX_CORRUPTED_PACKETS:
                damage.give_up(_unreadable(damage.path, stream, corrupted, decoded=decoded))
                if packet is None or not decoded:
                    break
            continue
        for frame in frames:
            if display is not None and isinstance(frame, VideoFrame):
                display.correct(frame)
            in_a_row, decoded = 0, True
            yield frame
    if corrupted and not decoded:
        raise MediaError(_unreadable(damage.path, stream, corrupted, decoded=False))


def _may_begin(packet: "Packet[AvStream] | None", from_s: float) -> bool:
    if from_s == float("-inf"):
        return True
    if packet is None or packet.dts is None:
        return False
    return packet.is_keyframe and packet.dts * packet.time_base >= from_s


def _unreadable(path: Path, stream: AvStream, corrupted: int, *, decoded: bool) -> str:
    """Return the message for an unreadable stream."""
    what = f"more than {MAX_CORRUPTED_PACKETS} corrupted packets in a row"
    if stream.type == "audio":
        name = f"its audio (stream {stream.index}, {stream.codec_context.name})"
        what = what if decoded else f"none of {corrupted} packets can be decoded"
        return (
            f"{path}: {name} is unreadable, {what}; use `text`, which needs no audio, choose "
            "another `audio_stream`, re-encode the audio"
        )
    if read_structure(path).cut_short:
        return f"{path}: truncated; copy it again, leave the end out with `end`"
    return f"{path}: {what}; re-encode the file, leave that part out with `start` or `end`"


def read_packets(
    container: InputContainer, stream: AvStream, damage: DamageLog
) -> Iterator["Packet[AvStream] | None"]:
    """Yield the packets of a stream to its end, with times on one continuous clock.

    None stands for each packet that cannot be read, which is counted.
    """
    clock = Clock(jumps=may_jump(container))
    # If the clock may jump, the packets of all streams are needed to detect it.
    read = [each for each in container.streams if each is stream or each.discard != Discard.all]
    while True:
        packets = container.demux(read)
        try:
            for packet in packets:
                clock.correct(packet)
                if packet.stream is stream:  # the index of the empty last packet is always 0
                    yield cast("Packet[AvStream]", packet)
        except (av.FFmpegError, OSError):
            damage.count_packet(_kind(stream), None)
            yield None
        except IndexError:  # PyAV fails on a packet of a stream that begins later; skip it
            continue
        else:
            return


def count_frames_before(path: Path, index: int, before_s: float) -> int:
    """Return how many frames of a video stream are displayed before a time, without decoding.

    Args:
        path: The file.
        index: Position of the stream among all streams of the file.
        before_s: Seconds on the file's own clock, made continuous.

    Raises:
        MediaError: The file cannot be opened.
    """
    frames = 0
    with open_media(path) as container:
        stream = select_stream(container, index)
        untimed = container.format.name in UNTIMED_FORMATS
        for packet in read_packets(container, stream, DamageLog(path)):
            # In formats without presentation times, frames are displayed at their decoding times.
            ticks = None if packet is None else packet.dts if untimed else packet.pts
            if packet is None or ticks is None:
                continue
            if packet.dts is not None and packet.dts * packet.time_base >= before_s:
                break  # all following frames are displayed later
            is_early = ticks * packet.time_base < before_s - TIME_TOLERANCE_S
            frames += is_early and not _is_hidden(packet)
    return frames


def time_of_earlier_frame(path: Path, index: int, before_s: float, frames: int) -> float:
    """Return the time of the frame that is a number of frames before a time.

    Args:
        path: The file.
        index: Position of the stream among all streams of the file.
        before_s: Seconds on the file's own clock, made continuous.
        frames: The number of frames.

    Returns:
        The time; -inf if there are not as many frames.

    Raises:
        MediaError: The file cannot be opened.
    """
    for margin_s in EARLIER_S:
        with open_media(path) as container:
            stream = select_stream(container, index)
            whole = margin_s == float("inf") or not seek(container, stream, before_s - margin_s)
            times = _packet_times(container, stream, before_s)
            found = heapq.nlargest(frames, times)
        if len(found) == frames or whole:
            break
    return found[-1] if len(found) == frames else float("-inf")


def _packet_times(container: InputContainer, stream: AvStream, before_s: float) -> Iterator[float]:
    """Yield the times of the packets of a stream that are displayed before a time."""
    for packet in read_packets(container, stream, DamageLog(Path(container.name))):
        if packet is None or packet.dts is None:
            continue
        if packet.dts * packet.time_base >= before_s:
            return  # all following frames are displayed later
        time_s = float((packet.dts if packet.pts is None else packet.pts) * packet.time_base)
        if time_s < before_s - TIME_TOLERANCE_S and not _is_hidden(packet):
            yield time_s


def _is_hidden(packet: "Packet[AvStream]") -> bool:
    """Return whether a picture is never displayed: cut off by an edit list, or a VP8 reference."""
    if packet.is_discard:
        return True
    return packet.stream.codec_context.name == "vp8" and not bytes(packet)[0] & VP8_SHOWN


def _count_corrupted(packet: "Packet[Any]", damage: DamageLog) -> None:
    """Count a corrupted packet of a stream."""
    time_s = None if packet.dts is None else float(packet.dts * packet.time_base)
    damage.count_packet(_kind(packet.stream), time_s)


def _kind(stream: AvStream) -> Literal["video", "audio"]:
    return "video" if isinstance(stream, AvVideoStream) else "audio"


def _is_timed(stream: Stream) -> bool:
    """Return whether a stream is video or audio, which are needed to detect jumps of the clock."""
    return isinstance(stream, AvVideoStream | AvAudioStream)


def decode_packet(packet: "Packet[Any]", damage: DamageLog) -> list[VideoFrame | AudioFrame] | None:
    """Return the frames of a packet; None, after counting it, if corrupted or beyond a limit."""
    try:
        frames: list[VideoFrame | AudioFrame] = list(packet.decode())
    except av.FFmpegError:
        _count_corrupted(packet, damage)
        return None
    sounds = [frame for frame in frames if isinstance(frame, AudioFrame)]
    if not all(can_decode(sound.sample_rate, sound.layout.nb_channels) for sound in sounds):
        _count_corrupted(packet, damage)
        return None
    return frames


def can_decode(rate_hz: int, channels: int) -> bool:
    """Return whether sound with these properties is supported."""
    return 0 < rate_hz <= MAX_RATE_HZ and channels <= MAX_CHANNELS


def _check_file(path: Path) -> None:
    if not path.exists():
        raise MediaError(f"{path}: file not found; check the path")
    if path.is_dir():
        raise MediaError(f"{path}: a folder; name a video file in it")
    if not path.is_file():  # opening a pipe would wait for its writer
        raise MediaError(f"{path}: {NOT_A_FILE}")
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError as error:  # deleted in the meantime
        raise MediaError(f"{path}: file not found; check the path") from error
    except OSError as error:
        raise MediaError(
            f"{path}: cannot be opened ({error.strerror}); check its permissions"
        ) from error
    if not head:
        raise MediaError(f"{path}: empty; copy or record it again")
    if head == APPLE_DOUBLE_MAGIC:
        raise MediaError(
            f"{path}: macOS metadata (AppleDouble), not a video; "
            f"use the file named {path.name.removeprefix('._')}"
        )


def _explain(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    if is_remote(path):
        return f"{path}: cannot be opened ({reason}); check the URL, or download the video first"
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except FileNotFoundError:  # deleted in the meantime
        raise MediaError(f"{path}: file not found; check the path") from error
    if head[4:8] in {b"ftyp", b"mdat", b"free", b"wide"}:
        index = mp4_index(path)
        if index is not None and is_encrypted(index):
            return f"{path}: {ENCRYPTED_MEDIA}"
        if index is None:
            return f"{path}: truncated, its index (moov) is missing; copy or record it again"
    if read_structure(path).cut_short:
        return f"{path}: {NO_PICTURE_LEFT}"
    if head.startswith(PLAYLISTS):
        advice = "set `allow_url` to open them, or pass a video"
        if isinstance(path, NetworkPath) and path.opens_others:
            advice = f"they cannot be opened ({reason}); check them"
        return f"{path}: a playlist that names other files or URLs; {advice}"
    return f"{path}: not a readable media file ({reason}); convert it to MP4"
