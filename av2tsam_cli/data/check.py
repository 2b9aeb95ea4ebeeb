"""What a data set holds, and which of its files are missing or damaged, without decoding any."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from av2tsam_cli.data.avsbench import (
    FRAME_PX,
    SPLITS,
    Clip,
    Damaged,
    Split,
    Subset,
    check_inside,
    open_subset,
    read_file,
)
from av2tsam_cli.data.integrity import (
    check_long_enough,
    check_mp4,
    check_picture,
    check_size,
    check_wav,
)
from av2tsam_cli.errors import MediaError

THREADS = min(8, 2 * (os.cpu_count() or 1))
"""More than the cores: some of the time goes into waiting for the disk."""
Progress = Callable[[int], None]
"""Is told how many videos are done."""


@dataclass(frozen=True)
class SubsetReport:
    """What one subset holds."""

    subset: Subset
    """`s4`, `ms3` or `avss`."""
    clips: tuple[Clip, ...] = field(repr=False)
    """All videos of its CSV."""
    problems: tuple[Damaged, ...]
    """One for each file that is missing or damaged."""

    def categories(self, split: Split) -> dict[str, int]:
        """Videos of one split by category; empty where the data knows no categories."""
        heard = [clip.category for clip in self.clips if clip.split == split]
        return dict(sorted(Counter(category for category in heard if category).items()))

    def videos(self, split: Split) -> int:
        """Videos of one split."""
        return sum(clip.split == split for clip in self.clips)

    def labelled(self, split: Split) -> int:
        """Frames of one split that have a mask."""
        return sum(len(clip.labelled) for clip in self.clips if clip.split == split)

    @property
    def decoded_frames(self) -> int:
        """Videos without extracted frames, which are taken from the raw videos."""
        return sum(clip.video is not None for clip in self.clips)

    @property
    def decoded_sounds(self) -> int:
        """Videos without a WAV, whose sound is taken from the raw videos."""
        return sum(clip.sound.suffix != ".wav" for clip in self.clips)

    def to_record(self) -> dict[str, object]:
        """The report as JSON values."""
        splits = {
            split: {
                "videos": self.videos(split),
                "labelled_frames": self.labelled(split),
                "categories": self.categories(split),
            }
            for split in SPLITS
        }
        return {
            "subset": self.subset,
            "videos": len(self.clips),
            "frames_from_raw_videos": self.decoded_frames,
            "sound_from_raw_videos": self.decoded_sounds,
            "splits": splits,
            "damaged_videos": len({problem.clip for problem in self.problems}),
            "problems": [
                {"video": p.clip.name, "split": p.clip.split, "file": p.file, "problem": p.reason}
                for p in self.problems
            ],
        }


def check_subset(root: Path, subset: Subset, progress: Progress | None = None) -> SubsetReport:
    """Look at every file of a subset.

    Args:
        root: The data folder, or the subset's own folder in it.
        subset: `s4`, `ms3` or `avss`.
        progress: Is called after each video.

    Raises:
        MediaError: The CSV is missing or cannot be used; damaged files are only reported.
    """
    clips = open_subset(root, subset)
    return SubsetReport(subset, clips, tuple(_all_problems(clips, progress)))


def keep_readable(
    clips: Sequence[Clip], *, skip_bad: bool, progress: Progress | None = None
) -> tuple[tuple[Clip, ...], tuple[Damaged, ...]]:
    """Check clips before work on them starts.

    Args:
        clips: The clips.
        skip_bad: Leave out those with missing or damaged files, instead of stopping.
        progress: Is called after each clip.

    Returns:
        The clips that are whole, and a line for each file of the others that is not.

    Raises:
        MediaError: A file is missing or damaged; with `skip_bad`, only if no clip is whole.
    """
    problems = tuple(_all_problems(clips, progress))
    damaged = {problem.clip for problem in problems}
    kept = tuple(clip for clip in clips if clip not in damaged)
    if problems and not (skip_bad and kept):
        more = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
        mend = "" if skip_bad else "; --skip-bad leaves such videos out"
        raise MediaError(f"{problems[0].reason}{more}{mend}")
    return kept, problems


def _all_problems(clips: Sequence[Clip], progress: Progress | None) -> Iterator[Damaged]:
    with ThreadPoolExecutor(THREADS) as pool:
        for done, problems in enumerate(pool.map(check_clip, clips), start=1):
            yield from problems
            if progress:
                progress(done)


def check_clip(clip: Clip) -> list[Damaged]:
    """Look at each file of one video; there is a line for each that cannot be used."""
    return [Damaged(clip, str(error), path) for path, error in _errors(clip)]


def _errors(clip: Clip) -> Iterator[tuple[Path, MediaError]]:
    sizes: dict[int, tuple[int, int]] = {}
    if clip.video is not None:
        sizes = dict.fromkeys(range(clip.seconds), (FRAME_PX, FRAME_PX))
        yield from _error_of(_check_video, clip, clip.video)
    else:
        for second, path in enumerate(clip.frames):
            yield from _error_of(_check_frame, clip, path, second, sizes)
    for second, mask in enumerate(clip.masks):
        if mask is not None:
            yield from _error_of(_check_mask, clip, mask, sizes.get(second))
    if clip.sound != clip.video:
        yield from _error_of(_check_sound, clip, clip.sound)


def _error_of(
    check: Callable[..., None], clip: Clip, path: Path, *what: object
) -> list[tuple[Path, MediaError]]:
    try:
        check(clip, path, *what)
    except MediaError as error:
        return [(path, error)]
    return []


def _check_frame(clip: Clip, path: Path, second: int, sizes: dict[int, tuple[int, int]]) -> None:
    sizes[second] = check_picture(path, read_file(clip, path))


def _check_mask(clip: Clip, path: Path, frame: tuple[int, int] | None) -> None:
    size = check_picture(path, read_file(clip, path))
    if frame is not None:
        check_size(path, size, frame)


def _check_sound(clip: Clip, path: Path) -> None:
    if path.suffix != ".wav":
        _check_video(clip, path)
        return
    check_long_enough(path, check_wav(path, read_file(clip, path)), clip.seconds)


def _check_video(clip: Clip, path: Path) -> None:
    check_inside(clip, path)
    try:
        check_mp4(path)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
