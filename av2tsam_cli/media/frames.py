"""Read video frames one by one, rotated as displayed, in RGB, on the presentation clock."""

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from itertools import count
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, ColorTrc, VideoReformatter

from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.media.container import TIME_TOLERANCE_S, decode_from, frame_time_s
from av2tsam_cli.media.probe import display_matrix, is_transposed
from av2tsam_cli.media.structure import is_cut_short
from av2tsam_cli.values import Frame, MediaInfo, UInt8Array, VideoStream

ASSUMED_RATE = Fraction(25)
"""Frame rate of files without timestamps and without a rate."""
UNSPECIFIED = 2
"""A frame's colour space if it is unspecified (libavutil/pixfmt.h)."""
REFERENCE_WHITE = 203
"""Luminance of reference white in HDR video, cd/m2 (ITU-R BT.2408)."""
SCREEN_GAMMA = 2.4
EARLY_S = 0.5
"""Seconds by which a truncated file ends before its declared end."""
HD_HEIGHT = 720
"""Untagged video of at least this height is read as BT.709, else as BT.601, as in players."""

log = logging.getLogger(__name__)


def read_frames(
    info: MediaInfo,
    *,
    stream: VideoStream | None = None,
    zero_s: float | None = None,
    start_s: float = 0.0,
    stop_s: float | None = None,
    threads: int = 0,
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
        convert = convert or _Converter(stream, frame)
        left_s = float("inf") if stop_s is None else stop_s - time_s
        shown_s = None if duration_s is None else min(duration_s, left_s)
        yield Frame(rgb=convert(frame), time_s=time_s, index=index, duration_s=shown_s)
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


class _Converter:
    """Converts decoded frames to (H, W, 3) uint8 RGB of one size, rotated as displayed."""

    def __init__(self, stream: VideoStream, first: VideoFrame) -> None:
        # Read once: a frame whose side data was accessed is freed only by the garbage collector,
        # so accessing it for every frame would accumulate hundreds of frames.
        self.matrix = display_matrix(first)
        self.width, self.height = stream.width, stream.height
        if is_transposed(self.matrix):
            self.width, self.height = stream.height, stream.width
        self.reformatter = VideoReformatter()  # reused, because its set-up is expensive

    def __call__(self, frame: VideoFrame) -> UInt8Array:
        alpha = any(component.is_alpha for component in frame.format.components)
        rgb = self._to_array(frame, "rgba" if alpha else "rgb24")
        if alpha:
            rgb = _over_black(rgb)
        if frame.color_trc == ColorTrc.SMPTE2084:
            rgb = cast("UInt8Array", cv2.LUT(rgb, _pq_to_sdr()))
        if self.matrix is None:
            return rgb
        return np.ascontiguousarray(_as_displayed(rgb, self.matrix))

    def _to_array(self, frame: VideoFrame, pixel_format: str) -> UInt8Array:
        untagged_hd = frame.colorspace == UNSPECIFIED and frame.height >= HD_HEIGHT
        converted = self.reformatter.reformat(
            frame,
            width=self.width,
            height=self.height,
            format=pixel_format,
            src_colorspace=Colorspace.ITU709 if untagged_hd else None,
            src_color_range=frame.color_range,
            dst_color_range=ColorRange.JPEG,
            threads=1,  # threads help in the decoder, not here
        )
        return cast("UInt8Array", converted.to_ndarray())


@cache
def _pq_to_sdr() -> UInt8Array:
    """Return a table from 8-bit PQ codes of HDR10 to SDR codes.

    Luminance follows SMPTE ST 2084. Reference white becomes white; brighter values are clipped.
    Without this, HDR10 looks flat and grey. HLG is compatible with SDR displays as it is.
    """
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = (np.arange(256) / 255) ** (1 / m2)
    light = 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    display = np.clip(light / REFERENCE_WHITE, 0, 1) ** (1 / SCREEN_GAMMA)
    return np.rint(255 * display).astype(np.uint8)


def _over_black(rgba: UInt8Array) -> UInt8Array:
    """Blend transparent pixels over black, as players do."""
    alpha = cv2.cvtColor(rgba[:, :, 3], cv2.COLOR_GRAY2RGB)
    return cast("UInt8Array", cv2.multiply(rgba[:, :, :3], alpha, scale=1 / 255))


def _as_displayed(rgb: UInt8Array, matrix: npt.NDArray[np.int32]) -> UInt8Array:
    """Rotate and mirror by a display matrix, to the nearest quarter turn."""
    if is_transposed(matrix):
        rgb = rgb.transpose(1, 0, 2)
        to_x, to_y = matrix[1, 0], matrix[0, 1]
    else:
        to_x, to_y = matrix[0, 0], matrix[1, 1]
    rgb = rgb[:, ::-1] if to_x < 0 else rgb
    return rgb[::-1] if to_y < 0 else rgb
