"""Evaluate a model, or masks that were saved, on AVSBench or data in its format.

    split ─ plan ─ embedding cache ─ read ║ predict ─ silence gate ─ scores ─ gather, in order

Embeddings come from the cache that training uses. Videos are divided among the processes and each
is predicted on its own, so the scores are identical for any number of processes, with and without
cached embeddings. Letters: T labelled frames of a video, H, W size of its masks.
"""

import logging
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.cache import EmbeddingCache, default_folder, encoder_key
from av2tsam_cli.data.clips import read_clip_labels, read_clip_masks
from av2tsam_cli.data.samples import Sample
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.evaluation.davis import DavisScore, davis_score
from av2tsam_cli.evaluation.mask_files import has_logits, read_prediction
from av2tsam_cli.evaluation.metrics import predicted_masks
from av2tsam_cli.evaluation.naming import LabelArray, NamingCounts, count_names, labels_in
from av2tsam_cli.evaluation.options import EvaluateOptions, ScoringProtocol
from av2tsam_cli.evaluation.plan import EvaluationPlan, PlannedVideo
from av2tsam_cli.evaluation.routes import Route, TrainedRoute, WordsRoute, hears_words
from av2tsam_cli.evaluation.scoring import (
    VideoScore,
    score_logits,
    score_video,
    silent_frames,
)
from av2tsam_cli.evaluation.semantic import ClassScores, score_classes
from av2tsam_cli.inference.device import torch_threads
from av2tsam_cli.inference.distributed import Processes
from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.threads import run_ahead
from av2tsam_cli.values import BoolArray, UInt8Array

StageProgress = Callable[[str, int, int], None]
"""Called with the name of the stage, the number of finished videos and their total."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NegativeScore:
    """Scores of one video with negative audio."""

    score: VideoScore
    """Compared with the true masks of the original audio, so that lower is better."""
    predicted_share: float
    """Share of pixels that are predicted, mean over frames."""
    predicted_frames: int
    """Number of frames in which anything is predicted."""


@dataclass(frozen=True)
class VideoScores:
    """Scores of one video with original and, if evaluated, with negative audio."""

    original: VideoScore
    """With the original audio."""
    davis: DavisScore
    """With the original audio, by DAVIS's measures."""
    negative: NegativeScore | None = None
    """With negative audio; None if it is not evaluated."""


@dataclass(frozen=True)
class VideoResult:
    """Result of one video."""

    index: int
    """Its position in the split."""
    clip: Clip
    """The video."""
    gated: VideoScores
    """With empty masks in silent seconds; these are the reported scores."""
    ungated: VideoScores
    """Of the network alone."""
    silent_frames: int
    """Number of frames that the silence gate emptied, over both kinds of audio."""
    resized: bool = False
    """Whether the masks came from files of another size than the true masks."""
    classes: ClassScores | None = None
    """Scores of the classes, with empty masks in silent seconds; None unless the data and the
    predictions have the classes of AVSBench-semantic."""
    naming: NamingCounts | None = None
    """Names in the labelled seconds; None unless the data and the predictions have names."""


