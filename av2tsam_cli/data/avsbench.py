"""AVSBench on disk: its CSVs, frames, masks and sound, and data sets in its layout.

Layout and labels as in the data loaders and preprocessing of OpenNLPLab/AVSBench (`avs_scripts`,
`preprocess_scripts`). T = seconds that are asked for, H, W = size of the pictures.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Literal, cast, get_args

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from av2tsam_cli.data.integrity import SHORT_S, check_long_enough, check_size, check_wav
from av2tsam_cli.data.table import one_component, one_of, read_table
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.media import audio, frames
from av2tsam_cli.media.probe import probe
from av2tsam_cli.values import AudioStream, Float32Array, MediaInfo, UInt8Array

Subset = Literal["s4", "ms3", "avss"]
Split = Literal["train", "val", "test"]
BoolArray = npt.NDArray[np.bool_]

SUBSETS: tuple[Subset, ...] = get_args(Subset)
SPLITS: tuple[Split, ...] = get_args(Split)
DATA_NAME = "avsbench"
DATA_VARIABLE = "AVSBENCH_ROOT"
DATA_FOLDER = Path("avsbench_data")
FRAME_PX = 224
"""Side of the squares that AVSBench's frames of S4 and MS3 were squashed to."""
FRAME_SHARE = 15 / 16
"""How far through its second a frame is taken."""
AVSS_SECONDS = {"v1s": 5, "v1m": 5, "v2": 10}
"""Seconds of the videos of AVSBench-semantic, by what its CSV calls `label`."""
LABELS = (*AVSS_SECONDS,)


@dataclass(frozen=True)
class _Source:
    """Where a subset lies and what its CSV has to have."""

    csv: str
    folders: tuple[str, ...]
    """Names under which the folder of the CSV is found in the data folder."""
    data: str
    """The folder beside the CSV that holds the files."""
    columns: frozenset[str]
    title: str


_SOURCES: dict[Subset, _Source] = {
    "s4": _Source(
        "s4_meta_data.csv", ("Single-source",), "s4_data", frozenset({"category", "split"}), "S4"
    ),
    "ms3": _Source(
        "ms3_meta_data.csv", ("Multi-sources",), "ms3_data", frozenset({"split"}), "MS3"
    ),
    "avss": _Source(
        "metadata.csv",
        ("AVSBench_semantic", "AVSBench-semantic", "AVSS"),
        ".",
        frozenset({"uid", "label", "split"}),
        "AVSBench-semantic",
    ),
}
_LEVELS = (".", "..")
"""The given path may be the folder of the CSV itself, or the one of the files beside it."""


@dataclass(frozen=True)
class Clip:
    """One video: what is seen in each of its seconds, what is heard, what is labelled."""

    name: str
    """As in the CSV."""
    category: str | None
    """What is heard, where the CSV says so."""
    split: Split
    """`train`, `val` or `test`."""
    subset: Subset
    """`s4`, `ms3` or `avss`."""
    frames: tuple[Path, ...]
    """One picture per second; none are there where `video` is given."""
    masks: tuple[Path | None, ...]
    """One per second; None where a second is not labelled."""
    sound: Path
    """A WAV, or the raw video where there is none."""
    video: Path | None = None
    """The raw video, where frames were not extracted from it."""
    bounds: tuple[str, ...] = field(default=(), repr=False)
    """Real paths of the folders that no file of the clip may lead out of."""

    @property
    def seconds(self) -> int:
        """How many seconds it has."""
        return len(self.frames)

    @property
    def labelled(self) -> tuple[int, ...]:
        """The seconds that have a mask, from 0."""
        return tuple(k for k, mask in enumerate(self.masks) if mask is not None)


@dataclass(frozen=True)
class Damaged:
    """A clip that cannot be used."""

    clip: Clip
    """The clip."""
    reason: str
    """Names the file, what is wrong with it, and the mend."""
    file: Path | None = None
    """The file, where it is known."""


