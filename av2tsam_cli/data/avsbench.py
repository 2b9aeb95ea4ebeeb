"""The videos of AVSBench and of data sets in its format, as their CSV files list them.

The folder layout and the labels follow the data loaders and preprocessing scripts of
OpenNLPLab/AVSBench (`avs_scripts`, `preprocess_scripts`). `data.clips` reads the files.
"""

import csv
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from av2tsam_cli.avsbench_format import (
    AVSS_CLASSES,
    DATA_NAME,
    SPLITS,
    SUBSETS,
    Split,
    Subset,
)
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.files import read_text_file
from av2tsam_cli.options import unknown

DATA_VARIABLE = "AVSBENCH_ROOT"
DEFAULT_ROOT = Path("avsbench_data")
AVSS_SECONDS = {"v1s": 5, "v1m": 5, "v2": 10}
"""Length of AVSBench-semantic's videos in seconds, by the `label` column of its CSV."""
COLOURED = "labels_rgb"
"""Folder of a video's masks in AVSBench-semantic, with a colour per class."""


@dataclass(frozen=True)
class _SubsetLayout:
    """Where the files of a subset are, and which columns its CSV needs."""

    title: str
    """Name of the subset in messages."""
    csv: str
    """Name of the CSV."""
    folders: tuple[str, ...]
    """Names that the folder of the CSV may have; the first is the usual one."""
    data: str
    """Folder with the videos' files, relative to the CSV's."""
    columns: tuple[str, ...]
    """Required columns."""


_LAYOUTS: dict[Subset, _SubsetLayout] = {
    "s4": _SubsetLayout(
        title="S4",
        csv="s4_meta_data.csv",
        folders=("Single-source",),
        data="s4_data",
        columns=("category", "split"),
    ),
    "ms3": _SubsetLayout(
        title="MS3",
        csv="ms3_meta_data.csv",
        folders=("Multi-sources",),
        data="ms3_data",
        columns=("split",),
    ),
    "avss": _SubsetLayout(
        title="AVSBench-semantic",
        csv="metadata.csv",
        folders=("AVSBench_semantic", "AVSBench-semantic", "AVSS"),
        data=".",
        columns=("label", "split", "uid"),
    ),
}


@dataclass(frozen=True)
class Clip:
    """One video of a data set: paths of its frames, masks and sound."""

    name: str
    """Name of the video in the CSV."""
    category: str | None
    """Category of the sounding object; None if the CSV has none."""
    split: Split
    """`train`, `val` or `test`."""
    subset: Subset
    """`s4`, `ms3` or `avss`."""
    frames: tuple[Path, ...]
    """Images, one per second. They do not exist if `video` is set."""
    masks: tuple[Path | None, ...]
    """Images, one per second; None for seconds without a label."""
    sound: Path
    """WAV file, or the raw video if there is no WAV file."""
    video: Path | None = None
    """Raw video; set only if its frames were not extracted."""

    @property
    def seconds(self) -> int:
        """Length of the video in seconds."""
        return len(self.frames)

    @property
    def sound_from_video(self) -> bool:
        """Whether there is no WAV file, so the sound of the raw video is used."""
        return self.sound.suffix != ".wav"

    @property
    def labelled(self) -> tuple[int, ...]:
        """Indices of the seconds that have a mask, from 0."""
        return tuple(k for k, mask in enumerate(self.masks) if mask is not None)

    @property
    def has_classes(self) -> bool:
        """Whether the masks have a colour per class, as in AVSBench-semantic's `labels_rgb`."""
        return any(mask is not None and mask.parent.name == COLOURED for mask in self.masks)


def find_root(data: str, data_root: Path | None = None) -> Path:
    """Return the data folder that the options `data` and `data_root` select.

    Args:
        data: `avsbench` or a path.
        data_root: Folder of AVSBench. Default: `$AVSBENCH_ROOT`, else `./avsbench_data`.

    Raises:
        UsageError: The folder does not exist, or `data` is a path and `data_root` is set too.
    """
    if data != DATA_NAME:
        if data_root is not None:
            raise UsageError(f"`data_root` can be used only with `data` {DATA_NAME}, not {data}")
        tried, root = data, Path(data)
    elif data_root is not None:
        tried, root = str(data_root), data_root
    elif named := os.environ.get(DATA_VARIABLE):
        tried, root = f"${DATA_VARIABLE} ({named})", Path(named)
    else:
        tried, root = f"./{DEFAULT_ROOT}", DEFAULT_ROOT
    if not root.is_dir():
        raise UsageError(
            f"{tried}: folder not found; set `data_root` or ${DATA_VARIABLE} to the folder of "
            "AVSBench, or generate a data set with 'av2tsam data synth'"
        )
    return root


