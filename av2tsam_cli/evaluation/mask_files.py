"""Predicted masks and logits as files: written by an evaluation, read to be scored.

Masks are PNGs in the layout of AVSBench's `gt_masks`, or in that of its test scripts, which have no
folder for the split and number the frames from 0. For AVSBench-semantic they may have its colours,
which tell the class of each pixel. Logits are an NPZ per video in the same folders.

Letters: T labelled frames of a video, H, W size of its masks.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import cv2
import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0
from torch import Tensor

from av2tsam_cli.avsbench_format import AVSS_COLOURS
from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.clips import NO_CLASS, labels_of_colours
from av2tsam_cli.data.integrity import MAX_PIXELS, check_image
from av2tsam_cli.errors import NOT_A_FILE, MediaError, UsageError
from av2tsam_cli.evaluation.semantic import resize_labels
from av2tsam_cli.files import atomic_folder, is_special, write_errors
from av2tsam_cli.inference.distributed import Processes
from av2tsam_cli.outputs.png import PNG_OPTIONS
from av2tsam_cli.values import BoolArray, Float32Array, UInt8Array

READ_ERRORS = (
    *(OSError, ValueError, LookupError, EOFError, OverflowError, MemoryError, NotImplementedError),
    *(RuntimeError, SyntaxError, struct.error, zlib.error, BadZipFile),
)
"""What `zipfile` and NumPy raise for a damaged NPZ."""
MISSING = "save a mask of every labelled frame"


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one video, at the size of its true masks."""

    logits: Tensor = field(repr=False)
    """Mask logits, float32, (T, H, W); infinite where the probability is 0 or 1."""
    resized: bool
    """Whether the files have another size."""
    labels: UInt8Array | None = field(default=None, repr=False)
    """Classes of AVSBench-semantic, uint8, (T, H, W); None for logits, for masks without its
    colours, and for other data."""


def mask_path(clip: Clip, second: int) -> Path:
    """Return AVSBench's path of a mask, relative to `gt_masks` or, for AVSBench-semantic, the data.

    Raises:
        ValueError: The second has no label.
    """
    mask = clip.masks[second]
    if mask is None:
        raise ValueError(f"second {second} of {clip.name} is not labelled")
    return Path(*mask.parts[-3 if clip.subset == "ms3" else -4 :])


def logits_path(clip: Clip) -> Path:
    """Return the path of a video's logits: `NAME.npz` beside the folder of its masks."""
    folder = mask_path(clip, clip.labelled[0]).parents[2 if clip.subset == "avss" else 1]
    return folder / f"{clip.name}.npz"