@dataclass(frozen=True)
class EvaluatedVideo:
    """A video with its scores, masks and inputs."""

    planned: PlannedVideo
    """The video."""
    result: VideoResult
    """Its scores."""
    logits: Tensor = field(repr=False)
    """Logits with the evaluated kind of audio, float32, (T, H, W), on the CPU; -inf in silence."""
    true_masks: Tensor = field(repr=False)
    """True masks for the original audio, bool, (T, H, W), on the CPU."""
    samples: tuple[Sample, ...] = field(default=(), repr=False)
    """Inputs with the original audio and, if evaluated, with negative audio; none if no model
    was run."""
    labels: UInt8Array | None = field(default=None, repr=False)
    """Predicted classes of AVSBench-semantic, uint8, (T, H, W); None if there are none."""

    @property
    def masks(self) -> BoolArray:
        """Predicted masks with the evaluated kind of audio, bool, (T, H, W)."""
        return predicted_masks(self.logits).numpy()


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation."""

    results: tuple[VideoResult, ...]
    """Results of the evaluated videos, in the order of the data set."""
    skipped: tuple[str, ...]
    """Names of the corrupted videos that were skipped, in the same order."""
    label_names: tuple[str, ...]
    """See `EvaluationPlan`."""


def evaluate(
    model: LoadedModel | None,
    options: EvaluateOptions,
    plan: EvaluationPlan,
    *,
    processes: Processes | None = None,
    on_video: Callable[[EvaluatedVideo], None] | None = None,
    progress: StageProgress | None = None,
) -> Evaluation:
    """Evaluate a model on one split.

    Args:
        model: The model; None to score `options.predictions`.
        options: What to evaluate and how.
        plan: The result of `plan_evaluation` for these options.
        processes: The processes that share the videos; None for this one alone.
        on_video: Called with each evaluated video of this process.
        progress: Called with the progress of this process.

    Returns:
        The results of all videos, the same in every process.

    Raises:
        MediaError: A video is corrupted.
        UsageError: The processes have other data, weights, precision or kinds of devices.
        OtherProcessFailed: The evaluation failed in another process.
        Av2tsamError: The embedding cache cannot be written.
    """
    processes = processes or Processes()
    _check_same(processes, model, plan)
    videos = plan.videos[processes.rank :: processes.count]
    results: list[VideoResult] = []
    skipped: list[PlannedVideo] = []
    with processes.together() as keep_contact:

        def report(stage: str, done: int, total: int) -> None:
            keep_contact()
            if progress is not None:
                progress(stage, done, total)

        for video in evaluate_videos(model, options, plan, videos, progress=report):
            if isinstance(video, PlannedVideo):
                skipped.append(video)
                continue
            results.append(video.result)
            if on_video is not None:
                on_video(video)
    return _merge(plan, processes.gather((results, skipped)))


def _check_same(processes: Processes, model: LoadedModel | None, plan: EvaluationPlan) -> None:
    """Check that the parts that the processes evaluate belong together.

    Raises:
        UsageError: They have other data, weights, precision or kinds of devices.
    """
    if processes.count == 1:
        return
    values: dict[str, object] = {"`data`": [video.clip.name for video in plan.videos]}
    if model is not None:
        values |= {"`model`": encoder_key(model.network, model.use), "`device`": model.device.type}
        values |= {"`precision`": model.precision}
    processes.check_same(values)


def _merge(
    plan: EvaluationPlan, parts: Sequence[tuple[list[VideoResult], list[PlannedVideo]]]
) -> Evaluation:
    """Join the results of all processes in the order of the data set."""
    results = sorted((r for results, _ in parts for r in results), key=lambda r: r.index)
    skipped = [*plan.skipped, *(video for _, videos in parts for video in videos)]
    names = [video.clip.name for video in sorted(skipped, key=lambda video: video.index)]
    if not results:
        raise MediaError(f"all {len(names)} videos are corrupted; copy them again")
    return Evaluation(tuple(results), tuple(names), plan.label_names)


def evaluate_videos(
    model: LoadedModel | None,
    options: EvaluateOptions,
    plan: EvaluationPlan,
    videos: Sequence[PlannedVideo],
    *,
    progress: StageProgress | None = None,
) -> Generator[EvaluatedVideo | PlannedVideo, None, None]:
    """Evaluate videos one by one while the next one is read.

    Args:
        model: The model; None to score `options.predictions`.
        options: How to evaluate.
        plan: The result of `plan_evaluation` for these options.
        videos: Videos of the plan.
        progress: Called after each video.

    Yields:
        Each evaluated video, or the planned video if it is corrupted and skipped.

    Raises:
        MediaError: A video is corrupted, and `skip_bad` is not set.
        Av2tsamError: The embedding cache cannot be written.
    """
    if model is None:
        yield from _score_predictions(options, videos, progress)
        return
    route: Route
    if hears_words(model, options):
        route = WordsRoute(model, options, plan)
    else:
        options.check_unnamed()
        cache = EmbeddingCache.open_or_build(
            options.cache or default_folder(),
            model.network,
            [clip for video in videos for clip in (video.clip, video.donor) if clip is not None],
            reference_sound=options.reference_audio,
            skip_bad=options.skip_bad,
            progress=partial(progress, "embeddings") if progress else None,
        )
        route = TrainedRoute(model, options, plan, cache)
    with closing(run_ahead(_read(route, options, videos), depth=2, name="read")) as read:
        for done, (video, samples) in enumerate(read, start=1):
            yield _evaluate_video(route, options, video, samples) if samples else video
            if progress:
                progress("videos", done, len(videos))


def _read(
    route: Route, options: EvaluateOptions, videos: Iterable[PlannedVideo]
) -> Generator[tuple[PlannedVideo, tuple[Sample, ...]], None, None]:
    """Yield each video with its samples; without samples if it is corrupted and skipped."""
    for video in videos:
        samples: tuple[Sample, ...] = ()
        with _skipping(options, video), torch_threads(1):  # this runs beside the network
            samples = route.read(video)
        yield video, samples


@contextmanager
def _skipping(options: EvaluateOptions, video: PlannedVideo) -> Generator[None, None, None]:
    """Turn the error of a corrupted video into a warning if `skip_bad` is set."""
    try:
        yield
    except MediaError as error:
        if not options.skip_bad:
            raise
        log.warning("skipped %s: %s", video.clip.name, error)


def _evaluate_video(
    route: Route, options: EvaluateOptions, video: PlannedVideo, samples: tuple[Sample, ...]
) -> EvaluatedVideo:
    # The last bits of sums depend on the number of threads, so it is the same for any number of
    # processes.
    with torch_threads(route.model.cpu_threads):
        ungated = [route.predict(sample) for sample in samples]
        silent = [silent_frames(sample, options.gate_dbfs) for sample in samples]
        gated = [one.suppress(frames) for one, frames in zip(ungated, silent, strict=True)]
        result = VideoResult(
            index=video.index,
            clip=video.clip,
            gated=_score(options.protocol, samples, [one.logits for one in gated]),
            ungated=_score(options.protocol, samples, [one.logits for one in ungated]),
            silent_frames=sum(int(frames.sum()) for frames in silent),
        )
        if gated[0].labels is not None:
            result = _with_names(result, gated[0].labels, samples[0].masks, route.label_names)
    labels = gated[-1].labels if options.subset == "avss" else None
    return EvaluatedVideo(
        planned=video,
        result=result,
        logits=gated[-1].logits.cpu(),
        true_masks=samples[0].masks,
        samples=samples,
        labels=None if labels is None else labels.astype(np.uint8),
    )


def _score_predictions(
    options: EvaluateOptions, videos: Sequence[PlannedVideo], progress: StageProgress | None
) -> Generator[EvaluatedVideo | PlannedVideo, None, None]:
    """Score the masks or logits in `options.predictions`."""
    highest = -math.inf
    for done, video in enumerate(videos, start=1):
        scored: EvaluatedVideo | PlannedVideo = video
        with _skipping(options, video):
            scored = _score_prediction(options, video)
            highest = max(highest, float(scored.logits.max()))
        yield scored
        if progress:
            progress("videos", done, len(videos))
    if math.isclose(highest, math.log(1 / 254), rel_tol=1e-4):
        raise MediaError(
            f"{options.predictions}: the highest grey level of all masks is 1 of 255, so that all "
            "of them are empty; save binary masks with the levels 0 and 255"
        )


def _score_prediction(options: EvaluateOptions, video: PlannedVideo) -> EvaluatedVideo:
    folder, clip = options.predictions, video.clip
    assert folder is not None  # noqa: S101 - the caller's condition
    if options.protocol == "reference" and not has_logits(folder, clip):
        raise UsageError(
            f"{folder}: has no logits of {clip.name}, which `protocol` reference needs; use the "
            "output of `save_logits`, or `protocol` avsbench"
        )
    true_masks = torch.from_numpy(read_clip_masks(clip, clip.labelled))
    _, height, width = true_masks.shape
    prediction = read_prediction(folder, clip, (height, width))
    logits = prediction.logits
    scores = VideoScores(
        score_logits(clip, true_masks, logits, options.protocol),
        davis_score(predicted_masks(logits).numpy(), true_masks.numpy()),
    )
    result = VideoResult(
        index=video.index,
        clip=clip,
        gated=scores,
        ungated=scores,
        silent_frames=0,
        resized=prediction.resized,
    )
    if prediction.labels is not None:
        result = _with_names(result, prediction.labels, true_masks, ())
    return EvaluatedVideo(video, result, logits, true_masks, labels=prediction.labels)


def _with_names(
    result: VideoResult,
    labels: LabelArray,
    true_masks: Tensor,
    label_names: tuple[str, ...],
) -> VideoResult:
    """Add the scores of predicted labels, as far as the true ones are known.

    Args:
        result: The scores of a video.
        labels: Predicted labels, (T, H, W).
        true_masks: Bool, (T, H, W).
        label_names: See `EvaluationPlan`; not needed for AVSBench-semantic.
    """
    clip, given = result.clip, labels_in(labels)
    if clip.has_classes:
        true_labels = read_clip_labels(clip, clip.labelled)
        return replace(
            result,
            classes=score_classes(labels.astype(np.uint8), true_labels),
            naming=count_names(given, labels_in(true_labels)),
        )
    if clip.category in label_names:
        sounding = label_names.index(clip.category)
        true = [{sounding} if visible else set() for visible in true_masks.any(2).any(1)]
        return replace(result, naming=count_names(given, true))
    return result


def _score(
    protocol: ScoringProtocol, samples: Sequence[Sample], logits: Sequence[Tensor]
) -> VideoScores:
    """Score the logits (T, H, W) of a video for each of its samples."""
    original, *negative = (
        score_video(*pair, protocol) for pair in zip(samples, logits, strict=True)
    )
    true_masks = samples[0].masks.numpy()
    davis = davis_score(predicted_masks(logits[0]).cpu().numpy(), true_masks)
    if not negative:
        return VideoScores(original, davis)
    masks = predicted_masks(logits[1])
    return VideoScores(
        original,
        davis,
        NegativeScore(
            score=negative[0],
            predicted_share=float(masks.double().mean((1, 2)).mean()),
            predicted_frames=int(masks.any(2).any(1).sum()),
        ),
    )
