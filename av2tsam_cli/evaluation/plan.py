"""Find the videos of an evaluation and check their files, before a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from av2tsam_cli.avsbench_format import AVSS_CLASSES, Subset
from av2tsam_cli.data.avsbench import Clip, find_root, open_split, read_classes
from av2tsam_cli.data.check import require_intact
from av2tsam_cli.evaluation.negative_audio import choose_donors
from av2tsam_cli.evaluation.options import EvaluateOptions

BACKGROUND = AVSS_CLASSES[0]


@dataclass(frozen=True)
class PlannedVideo:
    """A video to evaluate."""

    index: int
    """Its position in the split."""
    clip: Clip
    """The video."""
    donor: Clip | None
    """The video whose audio replaces its own; None unless the negative audio is off-screen."""


@dataclass(frozen=True)
class EvaluationPlan:
    """The videos of an evaluation, found before a model is loaded."""

    videos: tuple[PlannedVideo, ...]
    """The videos to evaluate, in the order of the data set."""
    skipped: tuple[PlannedVideo, ...]
    """Corrupted videos, which are skipped."""
    deviations: dict[str, int]
    """Number of videos with each of `data.check.DEVIATIONS`."""
    label_names: tuple[str, ...]
    """What the data tells apart, by label: the classes of AVSBench-semantic, the categories of S4,
    nothing in MS3. 0 is the background."""


def plan_evaluation(options: EvaluateOptions) -> EvaluationPlan:
    """Find the videos to evaluate and check their files.

    Raises:
        UsageError: There is no off-screen audio for a video.
        MediaError: The data is missing, a video is corrupted and `skip_bad` is not set, or a raw
            video replaces missing files and `strict` is set.
    """
    root = find_root(options.data, options.data_root)
    clips = open_split(root, options.subset, options.split)
    donors: Sequence[Clip | None] = (None,) * len(clips)
    if options.audio == "offscreen":
        donors = choose_donors(clips, options.seed)
    limited = clips[: options.limit]
    checked = require_intact(limited, skip_bad=options.skip_bad, strict=options.strict)
    pairs = zip(limited, donors[: options.limit], strict=True)
    videos = [PlannedVideo(index, clip, donor) for index, (clip, donor) in enumerate(pairs)]
    evaluated = frozenset(checked.intact)
    return EvaluationPlan(
        videos=tuple(video for video in videos if video.clip in evaluated),
        skipped=tuple(video for video in videos if video.clip not in evaluated),
        deviations=checked.counts,
        label_names=_label_names(root, options.subset, clips),
    )


def _label_names(root: Path, subset: Subset, clips: Sequence[Clip]) -> tuple[str, ...]:
    if subset == "avss":
        return read_classes(root)
    categories = {clip.category for clip in clips if clip.category} if subset == "s4" else ()
    return (BACKGROUND, *sorted(categories))