def check_new_folder(folder: Path, option: str) -> None:
    """Check that an output folder does not exist or is empty.

    Raises:
        UsageError: It contains files, or is not a folder.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder}: already exists; set `{option}` to a new folder")


@contextmanager
def shared_folder(folder: Path, processes: Processes) -> Iterator[Path]:
    """Yield a temporary folder that several processes fill together.

    The first process renames it to its final name at the end of the block.

    Raises:
        UsageError: Another machine does not see the folder that the first process has created.
        Av2tsamError: A folder or file cannot be written; nothing is left.
    """
    with write_errors(folder), ExitStack() as stack:
        part = processes.from_first(lambda: stack.enter_context(atomic_folder(folder)))
        with processes.together():
            if not part.is_dir():
                raise UsageError(
                    f"{folder}: not shared by all machines; use a folder on a shared file system"
                )
        yield part


def write_masks(
    folder: Path, clip: Clip, masks: BoolArray, labels: UInt8Array | None = None
) -> None:
    """Write the masks of a video as PNGs.

    Args:
        folder: The folder for all videos.
        clip: The video.
        masks: Predicted masks, bool, (T, H, W), written with the values 0 and 255.
        labels: Predicted classes, uint8, (T, H, W), written in their colours instead.
    """
    pixels = masks.view(np.uint8) * np.uint8(255)
    if labels is not None:
        pixels = np.array(AVSS_COLOURS, np.uint8)[labels][..., ::-1]  # OpenCV's order, BGR
    for second, image in zip(clip.labelled, pixels, strict=True):
        path = folder / mask_path(clip, second)
        path.parent.mkdir(parents=True, exist_ok=True)
        _, png = cv2.imencode(".png", image, PNG_OPTIONS)
        path.write_bytes(png.data)


def write_logits(folder: Path, clip: Clip, logits: Float32Array) -> None:
    """Write the logits of a video, (T, H, W), as an NPZ.

    It contains `logits`, float16, (T, H, W), -inf in frames that the silence gate emptied, and
    `seconds`, int64, (T,): the labelled seconds, from 0.
    """
    path = folder / logits_path(clip)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, logits=logits.astype(np.float16), seconds=np.array(clip.labelled))


def read_prediction(folder: Path, clip: Clip, size: tuple[int, int]) -> Prediction:
    """Read the logits of a video if they were saved, else its masks.

    Grey levels are probabilities, 0 to the highest value of the file's type. In a colour image
    every pixel that is not black is foreground.

    Args:
        folder: The folder with the predictions of all videos.
        clip: The video.
        size: Height and width of its true masks, to which others are resized.

    Raises:
        MediaError: A file is missing or corrupted.
    """
    path = folder / logits_path(clip)
    if path.is_file():
        logits = _read_logits(path, clip)
        if logits.shape[1:] == size:
            return Prediction(torch.from_numpy(logits), resized=False)
        images = list(torch.sigmoid(torch.from_numpy(logits)).numpy())
        labels = []
    else:
        files = [_read_image(path) for path in _mask_files(folder, clip)]
        classes = [_labels(image) if clip.has_classes else None for image in files]
        labels = [resize_labels(one, size) for one in classes if one is not None]
        images = [
            _probabilities(image) if one is None else np.asarray(one > 0, np.float32)
            for image, one in zip(files, classes, strict=True)
        ]
    fitting = [_resize(image, size) for image in images]
    return Prediction(
        logits=torch.logit(torch.from_numpy(np.stack(fitting))),
        resized=any(image.shape != size for image in images),
        labels=np.stack(labels) if len(labels) == len(images) else None,
    )


def has_logits(folder: Path, clip: Clip) -> bool:
    """Return whether the logits of a video were saved."""
    return (folder / logits_path(clip)).is_file()


def _mask_files(folder: Path, clip: Clip) -> list[Path]:
    """Return the mask file of each labelled second.

    The folders of the split, the category and the colour masks may be missing in the path, and
    frames may be numbered from 0 or 1.
    """
    parts = mask_path(clip, clip.labelled[0]).parent.parts
    *outer, inner = parts[:-1] if clip.subset == "avss" else parts
    paths = [folder.joinpath(*parts)]
    paths += [folder.joinpath(*outer[start:], inner) for start in range(len(outer) + 1)]
    found = next((path for path in paths if path.is_dir()), None)
    if found is None:
        raise MediaError(f"{paths[0]}: missing; {MISSING}")
    styles = [(prefix, first) for prefix in (f"{clip.name}_", "") for first in (0, 1)]
    files = [
        [found / f"{prefix}{first + second}.png" for second in clip.labelled]
        for prefix, first in styles
    ]
    return next((style for style in files if style[0].is_file()), files[1])


def _read_image(path: Path) -> npt.NDArray[Any]:
    """Read a mask: grey, (H, W), or colours, (H, W, 3 or 4), in OpenCV's order, BGR."""
    try:
        if is_special(path):
            raise MediaError(f"{path}: {NOT_A_FILE}")
        data = path.read_bytes()
    except OSError as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else error.strerror
        raise MediaError(f"{path}: {reason}; {MISSING}") from error
    check_image(path, data)
    image: npt.NDArray[Any] | None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise MediaError(f"{path}: corrupted; save or copy it again")
    return image


def _labels(image: npt.NDArray[Any]) -> UInt8Array | None:
    """Return the classes of a mask by their colours, uint8, (H, W).

    Returns:
        None if it has another colour, or is a grey image that is not black.
    """
    if image.dtype != np.uint8 or (image.ndim == 2 and image.any()):
        return None
    labels = labels_of_colours(image[..., 2::-1]) if image.ndim == 3 else image
    return None if NO_CLASS in labels else labels


def _probabilities(image: npt.NDArray[Any]) -> Float32Array:
    """Return a mask as probabilities, float32, (H, W)."""
    grey = image if image.ndim == 2 else image[..., 0]
    if image.ndim == 3 and (image[..., :3] != grey[..., None]).any():
        return np.asarray(image[..., :3].any(2), np.float32)
    return np.asarray(grey, np.float32) / np.float32(np.iinfo(image.dtype).max)


def _read_logits(path: Path, clip: Clip) -> Float32Array:
    """Read an NPZ of `write_logits`: float32, (T, H, W)."""
    try:
        _check_declared(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            logits, seconds = arrays["logits"], arrays["seconds"]
    except READ_ERRORS as error:
        raise MediaError(f"{path}: cannot be read as logits ({error}); save it again") from error
    if not len(logits) == len(seconds) or [*seconds] != [*clip.labelled] or not logits.size:
        raise MediaError(f"{path}: has other frames than the labelled ones; save it again")
    return np.asarray(logits, np.float32)


def _check_declared(path: Path) -> None:
    """Check types and shapes in the headers of an NPZ, before NumPy allocates what they declare.

    Raises:
        ValueError: They are not those of logits, or larger than any image is.
    """
    with ZipFile(path) as archive:
        for name, kinds, dimensions in (("logits", "f", 3), ("seconds", "iuf", 1)):
            with archive.open(f"{name}.npy") as file:
                is_first = np.lib.format.read_magic(file) == (1, 0)
                shape, _, dtype = (read_array_header_1_0 if is_first else read_array_header_2_0)(
                    file
                )
            if dtype.kind not in kinds or len(shape) != dimensions or prod(shape) > MAX_PIXELS:
                raise ValueError(f"{name} of shape {shape}")


def _resize(image: Float32Array, size: tuple[int, int]) -> Float32Array:
    """Resize probabilities (h, w): averaged to a smaller size, interpolated to a larger one."""
    if image.shape == size:
        return image
    smaller = image.shape[0] > size[0]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.float32)
