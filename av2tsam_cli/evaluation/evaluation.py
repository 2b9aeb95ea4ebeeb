"""What an evaluation is asked for and what it finds.

Letters: T labelled frames of a video.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av2tsam_cli.data.avsbench import DATA_NAME, Clip, Split, Subset
from av2tsam_cli.errors import UsageError
from av2tsam_cli.evaluation.metrics import ScoringProtocol
from av2tsam_cli.evaluation.negative_audio import Sound
from av2tsam_cli.evaluation.scoring import VideoScore, summarise
from av2tsam_cli.segment_options import SILENCE_DBFS


@dataclass(frozen=True)
class EvaluateOptions:
    """What to score and how. Checked when it is made."""

    data: str = DATA_NAME
    """`avsbench`, or the folder of a data set in its layout."""
    data_root: Path | None = None
    """Where AVSBench is; None: what the environment says, or `./avsbench_data`."""
    subset: Subset = "s4"
    """`s4`, `ms3` or `avss`."""
    split: Split = "test"
    """`train`, `val` or `test`."""
    protocol: ScoringProtocol = ScoringProtocol.AVSBENCH
    """Whose rule F follows."""
    audio: Sound = "original"
    """What is heard."""
    reference_audio: bool = False
    """Prepare the sound as the reference does: sinc resampling, channels one after the other."""
    silence_dbfs: float | None = None
    """Seconds of sound below this level get an empty mask; -inf: none do. None: as when a video is
    segmented, but none by the reference's protocol, which knows no gate."""
    limit: int | None = None
    """Score only the first so many videos of the split; None: all."""
    skip_bad: bool = False
    """Leave damaged videos out instead of stopping."""
    seed: int = 0
    """Decides noise, and which video's sound another one gets."""
    batch_size: int | None = None
    """Frames per run of the network; None for what suits device and model."""
    cache: Path | None = None
    """Folder of the embeddings; None: that of all trainings and evaluations."""

    def __post_init__(self) -> None:
        for name, value in (("--limit", self.limit), ("--batch-size", self.batch_size)):
            if value is not None and value < 1:
                raise UsageError(f"{name} {value}: must be 1 or more")

    @property
    def gate_dbfs(self) -> float:
        """The level below which a second counts as silent; -inf where none does."""
        if self.silence_dbfs is not None:
            return self.silence_dbfs
        return SILENCE_DBFS if self.protocol is ScoringProtocol.AVSBENCH else -math.inf


@dataclass(frozen=True)
class Negative:
    """How one video was segmented with a sound with which nothing in it sounds."""

    score: VideoScore
    """Against what sounds in the video with its own sound, so that a low one is good."""
    found: float
    """Share of the pixels that were found, mean over frames."""
    frames_found: int
    """Frames in which anything was found."""


@dataclass(frozen=True)
class Result:
    """How one video was segmented."""

    original: VideoScore
    """With its own sound."""
    negative: Negative | None = None
    """With another, where that is what was asked for."""


@dataclass(frozen=True)
class VideoResult:
    """One video of the split and what came of it."""

    index: int
    """Its place in the split."""
    clip: Clip
    """The video."""
    gated: Result
    """With silent seconds emptied; what is reported."""
    ungated: Result
    """Of the network alone."""
    silent_frames: int
    """Frames that the gate emptied, with either sound."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that an evaluation found."""

    results: tuple[VideoResult, ...]
    """The videos that were scored, in the order of the data set."""
    skipped: tuple[str, ...]
    """Names of the damaged videos that were left out, in the same order."""

    def to_json(self, options: EvaluateOptions) -> dict[str, Any]:
        """The scores, and what of the options they depend on, as JSON values."""
        silent = sum(result.silent_frames for result in self.results)
        record = figures([result.gated for result in self.results]) | {
            "protocol": str(options.protocol),
            "subset": options.subset,
            "split": options.split,
            "audio": options.audio,
            "videos": len(self.results),
            "frames": sum(result.gated.original.frames for result in self.results),
            "silent_frames": silent,
            "skipped": list(self.skipped),
            "categories": self._categories(),
        }
        if silent:
            record["ungated"] = figures([result.ungated for result in self.results])
        return record

    def _categories(self) -> dict[str, dict[str, Any]]:
        """The scores of each category; empty where the data set names none."""
        groups: dict[str, list[Result]] = {}
        for result in self.results:
            if result.clip.category is not None:
                groups.setdefault(result.clip.category, []).append(result.gated)
        return {
            name: _totals(figures(groups[name])) | {"videos": len(groups[name])}
            for name in sorted(groups)
        }


def figures(results: Sequence[Result]) -> dict[str, Any]:
    """The scores of some videos as JSON values.

    With negative sound they are AVSBench-Robust's: `fpr` is the share of pixels that are found
    though nothing in the picture sounds (mean over a video's frames, then over videos); `positive`
    and `negative` compare the masks of either sound with what sounds in the video, by the same
    rules, so that the negative ones had better be low; and `miou` and `f_score` judge both
    together, as the harmonic mean of the positive score and one minus the negative one.
    """
    own = _means([result.original for result in results])
    negatives = [result.negative for result in results if result.negative is not None]
    if not negatives:
        return dict(own)
    other = _means([negative.score for negative in negatives])
    both = {name: _harmonic(own[name], 1.0 - other[name]) for name in other}
    fpr = math.fsum(negative.found for negative in negatives) / len(negatives)
    frames = sum(result.original.frames for result in results)
    share = sum(negative.frames_found for negative in negatives) / frames
    return {
        **both,
        "fpr": fpr,
        "positive": own,
        "negative": {**other, "fpr": fpr, "frames_found": share},
    }


def _totals(record: dict[str, Any]) -> dict[str, Any]:
    """The figures without what they are made of."""
    return {name: value for name, value in record.items() if not isinstance(value, dict)}


def _means(scores: Sequence[VideoScore]) -> dict[str, float]:
    total = summarise(scores)
    return {"miou": total.miou, "f_score": total.f_score}


def _harmonic(one: float, other: float) -> float:
    return 2.0 * one * other / (one + other) if one + other > 0.0 else 0.0
