"""Probe media files: displayed size, rate, rotation, streams, duration."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer
from av.sidedata.sidedata import SideData, SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream as AvVideoStream

from av2tsam_cli.errors import MediaError
from av2tsam_cli.media.clock import may_jump
from av2tsam_cli.media.container import (
    ENCRYPTED_MEDIA,
    MAX_PIXELS,
    NO_PICTURE_LEFT,
    AvStream,
    decode_from,
    frame_time_s,
    open_media,
)
from av2tsam_cli.media.structure import is_encrypted, mp4_index, read_structure
from av2tsam_cli.network import is_remote
from av2tsam_cli.values import AudioStream, MediaInfo, VideoStream

STILL_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails
MICROSECONDS = 1_000_000
"""FFmpeg's unit of a container's duration, per second."""
DISPLAY_UNIT = 1 << 16
"""The number 1 in the fixed-point numbers of a display matrix."""


def probe(path: Path, *, need_video: bool = True) -> MediaInfo:
    """Read the properties of a file, decoding one frame of each video stream.

    Args:
        path: The file.
        need_video: Whether a file without video is an error.

    Raises:
        MediaError: The file cannot be read, or contains no video.
    """
    with open_media(path) as container:
        version = None if is_remote(path) else _file_version(path)
        candidates = _video_streams(container)
        video = [_describe_video(path, stream) for stream in candidates]
        audio = tuple(
            _describe_audio(stream)
            for stream in container.streams.audio
            if stream.codec_context is not None and stream.codec_context.sample_rate
        )
        info = MediaInfo(
            path=path,
            container=container.format.name,
            video=tuple(stream for stream in video if stream is not None),
            audio=audio,
            duration_s=_duration_s(container),
            may_jump=may_jump(container),
            version=version,
        )
    if need_video and not info.video:
        raise MediaError(f"{path}: {_why_no_video(path, container, candidates, audio)}")
    return info


def check_unchanged(info: MediaInfo) -> None:
    """Check that a file is still the one that was probed; it may have been deleted since.

    Raises:
        MediaError: The file was replaced, or is still being written.
    """
    with suppress(FileNotFoundError):
        if info.version not in {None, _file_version(info.path)}:
            raise changed_error(info.path)


def changed_error(path: Path) -> MediaError:
    """Return the error for a file that was replaced, or is still being written."""
    return MediaError(f"{path}: changed while it was read; run again when it is complete")


def _file_version(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def clock_zero(info: MediaInfo, video: VideoStream | None, audio: AudioStream | None) -> float:
    """Return the start of the presentation on the file's own clock, in seconds.

    This is the earliest start of the chosen streams, so a track that starts late stays late.
    """
    starts = [stream.start_s for stream in (video, audio) if stream is not None]
    return min(starts) if starts else info.video[0].start_s


def display_matrix(frame: VideoFrame) -> npt.NDArray[np.int32] | None:
    """Return the rotation part (2, 2) of a frame's display matrix; None if there is no matrix.

    The rows are the images of the stored x and y axes, as in libavutil/display.h.
    """
    for entry in _known_side_data(frame):
        if entry.type is SideDataType.DISPLAYMATRIX:
            return np.frombuffer(bytes(entry), dtype=np.int32).reshape(3, 3)[:2, :2]
    if not frame.rotation:
        return None
    # The matrix follows an entry of an unknown type; PyAV still finds its rotation.
    turn = np.deg2rad(frame.rotation)
    matrix = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    return np.rint(np.array(matrix) * DISPLAY_UNIT).astype(np.int32)


def _known_side_data(frame: VideoFrame) -> Iterator[SideData]:
    """Yield the side data of a frame up to the first entry whose type PyAV does not know.

    `frame.side_data` fails completely if a type is newer than PyAV's table, such as EXIF.
    """
    entries = SideDataContainer.__new__(SideDataContainer)
    try:
        entries.__init__(frame)  # type: ignore[misc]  # keeps the entries read before an error
        yield from entries
    except ValueError:
        yield from list(entries)[:-1]


def is_transposed(matrix: npt.NDArray[np.int32] | None) -> bool:
    """Return whether stored columns are displayed as rows, to the nearest quarter turn."""
    if matrix is None:
        return False
    return abs(int(matrix[0, 1])) > abs(int(matrix[0, 0]))


def _video_streams(container: InputContainer) -> list[AvVideoStream]:
    """Return the moving streams, best first: FFmpeg's choice, default streams, larger streams."""
    moving = [
        stream
        for stream in container.streams.video
        if not stream.disposition & STILL_PICTURE and stream.codec_context is not None
    ]
    best = container.streams.best("video")

    def rank(stream: AvVideoStream) -> tuple[bool, bool, int]:
        default = bool(stream.disposition & Disposition.default)
        return stream is best, default, stream.width * stream.height

    return sorted(moving, key=rank, reverse=True)


