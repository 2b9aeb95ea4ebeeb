"""Masks, overlays, mattes and cutouts as PNG images, one per frame, in a folder."""

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from av2tsam_cli.files import atomic_folder, write_errors
from av2tsam_cli.outputs.names import (
    SUMMARY_NAME,
    NameTable,
    colour_of,
    folder_names,
    number_labels,
)
from av2tsam_cli.outputs.overlay import Draw
from av2tsam_cli.outputs.part import WrittenPart, numbered, read_summaries
from av2tsam_cli.outputs.record import ResultRecord
from av2tsam_cli.values import Frame, FrameSummary, MaskedFrame, Pixels, UInt8Array

PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)
"""Twice as fast as the default, for 10 % larger files."""

NUMBERED = ".{}"
"""Temporary name of the folder for a source; no final folder name begins with a dot."""
PngFiles = Iterator[tuple[str, bytes]]
"""Paths in the output folder, with the contents of the files, or data to append to them."""


class Pictures(ABC):
    """The files of an output folder: what is written for each frame and at the end."""

    @abstractmethod
    def files(self, masked: MaskedFrame) -> PngFiles:
        """Yield the files of the next frame."""

    def skip(self, masked: MaskedFrame) -> None:  # noqa: B027 - most formats need none
        """Process a frame of an earlier part, without writing it."""

    def count(self, frame: FrameSummary) -> None:  # noqa: B027
        """Process the summary of the next written frame."""

    def rest(self) -> PngFiles:
        """Yield the remaining data after the last frame of a video or of a part."""
        yield from ()

    def append(self, part: Path, folder: Path, first: int) -> None:
        """Add the files of a part of the video to a folder.

        The files of the part remain, so that this can be repeated if it is interrupted.

        Args:
            part: The folder of the part, with frames numbered from 0.
            folder: The folder.
            first: Index of its first frame in the video.
        """
        for path in sorted(part.rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(part)
                target.parent.mkdir(exist_ok=True)
                if path.stem.isdecimal():
                    _link(path, target.with_stem(f"{int(path.stem) + first:06d}"))
                else:
                    with path.open("rb") as source, target.open("ab") as file:
                        shutil.copyfileobj(source, file)

    def finish(self, folder: Path, frames: int) -> None:  # noqa: B027
        """Write the files that describe the others, given the number of frames."""


def _link(path: Path, target: Path) -> None:
    """Create a hard link to a file, or a copy if the file system does not support links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


class PngPartWriter:
    """Write the PNGs, or the pieces of a data set, of a part of a video into a folder."""

    def __init__(self, part: WrittenPart, pictures: Pictures) -> None:
        self.pictures, self.folder = pictures, part.files

    def write(self, masked: MaskedFrame) -> None:
        """Write the images of one frame, see `PngWriter`."""
        _write(self.pictures.files(masked), self.folder)

    def skip(self, masked: MaskedFrame) -> None:
        """Process a frame of an earlier part, without writing it."""
        self.pictures.skip(masked)

    def __enter__(self) -> Self:
        self.folder.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            _write(self.pictures.rest(), self.folder)


def _write(files: PngFiles, folder: Path) -> None:
    """Write files, or append to them."""
    for name, content in files:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.write(content)


class PngWriter:
    """Write the PNGs, or the data set, of a video; the folder gets its name when complete."""

    def __init__(
        self,
        folder: Path,
        pictures: Pictures,
        *,
        overwrite: bool,
        record: ResultRecord | None = None,
    ) -> None:
        self.folder, self.pictures, self.overwrite = folder, pictures, overwrite
        self.record = record
        self.outputs: tuple[Path, ...] = (folder,)
        self._open = ExitStack()
        self._frames = 0

    def write(self, masked: MaskedFrame) -> None:
        """Write the images of one frame, `000000.png` for the one with index 0.

        Raises:
            Av2tsamError: An image cannot be written.
            UsageError: There are more names than the format can hold.
        """
        with write_errors(self.folder):
            _write(self.pictures.files(masked), self._part)
        self._count(masked.summary)

    def append(self, parts: Sequence[WrittenPart]) -> None:
        """Add the files of all parts of the video, in order."""
        with write_errors(self.folder):
            for first, part in numbered(parts):
                self.pictures.append(part.files, self._part, first)
            for frame in read_summaries(parts):
                self._count(frame)

    def _count(self, frame: FrameSummary) -> None:
        self._frames += 1
        self.pictures.count(frame)

    def __enter__(self) -> Self:
        with write_errors(self.folder):
            folder = atomic_folder(self.folder, overwrite=self.overwrite)
            self._part = self._open.enter_context(folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with write_errors(self.folder), self._open:
            if error is None:
                _write(self.pictures.rest(), self._part)
                self.pictures.finish(self._part, self._frames)
                if self.record is not None:
                    self.record.write(self._part)
            self._open.pop_all().__exit__(kind, error, trace)


class Masks(Pictures):
    """The mask of each frame as 8-bit grey levels: 255 inside, 0 outside."""

    def files(self, masked: MaskedFrame) -> PngFiles:
        """Yield one image."""
        yield png_name(masked.frame), encode(_grey(masked.mask))


class Drawings(Pictures):
    """Each frame with its drawing."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw

    def files(self, masked: MaskedFrame) -> PngFiles:
        """Yield one image."""
        image = self.draw(masked)
        if image.ndim == 3:
            turn = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
            image = cast("Pixels", cv2.cvtColor(image, turn))
        yield png_name(masked.frame), encode(image)

    def skip(self, masked: MaskedFrame) -> None:
        """Draw a frame without writing it, so that fades continue."""
        self.draw(masked)


class NamedMasks(Pictures):
    """A folder of masks per name, with an image for each frame in which the name is in view.

    Folders are named by numbers until all names are known.
    """

    def __init__(self) -> None:
        self.table = NameTable()

    def files(self, masked: MaskedFrame) -> PngFiles:
        """Yield an image for each name in view."""
        if (sources := masked.sources) is not None:
            for label, _ in sources.in_view:
                folder = NUMBERED.format(sources.numbers[label - 1])
                yield f"{folder}/{png_name(masked.frame)}", encode(_grey(sources.labels == label))

    def count(self, frame: FrameSummary) -> None:
        """Count the names."""
        self.table.count(frame)

    def finish(self, folder: Path, frames: int) -> None:
        """Rename the folders, and write `names.json`: the folder and image count of each name."""
        found = self.table.in_view
        names = []
        final = folder_names(name for _, name, _ in found)
        for (number, name, count), folder_name in zip(found, final, strict=True):
            (folder / NUMBERED.format(number)).rename(folder / folder_name)
            names.append({"name": name, "folder": folder_name, "frames": count})
        (folder / SUMMARY_NAME).write_bytes(_summary(frames, names))


class IndexedMasks(Pictures):
    """The names of each frame as a palette image: value k is the k-th name that is heard."""

    def __init__(self) -> None:
        self.table = NameTable()

    def files(self, masked: MaskedFrame) -> PngFiles:
        """Yield one image."""
        labels, sources = np.zeros(masked.mask.shape, np.uint8), masked.sources
        if sources is not None:
            labels = number_labels(sources)
        yield png_name(masked.frame), encode_indexed(labels)

    def count(self, frame: FrameSummary) -> None:
        """Count the names."""
        self.table.count(frame)

    def finish(self, folder: Path, frames: int) -> None:
        """Write `names.json`: the value, colour and frame count of each name."""
        names = [
            {"index": number, "name": name, "colour": colour_of(number), "frames": count}
            for number, name, count in self.table.in_view
        ]
        (folder / SUMMARY_NAME).write_bytes(_summary(frames, names))


def png_name(frame: Frame) -> str:
    """Return the name of a frame's image."""
    return f"{frame.index:06d}.png"


def encode(image: Pixels) -> bytes:
    """Return the PNG of an image: grey, (H, W), or BGR(A), (H, W, 3 or 4), as in OpenCV."""
    # Encoded here and written by Python: cv2.imwrite fails silently on some paths.
    _, png = cv2.imencode(".png", image, PNG_OPTIONS)
    return bytes(png.data)


def encode_indexed(labels: UInt8Array) -> bytes:
    """Return the palette PNG of numbers, uint8, (H, W), in the colours of the overlays."""
    image = Image.fromarray(labels)
    # All 256 colours, because Pillow writes fewer than 8 bits for a shorter palette.
    image.putpalette([0, 0, 0, *(c for k in range(1, 256) for c in colour_of(k))])
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _summary(frames: int, names: list[dict[str, Any]]) -> bytes:
    """Return the content of `names.json`, with a line per name."""
    lines = ",".join(f"\n    {json.dumps(name, ensure_ascii=False)}" for name in names)
    return f'{{\n  "frames": {frames},\n  "names": [{lines}\n  ]\n}}\n'.encode()


def _grey(mask: npt.NDArray[np.bool_]) -> UInt8Array:
    return mask.view(np.uint8) * np.uint8(255)