def find_root(data: str, data_root: Path | None = None) -> Path:
    """The folder that `--data` and `--data-root` stand for.

    Args:
        data: `avsbench` or a path.
        data_root: Where AVSBench is; else `$AVSBENCH_ROOT` says so, else it is `./avsbench_data`.

    Raises:
        UsageError: Both a path and a root were given.
        MediaError: There is no such folder.
    """
    if data != DATA_NAME:
        if data_root is not None:
            raise UsageError(f"--data-root goes with --data {DATA_NAME}, not with --data {data}")
        tried, root = data, Path(data)
    elif data_root is not None:
        tried, root = f"--data-root {data_root}", data_root
    elif named := os.environ.get(DATA_VARIABLE):
        tried, root = f"${DATA_VARIABLE} ({named})", Path(named)
    else:
        tried, root = f"./{DATA_FOLDER}", DATA_FOLDER
    if not root.is_dir():
        raise MediaError(
            f"{tried}: there is no such folder; name the folder of AVSBench with --data-root or "
            f"${DATA_VARIABLE}, or make data with `av2tsam data synth`"
        )
    return root


def find_subsets(root: Path) -> tuple[Subset, ...]:
    """The subsets whose CSV is in a data folder."""
    return tuple(subset for subset in SUBSETS if _find_csv(root, subset) is not None)


def open_split(root: Path, subset: Subset, split: Split) -> tuple[Clip, ...]:
    """The videos of one split, in the order of the CSV. Files are looked for, not opened.

    Args:
        root: The data folder, or the subset's own folder in it.
        subset: `s4`, `ms3` or `avss`.
        split: `train`, `val` or `test`.

    Raises:
        MediaError: The CSV is missing, has other columns or names that cannot be, or the split is
            empty.
    """
    if split not in SPLITS:
        raise UsageError(f"{split}: is no split; use one of {', '.join(SPLITS)}")
    clips = tuple(clip for clip in open_subset(root, subset) if clip.split == split)
    if not clips:
        raise MediaError(
            f"{_find_csv(root, subset)}: lists no videos of the split {split}; use another split, "
            "or a complete copy of the data"
        )
    return clips


def open_subset(root: Path, subset: Subset) -> tuple[Clip, ...]:
    """The videos of all splits; arguments and errors as of `open_split`."""
    path = _find_csv(root, subset)
    if path is None:
        raise MediaError(_no_csv(root, subset))
    make = _avss_clip if subset == "avss" else _object_clip
    base = path.parent / _SOURCES[subset].data
    bounds = _bounds(base, subset)
    return tuple(replace(make(base, row), bounds=bounds) for row in _rows(path, subset))


def _find_csv(root: Path, subset: Subset) -> Path | None:
    source = _SOURCES[subset]
    places = (root / folder / source.csv for folder in (*source.folders, *_LEVELS))
    return next((path for path in places if path.is_file()), None)


def _no_csv(root: Path, subset: Subset) -> str:
    source = _SOURCES[subset]
    others = [_SOURCES[other].title for other in find_subsets(root)]
    has = f"it has {' and '.join(others)}" if others else "nor any other subset's"
    return (
        f"{root}: holds no {source.folders[0]}/{source.csv}, {has}; name the folder that holds "
        f"AVSBench's {source.title}, or another --subset"
    )


@dataclass(frozen=True)
class _Row:
    """One video of a CSV, checked."""

    name: str
    split: Split
    subset: Subset
    category: str | None
    label: str


def _rows(path: Path, subset: Subset) -> Iterator[_Row]:
    """The lines of a CSV, checked. AVSBench's own loaders take the first column for the name."""
    for where, cells in read_table(path, _SOURCES[subset].columns):
        category = cells.get("a_obj" if subset == "avss" else "category") or None
        name = cells.get("uid" if subset == "avss" else "name", next(iter(cells.values())))
        if subset == "s4":
            category = one_component(where, category)
        yield _Row(
            name=one_component(where, name),
            split=cast("Split", one_of(where, "split", cells["split"], SPLITS)),
            subset=subset,
            category=category,
            label=one_of(where, "label", cells["label"], LABELS) if subset == "avss" else "",
        )


def _bounds(base: Path, subset: Subset) -> tuple[str, ...]:
    """Folders that a user may have put on another disk by a link; CSVs name what lies below."""
    parts = LABELS if subset == "avss" else _KINDS
    return tuple({os.path.realpath(folder) for folder in (base, *(base / part for part in parts))})


_KINDS = ("visual_frames", "gt_masks", "audio_wav", "raw_videos")


