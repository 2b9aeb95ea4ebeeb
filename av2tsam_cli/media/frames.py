"""Read video frames one by one, rotated as displayed, in RGB, on the presentation clock."""

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import count
from typing import cast

from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.media.colour import Converter
from av2tsam_cli.media.container import TIME_TOLERANCE_S, decode_from, frame_time_s
from av2tsam_cli.media.sdr import HDR
from av2tsam_cli.media.structure import is_cut_short
from av2tsam_cli.values import Frame, MediaInfo, UInt8Array, VideoStream

ASSUMED_RATE = Fraction(25)
"""Frame rate of files without timestamps and without a rate."""
EARLY_S = 0.5
"""Seconds by which a truncated file ends before its declared end."""

log = logging.getLogger(__name__)


def read_frames(
    info: MediaInfo,
    *,
    stream: VideoStream | None = None,
    zero_s: float | None = None,
    start_s: float = 0.0,
    stop_s: float | None = None,
    threads: int = 0,
    deep: bool = False,
) -> Iterator[Frame]:
    """Yield frames with start_s <= time < stop_s in presentation order, one at a time.

    Args:
        info: The file, as probed.
        stream: The video stream; None for the best one.
        zero_s: Start of the presentation on the file's own clock (see `clock_zero`); None for the
            start of the stream.
        start_s: Seconds on the presentation clock.
        stop_s: Seconds on the presentation clock; None for the end of the stream.
        threads: Decoder threads; 0 lets the decoder choose.
        deep: Whether to yield pixels with 16 bits per channel too.

    Raises:
        MediaError: The file cannot be read, a long section is corrupted, or it is truncated.
    """
    stream = stream or info.video[0]
    zero_s = stream.start_s if zero_s is None else zero_s
    convert = None
    index = 0
    timed = _timed(info, stream, zero_s, start_s, threads)
    for frame, time_s, duration_s in _with_durations(timed, _end_s(info, stream, zero_s)):
        if time_s < start_s - TIME_TOLERANCE_S:
            continue
        if stop_s is not None and time_s >= stop_s - TIME_TOLERANCE_S:
            return
        if convert is None:
            convert = Converter(stream, frame, deep=deep)
            if frame.color_trc in HDR:
                log.warning("%s: HDR (%s), shown as SDR", info.path, HDR[frame.color_trc])
        left_s = float("inf") if stop_s is None else stop_s - time_s
        shown_s = None if duration_s is None else min(duration_s, left_s)
        rgb, pixels = convert(frame)
        yield Frame(rgb=rgb, time_s=time_s, index=index, duration_s=shown_s, deep=pixels)
        index += 1


def frames_from_arrays(
    arrays: Iterable[UInt8Array],
    *,
    times: Iterable[float] | None = None,
    rate: float | Fraction | None = None,
) -> Iterator[Frame]:
    """Yield frames that are in memory, or generated, with their times.

    Args:
        arrays: Pixels, uint8, (H, W, 3), RGB.
        times: Time of each frame in seconds, increasing; or give `rate`.
        rate: Frames per second.

    Raises:
        UsageError: An array has another shape or type, the times do not increase, or there are
            fewer times than frames.
    """
    times = (float(index / rate) for index in count()) if rate else iter(times or ())
    last_s = float("-inf")
    for index, rgb in enumerate(arrays):
        time_s = next(times, None)
        if time_s is None or time_s <= last_s:
            raise UsageError(f"`times` must increase, with one per frame (see frame {index})")
        try:
            yield Frame(rgb=rgb, time_s=time_s, index=index)
        except ValueError as error:
            raise UsageError(f"frame {index} of `frames`: {error}") from error
        last_s = time_s


def _timed(
    info: MediaInfo, stream: VideoStream, zero_s: float, start_s: float, threads: int
) -> Iterator[tuple[VideoFrame, float]]:
    """Yield frames with strictly increasing times, then check whether the file is complete."""
    step_s = float(1 / (stream.rate or ASSUMED_RATE))
    last_s = end_s = float("-inf")
    for frame in decode_from(info.path, stream.index, start_s + zero_s, threads=threads):
        file_s = frame_time_s(frame)
        time_s = max(last_s, -step_s) + step_s if file_s is None else file_s - zero_s
        if time_s <= last_s:
            # A repeated time: just after the last frame. A clock that jumps back: one step later.
            time_s = last_s + (step_s / 100 if last_s - time_s < step_s else step_s)
        last_s, end_s = time_s, time_s + (_duration_s(frame) or step_s)
        yield cast("VideoFrame", frame), time_s
    _check_end(info, stream, zero_s, end_s)


def _with_durations(
    frames: Iterable[tuple[VideoFrame, float]], end_s: float | None
) -> Iterator[tuple[VideoFrame, float, float | None]]:
    """Add to each frame the seconds until the next, and to the last those until the end.

    Args:
        frames: Frames and their times.
        end_s: Declared end of the stream; None if it is unknown.
    """
    held: tuple[VideoFrame, float] | None = None
    for frame, time_s in frames:
        if held is not None:
            yield *held, time_s - held[1]
        held = frame, time_s
    if held is not None:
        declared_s = 0.0 if end_s is None else end_s - held[1]
        yield *held, max(_duration_s(held[0]), declared_s) or None


def _duration_s(frame: VideoFrame | AudioFrame) -> float:
    """Return the seconds for which a frame is displayed according to the file; 0 if unknown."""
    return float(frame.duration * frame.time_base) if frame.time_base else 0.0


def _end_s(info: MediaInfo, stream: VideoStream, zero_s: float) -> float | None:
    """Return the declared end of a stream on the presentation clock; None if it is unknown."""
    if stream.duration_s is None or info.may_jump:
        return None
    return stream.start_s - zero_s + stream.duration_s


def _check_end(info: MediaInfo, stream: VideoStream, zero_s: float, end_s: float) -> None:
    """Raise an error if a file is cut short and pictures are missing at its end.

    The number of frames that it declares is no reason: it can count frames that an edit list
    discards, and empty chunks. Nor is a declared end: the last picture can be displayed for long.
    """
    if not is_cut_short(info.path):
        return
    declared_s = _end_s(info, stream, zero_s)
    if declared_s is None and not info.may_jump:
        declared_s = info.duration_s
    if declared_s is not None and end_s >= declared_s - EARLY_S:
        log.warning("%s: truncated; pictures after %.2f s may be missing", info.path, end_s)
        return
    of = "" if declared_s is None else f" of {declared_s:.2f}"
    raise MediaError(
        f"{info.path}: truncated, it ends after {end_s:.2f}{of} s; copy it again, or set "
        f"`end` to {end_s:.2f}"
    )
