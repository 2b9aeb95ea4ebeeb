"""Decide whether masks that are predicted along the optical flow can be trusted.

The masks of a key frame are moved to a later frame, from frame to frame. A pixel of the later frame
is doubtful if the flow there and back does not end where it began, or if the picture differs from
the moved picture: something was covered or uncovered, a light was switched on, an object appeared.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from av2tsam_cli.timeline.motion import join, no_flow, sample, warp_all
from av2tsam_cli.timeline.schedule import (
    CLOCK_SLACK_S,
    KeyFrame,
    ScheduledFrame,
    block_of,
    motion_of,
    repeats,
)
from av2tsam_cli.values import BoolArray, Float32Array, UInt8Array

LONGEST_S = 1.0
"""Maximum seconds for which masks are predicted, because unnoticed slow changes add up."""
ASTRAY_PX = 2.0
"""Distance, in pixels of the grey squares, from which the flow there and back is wrong."""
CHANGED_SHARE = 0.5
"""Difference between the moved and the new picture that counts as a change, as a share of the
contrast, which is the standard deviation of the grey levels."""
NOISE_LEVELS = 6.0
"""Minimum difference that counts as a change, of 255 levels; smaller ones are noise."""
CHANGED_PX = 5
"""Side of the blocks over which differences are averaged, so that noise does not count."""
NEAR_PX = 4
"""Pixels around a mask that count as near."""
MAX_NEAR_MASK = 0.2
"""Maximum share of doubtful pixels in and near a mask."""
MAX_OF_PICTURE = 0.05
"""Maximum share of doubtful pixels in the whole picture, not counting unchanged pixels."""


class KeyFrameChooser:
    """Decides, one frame after the other, which masks the network computes."""

    def __init__(self, level: float, tolerance: float | None) -> None:
        """Start with the first frame of a video.

        Args:
            level: The logit above which a pixel belongs to a mask.
            tolerance: See `mark_repeats`.
        """
        self._level, self._tolerance = level, tolerance
        self._last: _Prediction | None = None

    def choose(self, frame: ScheduledFrame) -> ScheduledFrame:
        """Decide about the next frame; if it is a key frame, `computed` must follow.

        Args:
            frame: The frame, with its motion, and marked as a key frame if it has a prompt.

        Returns:
            The frame, as a key frame, a repeat, or one to interpolate.
        """
        last, self._last = self._last, None
        if last is None or frame.segment != last.key.frame.segment:
            return frame
        if block_of(frame) != block_of(last.frame):
            return frame
        if repeats(frame, last.key.frame, self._tolerance):
            self._last = _Prediction.start(last.key, frame)
            return replace(frame, key=False, repeats=True)
        prediction = last.follow(frame)
        if not prediction.can_be_trusted(self._level):
            return frame
        self._last = prediction
        return replace(frame, key=False)

    def computed(self, key: KeyFrame) -> None:
        """Predict the following masks from the masks of a key frame."""
        self._last = _Prediction.start(key, key.frame)


@dataclass(frozen=True)
class _Prediction:
    """The masks of a frame, predicted from the masks of a key frame."""

    key: KeyFrame
    """The key frame."""
    since_s: float
    """Time of the last frame that looked like the key frame, in seconds."""
    frame: ScheduledFrame
    """The frame."""
    back: Float32Array = field(repr=False)
    """Flow from the frame to the key frame, float32, (SIDE_PX, SIDE_PX, 2)."""
    forth: Float32Array = field(repr=False)
    """Flow from the key frame to the frame."""

    @classmethod
    def start(cls, key: KeyFrame, frame: ScheduledFrame) -> _Prediction:
        """Predict the masks of the key frame itself, or of a frame that looks like it."""
        return cls(key, frame.frame.time_s, frame, no_flow(), no_flow())

    def follow(self, frame: ScheduledFrame) -> _Prediction:
        """Predict the masks of the next frame."""
        motion = motion_of(frame)
        return replace(
            self,
            frame=frame,
            back=join(motion.back, self.back),
            forth=join(self.forth, motion.forth),
        )

    def can_be_trusted(self, level: float) -> bool:
        """Return whether the prediction can be used instead of the network.

        Args:
            level: The logit above which a pixel belongs to a mask.
        """
        if self.frame.frame.time_s - self.since_s > LONGEST_S - CLOCK_SLACK_S:
            return False
        before, after = motion_of(self.key.frame).grey, motion_of(self.frame).grey
        doubtful = doubtful_pixels(before, after, self.back, self.forth)
        # The flow of noise is random, so only changed pixels count.
        if (doubtful & changed_pixels(before, after)).mean() > MAX_OF_PICTURE:
            return False
        masks = warp_all(self.key.values, self.back) > level
        return all(_share_near(mask, doubtful) <= MAX_NEAR_MASK for mask in masks if mask.any())


def doubtful_pixels(
    before: UInt8Array, after: UInt8Array, back: Float32Array, forth: Float32Array
) -> BoolArray:
    """Return the pixels of a frame whose masks cannot be predicted from an earlier frame.

    Args:
        before: The earlier frame in grey, uint8, (h, w).
        after: The later frame.
        back: Flow from the later to the earlier frame, float32, (h, w, 2).
        forth: Flow from the earlier to the later frame.

    Returns:
        bool, (h, w).
    """
    there_and_back = join(back, forth)
    astray = np.hypot(there_and_back[..., 0], there_and_back[..., 1]) > ASTRAY_PX
    return np.asarray(astray | changed_pixels(sample(before, back), after))


def changed_pixels(before: UInt8Array, after: UInt8Array) -> BoolArray:
    """Return the pixels, bool, (h, w), in which two grey pictures differ by more than noise."""
    differences = cv2.absdiff(after, before).astype(np.float32)
    threshold = max(NOISE_LEVELS, CHANGED_SHARE * float(before.std()))
    return np.asarray(cv2.blur(differences, (CHANGED_PX, CHANGED_PX)) > threshold)


def _share_near(mask: BoolArray, pixels: BoolArray) -> float:
    """Return the share of the pixels in and near a mask that are set in `pixels`, (h, w)."""
    height, width = pixels.shape
    enlarged = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    near = cv2.dilate(enlarged, np.ones((2 * NEAR_PX + 1, 2 * NEAR_PX + 1), np.uint8))
    return float(pixels[near > 0].mean())