def _object_clip(base: Path, row: _Row) -> Clip:
    """A video of S4 or MS3. MS3's frames and raw videos know no split."""
    split, name = row.split, row.name
    s4 = row.subset == "s4"
    group = Path(split, row.category or "") if s4 else Path(split)
    loose = group if s4 else Path()
    stem = name if s4 else f"{name}.mp4"
    seconds = range(1, 6)
    folder = base / "visual_frames" / loose / name
    video = base / "raw_videos" / loose / f"{name}.mp4"
    wav = base / "audio_wav" / group / f"{name}.wav"
    masks = base / "gt_masks" / group / name
    only_first = s4 and split == "train"
    return Clip(
        name=name,
        category=row.category,
        split=split,
        subset=row.subset,
        frames=tuple(folder / f"{stem}_{k}.png" for k in seconds),
        masks=tuple(None if only_first and k > 1 else masks / f"{name}_{k}.png" for k in seconds),
        sound=video if not wav.exists() and video.exists() else wav,
        video=video if not folder.is_dir() and video.exists() else None,
    )


def _avss_clip(base: Path, row: _Row) -> Clip:
    """A video of AVSBench-semantic; the masks of all its categories together are one mask."""
    folder = base / row.label / row.name
    coloured, numbered = folder / "labels_rgb", folder / "labels_semantic"
    masks = numbered if not coloured.is_dir() and numbered.is_dir() else coloured
    seconds = range(AVSS_SECONDS[row.label])
    only_first = row.label == "v1s" and row.split == "train"
    return Clip(
        name=row.name,
        category=row.category,
        split=row.split,
        subset="avss",
        frames=tuple(folder / "frames" / f"{k}.jpg" for k in seconds),
        masks=tuple(None if only_first and k > 0 else masks / f"{k}.png" for k in seconds),
        sound=folder / "audio.wav",
    )


def read_frames(clip: Clip, seconds: Sequence[int]) -> UInt8Array:
    """The pictures of some seconds, (T, H, W, 3) uint8 RGB.

    Raises:
        MediaError: One is missing or damaged, or they are not all of one size.
    """
    if clip.video is not None:
        return _decode_frames(clip, clip.video, seconds)
    pictures = []
    for second in seconds:
        with open_picture(clip, clip.frames[second]) as image:
            pictures.append(np.asarray(image.convert("RGB")))
        check_size(clip.frames[second], pictures[-1].shape[:2], pictures[0].shape[:2])
    return np.stack(pictures)


def read_masks(clip: Clip, seconds: Sequence[int]) -> BoolArray:
    """What sounds in some labelled seconds, (T, H, W) bool: whatever is not zero in the file.

    Raises:
        MediaError: One is missing or damaged, or is not of the size of its frame.
        ValueError: A second is not labelled.
    """
    masks = []
    for second in seconds:
        path = clip.masks[second]
        if path is None:
            raise ValueError(f"second {second} of {clip.name} is not labelled")
        with open_picture(clip, path) as image:
            masks.append(_foreground(image))
        check_size(path, masks[-1].shape, frame_size(clip, second))
        check_size(path, masks[-1].shape, masks[0].shape)
    return np.stack(masks)


def read_windows(
    clip: Clip, seconds: Sequence[int], rate_hz: int, *, reference: bool = False
) -> Float32Array:
    """The sound of some seconds, a second each, zeros where the sound ends early.

    Args:
        clip: The video.
        seconds: Which, from 0.
        rate_hz: Samples per second that CLAP wants.
        reference: Prepare the sound as the reference does (`embeddings.segments`): a stereo second
            becomes two seconds.

    Returns:
        (T, rate_hz) float32 in [-1, 1]; with `reference`, (T, channels * rate_hz).

    Raises:
        MediaError: The sound is missing, damaged, or shorter than the video by more than a second.
    """
    check_inside(clip, clip.sound)
    duration_s = None
    if clip.sound.suffix == ".wav":  # FFmpeg reads a cut one without a word
        duration_s = check_wav(clip.sound, read_file(clip, clip.sound))
    info = probe(clip.sound, need_video=False)
    stream = audio.choose_audio(info, None)
    if stream is None:
        raise MediaError(f"{clip.sound}: holds no sound; copy the WAV or the raw video again")
    check_long_enough(clip.sound, duration_s or stream.duration_s, clip.seconds)
    read = _reference_windows if reference else _mono_windows
    windows = read(info, stream, rate_hz, clip.seconds)
    return np.stack([windows[second] for second in seconds])


