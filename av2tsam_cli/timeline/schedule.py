"""Which audio window goes with a frame, which masks are computed, and in what batches.

Functions from iterators to iterators, independent of networks and files.
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
"""Seconds by which rounding can move a time below the clock tick that it stands for."""
BLOCK_S = 4
"""Every so many seconds of the presentation, the mask of the first frame is computed, in a new
batch. So masks do not depend on what was scheduled earlier, and a part of a video can be segmented
on its own."""


@dataclass(frozen=True)
class ScheduledFrame:
    """One frame, the audio window that it falls into, and whether its mask is computed."""

    frame: Frame
    """The frame."""
    window: AudioWindow | None
    """The second of audio around it; None if there is no audio, if it is silent or nothing with a
    name is heard, or with a text prompt."""
    segment: int | None
    """Frames of one segment belong to one shot and share a prompt: an audio window, or the text
    prompt. Increases with each window and each shot. None without a prompt: the mask is empty."""
    key: bool
    """Whether the network computes this frame's mask. Always False without a prompt."""
    repeats: bool = False
    """Whether the frame reuses the mask of its segment's last key frame, which it looks like."""
    level_dbfs: float | None = None
    """RMS level of that second, also of a silent one; None without audio."""
    motion: Motion | None = None
    """How the picture moved since the frame before; None if every mask is computed or reused."""


@dataclass(frozen=True)
class KeyFrame:
    """A frame with its mask logits."""

    frame: ScheduledFrame
    """The frame."""
    logits: torch.Tensor = field(repr=False)
    """Mask logits, (K, h, w), any float dtype, on any device, over the frame squashed to a square.
    K is the number of sources that have a mask of their own."""

    @cached_property
    def values(self) -> Float32Array:
        """The logits as an array, float32, (K, h, w)."""
        return cast(Float32Array, self.logits.float().cpu().numpy())

    @property
    def time_s(self) -> float:
        """Time of the frame in seconds."""
        return self.frame.frame.time_s


def block_of(frame: ScheduledFrame) -> int:
    """Return the number of the block of BLOCK_S seconds that a frame falls into."""
    return math.floor((frame.frame.time_s + CLOCK_SLACK_S) / BLOCK_S)


def pair_with_audio(
    frames: Iterable[Frame], windows: Iterable[AudioWindow], silence_dbfs: float | None
) -> Generator[ScheduledFrame, None, None]:
    """Pair each frame with the audio window that it falls into.

    Args:
        frames: Frames in the order of their times.
        windows: Windows in the order of their times; they may start late or end early.
        silence_dbfs: Windows below this level count as silent; None disables the check. Windows
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

    The first frame of each segment and of each second stays a key frame.

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

    Each frame is compared with the last one that stayed a key frame, not with its neighbour, so
    that slow changes add up.

    Args:
        frames: All frames, in order, with the key frames marked.
        tolerance: Largest `difference` that counts as none, in levels of 0 to 255; None for no
            repeats.
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
    """Compute how the picture moved between consecutive frames with a prompt."""
    motion: Motion | None = None
    for each in frames:
        motion = None if each.segment is None else motion_since(motion, each.frame)
        yield replace(each, motion=motion)


def batches(
    frames: Iterable[ScheduledFrame], size: int, most_bytes: int | None = None
) -> Iterator[list[ScheduledFrame]]:
    """Group consecutive frames: at most `size` key frames, at most twice as many frames in all.

    If `most_bytes` is given, their pixels have at most so many bytes, or there is only one frame.
    Frames of a batch have one size and are in one block. Frames with and without a prompt are not
    mixed, so that a long silence does not delay frames whose masks can be computed.
    """
    batch: list[ScheduledFrame] = []
    for each in frames:
        most = max(1, most_bytes // each.frame.nbytes) if most_bytes else None
        if batch and (len(batch) == most or not _fits(batch, each, size)):
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


def logits_over_time(
    computed: Iterable[tuple[ScheduledFrame, torch.Tensor | None]],
) -> Generator[tuple[ScheduledFrame, torch.Tensor | None], None, None]:
    """Give every frame with a prompt logits, given those of the key frames.

    A repeat has the logits of its key frame. Between two key frames of one segment, the logits of
    both are moved along the optical flow, from frame to frame; after the last key frame of a
    segment, those of that one. Frames wait for the next key frame, which takes at most a second of
    video.

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
    """Return whether a window is silent, or no source is heard in it."""
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
    """Move the logits of the key frames along the flow, and weight them by closeness in time."""
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
        raise ValueError("frames between key frames must have passed `add_motion`")
    return frame.motion


def _paths(steps: Iterable[Float32Array]) -> list[Float32Array]:
    """Return the flow along the first step, the second and then the first, and so on."""
    return list(accumulate(steps, lambda path, step: join(step, path)))
