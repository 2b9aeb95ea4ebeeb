"""Write data sets: COCO and YOLO with pictures, and masks as NumPy arrays."""

import gzip
import json
import shutil
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile

import cv2
import numpy as np
import numpy.typing as npt

from av2tsam_cli.outputs.names import UNNAMED, NameTable, number_labels
from av2tsam_cli.outputs.png import Pictures, PngFiles
from av2tsam_cli.outputs.polygons import outlines
from av2tsam_cli.values import BoolArray, FrameSummary, MaskedFrame, SourceMasks

JPEG_OPTIONS = (cv2.IMWRITE_JPEG_QUALITY, 95)
GZIP = 31
"""Value of zlib's `wbits` for the format of gzip files."""
_IMAGES, _ANNOTATIONS = "images.jsonl", "annotations.jsonl"
"""Temporary files with the descriptions of the pictures and masks of a COCO data set."""

COCO_NAME, COCO_BEGIN = "annotations.json", '{"info": {"description": "Made by av2tsam"}, '
YOLO_NAME, YOLO_BEGIN = "data.yaml", "# Made by av2tsam\n"
NPZ_NAME, NPZ_END = "masks.npz", b"Made by av2tsam"
"""The file that describes each data set, and the bytes by which it is recognised as ours."""


def own_files(folder: Path) -> list[str]:
    """Return the files and folders in a folder that belong to a data set of this program."""
    names = []
    if _read(folder / COCO_NAME, len(COCO_BEGIN)) == COCO_BEGIN.encode():
        names += [COCO_NAME, "images"]
    if _read(folder / YOLO_NAME, len(YOLO_BEGIN)) == YOLO_BEGIN.encode():
        names += [YOLO_NAME, "images", "labels"]
    if _read(folder / NPZ_NAME, -len(NPZ_END)) == NPZ_END:
        names += [NPZ_NAME]
    return names


