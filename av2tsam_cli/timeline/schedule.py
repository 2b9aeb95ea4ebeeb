"""Pair frames with audio windows, choose the masks to compute, and group frames into batches.

These are functions from iterators to iterators, independent of networks and files.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING, cast

import numpy as np

from av2tsam_cli.timeline.motion import Motion, difference, join, motion_since, warp_all
from av2tsam_cli.values import AudioWindow, Float32Array, Frame

if TYPE_CHECKING:
    import torch

CLOCK_SLACK_S = 1e-6
"""Tolerance, in seconds, for times that are rounded to just below their clock tick."""
BLOCK_S = 4
"""Length of blocks in seconds of the presentation. At the start of each block, a mask is computed
and a new batch begins, so that masks do not depend on earlier blocks and parts of a video can be
segmented separately."""


@dataclass(frozen=True)
class ScheduledFrame:
    """One frame with its audio window, and whether its mask is computed."""

    frame: Frame
    """The frame."""
    window: AudioWindow | None
    """The audio window around it; None without audio, if it is silent, if no named source is heard,
    or with a text prompt."""
    segment: int | None
    """Number of its segment: frames of one shot with the same prompt, which is an audio window or
    the text. It increases with each window and each shot. None without a prompt, so that the mask
    is empty."""
    key: bool
    """Whether the network computes this frame's mask. Always False without a prompt."""
    repeats: bool = False
    """Whether the frame looks like its segment's last key frame and reuses its mask."""
    level_dbfs: float | None = None
    """RMS level of the window, even if it is silent; None without audio."""
    motion: Motion | None = None
    """Motion since the previous frame; None if every mask is computed or reused."""


@dataclass(frozen=True)
class KeyFrame:
    """A frame with its mask logits."""

    frame: ScheduledFrame
    """The frame."""
    logits: torch.Tensor = field(repr=False)
    """Mask logits of K sources, (K, h, w), any float dtype, on any device, for the frame squashed
    to a square."""

    @cached_property
    def values(self) -> Float32Array:
        """The logits as an array, float32, (K, h, w)."""
        return cast(Float32Array, self.logits.float().cpu().numpy())

    @property
    def time_s(self) -> float:
        """Time of the frame in seconds."""
        return self.frame.frame.time_s


def block_of(frame: ScheduledFrame) -> int:
    """Return the index of a frame's block of BLOCK_S seconds."""
    return math.floor((frame.frame.time_s + CLOCK_SLACK_S) / BLOCK_S)


def pair_with_audio(
    frames: Iterable[Frame], windows: Iterable[AudioWindow], silence_dbfs: float | None
) -> Generator[ScheduledFrame, None, None]:
    """Pair each frame with the audio window at its time.

    Args:
        frames: Frames in the order of their times.
        windows: Windows in the order of their times; they may start late or end early.
        silence_dbfs: Level below which windows count as silent; None disables the check. Windows
            in which no source of a vocabulary is heard count as silent too.
    """
    upcoming = iter(windows)
    window = next(upcoming, None)
    for frame in frames:
        time_s = frame.time_s + CLOCK_SLACK_S
        while window is not None and window.end_s <= time_s:
            window = next(upcoming, None)
        if window is None or window.start_s > time_s:
            yield ScheduledFrame(frame, None, segment=None, key=False)
            continue
        level = window.level_dbfs
        if _has_nothing(window, silence_dbfs):
            yield ScheduledFrame(frame, None, segment=None, key=False, level_dbfs=level)
        else:
            segment = window.index + frame.shot
            yield ScheduledFrame(frame, window, segment=segment, key=True, level_dbfs=level)


def without_audio(frames: Iterable[Frame]) -> Generator[ScheduledFrame, None, None]:
    """Put all frames of a shot into one segment without audio, for a text prompt."""
    for frame in frames:
        yield ScheduledFrame(frame, None, segment=frame.shot, key=True)


def mark_keys(
    frames: Iterable[ScheduledFrame], rate: float | Fraction
) -> Generator[ScheduledFrame, None, None]:
    """Reduce the key frames to `rate` per second.

    The first frame of each segment and of each second remains a key frame.

    Args:
        frames: All frames, in order.
        rate: Masks per second.
    """
    last: tuple[int, int, int] | None = None
    for each in frames:
        if each.segment is None:
            last = None
            yield each
            continue
        time_s = each.frame.time_s + CLOCK_SLACK_S
        slot = (each.segment, math.floor(time_s), math.floor(time_s * rate))
        yield replace(each, key=slot != last)
        last = slot


def mark_repeats(
    frames: Iterable[ScheduledFrame], tolerance: float | None
) -> Generator[ScheduledFrame, None, None]:
    """Turn key frames that look like the last one of their segment and block into repeats.

    Each frame is compared with the last remaining key frame, not with the previous frame, so that
    slow changes add up.

    Args:
        frames: All frames, in order, with the key frames marked.
        tolerance: Maximum `difference` of a repeat, in levels of 0 to 255; None for no repeats.
    """
    last: ScheduledFrame | None = None
    for each in frames:
        if each.key and last is not None and repeats(each, last, tolerance):
            yield replace(each, key=False, repeats=True)
            continue
        last = each if each.key else last
        yield each


