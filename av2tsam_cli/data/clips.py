"""Read the frames, masks and sound of one clip.

Letters: T requested seconds, H, W image size.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from av2tsam_cli.avsbench_format import AVSS_COLOURS, FRAME_OFFSET_S, FRAME_PX
from av2tsam_cli.data.avsbench import Clip, find_dangling_link
from av2tsam_cli.data.integrity import MAX_MISSING_S, check_size, check_wav
from av2tsam_cli.errors import NOT_A_FILE, MediaError
from av2tsam_cli.files import is_special
from av2tsam_cli.media import audio, frames
from av2tsam_cli.media.probe import probe
from av2tsam_cli.values import AudioStream, BoolArray, Float32Array, MediaInfo, UInt8Array

Scalar = TypeVar("Scalar", np.bool_, np.uint8)


def read_clip_frames(clip: Clip, seconds: Sequence[int]) -> UInt8Array:
    """Read the frames of some seconds, uint8, (T, H, W, 3), RGB.

    Raises:
        MediaError: A frame is missing or corrupted, or the frames differ in size.
    """
    if clip.video is not None:
        return _decode_frames(clip.video, seconds)
    images = []
    for second in seconds:
        with _open_image(clip.frames[second]) as image:
            images.append(np.asarray(image.convert("RGB")))
        check_size(clip.frames[second], images[-1].shape[:2], images[0].shape[:2])
    return np.stack(images)


def read_clip_masks(clip: Clip, seconds: Sequence[int]) -> BoolArray:
    """Read the masks of some labelled seconds, bool, (T, H, W): True where the file is not zero.

    Raises:
        MediaError: A mask is missing or corrupted, or differs in size from its frame.
        ValueError: A second has no label.
    """
    return _read_labelled(clip, seconds, _foreground)


def read_clip_labels(clip: Clip, seconds: Sequence[int]) -> UInt8Array:
    """Read the classes of some labelled seconds, uint8, (T, H, W), of a clip that has classes.

    As in AVSBench's loader, a colour that belongs to no class is background.

    Raises:
        MediaError: A mask is missing or corrupted, or differs in size from its frame.
        ValueError: A second has no label.
    """
    labels = _read_labelled(
        clip, seconds, lambda image: labels_of_colours(np.asarray(image.convert("RGB")))
    )
    labels[labels == NO_CLASS] = 0
    return labels


NO_CLASS = 255
"""What `labels_of_colours` returns for colours that belong to no class."""


def labels_of_colours(rgb: UInt8Array) -> UInt8Array:
    """Return the classes of AVSBench-semantic by their colours.

    Args:
        rgb: Colours, uint8, (..., 3).

    Returns:
        Labels, uint8, (...); `NO_CLASS` for other colours.
    """
    known = _as_numbers(np.array(AVSS_COLOURS, np.uint8))
    order = np.argsort(known)
    numbers = _as_numbers(rgb)
    labels = order[np.searchsorted(known[order], numbers).clip(max=len(known) - 1)]
    return np.where(known[labels] == numbers, labels, NO_CLASS).astype(np.uint8)


def _as_numbers(rgb: UInt8Array) -> npt.NDArray[np.int32]:
    """Return colours (..., 3) as one number each, (...)."""
    return rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def _read_labelled(
    clip: Clip, seconds: Sequence[int], convert: Callable[[Image.Image], npt.NDArray[Scalar]]
) -> npt.NDArray[Scalar]:
    """Read and convert the masks of some labelled seconds, each to (H, W), stacked."""
    masks = []
    for second in seconds:
        path = clip.masks[second]
        if path is None:
            raise ValueError(f"second {second} of {clip.name} is not labelled")
        with _open_image(path) as image:
            masks.append(convert(image))
        check_size(path, masks[-1].shape, _frame_size(clip, second))
        check_size(path, masks[-1].shape, masks[0].shape)
    return np.stack(masks)


def read_clip_windows(
    clip: Clip, seconds: Sequence[int], rate_hz: int, *, reference: bool = False
) -> Float32Array:
    """Read the sound of some seconds, one window per second, padded with zeros at the end.

    Args:
        clip: The video.
        seconds: Indices of the seconds, from 0.
        rate_hz: Sampling rate that CLAP needs.
        reference: Prepare the sound as the reference implementation does
            (`embeddings.segments`): the channels of a second are placed one after the other.

    Returns:
        float32, (T, rate_hz), in [-1, 1]; with `reference`, (T, channels * rate_hz).

    Raises:
        MediaError: The sound is missing or corrupted.
    """
    if not clip.sound_from_video:  # FFmpeg does not report a truncated WAV
        check_wav(clip.sound, read_file(clip.sound))
    info, stream = probe_sound(clip.sound)
    read = _read_reference_windows if reference else _read_mono_windows
    windows = read(info, stream, rate_hz, clip.seconds)
    return np.stack([windows[second] for second in seconds])


def probe_sound(path: Path) -> tuple[MediaInfo, AudioStream]:
    """Probe a WAV or a raw video, and return its default audio stream too.

    Raises:
        MediaError: The file cannot be read, or has no audio.
    """
    info = probe(path, need_video=False)
    stream = audio.choose_audio(info, None)
    if stream is None:
        raise MediaError(f"{path}: has no audio; copy the WAV or the raw video again")
    return info, stream


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        MediaError: The file is missing, empty or unreadable.
    """
    try:
        if is_special(path):
            raise MediaError(f"{path}: {NOT_A_FILE}")
        data = path.read_bytes()
    except FileNotFoundError as error:
        link = find_dangling_link(path)
        if link is not None:
            raise MediaError(
                f"{path}: missing, {link} links to {link.readlink()}, which does not exist; fetch "
                "it, for example with 'git annex get' or 'dvc pull'"
            ) from error
        raise MediaError(f"{path}: missing; copy or extract it again") from error
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
    if not data:
        raise MediaError(f"{path}: empty; copy or extract it again")
    return data


