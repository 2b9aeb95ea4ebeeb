"""Convert decoded frames to RGB as displayed: with accurate colours, rotated, HDR as SDR."""

from functools import cache
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)

from av2tsam_cli.media.probe import display_matrix, is_transposed
from av2tsam_cli.values import UInt8Array, VideoStream

TO_RGB = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
"""How swscale decodes colours. Without accurate rounding, everything gets 1.1 levels darker."""
UNSPECIFIED = 2
"""A frame's colour space if it is unspecified (libavutil/pixfmt.h)."""
HD_HEIGHT = 720
"""Untagged video of at least this height is read as BT.709, else as BT.601, as in players."""
REFERENCE_WHITE = 203
"""Luminance of reference white in HDR video, cd/m2 (ITU-R BT.2408)."""
SCREEN_GAMMA = 2.4


class Converter:
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
        """Convert a frame."""
        rgb = self._to_array(frame)
        if frame.color_trc == ColorTrc.SMPTE2084:
            rgb = cast("UInt8Array", cv2.LUT(rgb, _pq_to_sdr()))
        if self.matrix is None:
            return rgb
        return np.ascontiguousarray(_as_displayed(rgb, self.matrix))

    def _to_array(self, frame: VideoFrame) -> UInt8Array:
        alpha = any(component.is_alpha for component in frame.format.components)
        untagged_hd = frame.colorspace == UNSPECIFIED and frame.height >= HD_HEIGHT
        converted = self.reformatter.reformat(
            frame,
            width=self.width,
            height=self.height,
            format="gbrap" if alpha else "gbrp",  # accurate rounding is slow into packed pixels
            src_colorspace=Colorspace.ITU709 if untagged_hd else None,
            src_color_range=frame.color_range,
            dst_color_range=ColorRange.JPEG,
            interpolation=TO_RGB,
            threads=1,  # threads help in the decoder, not here
        )
        return _merged(converted)


def _merged(frame: VideoFrame) -> UInt8Array:
    """Return the planes of a frame as one array; transparent pixels blended over black."""
    green, blue, red, *alpha = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width]
        for plane in frame.planes
    )
    rgb = cv2.merge([red, green, blue])
    if alpha:  # as players do
        rgb = cv2.multiply(rgb, cv2.merge(alpha * 3), scale=1 / 255)
    return cast("UInt8Array", rgb)


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


def _as_displayed(rgb: UInt8Array, matrix: npt.NDArray[np.int32]) -> UInt8Array:
    """Rotate and mirror by a display matrix, to the nearest quarter turn."""
    if is_transposed(matrix):
        rgb = rgb.transpose(1, 0, 2)
        to_x, to_y = matrix[1, 0], matrix[0, 1]
    else:
        to_x, to_y = matrix[0, 0], matrix[1, 1]
    rgb = rgb[:, ::-1] if to_x < 0 else rgb
    return rgb[::-1] if to_y < 0 else rgb