def repeats(frame: ScheduledFrame, key: ScheduledFrame, tolerance: float | None) -> bool:
    """Return whether a frame looks like a key frame of its block; see `mark_repeats`."""
    if tolerance is None or frame.segment != key.segment or block_of(frame) != block_of(key):
        return False
    return difference(frame.frame.rgb, key.frame.rgb) <= tolerance


def add_motion(frames: Iterable[ScheduledFrame]) -> Generator[ScheduledFrame, None, None]:
    """Compute the motion between consecutive frames with a prompt."""
    motion: Motion | None = None
    for each in frames:
        motion = None if each.segment is None else motion_since(motion, each.frame)
        yield replace(each, motion=motion)


def batches(
    frames: Iterable[ScheduledFrame], size: int, max_bytes: int | None = None
) -> Iterator[list[ScheduledFrame]]:
    """Group consecutive frames into batches.

    The frames of a batch have the same size and are in the same block. Frames with and without a
    prompt are not mixed, so that a long silence does not delay frames whose masks can be computed.

    Args:
        frames: All frames, in order.
        size: Maximum number of key frames in a batch; it has at most twice as many frames in total.
        max_bytes: Maximum bytes of the pixels in a batch with more than one frame; None for no
            limit.
    """
    batch: list[ScheduledFrame] = []
    for each in frames:
        max_frames = max(1, max_bytes // each.frame.nbytes) if max_bytes else None
        if batch and (len(batch) == max_frames or not _fits(batch, each, size)):
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


def logits_over_time(
    computed: Iterable[tuple[ScheduledFrame, torch.Tensor | None]],
) -> Generator[tuple[ScheduledFrame, torch.Tensor | None], None, None]:
    """Compute the logits of all frames with a prompt from the logits of the key frames.

    Repeats get the logits of their key frame. Between two key frames of one segment, the logits of
    both are moved along the optical flow, from frame to frame, and mixed; after the last key frame
    of a segment, only its logits are moved. Frames wait for the next key frame, at most for a
    second of video.

    Args:
        computed: All frames in order, with the logits (K, h, w) of key frames and None for others.

    Yields:
        All frames in order with their logits (K, h, w); None without a prompt.
    """
    key: KeyFrame | None = None
    waiting: list[ScheduledFrame] = []
    for each, own_logits in computed:
        logits = key.logits if each.repeats and key is not None else own_logits
        if each.segment is not None and logits is None:
            waiting.append(each)
            continue
        next_key = None if logits is None else KeyFrame(each, logits)
        ended = any(other.segment != each.segment for other in waiting)
        yield from _interpolated(key, waiting, None if ended else next_key)
        key, waiting = next_key, []
        yield each, logits
    yield from _interpolated(key, waiting, None)


def _has_nothing(window: AudioWindow, silence_dbfs: float | None) -> bool:
    """Return whether a window is silent, or has no sources."""
    return window.is_silent(silence_dbfs) or window.sources == ()


def _fits(batch: list[ScheduledFrame], frame: ScheduledFrame, size: int) -> bool:
    first = batch[0]
    return (
        (first.segment is None) == (frame.segment is None)
        and block_of(first) == block_of(frame)
        and first.frame.rgb.shape == frame.frame.rgb.shape
        and len(batch) < (2 * size if first.segment is not None else size)
        and sum(other.key for other in batch) + frame.key <= size
    )


def _interpolated(
    before: KeyFrame | None, waiting: Sequence[ScheduledFrame], after: KeyFrame | None
) -> Generator[tuple[ScheduledFrame, torch.Tensor], None, None]:
    """Move the logits of the key frames along the flow, and weight them by proximity in time."""
    if not waiting:
        return
    if before is None:
        raise ValueError("the first frame of a segment must be a key frame")
    following = [] if after is None else [*waiting[1:], after.frame]
    back = _paths(motion_of(each).back for each in waiting)
    forth = _paths(motion_of(each).forth for each in reversed(following))
    for each, from_before, from_after in zip_longest(waiting, back, reversed(forth)):
        values = warp_all(before.values, from_before)
        if after is not None:
            span_s = after.time_s - before.time_s
            weight = (each.frame.time_s - before.time_s) / span_s if span_s > 0 else 0.0
            values += np.float32(weight) * (warp_all(after.values, from_after) - values)
        yield each, before.logits.new_tensor(values)


def motion_of(frame: ScheduledFrame) -> Motion:
    """Return the motion of a frame that has one."""
    if frame.motion is None:
        raise ValueError("frames between key frames need motion; call `add_motion`")
    return frame.motion


def _paths(steps: Iterable[Float32Array]) -> list[Float32Array]:
    """Return the compositions of the first step, the first two steps, and so on."""
    return list(accumulate(steps, lambda path, step: join(step, path)))