@contextmanager
def _open_image(path: Path) -> Iterator[Image.Image]:
    """Open a frame or mask. Errors while the block decodes it become a `MediaError` as well."""
    data = read_file(path)
    try:
        with Image.open(BytesIO(data)) as image:
            yield image
    except UnidentifiedImageError as error:
        raise MediaError(f"{path}: not an image; copy it again") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: corrupted ({error}); copy it again") from error


def _frame_size(clip: Clip, second: int) -> tuple[int, int]:
    """Return height and width of a frame, from its header."""
    if clip.video is not None:
        return FRAME_PX, FRAME_PX
    with _open_image(clip.frames[second]) as image:
        return image.height, image.width


def _foreground(image: Image.Image) -> BoolArray:
    """Return where a mask of any mode (1-bit, grey, palette, RGB) is not zero, bool, (H, W).

    For palettes the index is compared, not the colour; transparency is ignored.
    """
    values = np.asarray(image.convert("RGB") if image.mode in {"RGBA", "CMYK"} else image)
    if image.mode == "LA":
        values = values[..., 0]
    return cast("BoolArray", values.any(axis=2) if values.ndim == 3 else values != 0)


def _decode_frames(video: Path, seconds: Sequence[int]) -> UInt8Array:
    """Decode frames of a raw video at the times and size at which AVSBench extracts them.

    A video that ends up to `MAX_MISSING_S` early repeats its last frame.
    """
    info = probe(video)
    times_s = [second + FRAME_OFFSET_S for second in seconds]
    shown: dict[int, UInt8Array] = {}
    last_s = 0.0
    for frame in frames.read_frames(info, stop_s=max(times_s) + 1e-3):
        last_s = frame.time_s
        later = [k for k, time_s in enumerate(times_s) if frame.time_s <= time_s]
        shown |= dict.fromkeys(later, frame.rgb)
    if len(shown) < len(times_s) or last_s < max(times_s) - MAX_MISSING_S:
        raise MediaError(
            f"{video}: truncated, its last frame is at {last_s:.2f} s but one at "
            f"{max(times_s):.2f} s is needed; copy it again"
        )
    return np.stack([cv2.resize(shown[k], (FRAME_PX, FRAME_PX)) for k in range(len(times_s))])


def _read_mono_windows(
    info: MediaInfo, stream: AudioStream, rate_hz: int, seconds: int
) -> list[Float32Array]:
    windows = audio.read_windows(info, rate_hz=rate_hz, stream=stream, stop_s=seconds)
    samples = [window.samples for window in windows]
    if not samples:
        raise MediaError(f"{info.path}: the audio cannot be decoded; copy it again")
    return samples + [np.zeros(rate_hz, np.float32)] * (seconds - len(samples))


def _read_reference_windows(
    info: MediaInfo, stream: AudioStream, rate_hz: int, seconds: int
) -> list[Float32Array]:
    import torch

    from av2tsam_cli.embeddings.segments import reference_segments

    samples = torch.from_numpy(audio.read_channels(info, stream))
    segments = reference_segments(samples, stream.rate_hz, to_hz=rate_hz, seconds=seconds)
    return list(segments.numpy())