def find_subsets(root: Path) -> tuple[Subset, ...]:
    """Return the subsets whose CSV is in a data folder."""
    return tuple(subset for subset in SUBSETS if find_csv(root, subset) is not None)


def open_split(root: Path, subset: Subset, split: Split) -> tuple[Clip, ...]:
    """Return the videos of one split in the order of the CSV, without opening their files.

    Args:
        root: The data folder, or the subset's own folder in it.
        subset: `s4`, `ms3` or `avss`.
        split: `train`, `val` or `test`.

    Raises:
        UsageError: The subset or the split is unknown.
        MediaError: The CSV is missing or invalid, or lists no videos for the split.
    """
    if split not in SPLITS:
        raise UsageError(unknown("split", split, SPLITS))
    clips = tuple(clip for clip in open_subset(root, subset) if clip.split == split)
    if not clips:
        raise MediaError(
            f"{find_csv(root, subset)}: lists no videos for the split {split}; use another split "
            "or a complete copy of the data"
        )
    return clips


def open_subset(root: Path, subset: Subset) -> tuple[Clip, ...]:
    """Return the videos of all splits; arguments and errors as for `open_split`."""
    if subset not in SUBSETS:
        raise UsageError(unknown("subset", subset, SUBSETS))
    path = find_csv(root, subset)
    if path is None:
        raise MediaError(_missing_csv(root, subset))
    base = path.parent / _LAYOUTS[subset].data
    make_clip = _semantic_clip if subset == "avss" else _object_clip
    clips = []
    for row in _read_rows(path, subset):
        try:
            clips.append(make_clip(base, row))
        except OSError as error:  # the name is too long, or permission was denied
            raise MediaError(
                f"{row.where}: the files of this video cannot be read ({error.strerror}); correct "
                "the line, or check the permissions of the folders"
            ) from error
    if not clips:
        raise MediaError(f"{path}: lists no videos; use the CSV that comes with the data")
    return tuple(clips)


def find_csv(root: Path, subset: Subset) -> Path | None:
    """Return the CSV of a subset. `root` may also be its own folder, or the one with its files."""
    layout = _LAYOUTS[subset]
    paths = (root / folder / layout.csv for folder in (*layout.folders, ".", ".."))
    return next((path for path in paths if path.is_file()), None)


def read_classes(root: Path) -> tuple[str, ...]:
    """Return the names of AVSBench-semantic's classes by label, the background first.

    They are those of `label2idx.json`, which generated data needs because it has other classes, or
    AVSBench-semantic's if there is no such file. Its numbers may start at 0 or 1.

    Args:
        root: The data folder, or the subset's own folder in it.

    Raises:
        MediaError: The CSV is missing, or the file is not a table of as many classes.
    """
    table = find_csv(root, "avss")
    if table is None:
        raise MediaError(_missing_csv(root, "avss"))
    path = table.parent / "label2idx.json"
    try:
        numbers = json.loads(read_text_file(path, raises=MediaError))
        names = tuple(sorted(numbers, key=lambda name: int(numbers[name])))
    except FileNotFoundError:
        return AVSS_CLASSES
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise MediaError(f"{path}: cannot be read as classes ({error}); copy it again") from error
    if len(names) != len(AVSS_CLASSES) or names[0] != AVSS_CLASSES[0]:
        raise MediaError(
            f"{path}: does not list {len(AVSS_CLASSES)} classes that start with "
            f"{AVSS_CLASSES[0]}; copy it again"
        )
    return names


def _missing_csv(root: Path, subset: Subset) -> str:
    layout = _LAYOUTS[subset]
    others = [_LAYOUTS[other].title for other in find_subsets(root)]
    found = f"only {' and '.join(others)}" if others else "no AVSBench subset"
    return (
        f"{root}: no {layout.folders[0]}/{layout.csv} found, {found}; use the folder that contains "
        f"AVSBench's {layout.title}, or choose another `subset`"
    )


@dataclass(frozen=True)
class _Row:
    """One validated line of a CSV."""

    where: str
    """The file and line number, for messages."""
    name: str
    split: Split
    subset: Subset
    category: str | None
    label: str
    """Of AVSBench-semantic only: `v1s`, `v1m` or `v2`."""


