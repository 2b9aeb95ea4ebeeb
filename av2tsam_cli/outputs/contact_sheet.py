"""Draw contact sheets: one picture with frames of a video in which sources are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log, log2
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from av2tsam_cli.outputs.labels import fitted
from av2tsam_cli.outputs.names import colour_of
from av2tsam_cli.outputs.overlay import overlay_drawer
from av2tsam_cli.outputs.part import WrittenPart, numbered
from av2tsam_cli.outputs.spans import Spans
from av2tsam_cli.outputs.summary_file import SummaryFile
from av2tsam_cli.segment_options import LookOptions
from av2tsam_cli.values import (
    Frame,
    FrameSummary,
    MaskedFrame,
    Pixels,
    SourceMasks,
    UInt8Array,
    VideoStream,
)

SHOWN = 12
"""Number of frames on a contact sheet, if the video has as many."""
LONG_SIDE_PX = 400
"""Longer side of each frame, as displayed."""
SPANS_PER_FRAME = 4
"""Maximum number of time spans per frame to choose it from; there are at least half as many."""
SHEET_ASPECT = 4 / 3
"""Target for the width of the sheet over its height."""
PAPER_RGB, INK_RGB, FAINT_RGB = (18, 18, 22), (238, 238, 242), (160, 160, 170)
GAP_PX, TEXT_PX, TITLE_PX = 16, 16, 22


@dataclass(frozen=True)
class Moment:
    """A candidate frame, at reduced size."""

    masked: MaskedFrame
    """The frame with its masks."""
    rank: tuple[int, int]
    """Number of sources in view, then their area times their score, on a logarithmic scale."""

    @property
    def names(self) -> dict[str, int]:
        """The names in view, with the numbers of their sources."""
        if (sources := self.masked.sources) is None:
            return {}
        return {name: sources.numbers[label - 1] for label, name in sources.in_view}


@dataclass
class Moments:
    """Chooses frames while a video is processed; memory does not depend on its length.

    The time is divided into equal spans, and the frame with the highest rank is kept of each.
    """

    video: VideoStream
    """The video."""
    look: LookOptions
    """How overlays look."""
    shown: int = SHOWN
    """Number of frames to choose."""

    def __post_init__(self) -> None:
        self._spans: Spans[Moment] = Spans(SPANS_PER_FRAME * self.shown, _higher_ranked)

    def add(self, masked: MaskedFrame) -> None:
        """Consider the next frame."""
        rank = _rank(masked.summary)
        best = self._spans.at(masked.frame.time_s)
        if best is None or rank > best.rank:
            self._spans.add(masked.frame.time_s, Moment(self._reduced(masked), rank))

    def _reduced(self, masked: MaskedFrame) -> MaskedFrame:
        """Return a frame with its masks, resized to the size on the sheet."""
        width, height = self.video.width * float(self.video.sample_aspect), self.video.height
        scale = LONG_SIDE_PX / max(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        labels = masked.mask.view(np.uint8) if masked.sources is None else masked.sources.labels
        labels = cast("UInt8Array", cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST))
        reduced = replace(
            masked,
            frame=Frame(
                cast(
                    "UInt8Array", cv2.resize(masked.frame.rgb, size, interpolation=cv2.INTER_AREA)
                ),
                masked.frame.time_s,
                masked.frame.index,
            ),
            mask=labels > 0,
            sources=None if masked.sources is None else replace(masked.sources, labels=labels),
            soft_mask=None,
            soft_edges=None,
        )
        if self.look.style == "heat":
            probability = cv2.resize(masked.probability, size, interpolation=cv2.INTER_AREA)
            reduced = replace(reduced, soft_mask=probability.copy)
        return reduced

    def append(self, parts: Sequence[WrittenPart]) -> None:
        """Consider the frames of all parts of a video; `MomentFiles` has stored the candidates."""
        spans: Spans[tuple[FrameSummary, Path]] = Spans(
            self._spans.max_count,
            lambda one, other: other if _rank(other[0]) > _rank(one[0]) else one,
        )
        for first, part in numbered(parts):
            for frame in part.read_summaries(first):
                spans.add(frame.time_s, (frame, part.moment(frame.index - first)))
        for frame, path in spans.values():
            self._spans.add(frame.time_s, Moment(_read_moment(path, frame), _rank(frame)))

    def values(self) -> list[Moment]:
        """Return the best frame of each span of time."""
        return self._spans.values()

    def chosen(self) -> list[Moment]:
        """Return the chosen frames in order: those with a mask first, spread evenly over time."""
        moments = self._spans.values()
        masked = [moment for moment in moments if moment.rank > (0, 0)]
        empty = [moment for moment in moments if moment.rank <= (0, 0)]
        chosen = _spread(masked, self.shown)
        chosen += _spread(empty, self.shown - len(chosen))
        return sorted(chosen, key=lambda moment: moment.masked.frame.index)

    def draw(self, moment: Moment) -> Pixels:
        """Draw the overlay of a chosen frame, (h, w, 3), RGB."""
        # A new drawer, so that nothing fades from one frame to the next.
        return overlay_drawer(self.look)(moment.masked)


def _higher_ranked(one: Moment, other: Moment) -> Moment:
    return other if other.rank > one.rank else one


def _rank(frame: FrameSummary) -> tuple[int, int]:
    seen = int(frame.area_px > 0) if frame.sources is None else len(frame.in_view)
    size = frame.area_px * frame.score
    # In steps of a fifth, because resizing every frame with a slightly larger mask takes time.
    return seen, round(4 * log2(1 + size))


def _spread(moments: Sequence[Moment], count: int) -> list[Moment]:
    """Return `count` moments at equal distances, or all if there are not more."""
    if len(moments) <= count:
        return list(moments)
    return [moments[int((k + 0.5) * len(moments) / count)] for k in range(count)]


def _clock(time_s: float) -> str:
    """Return a time as 1:02.50 or 1:00:02.50."""
    seconds, hundredths = divmod(round(time_s * 100), 100)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{seconds:02d}.{hundredths:02d}"


class MomentFiles:
    """Stores the candidate frames of a part of a video."""

    def __init__(self, part: WrittenPart, video: VideoStream, look: LookOptions) -> None:
        self.part, self.moments = part, Moments(video, look)

    def write(self, masked: MaskedFrame) -> None:
        """Consider the next frame."""
        self.moments.add(masked)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for moment in self.moments.values() if error is None else ():
            masked = moment.masked
            labels = masked.mask if masked.sources is None else masked.sources.labels
            arrays: dict[str, npt.NDArray[np.generic]] = {"rgb": masked.frame.rgb}
            arrays["labels"] = labels.astype(np.uint8)
            if masked.soft_mask is not None:
                arrays["probability"] = masked.probability
            path = self.part.moment(masked.frame.index)
            path.parent.mkdir(exist_ok=True)
            np.savez(path, allow_pickle=False, **arrays)


def _read_moment(path: Path, frame: FrameSummary) -> MaskedFrame:
    """Read a frame that `MomentFiles` stored, given its summary."""
    with np.load(path) as arrays:
        labels, rgb = arrays["labels"], arrays["rgb"]
        probability = arrays.get("probability")
    sources = None
    if (areas := frame.sources) is not None:
        names, numbers, scores = (
            tuple(getattr(each, name) for each in areas) for name in ("name", "number", "score")
        )
        sources = SourceMasks(names, labels, scores, numbers)
    return MaskedFrame(
        Frame(rgb, frame.time_s, frame.index),
        labels > 0,
        frame.origin,
        sources,
        score=frame.score,
        level_dbfs=frame.level_dbfs,
        soft_mask=None if probability is None else probability.copy,
    )


class ContactSheet(SummaryFile):
    """Write a picture with frames of a video, their times and names, when the video has ended."""

    def __init__(
        self, path: Path, *, title: str, video: VideoStream, look: LookOptions, overwrite: bool
    ) -> None:
        """Choose frames of a video.

        Args:
            path: The file, a PNG or a JPEG.
            title: The text above the frames.
            video: The video.
            look: How overlays look.
            overwrite: Whether an existing file is replaced.
        """
        super().__init__(path, overwrite=overwrite)
        self.title = title
        self.moments = Moments(video, look)

    def write(self, masked: MaskedFrame) -> None:
        """Consider the next frame."""
        self.moments.add(masked)

    def append(self, parts: Sequence[WrittenPart]) -> None:
        """Consider the frames of all parts."""
        self.moments.append(parts)

    def finish(self, part: Path) -> None:
        """Draw the sheet."""
        picture = Image.fromarray(draw_sheet(self.moments, self.title))
        png = self.path.suffix.lower() == ".png"
        picture.save(part, "PNG" if png else "JPEG", quality=90)


def draw_sheet(moments: Moments, title: str) -> UInt8Array:
    """Return the chosen frames in rows, with the time and the names under each, (H, W, 3), RGB."""
    chosen = moments.chosen()
    pictures = [moments.draw(moment) for moment in chosen]
    height, width = pictures[0].shape[:2]
    across, down = width + GAP_PX, height + GAP_PX + 2 * TEXT_PX
    columns = _columns(len(pictures), across / down)
    rows = ceil(len(pictures) / columns)
    top = TITLE_PX + 2 * GAP_PX
    sheet = Image.new("RGB", (columns * across + GAP_PX, top + rows * down), PAPER_RGB)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TITLE_PX)
    room = sheet.width - 2 * GAP_PX
    draw.text((GAP_PX, GAP_PX), fitted(title, font, room), INK_RGB, font=font, anchor="lt")
    for index, (moment, picture) in enumerate(zip(chosen, pictures, strict=True)):
        left, upper = GAP_PX + index % columns * across, top + index // columns * down
        sheet.paste(Image.fromarray(picture), (left, upper))
        _caption(draw, moment, moments, (left, upper + height + TEXT_PX // 2), width)
    return np.asarray(sheet)


def _columns(count: int, aspect: float) -> int:
    """Return the number of columns for an aspect near SHEET_ASPECT and few empty cells."""

    def cost(columns: int) -> float:
        rows = ceil(count / columns)
        return abs(log(columns * aspect / rows / SHEET_ASPECT)) + (rows * columns - count) / count

    return min(range(1, count + 1), key=cost)


def _caption(
    draw: ImageDraw.ImageDraw, moment: Moment, moments: Moments, corner: tuple[int, int], width: int
) -> None:
    """Write the time and the names in view, with their colours if the overlay has them."""
    font = ImageFont.load_default(TEXT_PX)
    (left, top), right = corner, corner[0] + width
    base = top + TEXT_PX * 3 // 4
    time = _clock(moment.masked.frame.time_s)
    draw.text((left, base), time, INK_RGB, font=font, anchor="ls")
    left += round(font.getlength(time)) + TEXT_PX
    for name, number in moment.names.items():
        if moments.look.names:
            box = left, base - TEXT_PX * 2 // 3, left + TEXT_PX // 2, base
            draw.rectangle(box, colour_of(number))
            left += TEXT_PX // 2 + 5
        text = fitted(name, font, right - left)
        if not text:
            return
        draw.text((left, base), text, FAINT_RGB, font=font, anchor="ls")
        left += round(font.getlength(text)) + TEXT_PX