def _describe_video(path: Path, stream: AvVideoStream) -> VideoStream | None:
    """Describe a stream as displayed; None if no frame can be decoded."""
    try:
        frame = next(decode_from(path, stream.index, None, threads=1), None)
    except MediaError:
        return None
    if not isinstance(frame, VideoFrame):
        return None
    matrix = display_matrix(frame)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width, height = frame.width, frame.height
    if is_transposed(matrix):
        width, height, aspect = height, width, 1 / aspect
    return VideoStream(
        index=stream.index,
        codec=stream.codec_context.name,
        width=width,
        height=height,
        rotation=_rotation(matrix),
        rate=stream.average_rate or stream.guessed_rate or None,
        sample_aspect=Fraction(aspect),
        frames=stream.frames,
        start_s=(frame_time_s(frame) or 0.0) if stream.start_time is None else _start_s(stream),
        duration_s=_video_duration_s(stream),
        pixel_format=frame.format.name,
        primaries=frame.color_primaries,
    )


def _video_duration_s(stream: AvVideoStream) -> float | None:
    if stream.container.format.name == "avi" and stream.frames and stream.average_rate:
        # Frames of AVI have equal durations; for truncated files, FFmpeg's duration is a guess.
        return float(stream.frames / stream.average_rate)
    return _stream_duration_s(stream)


def _describe_audio(stream: AvAudioStream) -> AudioStream:
    return AudioStream(
        index=stream.index,
        codec=stream.codec_context.name,
        rate_hz=stream.codec_context.sample_rate,
        channels=stream.codec_context.channels,
        language=stream.language,
        start_s=_start_s(stream),
        duration_s=_stream_duration_s(stream),
        default=bool(stream.disposition & Disposition.default),
    )


def _rotation(matrix: npt.NDArray[np.int32] | None) -> int:
    """Return the rotation in degrees counter-clockwise, to the nearest quarter turn."""
    if matrix is None:
        return 0
    if is_transposed(matrix):
        return 90 if matrix[0, 1] < 0 else 270
    return 180 if matrix[1, 1] < 0 else 0


def _start_s(stream: AvStream) -> float:
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


def _stream_duration_s(stream: AvStream) -> float | None:
    if not stream.duration or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


def _duration_s(container: InputContainer) -> float | None:
    if container.duration and container.duration > 0:
        return container.duration / MICROSECONDS
    streams: list[AvStream] = [*container.streams.video, *container.streams.audio]
    lasting = [(s, d) for s in streams if (d := _stream_duration_s(s)) is not None]
    ends = [_start_s(stream) + duration_s for stream, duration_s in lasting]
    return max(ends) - min(_start_s(s) for s, _ in lasting) if lasting else None


def _why_no_video(
    path: Path,
    container: InputContainer,
    candidates: list[AvVideoStream],
    audio: tuple[AudioStream, ...],
) -> str:
    if candidates and is_encrypted(mp4_index(path) or b""):
        return ENCRYPTED_MEDIA
    if (candidates or not audio) and read_structure(path).cut_short:
        return NO_PICTURE_LEFT
    if candidates:
        return (
            "no frame of its video can be decoded; re-encode it as H.264 in MP4, with at most "
            f"{MAX_PIXELS // 1_000_000} million pixels"
        )
    content = "only audio" if audio else f"no video ({container.format.name})"
    return f"contains {content}; use a file with a video stream"
