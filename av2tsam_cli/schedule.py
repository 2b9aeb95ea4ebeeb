"""What serves a frame, which frames get a mask of their own, and in what batches.

Streams in, streams out: nothing here knows of networks or files.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from av2tsam_cli.motion import KeyFrame, between
from av2tsam_cli.values import AudioWindow, Frame

if TYPE_CHECKING:
    import torch

SILENCE_DBFS = -60.0
"""Default level below which a second of sound counts as silent."""
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
) -> Generator[tuple[Frame, torch.Tensor | None], None, None]:
    """Give every frame logits, though the network made them for key frames only.

    Between two keys of one stretch the logits of both follow what moves, by optical flow. After the
    last key of a stretch its own do: another second has another sound, and where nothing is heard
    the mask is empty. Frames wait here for the next key, for less than a second of video.

    Args:
        decoded: Every frame in order, with the logits (1, h, w) of the keys and None for others.

    Yields:
        Every frame in order with its logits (1, h, w), or None where nothing is looked for.
    """
    key: KeyFrame | None = None
    waiting: list[Moment] = []
    for moment, logits in decoded:
        if moment.stretch is not None and logits is None:
            waiting.append(moment)
            continue
        upcoming = None if logits is None else KeyFrame(moment.frame, logits)
        ended = any(other.stretch != moment.stretch for other in waiting)
        yield from _between(key, waiting, None if ended else upcoming)
        key, waiting = upcoming, []
        yield moment.frame, logits
    yield from _between(key, waiting, None)


def _silent(window: AudioWindow, silence_dbfs: float | None) -> bool:
    return silence_dbfs is not None and window.level_dbfs < silence_dbfs


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
) -> Generator[tuple[Frame, torch.Tensor], None, None]:
    for moment in waiting:
        if before is None:
            raise ValueError("the first frame of a stretch must be a key")
        yield moment.frame, between(moment.frame, before, after)
