"""From the name of a format to what writes it, and what can be known before any work."""

import os
import re
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from av2tsam_cli.errors import UsageError
from av2tsam_cli.files import check_writable
from av2tsam_cli.outputs.mp4 import CONTAINERS, OverlayVideo
from av2tsam_cli.outputs.png import PngWriter, mask_image, overlay_image
from av2tsam_cli.segment_options import Format
from av2tsam_cli.values import AudioStream, Frame, MediaInfo, VideoStream

PICTURE_NAME = re.compile(r"\d{6,}\.png")


class Writer(Protocol):
    """A context manager that takes frames with masks and leaves a complete result or none."""

    outputs: tuple[Path, ...]

    def write(self, frame: Frame, mask: npt.NDArray[np.bool_]) -> None:
        """Take the next frame and what sounds in it, bool, (H, W)."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_writer(
    target: Path,
    format: Format,  # noqa: A002 - the option's name
    *,
    info: MediaInfo,
    video: VideoStream,
    audio: AudioStream | None,
    zero_s: float,
    start_s: float = 0.0,
    stop_s: float | None = None,
    overwrite: bool = False,
    threads: int = 0,
) -> Writer:
    """The writer of a format; nothing is touched before it is entered.

    Args:
        target: A video file, or the folder for folders of pictures.
        format: What to write.
        info: The source.
        video: Its chosen video stream.
        audio: Its sound track for the output; None for no sound.
        zero_s: Where the presentation starts on the source's own clock.
        start_s: The presentation time that becomes time 0 of the output.
        stop_s: The presentation time at which the sound ends; None for its own end.
        overwrite: Whether an existing result may be replaced.
        threads: Threads of a video's encoder; 0 for as many as suit it.
    """
    path = output_path(target, format, info.path)
    if format == "masks":
        return PngWriter(path, mask_image, overwrite=overwrite)
    if format == "overlays":
        return PngWriter(path, overlay_image, overwrite=overwrite)
    return OverlayVideo(
        path,
        info=info,
        video=video,
        audio=audio,
        zero_s=zero_s,
        start_s=start_s,
        stop_s=stop_s,
        overwrite=overwrite,
        threads=threads,
    )


def output_path(target: Path, format: Format, source: Path) -> Path:  # noqa: A002
    """What a source's result will be called: the target itself, or its folder of pictures."""
    return target if format == "video" else target / source.stem


def check_target(
    target: Path,
    format: Format,  # noqa: A002
    *,
    source: Path,
    overwrite: bool = False,
) -> None:
    """Find out before any work whether a result can be written.

    Raises:
        UsageError: The suffix holds no video, something is in the way, or the place is not
            writable.
    """
    path = output_path(target, format, source)
    if format == "video":
        _check_video(path, source)
    else:
        _check_folder(target, path)
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path}: exists; pass --overwrite to replace it, or choose another --out")
    check_writable(path)


def _check_video(path: Path, source: Path) -> None:
    if path.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        suffix = f"a name that ends in {path.suffix}" if path.suffix else "a name without a suffix"
        raise UsageError(
            f"{path}: {suffix} holds no video; end it in {known}, or pass --format masks"
        )
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it, such as {path / 'overlay.mp4'}")
    if path.exists() and source.exists() and path.samefile(source):
        raise UsageError(f"{path}: is the input itself; choose another --out")


def _check_folder(target: Path, path: Path) -> None:
    for place in (target, path):
        if os.path.lexists(place) and not place.is_dir():
            raise UsageError(f"{place}: is a file; name a folder with --out")
    # Replacing removes the whole folder, so it must be nothing but an earlier result.
    foreign = (
        (f for f in path.iterdir() if not PICTURE_NAME.fullmatch(f.name)) if path.is_dir() else ()
    )
    if (other := next(iter(foreign), None)) is not None:
        raise UsageError(f"{path}: holds other files ({other.name}); choose another --out")
