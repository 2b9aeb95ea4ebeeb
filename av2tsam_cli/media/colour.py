"""Convert decoded frames to RGB as displayed, with accurate colours, rotated, and HDR as SDR."""

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorRange,
    Colorspace,
    Interpolation,
    VideoReformatter,
)

from av2tsam_cli.media.probe import display_matrix, is_transposed
from av2tsam_cli.media.sdr import to_sdr
from av2tsam_cli.values import Pixels, UInt8Array, UInt16Array, VideoStream

TO_RGB = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
"""Flags of swscale. Without accurate rounding, pictures get 1.1 levels darker."""
UNSPECIFIED = 2
"""The value for an unspecified colour space (libavutil/pixfmt.h)."""
HD_HEIGHT = 720
"""Untagged video of at least this height is read as BT.709, other as BT.601, as players do."""


class Converter:
    """Converts decoded frames to (H, W, 3) RGB of one size, rotated as displayed."""

    def __init__(self, stream: VideoStream, first: VideoFrame, *, deep: bool = False) -> None:
        # Read once: a frame whose side data was accessed is freed only by the garbage collector,
        # so accessing it for every frame would accumulate hundreds of frames.
        self.matrix = display_matrix(first)
        self.width, self.height = stream.width, stream.height
        if is_transposed(self.matrix):
            self.width, self.height = stream.height, stream.width
        self.deep = deep
        self.reformatter = VideoReformatter()  # reused, because its set-up is expensive

    def __call__(self, frame: VideoFrame) -> tuple[UInt8Array, UInt16Array | None]:
        """Convert a frame; return pixels with 8 bits, and with 16 bits if `deep`, else None."""
        sdr = to_sdr(frame.color_trc, frame.color_primaries)
        pixels = self._to_array(frame, bits=16 if self.deep or sdr else 8)
        if sdr is not None:
            pixels = sdr(pixels)
        if self.matrix is not None:
            pixels = np.ascontiguousarray(_as_displayed(pixels, self.matrix))
        if pixels.dtype == np.uint8:
            return cast("UInt8Array", pixels), None
        rgb = cast("UInt8Array", cv2.convertScaleAbs(pixels, alpha=1 / 257))
        return rgb, cast("UInt16Array", pixels) if self.deep else None

    def _to_array(self, frame: VideoFrame, *, bits: int) -> Pixels:
        # Planes, because accurate rounding is slow with packed pixels.
        planes = "gbrap" if any(part.is_alpha for part in frame.format.components) else "gbrp"
        untagged_hd = frame.colorspace == UNSPECIFIED and frame.height >= HD_HEIGHT
        converted = self.reformatter.reformat(
            frame,
            width=self.width,
            height=self.height,
            format=planes if bits == 8 else f"{planes}16le",
            src_colorspace=Colorspace.ITU709 if untagged_hd else None,
            src_color_range=frame.color_range,
            dst_color_range=ColorRange.JPEG,
            interpolation=TO_RGB,
            threads=1,  # threads help in the decoder, not here
        )
        return _merged(converted, np.uint8 if bits == 8 else np.uint16)


def _merged(frame: VideoFrame, kind: type[np.uint8 | np.uint16]) -> Pixels:
    """Return the planes of a frame as one array, with transparent pixels blended over black."""
    green, blue, red, *alpha = (
        np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)[:, : plane.width]
        for plane in frame.planes
    )
    rgb = cv2.merge([red, green, blue])
    if alpha:  # as players do
        rgb = cv2.multiply(rgb, cv2.merge(alpha * 3), scale=1 / np.iinfo(kind).max)
    return cast("Pixels", rgb)


def _as_displayed(rgb: Pixels, matrix: npt.NDArray[np.int32]) -> Pixels:
    """Rotate and mirror by a display matrix, to the nearest quarter turn."""
    if is_transposed(matrix):
        rgb = rgb.transpose(1, 0, 2)
        to_x, to_y = matrix[1, 0], matrix[0, 1]
    else:
        to_x, to_y = matrix[0, 0], matrix[1, 1]
    rgb = rgb[:, ::-1] if to_x < 0 else rgb
    return rgb[::-1] if to_y < 0 else rgb
