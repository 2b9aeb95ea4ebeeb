"""Open the writer of a format, and check an output path before processing."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from av2tsam_cli.errors import UsageError
from av2tsam_cli.files import check_output, read_text_file
from av2tsam_cli.media.damage import DamageLog
from av2tsam_cli.outputs.datasets import Arrays, Coco, Yolo, own_files
from av2tsam_cli.outputs.encoding import CONTAINERS, Encoding
from av2tsam_cli.outputs.matte import draw_cutout, draw_matte
from av2tsam_cli.outputs.mp4 import VideoPartWriter, VideoWriter
from av2tsam_cli.outputs.names import SUMMARY_NAME
from av2tsam_cli.outputs.overlay import Draw, overlay_drawer
from av2tsam_cli.outputs.part import WrittenPart
from av2tsam_cli.outputs.png import (
    Drawings,
    IndexedMasks,
    Masks,
    NamedMasks,
    Pictures,
    PngPartWriter,
    PngWriter,
)
from av2tsam_cli.outputs.record import RECORD_NAME, ResultRecord, is_record
from av2tsam_cli.segment_options import DEFAULT_LOOK, VIDEO_SUFFIXES, Format, LookOptions
from av2tsam_cli.values import AudioStream, MaskedFrame, MediaInfo, VideoStream

PICTURE_NAME = re.compile(r"\d{6,}\.png")
FILE_NAME = re.compile(r"\d{6,}\.(png|jpg|txt)")
"""Names of files in the folders of a result."""
DATASETS: dict[Format, Callable[[], Pictures]] = {"coco": Coco, "yolo": Yolo, "npz": Arrays}


class FrameWriter(Protocol):
    """A context manager that writes frames with masks."""

    def write(self, masked: MaskedFrame) -> None:
        """Write the next frame with its mask."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Writer(FrameWriter, Protocol):
    """Writes outputs atomically: they are complete or do not exist."""

    outputs: tuple[Path, ...]

    def append(self, parts: Sequence[WrittenPart]) -> None:
        """Add all parts of a video, in order, instead of its frames."""


def open_writer(
    path: Path,
    format: Format,  # noqa: A002 - the option's name
    *,
    info: MediaInfo,
    video: VideoStream,
    audio: AudioStream | None,
    encoding: Encoding | None,
    zero_s: float,
    start_s: float = 0.0,
    stop_s: float | None = None,
    overwrite: bool = False,
    threads: int = 0,
    damage: DamageLog | None = None,
    look: LookOptions = DEFAULT_LOOK,
    record: ResultRecord | None = None,
) -> VideoWriter | PngWriter:
    """Return the writer of a format; nothing is created before it is entered.

    Args:
        path: The video file, or the folder of PNGs.
        format: The format.
        info: The source, as probed.
        video: Its video stream.
        audio: Its audio stream, for videos other than mattes; None for no audio.
        encoding: How a video is encoded; None for PNGs.
        zero_s: Start of the presentation on the source's own clock, in seconds.
        start_s: Time 0 of the output, in seconds of the presentation.
        stop_s: End of the audio, in seconds of the presentation; None for the end of the stream.
        overwrite: Whether an existing result is replaced.
        threads: Threads of the video encoder; 0 lets FFmpeg choose.
        damage: Collects damage of the audio; None to ignore it.
        look: How overlays, mattes and cutouts look.
        record: What the output is made from, to be stored in it; None to store nothing.
    """
    if encoding is None:
        return PngWriter(path, _pictures(format, look), overwrite=overwrite, record=record)
    return VideoWriter(
        path,
        info=info,
        video=video,
        audio=None if format == "matte" else audio,  # it would be heard twice in an editor
        encoding=encoding,
        zero_s=zero_s,
        start_s=start_s,
        stop_s=stop_s,
        overwrite=overwrite,
        threads=threads,
        damage=damage,
        draw=_drawer(format, look),
        columns=_columns(format, look),
        record=record,
    )