def _mono_windows(
    info: MediaInfo, stream: AudioStream, rate_hz: int, seconds: int
) -> list[Float32Array]:
    windows = audio.read_windows(info, rate_hz=rate_hz, stream=stream, stop_s=seconds)
    read = [window.samples for window in windows]
    if not read:
        raise MediaError(f"{info.path}: no sound can be decoded; copy it again")
    return read + [np.zeros(rate_hz, np.float32)] * (seconds - len(read))


def _reference_windows(
    info: MediaInfo, stream: AudioStream, rate_hz: int, seconds: int
) -> list[Float32Array]:
    import torch

    from av2tsam_cli.embeddings.segments import reference_segments

    samples = torch.from_numpy(audio.read_channels(info, stream))
    segments = reference_segments(samples, stream.rate_hz, to_hz=rate_hz, seconds=seconds)
    return list(segments.numpy())


def check_inside(clip: Clip, path: Path) -> None:
    """Refuse a file that a link takes out of the data folder.

    Raises:
        MediaError: It does.
    """
    real = os.path.join(_real_folder(path.parent), path.name)  # noqa: PTH118 - half the time
    if os.path.islink(path):  # noqa: PTH114 - as above
        real = os.path.realpath(path)
    if not any(real.startswith(bound + os.sep) for bound in clip.bounds):
        raise MediaError(
            f"{path}: leads out of the data folder (to {real}); copy the file into the folder"
        )


def read_file(clip: Clip, path: Path) -> bytes:
    """The content of one of a clip's files.

    Raises:
        MediaError: It is missing, empty, cannot be read, or is not in the data folder.
    """
    check_inside(clip, path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MediaError(f"{path}: is missing; copy or extract it again") from error
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
    if not data:
        raise MediaError(f"{path}: is empty; copy or extract it again")
    return data


@lru_cache(maxsize=1024)
def _real_folder(folder: Path) -> str:
    """Where a folder is when all links are followed: asked once for the files in it."""
    return os.path.realpath(folder)


@contextmanager
def open_picture(clip: Clip, path: Path) -> Iterator[Image.Image]:
    """Open a frame or mask; what goes wrong while it is read in the block names the file.

    Raises:
        MediaError: It is missing, damaged, no picture, or not in the data folder.
    """
    data = read_file(clip, path)
    try:
        with Image.open(BytesIO(data)) as image:
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = "no picture" if isinstance(error, UnidentifiedImageError) else error
        raise MediaError(f"{path}: is damaged ({reason}); copy it again") from error


def frame_size(clip: Clip, second: int) -> tuple[int, int]:
    """Height and width of a frame, from its header.

    Raises:
        MediaError: It is missing or damaged.
    """
    if clip.video is not None:
        return FRAME_PX, FRAME_PX
    with open_picture(clip, clip.frames[second]) as image:
        return image.height, image.width


def _foreground(image: Image.Image) -> BoolArray:
    """Where a mask of any kind (1-bit, grey, palette, RGB) is not zero, (H, W) bool.

    Of a palette the index counts, whatever colour it stands for; transparency never counts.
    """
    values = np.asarray(image.convert("RGB") if image.mode in {"RGBA", "CMYK"} else image)
    if image.mode == "LA":
        values = values[..., 0]
    return cast("BoolArray", values.any(axis=2) if values.ndim == 3 else values != 0)


def _decode_frames(clip: Clip, video: Path, seconds: Sequence[int]) -> UInt8Array:
    """Frames of a raw video as AVSBench extracts them; one that ends early repeats its last."""
    check_inside(clip, video)
    info = probe(video)
    times_s = [second + FRAME_SHARE for second in seconds]
    shown: dict[int, UInt8Array] = {}
    last_s = 0.0
    for frame in frames.read_frames(info, stop_s=max(times_s) + 1e-3):
        last_s = frame.time_s
        later = [k for k, time_s in enumerate(times_s) if frame.time_s <= time_s]
        shown |= dict.fromkeys(later, frame.rgb)
    if len(shown) < len(times_s) or last_s < max(times_s) - SHORT_S:
        raise MediaError(
            f"{video}: ends after {last_s:.2f} s, before its frame at {max(times_s):.2f} s; copy "
            "it again"
        )
    size = (FRAME_PX, FRAME_PX)
    return np.stack([cv2.resize(shown[k], size) for k in range(len(times_s))])
