"""Write a table of the frames, with their times and the properties of their masks."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from av2tsam_cli.files import atomic_file, write_errors
from av2tsam_cli.outputs.part import WrittenPart, numbered
from av2tsam_cli.values import BoolArray, MaskedFrame

COLUMNS = (
    "frame",
    "time_s",
    "source_frame",
    "origin",
    "level_dbfs",
    "name",
    "area_px",
    "box_x",
    "box_y",
    "box_width",
    "box_height",
    "centroid_x",
    "centroid_y",
    "score",
)
"""The columns, which docs/datasets.md describes."""

Row = tuple[str | int, ...]


class FrameTable:
    """Write a CSV table of the frames; the file gets its name when it is complete.

    Each frame has a row for its whole mask, with an empty name, and a row for each named source in
    view.
    """

    def __init__(self, path: Path, *, first_frame: int, overwrite: bool) -> None:
        """Nothing is created before the writer is entered.

        Args:
            path: The file.
            first_frame: Number of the first frame in the input, from 0.
            overwrite: Whether an existing file is replaced.
        """
        self.path, self.first_frame, self.overwrite = path, first_frame, overwrite
        self.outputs: tuple[Path, ...] = (path,)
        self._open = ExitStack()

    def write(self, masked: MaskedFrame) -> None:
        """Write the rows of the next frame.

        Raises:
            Av2tsamError: The file cannot be written.
        """
        frame, level = masked.frame, masked.level_dbfs
        common = (
            frame.index,
            f"{frame.time_s:.6f}",
            self.first_frame + frame.index,
            masked.origin,
            "" if level is None else f"{level:.1f}",
        )
        with write_errors(self.path):
            self._rows.writerows((*common, *row) for row in _masks(masked))

    def append(self, parts: Sequence[WrittenPart]) -> None:
        """Add the rows of all parts, and renumber them."""
        with write_errors(self.path):
            for first, part in numbered(parts):
                with part.rows.open(encoding="utf-8", newline="") as file:
                    rows = csv.reader(file)
                    next(rows)
                    for index, time_s, source_frame, *row in rows:
                        number = self.first_frame + first + int(source_frame)
                        self._rows.writerow((first + int(index), time_s, number, *row))

    def __enter__(self) -> Self:
        with write_errors(self.path), ExitStack() as opened:
            part = opened.enter_context(atomic_file(self.path, overwrite=self.overwrite))
            file = opened.enter_context(part.open("w", encoding="utf-8", newline=""))
            self._rows = csv.writer(file, lineterminator="\n")
            self._rows.writerow(COLUMNS)
            self._open = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with write_errors(self.path):
            self._open.__exit__(kind, error, trace)


def _masks(masked: MaskedFrame) -> Iterator[Row]:
    """Yield the name of each mask of a frame, with its area, position and score."""
    yield "", *_measure(masked.mask, masked.score)
    if (sources := masked.sources) is not None:
        for label, name in sources.in_view:
            yield name, *_measure(sources.labels == label, sources.scores[label - 1])


def _measure(mask: BoolArray, score: float) -> Row:
    """Return the area, the box, the centroid and the score of a mask; "" if it is empty."""
    moments = cv2.moments(mask.view(np.uint8), binaryImage=True)
    area = round(moments["m00"])
    if area == 0:
        return 0, *([""] * 7)
    centroid = moments["m10"] / area, moments["m01"] / area
    box = cv2.boundingRect(mask.view(np.uint8))
    return area, *box, *(f"{each:.2f}" for each in centroid), f"{score:.3f}"
