"""Keep masks steady: smooth their logits over time, and remove brief gaps and appearances.

Letters: K sources of a frame, (h, w) size of the logits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING, TypeAlias, cast

import cv2
import numpy as np

from av2tsam_cli.timeline.motion import grey_square, sample, warp
from av2tsam_cli.timeline.schedule import CLOCK_SLACK_S, ScheduledFrame
from av2tsam_cli.values import AudioWindow, Float32Array, UInt8Array

if TYPE_CHECKING:
    import torch

Logits: TypeAlias = "torch.Tensor | None"
NamesOf = Callable[[AudioWindow | None], Sequence[str] | None]
Track = tuple[int, str | int]
"""Identifies a source in the frames that are smoothed together: the index of the shot, and the name
or, without names, the number of the piece of sound or of the window."""

LONGEST_GAP = 3
"""Maximum number of frames for which a mask may vanish. A mask that appears for fewer frames is
taken for an error."""
LONGEST_GAP_S = 0.2
"""Maximum duration of these frames in seconds; at low frame rates, there are fewer."""
PAST_SHARE, NEXT_SHARE = 0.5, 0.33
"""Shares of the smoothed logits of the previous frame, and of the logits of the next one. With
these values, the masks of the sample videos are as steady as the exact masks, and their IoU with
these increases."""
TRUSTED_LEVELS = 16.0
"""If a frame that was moved along the flow differs from its target by this many levels, of 0 to
255, the flow must be wrong, and the shares decrease by a factor of e."""
MOVING, STILL = 0.5, 0.85
"""Shares of the difference between two frames that remain after moving one along the flow. Up to
the first, the flow counts fully; from the second on, not at all, because the flow of noise is
random."""
MAX_LOGIT = 10.0
"""Limit of logits, so that one very certain frame does not outvote its neighbours."""
SIDE_PX = 128
"""Side of the square grey images for optical flow."""


def steady_logits(
    frames: Iterable[tuple[ScheduledFrame, Logits]], names_of: NamesOf, level: float
) -> Generator[tuple[ScheduledFrame, Logits], None, None]:
    """Smooth the logits of each source over time along the optical flow.

    A mask that vanishes for up to LONGEST_GAP frames is continued; a mask that appears for fewer
    frames is removed. Nothing is smoothed across a cut, or between different sources. A named
    source is the same as long as it is heard, an unnamed one within a piece of sound.

    Args:
        frames: All frames in order with their logits (K, h, w); None for empty masks.
        names_of: Returns the names of the K sources of a window, or None if they have none.
        level: The logit above which a pixel belongs to the mask.

    Yields:
        All frames in order with their logits, LONGEST_GAP frames later.
    """
    smoother = _Smoother(level)
    waiting: deque[_Item] = deque()
    for each, logits in frames:
        waiting.append(_read(each, logits, names_of(each.window), level))
        if len(waiting) > LONGEST_GAP:
            yield smoother.take(waiting)
    while waiting:
        yield smoother.take(waiting)


@dataclass(frozen=True)
class _Source:
    """One source in one frame, before smoothing."""

    values: Float32Array = field(repr=False)
    """Its logits, (h, w)."""
    visible: bool
    """Whether any pixel belongs to its mask."""


@dataclass(frozen=True)
class _Item:
    """One frame with its sources."""

    frame: ScheduledFrame
    """The frame."""
    logits: Logits = field(repr=False)
    """Its logits before smoothing, (K, h, w)."""
    sources: dict[Track, _Source] = field(repr=False)
    """Its K sources."""

    @property
    def time_s(self) -> float:
        """Time of the frame in seconds."""
        return self.frame.frame.time_s

    @property
    def interpolated(self) -> bool:
        """Whether the logits are interpolated between frames, and so already smooth."""
        return not (self.frame.key or self.frame.repeats)

    @cached_property
    def grey(self) -> UInt8Array:
        """The frame as a grey square, uint8, (SIDE_PX, SIDE_PX)."""
        return grey_square(self.frame.frame.rgb, SIDE_PX)


def _read(
    frame: ScheduledFrame, logits: Logits, names: Sequence[str] | None, level: float
) -> _Item:
    """Split the logits of a frame by source."""
    if logits is None:
        return _Item(frame, None, {})
    sources: Sequence[str | int] = names or ()
    if names is None and frame.window is not None:
        window = frame.window
        sources = (window.index if window.piece is None else window.piece,)
    arrays = np.clip(logits.float().cpu().numpy(), -MAX_LOGIT, MAX_LOGIT)
    found = {
        (frame.frame.shot, source): _Source(values, bool((values > level).any()))
        for source, values in zip(sources, arrays, strict=True)
    }
    return _Item(frame, logits, found)


@dataclass(frozen=True)
class _Motion:
    """Motion between a frame and the next one, on the grid of the logits."""

    flow: Float32Array = field(repr=False)
    """Offset of each cell of the later frame in the earlier one, in cells to the right and down,
    (h, w, 2)."""
    trust: Float32Array = field(repr=False)
    """How well the flow explains the later frame, (h, w), 0 to 1."""

    def to_later(self, values: Float32Array) -> Float32Array:
        """Move logits (h, w) from the earlier frame to the later one."""
        return warp(values, self.flow)

    def to_earlier(self, values: Float32Array) -> Float32Array:
        """Move logits (h, w) from the later frame to the earlier one.

        Neighbouring pixels move alike, so the negative flow is used in this direction.
        """
        return warp(values, -self.flow)

    def mix(self, values: Float32Array, moved: Float32Array, share: float) -> Float32Array:
        """Mix logits (h, w) with a share of moved logits, less where the flow is not trusted."""
        return values + np.float32(share) * self.trust * (moved - values)


class _Smoother:
    """Smooths one frame after the other."""

    def __init__(self, level: float) -> None:
        self._level = level
        self._last_grey: UInt8Array | None = None
        """The last frame as a grey square; None if no source has a mask in it."""
        self._smoothed: dict[Track, Float32Array] = {}
        """Smoothed logits (h, w) of the sources that have a mask in the last frame."""
        self._motions: dict[int, _Motion] = {}
        """Motion from the previous frame, by the index of the later frame."""
        self._finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def take(self, waiting: deque[_Item]) -> tuple[ScheduledFrame, Logits]:
        """Remove the first of the waiting frames and return it with its logits."""
        now = waiting.popleft()
        smoothed: dict[Track, Float32Array] = {}
        shown = []
        for track, source in now.sources.items():
            if self._has_mask(now, track, waiting):
                values = smoothed[track] = self._follow(now, track)
                values = self._anticipate(now, track, values, waiting)
                lost = source.visible and not (values > self._level).any()
                shown.append(source.values if lost else values)
            else:
                shown.append(np.minimum(source.values, self._level))
        self._motions.pop(now.frame.frame.index, None)
        self._smoothed, self._last_grey = smoothed, now.grey if smoothed else None
        if now.logits is None or not (smoothed or any(s.visible for s in now.sources.values())):
            return now.frame, now.logits
        return now.frame, now.logits.new_tensor(np.stack(shown))

    def _has_mask(self, now: _Item, track: Track, waiting: Iterable[_Item]) -> bool:
        """Return whether a source has a mask, considering the frames around."""
        until_s = now.time_s + LONGEST_GAP_S + CLOCK_SLACK_S
        near = takewhile(lambda item: track in item.sources and item.time_s <= until_s, waiting)
        visible = [item.sources[track].visible for item in (now, *near)]
        visible += [visible[-1]] * (LONGEST_GAP + 1 - len(visible))
        if track in self._smoothed:
            return any(visible)
        return visible[0] and sum(visible) >= LONGEST_GAP

    def _follow(self, now: _Item, track: Track) -> Float32Array:
        """Return the logits of a source, smoothed with the previous frames."""
        source, past = now.sources[track], self._smoothed.get(track)
        if past is None or self._last_grey is None or (now.interpolated and source.visible):
            return source.values
        if now.frame.repeats and source.visible:  # the picture stands still
            return source.values + np.float32(PAST_SHARE) * (past - source.values)
        motion = self._motion(self._last_grey, now, past.shape)
        moved = motion.to_later(past)
        return motion.mix(source.values, moved, PAST_SHARE) if source.visible else moved

    def _anticipate(
        self, now: _Item, track: Track, values: Float32Array, waiting: Sequence[_Item]
    ) -> Float32Array:
        """Return smoothed logits of a source that are also smoothed with the next frame."""
        following = waiting[0].sources.get(track) if waiting else None
        if following is None or not (now.sources[track].visible and following.visible):
            return values
        if now.interpolated or waiting[0].frame.repeats:
            return values
        motion = self._motion(now.grey, waiting[0], values.shape)
        return motion.mix(values, motion.to_earlier(following.values), NEXT_SHARE)

    def _motion(self, earlier: UInt8Array, later: _Item, size: tuple[int, ...]) -> _Motion:
        """Return the motion from a grey square to the next frame, on a grid of a size (h, w)."""
        index = later.frame.frame.index
        if index not in self._motions:
            self._motions[index] = _find_motion(self._finder, earlier, later.grey, size)
        return self._motions[index]


def _find_motion(
    finder: cv2.DISOpticalFlow, earlier: UInt8Array, later: UInt8Array, size: tuple[int, ...]
) -> _Motion:
    """Compute the motion between two grey squares, on a grid of a size (h, w)."""
    flow = finder.calc(later, earlier, None)
    wrong = cv2.absdiff(sample(earlier, flow), later)
    still = cv2.absdiff(earlier, later)
    height, width = size
    cells = np.array([width / SIDE_PX, height / SIDE_PX], np.float32)
    share = cv2.resize(_moving(wrong, still), (width, height))
    flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) * cells
    wrong = cv2.resize(wrong, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    return _Motion(flow * share[..., None], trust=np.exp(wrong / np.float32(-TRUSTED_LEVELS)))


def _moving(wrong: UInt8Array, still: UInt8Array) -> Float32Array:
    """Return where a flow explains the difference between frames, float32, 0 to 1, coarse grid.

    Args:
        wrong: The difference with the flow, (SIDE_PX, SIDE_PX).
        still: The difference without the flow.
    """
    coarse = (SIDE_PX // 4, SIDE_PX // 4)
    wrong, still = (
        cv2.resize(each, coarse, interpolation=cv2.INTER_AREA) for each in (wrong, still)
    )
    remaining = (cv2.blur(wrong.astype(np.float32), (5, 5)) + 0.25) / (
        cv2.blur(still.astype(np.float32), (5, 5)) + 0.25
    )
    return cast(Float32Array, np.clip((STILL - remaining) / (STILL - MOVING), 0, 1))
