"""Check all files of a data set without decoding them, and count its videos."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from av2tsam_cli.avsbench_format import FRAME_PX, SPLITS, Split, Subset
from av2tsam_cli.data.avsbench import Clip, open_subset
from av2tsam_cli.data.clips import check_inside, read_file
from av2tsam_cli.data.integrity import (
    check_duration,
    check_image,
    check_mp4,
    check_size,
    check_wav,
)
from av2tsam_cli.errors import MediaError
from av2tsam_cli.values import Progress

THREADS = min(8, 2 * (os.cpu_count() or 1))
"""More threads than cores, because part of the time is spent waiting for the disk."""


@dataclass(frozen=True)
class ClipProblem:
    """A file that makes a clip unusable."""

    clip: Clip
    """The clip."""
    message: str
    """What is wrong with which file, and how to fix it."""
    file: Path | None = None
    """The file, if known."""


@dataclass(frozen=True)
class SubsetReport:
    """Contents and problems of one subset."""

    subset: Subset
    """`s4`, `ms3` or `avss`."""
    clips: tuple[Clip, ...] = field(repr=False)
    """All videos in the CSV."""
    problems: tuple[ClipProblem, ...]
    """One for each missing or corrupted file."""

    def categories(self, split: Split) -> dict[str, int]:
        """Return the number of videos in a split by category; empty for data without categories."""
        categories = [clip.category for clip in self.clips if clip.split == split]
        return dict(sorted(Counter(name for name in categories if name).items()))

    def videos(self, split: Split) -> int:
        """Return the number of videos in a split."""
        return sum(clip.split == split for clip in self.clips)

    def labelled_frames(self, split: Split) -> int:
        """Return the number of frames in a split that have a mask."""
        return sum(len(clip.labelled) for clip in self.clips if clip.split == split)

    @property
    def frames_from_videos(self) -> int:
        """Number of videos without extracted frames, whose raw videos are decoded."""
        return sum(clip.video is not None for clip in self.clips)

    @property
    def sound_from_videos(self) -> int:
        """Number of videos without a WAV, whose raw videos' sound is decoded."""
        return sum(clip.sound.suffix != ".wav" for clip in self.clips)

    @property
    def damaged_videos(self) -> int:
        """Number of videos with a missing or corrupted file."""
        return len({problem.clip for problem in self.problems})

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        splits = {
            split: {
                "videos": self.videos(split),
                "labelled_frames": self.labelled_frames(split),
                "categories": self.categories(split),
            }
            for split in SPLITS
        }
        return {
            "subset": self.subset,
            "videos": len(self.clips),
            "frames_from_raw_videos": self.frames_from_videos,
            "sound_from_raw_videos": self.sound_from_videos,
            "splits": splits,
            "damaged_videos": self.damaged_videos,
            "problems": [
                {
                    "video": problem.clip.name,
                    "split": problem.clip.split,
                    "file": str(problem.file),
                    "problem": problem.message,
                }
                for problem in self.problems
            ],
        }


def check_subset(root: Path, subset: Subset, progress: Progress | None = None) -> SubsetReport:
    """Check every file of a subset.

    Args:
        root: The data folder, or the subset's own folder in it.
        subset: `s4`, `ms3` or `avss`.
        progress: Called after each video with the number of checked videos and their total.

    Raises:
        MediaError: The CSV is missing or invalid. Other files are only reported.
    """
    clips = open_subset(root, subset)
    return SubsetReport(subset, clips, tuple(_find_problems(clips, progress)))


def require_intact(
    clips: Sequence[Clip], *, skip_bad: bool
) -> tuple[tuple[Clip, ...], tuple[ClipProblem, ...]]:
    """Check all files of some clips before they are used.

    Args:
        clips: The clips.
        skip_bad: Skip clips with missing or corrupted files instead of raising an error.

    Returns:
        The intact clips, and the problems of the others.

    Raises:
        MediaError: A file is missing or corrupted; with `skip_bad`, only if no clip is intact.
    """
    problems = tuple(_find_problems(clips))
    damaged = {problem.clip for problem in problems}
    intact = tuple(clip for clip in clips if clip not in damaged)
    if problems and not (skip_bad and intact):
        others = len(problems) - 1
        more = f" (and {others} more file{'s' * (others > 1)})" if others else ""
        fix = "" if skip_bad else ", or set `skip_bad` to skip such videos"
        raise MediaError(f"{problems[0].message}{more}{fix}")
    return intact, problems


def _find_problems(
    clips: Sequence[Clip], progress: Progress | None = None
) -> Iterator[ClipProblem]:
    with ThreadPoolExecutor(THREADS) as pool:
        for done, problems in enumerate(pool.map(check_clip, clips), start=1):
            yield from problems
            if progress:
                progress(done, len(clips))


def check_clip(clip: Clip) -> list[ClipProblem]:
    """Check each file of one clip and return a problem for every missing or corrupted one."""
    problems: list[ClipProblem] = []

    @contextmanager
    def checking(file: Path) -> Iterator[None]:
        try:
            yield
        except MediaError as error:
            problems.append(ClipProblem(clip, str(error), file))

    sizes: dict[int, tuple[int, int]] = {}
    if clip.video is not None:
        sizes = dict.fromkeys(range(clip.seconds), (FRAME_PX, FRAME_PX))
        with checking(clip.video):
            _check_video(clip, clip.video)
    else:
        for second, frame in enumerate(clip.frames):
            with checking(frame):
                sizes[second] = check_image(frame, read_file(clip, frame))
    for second, mask in _labelled_masks(clip):
        with checking(mask):
            size = check_image(mask, read_file(clip, mask))
            check_size(mask, size, sizes.get(second, size))
    if clip.sound != clip.video:
        with checking(clip.sound):
            _check_sound(clip)
    return problems


def _labelled_masks(clip: Clip) -> Iterable[tuple[int, Path]]:
    return ((second, mask) for second, mask in enumerate(clip.masks) if mask is not None)


def _check_sound(clip: Clip) -> None:
    if clip.sound.suffix == ".wav":
        duration_s = check_wav(clip.sound, read_file(clip, clip.sound))
        check_duration(clip.sound, duration_s, clip.seconds)
    else:
        _check_video(clip, clip.sound)


def _check_video(clip: Clip, path: Path) -> None:
    check_inside(clip, path)
    try:
        check_mp4(path)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
