"""Read video frames one by one, rotated as displayed, in RGB, on the presentation clock."""

import logging
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from itertools import count
from typing import cast

from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from av2tsam_cli.errors import UsageError
from av2tsam_cli.media.colour import Converter
from av2tsam_cli.media.container import TIME_TOLERANCE_S, decode_from, frame_time_s
from av2tsam_cli.media.damage import DamageLog
from av2tsam_cli.media.sdr import HDR
from av2tsam_cli.values import Frame, MediaInfo, UInt8Array, VideoStream

ASSUMED_RATE = Fraction(25)
"""Frame rate of files without timestamps and without a rate."""

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
    damage: DamageLog | None = None,
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
        deep: Whether to also yield pixels with 16 bits per channel.
        damage: Collects damage, and decides whether it is an error; None to report it at the end,
            and to raise an error if the file is truncated.

    Raises:
        MediaError: The file cannot be read, a long section is corrupted, or it is truncated.
    """
    stream = stream or info.video[0]
    zero_s = stream.start_s if zero_s is None else zero_s
    convert = None
    index = 0
    decoded = decode_from(info.path, stream.index, start_s + zero_s, threads=threads, damage=damage)
    found = damage or DamageLog(info.path)
    check_end = partial(found.end, info, stream, zero_s)
    timed = _timed(cast("Iterator[VideoFrame]", decoded), stream, zero_s, check_end)
    for frame, time_s, duration_s in _with_durations(
        timed, lambda: None if found.is_short else _end_s(info, stream, zero_s)
    ):
        if time_s < start_s - TIME_TOLERANCE_S:
            continue
        if stop_s is not None and time_s >= stop_s - TIME_TOLERANCE_S:
            return
        if convert is None:
            convert = Converter(stream, frame, deep=deep)
            if frame.color_trc in HDR:
                log.warning("%s: HDR (%s), shown as SDR", info.path, HDR[frame.color_trc])
        if frame.is_corrupt:
            found.count_incomplete_frame(time_s)
        remaining_s = float("inf") if stop_s is None else stop_s - time_s
        shown_s = None if duration_s is None else min(duration_s, remaining_s)
        rgb, pixels = convert(frame)
        yield Frame(rgb=rgb, time_s=time_s, index=index, duration_s=shown_s, deep=pixels)
        index += 1


def frames_from_arrays(
    arrays: Iterable[UInt8Array],
    *,
    times: Iterable[float] | None = None,
    rate: float | Fraction | None = None,
) -> Iterator[Frame]:
    """Yield frames from arrays, with their times.

    Args:
        arrays: Pixels, uint8, (H, W, 3), RGB.
        times: Time of each frame in seconds, increasing; or give `rate`.
        rate: Frames per second.

    Raises:
        UsageError: An array has a wrong shape or type, the times do not increase, or there are
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
    frames: Iterable[VideoFrame],
    stream: VideoStream,
    zero_s: float,
    check_end: Callable[[float], None],
) -> Iterator[tuple[VideoFrame, float]]:
    """Yield frames with strictly increasing times, then check whether the file is complete."""
    step_s = float(1 / (stream.rate or ASSUMED_RATE))
    last_s = end_s = float("-inf")
    for frame in frames:
        file_s = frame_time_s(frame)
        time_s = max(last_s, -step_s) + step_s if file_s is None else file_s - zero_s
        if time_s <= last_s:
            # Just after the last frame for a repeated time; one step later if the clock jumps back.
            time_s = last_s + (step_s / 100 if last_s - time_s < step_s else step_s)
        last_s, end_s = time_s, time_s + (_duration_s(frame) or step_s)
        yield frame, time_s
    check_end(end_s)


def _with_durations(
    frames: Iterable[tuple[VideoFrame, float]], end: Callable[[], float | None]
) -> Iterator[tuple[VideoFrame, float, float | None]]:
    """Add to each frame the seconds until the next frame, or the end of the stream.

    Args:
        frames: Frames and their times.
        end: Called after the last frame; returns the end of the stream, or None if unknown.
    """
    previous: tuple[VideoFrame, float] | None = None
    for frame, time_s in frames:
        if previous is not None:
            yield *previous, time_s - previous[1]
        previous = frame, time_s
    if previous is not None:
        end_s = end()
        declared_s = 0.0 if end_s is None else end_s - previous[1]
        yield *previous, max(_duration_s(previous[0]), declared_s) or None


def _duration_s(frame: VideoFrame | AudioFrame) -> float:
    """Return the seconds for which a frame is displayed according to the file; 0 if unknown."""
    return float(frame.duration * frame.time_base) if frame.time_base else 0.0


def _end_s(info: MediaInfo, stream: VideoStream, zero_s: float) -> float | None:
    """Return the declared end of a stream on the presentation clock; None if unknown."""
    if stream.duration_s is None or info.may_jump:
        return None
    return stream.start_s - zero_s + stream.duration_s