def _read_rows(path: Path, subset: Subset) -> Iterator[_Row]:
    """Read and validate a CSV. As in AVSBench's loaders, the name defaults to the first column."""
    semantic = subset == "avss"
    for where, cells in _read_table(path, _LAYOUTS[subset].columns):
        category = cells.get("a_obj" if semantic else "category") or None
        name = cells.get("uid" if semantic else "name", next(iter(cells.values())))
        if subset == "s4":
            category = _path_component(where, category)
        yield _Row(
            where=where,
            name=_path_component(where, name),
            split=cast("Split", _choice(where, "split", cells["split"], SPLITS)),
            subset=subset,
            category=category,
            label=_choice(where, "label", cells["label"], AVSS_SECONDS) if semantic else "",
        )


def _read_table(path: Path, columns: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Read a CSV with a header.

    Yields:
        The file and line number, for messages, and the cells by column; missing cells are empty.

    Raises:
        MediaError: The file is not a readable CSV, or a required column is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, restval="", strict=True)
            header = table.fieldnames = [name.strip() for name in table.fieldnames or ()]
            if missing := sorted(set(columns) - set(header)):
                raise MediaError(
                    f"{path}: has no column {', '.join(missing)}, only: "
                    f"{', '.join(header) or 'none'}; use the CSV that comes with the data"
                )
            for cells in table:
                yield f"{path}: line {table.line_num}", {k: v for k, v in cells.items() if k}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(f"{path}: cannot be read as CSV ({error}); copy it again") from error


def _choice(where: str, column: str, value: str, choices: Collection[str]) -> str:
    if value not in choices:
        raise MediaError(f"{where}: unknown {column} {value!r}; use one of {', '.join(choices)}")
    return value


def _path_component(where: str, name: str | None) -> str:
    """Return a name that is safe to use in a path: it cannot point outside the data folder."""
    if not name or name in {".", ".."} or any(sign in name for sign in "/\\\0"):
        raise MediaError(
            f"{where}: {name or ''!r} is not a valid name of a video or category, which must be "
            "one path component; correct the line"
        )
    return name


def find_dangling_link(path: Path) -> Path | None:
    """Return the link in a path whose target does not exist, if there is one.

    git-annex and DVC leave such links for files that were not fetched.
    """
    return next((each for each in (path, *path.parents) if _is_dangling(each)), None)


def _is_dangling(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _object_clip(base: Path, row: _Row) -> Clip:
    """Return a video of S4 or MS3. MS3's frames and raw videos are not in folders per split.

    Its raw video replaces missing frames or a missing WAV, but not those that a dangling link
    stands for.
    """
    name, single = row.name, row.subset == "s4"
    by_split = Path(row.split, row.category or "") if single else Path(row.split)
    by_subset = by_split if single else Path()
    frames = base / "visual_frames" / by_subset / name
    frame_prefix = name if single else f"{name}.mp4"
    masks = base / "gt_masks" / by_split / name
    video = base / "raw_videos" / by_subset / f"{name}.mp4"
    has_video = video.exists()
    wav = base / "audio_wav" / by_split / f"{name}.wav"
    seconds = range(1, 6)
    labelled = [1] if single and row.split == "train" else seconds
    return Clip(
        name=name,
        category=row.category,
        split=row.split,
        subset=row.subset,
        frames=tuple(frames / f"{frame_prefix}_{k}.png" for k in seconds),
        masks=tuple(masks / f"{name}_{k}.png" if k in labelled else None for k in seconds),
        sound=wav if wav.exists() or not has_video or find_dangling_link(wav) else video,
        video=None if frames.is_dir() or not has_video or find_dangling_link(frames) else video,
    )


def _semantic_clip(base: Path, row: _Row) -> Clip:
    """Return a video of AVSBench-semantic; the masks of all categories are read as one mask."""
    folder = base / row.label / row.name
    coloured, numbered = folder / COLOURED, folder / "labels_semantic"
    masks = numbered if not coloured.is_dir() and numbered.is_dir() else coloured
    seconds = range(AVSS_SECONDS[row.label])
    labelled = [0] if row.label == "v1s" and row.split == "train" else seconds
    return Clip(
        name=row.name,
        category=row.category,
        split=row.split,
        subset="avss",
        frames=tuple(folder / "frames" / f"{k}.jpg" for k in seconds),
        masks=tuple(masks / f"{k}.png" if k in labelled else None for k in seconds),
        sound=folder / "audio.wav",
    )