def open_part_writer(
    part: WrittenPart,
    target: Path,
    format: Format,  # noqa: A002 - the option's name
    *,
    info: MediaInfo,
    video: VideoStream,
    encoding: Encoding | None,
    start_s: float,
    threads: int,
    look: LookOptions,
) -> VideoPartWriter | PngPartWriter:
    """Return the writer of a part of a video; the writer of `open_writer` can join the parts.

    Args:
        part: The files of the part.
        target: See `path` of `open_writer`, also for the other arguments.
        format: The format.
        info: The source, as probed.
        video: Its video stream.
        encoding: How a video is encoded.
        start_s: Time 0 of the output, in seconds of the presentation.
        threads: Threads of the video encoder.
        look: How overlays, mattes and cutouts look.
    """
    if encoding is None:
        return PngPartWriter(part, _pictures(format, look))
    return VideoPartWriter(
        part,
        target,
        info=info,
        video=video,
        audio=None,
        encoding=encoding,
        zero_s=0.0,
        start_s=start_s,
        threads=threads,
        draw=_drawer(format, look),
        columns=_columns(format, look),
    )


def _columns(format: Format, look: LookOptions) -> int:  # noqa: A002
    """Return the number of pictures side by side in a frame of a video."""
    return 2 if format == "video" and look.style == "side-by-side" else 1


def _pictures(format: Format, look: LookOptions) -> Pictures:  # noqa: A002
    if format in DATASETS:
        return DATASETS[format]()
    if format == "named-masks":
        return NamedMasks()
    if format == "indexed-masks":
        return IndexedMasks()
    return Masks() if format == "masks" else Drawings(_drawer(format, look))


def _drawer(format: Format, look: LookOptions) -> Draw:  # noqa: A002
    if format in {"matte", "mattes"}:
        return partial(draw_matte, look=look)
    if format in {"cutout", "cutouts"}:
        return partial(draw_cutout, look=look)
    return overlay_drawer(look)


def check_target(
    path: Path,
    format: Format,  # noqa: A002
    *,
    source: Path,
    overwrite: bool = False,
) -> None:
    """Check before processing that an output can be written.

    Raises:
        UsageError: The suffix is not a video suffix, or the path is in use or not writable.
    """
    if format in VIDEO_SUFFIXES:
        _check_video(path, source)
    else:
        _check_folder(path)
    check_output(path, overwrite=overwrite)


def _check_video(path: Path, source: Path) -> None:
    if path.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        suffix = f"a name that ends in {path.suffix}" if path.suffix else "a name without a suffix"
        raise UsageError(
            f"{path}: {suffix} holds no video; end it in {known}, or pass --format masks"
        )
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it, such as {path / 'overlay.mp4'}")
    if path == source or (path.exists() and source.exists() and path.samefile(source)):
        raise UsageError(f"{path}: is the input itself; choose another path for the output")


def _check_folder(path: Path) -> None:
    for folder in (path.parent, path):
        if folder.is_symlink() and not folder.exists():
            raise UsageError(f"{folder}: a symbolic link to no folder; check where it points")
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: is a file; choose a folder for the output")
    # Replacing removes the whole folder, so it must contain nothing but an earlier result.
    if (other := next(_foreign(path), None)) is not None:
        name = other.relative_to(path)
        raise UsageError(f"{path}: contains other files ({name}); choose another folder")


def _foreign(path: Path) -> Iterator[Path]:
    """Yield the entries of a folder that are not results of this program, such as links."""
    ours = {*_listed_folders(path / SUMMARY_NAME), *own_files(path)}
    if is_record(path / RECORD_NAME):
        ours.add(RECORD_NAME)
    for entry in path.iterdir() if path.is_dir() else ():
        if entry.is_symlink():
            yield entry
        elif entry.name in ours and entry.is_dir():
            yield from (file for file in entry.iterdir() if not FILE_NAME.fullmatch(file.name))
        elif entry.name not in ours and not PICTURE_NAME.fullmatch(entry.name):
            yield entry


def _listed_folders(summary: Path) -> list[str]:
    """Return the folders in a `names.json`, and its own name; [] if it is not ours."""
    try:
        content = json.loads(read_text_file(summary))
        return [SUMMARY_NAME, *(str(each.get("folder", "")) for each in content["names"])]
    except (
        UsageError,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ):
        return []
