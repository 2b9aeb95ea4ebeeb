"""What an evaluation leaves on the disk: a line per video, its masks, a sheet of examples.

Letters: T frames of a video, H, W size of its masks.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import cv2
import numpy as np

from av2tsam_cli.data.avsbench import BoolArray, Clip, read_frames
from av2tsam_cli.errors import UsageError
from av2tsam_cli.evaluation.evaluate import Masked
from av2tsam_cli.evaluation.evaluation import Evaluation, VideoResult
from av2tsam_cli.inference.distributed import Processes
from av2tsam_cli.outputs.overlay import draw_overlay
from av2tsam_cli.outputs.png import PNG_OPTIONS
from av2tsam_cli.outputs.staging import (
    discard,
    make_folders,
    publish,
    staging_path,
    writing,
)
from av2tsam_cli.values import UInt8Array

EXAMPLES = 4
"""Videos at either end of the scores that the sheet shows."""
CELL_PX = 160
"""Height of a frame on the sheet."""
TITLE_PX = 22
"""Height of the line above a video's frames."""
TRUTH_COLOUR = (90, 220, 255)
"""RGB of the contour around what should be found."""
COLUMNS = ("video", "category", "frames", "silent_frames", "miou", "f_score")
NEGATIVE_COLUMNS = ("negative_miou", "negative_f_score", "fpr", "negative_frames_found")


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace a file unasked.

    Raises:
        UsageError: Something of that name exists, or is no file.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; pass --overwrite to replace it")


def write_file(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a file beside its place, then move it there.

    Raises:
        Av2tsamError: It cannot be written; nothing is left behind.
    """
    part = staging_path(path)
    try:
        with writing(path):
            make_folders(path.parent)
            part.write_bytes(content)
            publish(part, path, overwrite=overwrite)
    finally:
        discard(part)


def video_table(evaluation: Evaluation) -> bytes:
    """A CSV with a line per video, in the order of the data set."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    negative = evaluation.results[0].gated.negative is not None
    table.writerow(COLUMNS + NEGATIVE_COLUMNS if negative else COLUMNS)
    table.writerows(_line(result) for result in evaluation.results)
    return text.getvalue().encode()


def _line(result: VideoResult) -> list[object]:
    score, negative = result.gated.original, result.gated.negative
    line: list[object] = [score.name, score.category or "", score.frames, result.silent_frames]
    line += [score.miou, score.f_score]
    if negative is not None:
        line += [negative.score.miou, negative.score.f_score]
        line += [negative.found, negative.frames_found]
    return line


class MaskTree:
    """A folder of masks in AVSBench's layout, as its `gt_masks`; complete or not there at all."""

    def __init__(self, folder: Path, part: Path) -> None:
        self.folder = folder
        self.part = part

    @classmethod
    def shared(cls, folder: Path, processes: Processes) -> Self:
        """The folder that several processes fill together."""
        return cls(folder, processes.gather(staging_path(folder))[0])

    @staticmethod
    def check(folder: Path) -> None:
        """Refuse to mix the masks with other files.

        Raises:
            UsageError: The folder exists and is not empty, or is no folder.
        """
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise UsageError(f"{folder}: exists; choose a new folder with --save-masks")

    def add(self, one: Masked) -> None:
        """Write the masks of a video, 255 where something was found.

        Raises:
            Av2tsamError: They cannot be written.
        """
        with writing(self.folder):
            for second, mask in zip(one.result.clip.labelled, one.masks.numpy(), strict=True):
                path = self.part / mask_place(one.result.clip, second)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_png(mask.view(np.uint8) * np.uint8(255)))

    def publish(self) -> None:
        """Give the finished folder its name."""
        with writing(self.folder):
            publish(self.part, self.folder, overwrite=True)

    def discard(self) -> None:
        """Remove what was not published."""
        discard(self.part)


def mask_place(clip: Clip, second: int) -> Path:
    """Where AVSBench keeps a mask, below `gt_masks` (S4, MS3) or the data folder (semantic)."""
    mask = clip.masks[second]
    if mask is None:
        raise ValueError(f"second {second} of {clip.name} is not labelled")
    return Path(*mask.parts[-3 if clip.subset == "ms3" else -4 :])


def pick_examples(results: Sequence[VideoResult]) -> list[VideoResult]:
    """The worst videos and the best, worst first, each once.

    With negative sound those are worst in which most was found.
    """
    ranked = sorted(results, key=lambda result: (_merit(result), result.index))
    count = min(EXAMPLES, (len(ranked) + 1) // 2)
    return [*ranked[:count], *ranked[max(count, len(ranked) - count) :]]


def _merit(result: VideoResult) -> float:
    negative = result.gated.negative
    return result.gated.original.miou if negative is None else 1.0 - negative.found


def draw_sheet(examples: Sequence[Masked]) -> bytes:
    """A PNG with a row per video: what was found is highlighted, what should be is outlined.

    Args:
        examples: The videos, in the order of the rows.
    """
    rows = [_row(one) for one in examples]
    width = max(row.shape[1] for row in rows)
    sheet = np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
    return _png(cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def _row(one: Masked) -> UInt8Array:
    clip, negative = one.result.clip, one.result.gated.negative
    frames = read_frames(clip, clip.labelled)
    truth = one.samples[0].masks.numpy()
    if negative is not None:  # nothing in the picture sounds
        truth = np.zeros_like(truth)
    found = one.masks.numpy()
    cells = np.hstack([_cell(*what) for what in zip(frames, found, truth, strict=True)])
    title = np.zeros((TITLE_PX, cells.shape[1], 3), np.uint8)
    line = _title(one.result)
    cv2.putText(title, line, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235,) * 3, 1, cv2.LINE_AA)
    return np.vstack([title, cells])


def _title(result: VideoResult) -> str:
    score, negative = result.gated.original, result.gated.negative
    figures = f"mIoU {score.miou:.3f}  F {score.f_score:.3f}"
    if negative is not None:
        figures = f"found {negative.found:.1%}"
    return f"{figures}  {score.name}  {score.category or ''}"


def _cell(rgb: UInt8Array, found: BoolArray, truth: BoolArray) -> UInt8Array:
    """One frame of the sheet, (CELL_PX, w, 3) RGB."""
    picture = draw_overlay(rgb, np.ascontiguousarray(found)).copy()
    outlines, _ = cv2.findContours(
        np.ascontiguousarray(truth, np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(picture, outlines, -1, TRUTH_COLOUR, 1, cv2.LINE_AA)
    height, width = rgb.shape[:2]
    size = (max(1, round(width * CELL_PX / height)), CELL_PX)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _png(picture: UInt8Array) -> bytes:
    """A picture in OpenCV's channel order as a PNG."""
    _, data = cv2.imencode(".png", picture, PNG_OPTIONS)
    return bytes(data.data)
