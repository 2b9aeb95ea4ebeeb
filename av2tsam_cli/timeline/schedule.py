"""What serves a frame, which frames get a mask of their own, and in what batches.

Streams in, streams out: nothing here knows of networks or files.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from av2tsam_cli.timeline.motion import KeyFrame, between, difference
from av2tsam_cli.values import AudioWindow, Frame

if TYPE_CHECKING:
    import torch

CLOCK_SLACK_S = 1e-6
"""Seconds by which a float time may fall short of the tick that it stands for."""


@dataclass(frozen=True)
class Moment:
    """One frame with the sound that serves it, or none where a phrase does."""

    frame: Frame
    """The frame."""
    window: AudioWindow | None
    """The second of sound around it; None where nothing is heard, or nothing is listened to."""
    stretch: int | None
    """Frames of one stretch have one prompt: the window's index, 0 throughout for a phrase. None
    where there is nothing to look for: the mask is empty."""
    key: bool
    """Whether the network makes this frame's mask. Always False without a stretch."""
    repeats: bool = False
    """Whether its picture is that of the last key of its stretch: so is its mask."""


def hear(
    frames: Iterable[Frame], windows: Iterable[AudioWindow], silence_dbfs: float | None
) -> Generator[Moment, None, None]:
    """Join each frame with the window k = floor(time) that it falls into.

    Args:
        frames: Frames in the order of their times.
        windows: Windows in the order of their index; they may begin late or end early.
        silence_dbfs: A window below this level counts as not heard; None hears everything.
    """
    upcoming = iter(windows)
    window = next(upcoming, None)
    for frame in frames:
        wanted = math.floor(frame.time_s + CLOCK_SLACK_S)
        while window is not None and window.index < wanted:
            window = next(upcoming, None)
        heard = window if window is not None and window.index == wanted else None
        if heard is not None and _silent(heard, silence_dbfs):
            heard = None
        stretch = None if heard is None else heard.index
        yield Moment(frame, heard, stretch, key=heard is not None)


def look(frames: Iterable[Frame]) -> Generator[Moment, None, None]:
    """Frames in which a phrase is looked for: no sound, and one stretch from first to last."""
    for frame in frames:
        yield Moment(frame, None, stretch=0, key=True)


def mark_keys(moments: Iterable[Moment], rate: Fraction | None) -> Generator[Moment, None, None]:
    """Leave only `rate` keys a second; the first frame of a stretch and of a second is always one.

    Args:
        moments: Every frame, in order.
        rate: Masks per second; None makes one for every frame.
    """
    last: tuple[int, int, int] | None = None
    for moment in moments:
        if moment.stretch is None or rate is None:
            last = None
            yield moment
            continue
        time_s = moment.frame.time_s + CLOCK_SLACK_S
        slot = (moment.stretch, math.floor(time_s), math.floor(time_s * rate))
        yield replace(moment, key=slot != last)
        last = slot


def mark_repeats(
    moments: Iterable[Moment], tolerance: float | None
) -> Generator[Moment, None, None]:
    """Make keys that look like the last key of their stretch into repeats of it.

    A frame is compared with the last one that stayed a key, and not with its neighbour: slow
    changes add up until they count.

    Args:
        moments: Every frame, in order, with the keys marked.
        tolerance: Largest `difference` that counts as none, in levels of 0 to 255; with None there
            are no repeats.
    """
    if tolerance is None:
        yield from moments
        return
    last: Moment | None = None
    for moment in moments:
        if moment.key and last is not None and _repeats(moment, last, tolerance):
            yield replace(moment, key=False, repeats=True)
            continue
        last = moment if moment.key else last
        yield moment


def batches(moments: Iterable[Moment], size: int) -> Iterator[list[Moment]]:
    """Group consecutive moments: at most `size` keys, at most twice as many frames in all.

    Frames of one group have one size, and frames with a prompt are not mixed with others: a long
    silence flows on and never holds back frames whose masks could be made.
    """
    group: list[Moment] = []
    for moment in moments:
        if group and not _joins(group, moment, size):
            yield group
            group = []
        group.append(moment)
    if group:
        yield group


def logits_over_time(
    decoded: Iterable[tuple[Moment, torch.Tensor | None]],
) -> Generator[tuple[Moment, torch.Tensor | None], None, None]:
    """Give every frame logits, though the network made them for key frames only.

    Repeats have those of the key that they repeat, and are like keys to others: between two keys of
    one stretch the logits of both follow what moves, by optical flow. After the last key of a
    stretch its own do: another second has another sound, and where nothing is heard the mask is
    empty. Frames wait here for the next key, for less than a second of video.

    Args:
        decoded: Every frame in order, with the logits (1, h, w) of the keys and None for others.

    Yields:
        Every frame in order with its logits (1, h, w), or None where nothing is looked for.
    """
    key: KeyFrame | None = None
    waiting: list[Moment] = []
    for moment, made in decoded:
        logits = key.logits if moment.repeats and key is not None else made
        if moment.stretch is not None and logits is None:
            waiting.append(moment)
            continue
        upcoming = None if logits is None else KeyFrame(moment.frame, logits)
        ended = any(other.stretch != moment.stretch for other in waiting)
        yield from _between(key, waiting, None if ended else upcoming)
        key, waiting = upcoming, []
        yield moment, logits
    yield from _between(key, waiting, None)


def _silent(window: AudioWindow, silence_dbfs: float | None) -> bool:
    return silence_dbfs is not None and window.level_dbfs < silence_dbfs


def _repeats(moment: Moment, key: Moment, tolerance: float) -> bool:
    if moment.stretch != key.stretch:
        return False
    return difference(moment.frame.rgb, key.frame.rgb) <= tolerance


def _joins(group: list[Moment], moment: Moment, size: int) -> bool:
    first = group[0]
    return (
        (first.stretch is None) == (moment.stretch is None)
        and first.frame.rgb.shape == moment.frame.rgb.shape
        and len(group) < (2 * size if first.stretch is not None else size)
        and sum(other.key for other in group) + moment.key <= size
    )


def _between(
    before: KeyFrame | None, waiting: Sequence[Moment], after: KeyFrame | None
) -> Generator[tuple[Moment, torch.Tensor], None, None]:
    for moment in waiting:
        if before is None:
            raise ValueError("the first frame of a stretch must be a key")
        yield moment, between(moment.frame, before, after)