def _read(path: Path, count: int) -> bytes:
    """Return the first bytes of a file, or the last if `count` is negative; b"" without a file."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size < abs(count):
        return b""
    with path.open("rb") as file:
        file.seek(min(0, count), 2 if count < 0 else 0)
        return file.read(abs(count))


class Coco(Pictures):
    """Pictures, and their masks in one `annotations.json` as run lengths.

    Until it is complete, the descriptions of masks and pictures are lines of two temporary files.
    """

    def __init__(self, unnamed: str = UNNAMED) -> None:
        self.unnamed, self.table = unnamed, NameTable(unnamed)
        self._annotations = 0

    def files(self, masked: MaskedFrame) -> PngFiles:
        """Yield the picture, and the lines that describe it and its masks."""
        frame, (height, width) = masked.frame, masked.mask.shape
        name = f"{frame.index:06d}.jpg"
        yield f"images/{name}", _jpeg(masked)
        image = {
            "id": frame.index + 1,
            "file_name": name,
            "width": width,
            "height": height,
            "frame_index": frame.index,
            "time_s": round(frame.time_s, 6),
        }
        yield _IMAGES, _line(image)
        for number, mask, score in _instances(masked, self.unnamed):
            self._annotations += 1
            annotation = {
                "id": self._annotations,
                "image_id": frame.index + 1,
                "category_id": number,
                "segmentation": {"size": [height, width], "counts": run_lengths(mask)},
                "area": int(np.count_nonzero(mask)),
                "bbox": list(cv2.boundingRect(mask.view(np.uint8))),
                "iscrowd": 0,
                "score": round(score, 4),
            }
            yield _ANNOTATIONS, _line(annotation)

    def count(self, frame: FrameSummary) -> None:
        """Count the names."""
        self.table.count(frame)

    def append(self, part: Path, folder: Path, first: int) -> None:
        """Add the pictures of a part, and renumber their descriptions."""
        super().append(part / "images", folder / "images", first)
        for name, shift in ((_IMAGES, self._shift_image), (_ANNOTATIONS, self._shift_annotation)):
            if (part / name).exists():
                with (
                    (part / name).open(encoding="utf-8") as lines,
                    (folder / name).open("ab") as to,
                ):
                    to.writelines(_line(shift(json.loads(line), first)) for line in lines)

    def _shift_image(self, image: dict[str, Any], first: int) -> dict[str, Any]:
        index = image["frame_index"] + first
        return {**image, "id": index + 1, "file_name": f"{index:06d}.jpg", "frame_index": index}

    def _shift_annotation(self, annotation: dict[str, Any], first: int) -> dict[str, Any]:
        self._annotations += 1
        image = annotation["image_id"] + first
        return {**annotation, "id": self._annotations, "image_id": image}

    def finish(self, folder: Path, frames: int) -> None:  # noqa: ARG002
        """Write the file with all masks, pictures and categories."""
        categories = [
            {"id": number, "name": name, "supercategory": UNNAMED}
            for number, name, _ in self.table.in_view
        ]
        with (folder / COCO_NAME).open("wb") as file:
            file.write(f'{COCO_BEGIN}"licenses": [], "annotations": ['.encode())
            _move_lines(folder / _ANNOTATIONS, file)
            file.write(b'\n], "images": [')
            _move_lines(folder / _IMAGES, file)
            end = f'\n], "categories": {json.dumps(categories, ensure_ascii=False)}}}\n'
            file.write(end.encode())


class Yolo(Pictures):
    """Pictures, and a text file of polygons for each, as Ultralytics reads them."""

    def __init__(self, unnamed: str = UNNAMED) -> None:
        self.unnamed, self.table = unnamed, NameTable(unnamed)

    def files(self, masked: MaskedFrame) -> PngFiles:
        """Yield the picture and its polygons."""
        height, width = masked.mask.shape
        lines = []
        for number, mask, _ in _instances(masked, self.unnamed):
            for outline in outlines(mask):
                points = (outline + 0.5) / (width, height)  # the centre of each pixel
                numbers = " ".join(f"{value:.6f}" for value in points.flat)
                lines.append(f"{number - 1} {numbers}\n")
        yield f"images/{masked.frame.index:06d}.jpg", _jpeg(masked)
        yield f"labels/{masked.frame.index:06d}.txt", "".join(lines).encode()

    def count(self, frame: FrameSummary) -> None:
        """Count the names."""
        self.table.count(frame)

    def finish(self, folder: Path, frames: int) -> None:  # noqa: ARG002
        """Write the file that names the classes."""
        lines = [f"  {k}: {json.dumps(name)}" for k, name in enumerate(self.table.by_number)]
        text = "\n".join(["train: images", "val: images", "names:", *(lines or ["  {}"])])
        (folder / YOLO_NAME).write_text(f"{YOLO_BEGIN}{text}\n", encoding="utf-8")


class Arrays(Pictures):
    """All masks in one `.npz`, packed to bits.

    Until their length is known, arrays are in separate compressed files; only the times and scores,
    12 bytes per frame, are in memory.
    """

    def __init__(self) -> None:
        self.table = NameTable()
        self._packers = defaultdict[str, Any](lambda: zlib.compressobj(1, wbits=GZIP))
        self._times, self._scores = array("d"), array("f")
        self._size = (0, 0)

    def files(self, masked: MaskedFrame) -> PngFiles:
        """Yield the next data of the array files."""
        yield "masks", self._packers["masks"].compress(np.packbits(masked.mask, axis=1).data)
        if masked.sources is not None:
            labels = np.ascontiguousarray(number_labels(masked.sources))
            yield "labels", self._packers["labels"].compress(labels.data)

    def rest(self) -> PngFiles:
        """Yield the ends of the array files; concatenated gzip files are valid."""
        yield from ((name, packer.flush()) for name, packer in self._packers.items())

    def count(self, frame: FrameSummary) -> None:
        """Store the time and score, and count the names."""
        self.table.count(frame)
        self._size = frame.size
        self._times.append(frame.time_s)
        self._scores.append(frame.score)

    def finish(self, folder: Path, frames: int) -> None:
        """Write the file with all arrays."""
        height, width = self._size
        shapes = {"masks": (frames, height, (width + 7) // 8), "labels": (frames, height, width)}
        arrays = {
            "width": np.array(width),
            "times_s": np.array(self._times),
            "scores": np.array(self._scores),
            "names": np.array(self.table.by_number, np.str_),
        }
        with ZipFile(folder / NPZ_NAME, "w", ZIP_DEFLATED) as archive:
            archive.comment = NPZ_END
            for name, values in arrays.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)
            for name, shape in shapes.items():
                if (path := folder / name).exists():
                    _move(path, archive, shape)


def _move(path: Path, archive: ZipFile, shape: tuple[int, ...]) -> None:
    """Move a compressed array, uint8, into an archive."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with (
        gzip.open(path) as values,
        archive.open(f"{path.name}.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        shutil.copyfileobj(values, member)
    path.unlink()


def _instances(masked: MaskedFrame, unnamed: str) -> Iterator[tuple[int, BoolArray, float]]:
    """Yield the number of the name, from 1, the mask and the score of each source in a frame."""
    sources = masked.sources or SourceMasks(
        (unnamed,), masked.mask.astype(np.uint8), (masked.score,)
    )
    for label, _ in sources.in_view:
        number, score = sources.numbers[label - 1], sources.scores[label - 1]
        yield number, sources.labels == label, score


def run_lengths(mask: BoolArray) -> str:
    """Return a mask as COCO's compressed run lengths: column by column, beginning with zeros.

    Each length after the third is stored as the difference from the length two before. Numbers are
    split into groups of five bits, lowest first; a sixth bit is set if more groups follow, and
    adding 48 gives a character (`rleToString` in cocoapi's maskApi.c).
    """
    columns = mask.ravel(order="F")
    changes = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    starts = [0] if columns[0] else []
    ends = np.concatenate([[0], starts, changes, [columns.size]]).astype(np.int64)
    lengths = np.diff(ends)
    rest = lengths.copy()
    rest[3:] -= lengths[1:-2]
    groups, used = [], np.ones(rest.size, bool)
    characters: list[npt.NDArray[np.int64]] = []
    while used.any():
        low = rest & 31
        rest = rest >> 5
        more = np.where(low & 16, rest != -1, rest != 0)
        characters.append(np.where(used, (low | (more << 5)) + 48, 0))
        groups.append(used)
        used = used & more
    table, is_used = np.stack(characters, axis=1), np.stack(groups, axis=1)
    return str(table[is_used].astype(np.uint8).tobytes(), "ascii")


def _jpeg(masked: MaskedFrame) -> bytes:
    bgr = cv2.cvtColor(masked.frame.rgb, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, JPEG_OPTIONS)
    return bytes(jpeg.data)


def _line(item: dict[str, Any]) -> bytes:
    """Return an item of a JSON list as one line."""
    return f"{json.dumps(item, ensure_ascii=False)}\n".encode()


def _move_lines(path: Path, file: IO[bytes]) -> None:
    """Move the lines of a file, if there is one, into a JSON list, separated by commas."""
    if not path.exists():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            file.write((b",\n" if number else b"\n") + line.rstrip(b"\n"))
    path.unlink()
