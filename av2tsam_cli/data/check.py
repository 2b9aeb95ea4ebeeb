"""Check all files of a data set without decoding them, and count its videos."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from av2tsam_cli.avsbench_format import FRAME_PX, SPLITS, Split, Subset
from av2tsam_cli.data.avsbench import Clip, find_csv, open_subset
from av2tsam_cli.data.clips import probe_sound, read_file
from av2tsam_cli.data.integrity import (
    MAX_MISSING_S,
    check_image,
    check_mp4,
    check_size,
    check_wav,
)
from av2tsam_cli.errors import MediaError
from av2tsam_cli.options import either
from av2tsam_cli.values import Progress

log = logging.getLogger(__name__)

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
class Deviation:
    """How videos can differ from those of a complete copy of AVSBench and still be used."""

    what: str
    """Which videos, after their number."""
    consequence: str
    """What is done."""
    fix: str | None
    """What to do if `strict` is set; None if that permits the deviation."""


DEVIATIONS = {
    "frames_from_raw_videos": Deviation(
        "without extracted frames", "raw_videos is used", fix="extract the frames"
    ),
    "sound_from_raw_videos": Deviation(
        "without a WAV file", "raw_videos is used", fix="extract the sound"
    ),
    "padded_sounds": Deviation(
        "whose sound ends more than a second early",
        "it is padded with silence, as in AVSBench",
        fix=None,
    ),
    "repeated_videos": Deviation(
        "listed more than once", "each line counts", fix="correct the CSV"
    ),
}
"""The deviations by the names that JSON output and `run.json` use for their numbers of videos."""


@dataclass(frozen=True)
class CheckedClips:
    """Clips whose files were checked."""

    clips: tuple[Clip, ...] = field(repr=False)
    """All clips."""
    problems: tuple[ClipProblem, ...]
    """One for each missing or corrupted file."""
    padded: frozenset[Clip] = field(repr=False)
    """Clips whose sound ends more than `MAX_MISSING_S` early."""

    @cached_property
    def intact(self) -> tuple[Clip, ...]:
        """The clips without problems."""
        damaged = {problem.clip for problem in self.problems}
        return tuple(clip for clip in self.clips if clip not in damaged)

    @cached_property
    def deviations(self) -> dict[str, list[Clip]]:
        """The intact clips with each of the `DEVIATIONS`."""
        return {
            "frames_from_raw_videos": [clip for clip in self.intact if clip.video is not None],
            "sound_from_raw_videos": [clip for clip in self.intact if clip.sound_from_video],
            "padded_sounds": [clip for clip in self.intact if clip in self.padded],
            "repeated_videos": [clips[0] for clips in find_repeated(self.intact)],
        }

    @property
    def counts(self) -> dict[str, int]:
        """Number of clips with each of the `DEVIATIONS`."""
        return {name: len(clips) for name, clips in self.deviations.items()}

    @property
    def warnings(self) -> list[str]:
        """A line for each of the `DEVIATIONS` that there are."""
        return [
            f"{_describe(name, clips)}: {DEVIATIONS[name].consequence}"
            for name, clips in self.deviations.items()
            if clips
        ]

    def check_strictly(self) -> None:
        """Check that there is none of the `DEVIATIONS` that `strict` does not permit.

        Raises:
            MediaError: There is one; the message names a video.
        """
        for name, clips in self.deviations.items():
            fix = DEVIATIONS[name].fix
            if clips and fix is not None:
                raise MediaError(f"{_describe(name, clips)}; {fix}, or omit `strict`")


def _describe(name: str, clips: Sequence[Clip]) -> str:
    plural = "" if len(clips) == 1 else "s"
    example = clips[0].name if len(clips) == 1 else f"such as {clips[0].name}"
    return f"{len(clips)} video{plural} {DEVIATIONS[name].what} ({example})"


def find_repeated(clips: Iterable[Clip]) -> list[list[Clip]]:
    """Return the videos that are listed more than once, in one split or in several."""
    groups: dict[tuple[str | None, str], list[Clip]] = {}
    for clip in clips:
        groups.setdefault((clip.category, clip.name), []).append(clip)
    return [group for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class SubsetReport:
    """Contents and problems of one subset."""

    subset: Subset
    """`s4`, `ms3` or `avss`."""
    csv: Path
    """The CSV that lists its videos."""
    checked: CheckedClips
    """All videos in the CSV."""

    @property
    def clips(self) -> tuple[Clip, ...]:
        """All videos in the CSV."""
        return self.checked.clips

    @property
    def problems(self) -> tuple[ClipProblem, ...]:
        """One for each missing or corrupted file, and for each video listed more than once."""
        repeated = (self._repeated_problem(clips) for clips in find_repeated(self.clips))
        return (*self.checked.problems, *repeated)

    def _repeated_problem(self, clips: Sequence[Clip]) -> ClipProblem:
        name, splits = clips[0].name, list(dict.fromkeys(clip.split for clip in clips))
        if len(splits) == 1:
            where = f"lists {name} {len(clips)} times in the split {splits[0]}"
        else:
            where = f"lists {name} in the splits {' and '.join(splits)}"
        return ClipProblem(clips[0], f"{self.csv}: {where}; keep one line of this video", self.csv)

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
    def empty_splits(self) -> list[Split]:
        """The splits without videos."""
        return [split for split in SPLITS if not self.videos(split)]

    @property
    def damaged_videos(self) -> int:
        """Number of videos with a missing or corrupted file."""
        return len({problem.clip for problem in self.checked.problems})

    def check_strictly(self) -> None:
        """Check that no split is empty, and that `CheckedClips.check_strictly` finds nothing.

        Raises:
            MediaError: There is something.
        """
        self.checked.check_strictly()
        if self.empty_splits:
            raise MediaError(
                f"{self.csv}: lists no videos for the split {either(self.empty_splits)}; complete "
                "it, or omit `strict`"
            )

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
            **self.checked.counts,
            "splits": splits,
            "empty_splits": self.empty_splits,
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
    csv = find_csv(root, subset)
    assert csv is not None  # noqa: S101 - `open_subset` has read it
    return SubsetReport(subset, csv, check_clips(clips, progress))


def require_intact(
    clips: Sequence[Clip], *, skip_bad: bool = False, strict: bool = False
) -> CheckedClips:
    """Check all files of some clips before they are used, and log what is skipped or replaced.

    Args:
        clips: The clips.
        skip_bad: Skip clips with missing or corrupted files instead of raising an error.
        strict: Raise an error instead of using raw videos in place of missing files, and for
            videos that are listed more than once.

    Returns:
        The clips, those with problems included.

    Raises:
        MediaError: A file is missing or corrupted (with `skip_bad`, only if no clip is intact), or
            replaced and `strict` is set.
    """
    checked = check_clips(clips)
    problems = checked.problems
    if problems and not (skip_bad and checked.intact):
        others = len(problems) - 1
        more = f" (and {others} more file{'s' * (others > 1)})" if others else ""
        fix = "" if skip_bad else ", or set `skip_bad` to skip such videos"
        raise MediaError(f"{problems[0].message}{more}{fix}")
    if strict:
        checked.check_strictly()
    for problem in problems:
        log.warning("skipped %s: %s", problem.clip.name, problem.message)
    for warning in checked.warnings:
        log.warning("%s", warning)
    return checked


def check_clips(clips: Sequence[Clip], progress: Progress | None = None) -> CheckedClips:
    """Check every file of some clips; `progress` is called with the number done and the total."""
    problems: list[ClipProblem] = []
    padded = set()
    with ThreadPoolExecutor(THREADS) as pool:
        checks = pool.map(check_clip, clips)
        for done, (clip, check) in enumerate(zip(clips, checks, strict=True), start=1):
            problems += check.problems
            if check.is_padded:
                padded.add(clip)
            if progress:
                progress(done, len(clips))
    return CheckedClips(tuple(clips), tuple(problems), frozenset(padded))


@dataclass(frozen=True)
class ClipCheck:
    """What was found in one clip."""

    problems: tuple[ClipProblem, ...]
    """One for each missing or corrupted file."""
    is_padded: bool
    """Whether its sound ends more than `MAX_MISSING_S` early."""


def check_clip(clip: Clip) -> ClipCheck:
    """Check each file of one clip."""
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
            _check_video(clip.video)
    else:
        for second, frame in enumerate(clip.frames):
            with checking(frame):
                sizes[second] = check_image(frame, read_file(frame))
    for second, mask in _labelled_masks(clip):
        with checking(mask):
            size = check_image(mask, read_file(mask))
            check_size(mask, size, sizes.get(second, size))
    sound_s = None
    if clip.sound not in {problem.file for problem in problems}:  # it may be `clip.video`
        with checking(clip.sound):
            sound_s = _check_sound(clip)
    is_padded = sound_s is not None and sound_s < clip.seconds - MAX_MISSING_S
    return ClipCheck(tuple(problems), is_padded)


def _labelled_masks(clip: Clip) -> Iterable[tuple[int, Path]]:
    return ((second, mask) for second, mask in enumerate(clip.masks) if mask is not None)


def _check_sound(clip: Clip) -> float | None:
    """Check the sound of a clip and return its seconds, if known."""
    if not clip.sound_from_video:
        return check_wav(clip.sound, read_file(clip.sound))
    _check_video(clip.sound)
    _, stream = probe_sound(clip.sound)
    return stream.duration_s


def _check_video(path: Path) -> None:
    try:
        check_mp4(path)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); copy it again") from error
