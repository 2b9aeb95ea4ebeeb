"""Reports of an evaluation: scores as JSON and per video as CSV, and a contact sheet.

Letters: T frames of a video, H, W size of its masks.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from av2tsam_cli.data.clips import read_clip_frames
from av2tsam_cli.evaluation.bootstrap import CONFIDENCE, interval, resampled_means
from av2tsam_cli.evaluation.evaluate import (
    EvaluatedVideo,
    Evaluation,
    NegativeScore,
    VideoResult,
    VideoScores,
)
from av2tsam_cli.evaluation.naming import add_names
from av2tsam_cli.evaluation.options import EvaluateOptions
from av2tsam_cli.evaluation.scoring import VideoScore
from av2tsam_cli.evaluation.semantic import add_classes
from av2tsam_cli.files import atomic_file, write_errors
from av2tsam_cli.outputs.overlay import draw_overlay
from av2tsam_cli.outputs.png import PNG_OPTIONS
from av2tsam_cli.values import BoolArray, Float64Array, UInt8Array

EXAMPLES = 4
"""Number of worst and of best videos on the contact sheet."""
CELL_PX = 160
"""Height of a frame on the contact sheet."""
TITLE_PX = 22
"""Height of the title above a video's frames."""
TRUE_COLOUR = (90, 220, 255)
"""Colour of the outline of the true masks, RGB."""
COLUMNS = ("video", "category", "frames", "silent_frames", "miou", "f_score", "j", "boundary_f")
NEGATIVE_COLUMNS = ("negative_miou", "negative_f_score", "fpr", "negative_frames_found")


def to_json(evaluation: Evaluation, options: EvaluateOptions) -> dict[str, Any]:
    """Return the scores, and the options that they depend on, as JSON values."""
    results = evaluation.results
    silent = sum(result.silent_frames for result in results)
    record = _mean_record([result.gated for result in results], options.seed) | {
        "confidence": CONFIDENCE,
        "protocol": options.protocol,
        "subset": options.subset,
        "split": options.split,
        "audio": options.audio,
        "videos": len(results),
        "frames": sum(result.gated.original.frames for result in results),
        "silent_frames": silent,
        "skipped": list(evaluation.skipped),
        "categories": _category_records(results, options.seed),
    }
    if options.predictions is not None:
        record["resized_videos"] = sum(result.resized for result in results)
    if silent:
        record["ungated"] = _mean_record([result.ungated for result in results], options.seed)
    if options.subset == "avss":
        record |= _class_record(evaluation, options)
    named = [result.naming for result in results if result.naming is not None]
    if len(named) == len(results):
        names = add_names(named)
        record["naming"] = {"precision": names.precision, "recall": names.recall, "f1": names.f1}
    return record


def _class_record(evaluation: Evaluation, options: EvaluateOptions) -> dict[str, Any]:
    """Return the scores of AVSBench-semantic's classes as JSON values, or why there are none.

    `class_miou` and `class_f_score` are means over all classes, of which those that occur in no
    frame count as 0; `present_class_miou` and `present_class_f_score` are means over the others.
    """
    scored = [result.classes for result in evaluation.results if result.classes is not None]
    if len(scored) < len(evaluation.results):
        return {"no_class_scores": _why_no_classes(evaluation.results, options)}
    total = add_classes(scored)
    iou, f_score = total.means()
    present = total.frames > 0
    return {
        "class_miou": float(iou.mean()),
        "class_f_score": float(f_score.mean()),
        "present_class_miou": float(iou[present].mean()),
        "present_class_f_score": float(f_score[present].mean()),
        "classes": {
            name: {"iou": float(iou[k]), "f_score": float(f_score[k]), "frames": int(frames)}
            for k, (name, frames) in enumerate(
                zip(evaluation.label_names, total.frames, strict=True)
            )
            if frames
        },
    }


def _why_no_classes(results: Sequence[VideoResult], options: EvaluateOptions) -> str:
    """Write why there are no scores per class."""
    clip = next(result.clip for result in results if result.classes is None)
    if not clip.has_classes:
        return f"{clip.name} has no labels_rgb, so its true classes are unknown"
    if options.predictions is not None:
        return f"the masks of {clip.name} do not have the colours of AVSBench-semantic's classes"
    return "masks have no names; set `hear` to words"


def _mean_record(videos: Sequence[VideoScores], seed: int) -> dict[str, Any]:
    """Return the mean scores of some videos as JSON values.

    `j`, `boundary_f` and their mean `j_and_f` are DAVIS's measures with the original audio.

    With negative audio the scores follow AVSBench-Robust. `fpr`, the false-positive rate, is the
    share of pixels that are predicted with negative audio (mean over a video's frames, then over
    videos). `positive` and `negative` compare the masks for each kind of audio with the true masks,
    so that lower is better for `negative`. `miou` and `f_score` combine both: they are the harmonic
    mean of the positive score and one minus the negative score.

    `intervals` are bootstrap confidence intervals over videos; None for a single video.
    """
    columns = _columns(videos)
    scores = _combine({name: math.fsum(column) / len(videos) for name, column in columns.items()})
    if len(videos) == 1:
        return _with_intervals(scores, None)
    resampled = resampled_means(np.stack(list(columns.values()), axis=1), seed)
    return _with_intervals(scores, _combine(dict(zip(columns, resampled.T, strict=True))))


def _with_intervals(scores: Mapping[str, Any], samples: Mapping[str, Any] | None) -> dict[str, Any]:
    """Add the intervals to scores, given resampled ones (RESAMPLES,); None for a single video."""
    record = {
        name: _with_intervals(value, samples and samples[name])
        if isinstance(value, dict)
        else value
        for name, value in scores.items()
    }
    numbers = [name for name, value in scores.items() if not isinstance(value, dict)]
    return record | {"intervals": samples and {name: interval(samples[name]) for name in numbers}}


def _columns(videos: Sequence[VideoScores]) -> dict[str, Float64Array]:
    """Return the numbers that are averaged over videos, each float64, (videos,)."""
    rows = [
        {
            "miou": video.original.miou,
            "f_score": video.original.f_score,
            "j": video.davis.region,
            "boundary_f": video.davis.boundary,
        }
        | ({} if video.negative is None else _negative_row(video.original, video.negative))
        for video in videos
    ]
    return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def _negative_row(original: VideoScore, negative: NegativeScore) -> dict[str, float]:
    return {
        "negative_miou": negative.score.miou,
        "negative_f_score": negative.score.f_score,
        "fpr": negative.predicted_share,
        "predicted_frames": negative.predicted_frames,
        "frames": original.frames,
    }


def _combine(means: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the scores from means over videos: numbers, or arrays of resampled means."""
    positive = {name: means[name] for name in ("miou", "f_score", "j", "boundary_f")}
    positive["j_and_f"] = (means["j"] + means["boundary_f"]) / 2
    if "fpr" not in means:
        return positive
    negative = {name: means[f"negative_{name}"] for name in ("miou", "f_score")}
    return {
        **{name: _harmonic_mean(positive[name], 1.0 - negative[name]) for name in negative},
        "fpr": means["fpr"],
        "positive": positive,
        "negative": {
            **negative,
            "fpr": means["fpr"],
            "frames_found": means["predicted_frames"] / means["frames"],
        },
    }


def _harmonic_mean(one: Any, other: Any) -> Any:
    total = one + other
    return 2.0 * one * other / (total + (total == 0.0))


def _category_records(results: Sequence[VideoResult], seed: int) -> dict[str, dict[str, Any]]:
    """Return the scores of each category; empty for data without categories."""
    groups: dict[str, list[VideoScores]] = {}
    for result in results:
        if result.clip.category is not None:
            groups.setdefault(result.clip.category, []).append(result.gated)
    return {
        name: _mean_record(groups[name], seed) | {"videos": len(groups[name])}
        for name in sorted(groups)
    }


def video_table(evaluation: Evaluation) -> bytes:
    """Return a CSV with one line per video, in the order of the data set."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    negative = evaluation.results[0].gated.negative is not None
    table.writerow(COLUMNS + NEGATIVE_COLUMNS if negative else COLUMNS)
    table.writerows(_line(result) for result in evaluation.results)
    return text.getvalue().encode()


def _line(result: VideoResult) -> list[object]:
    scores = result.gated
    score, davis, negative = scores.original, scores.davis, scores.negative
    line: list[object] = [score.name, score.category or "", score.frames, result.silent_frames]
    line += [score.miou, score.f_score, davis.region, davis.boundary]
    if negative is not None:
        line += [negative.score.miou, negative.score.f_score]
        line += [negative.predicted_share, negative.predicted_frames]
    return line


def write_file(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a file atomically.

    Raises:
        Av2tsamError: It cannot be written; no partial file is left.
    """
    with write_errors(path), atomic_file(path, overwrite=overwrite) as part:
        part.write_bytes(content)


def pick_examples(results: Sequence[VideoResult]) -> list[VideoResult]:
    """Select the worst and the best videos, worst first and without duplicates.

    With negative audio the worst videos are those in which the most pixels are predicted.
    """
    ranked = sorted(results, key=lambda result: (_quality(result), result.index))
    count = min(EXAMPLES, (len(ranked) + 1) // 2)
    return [*ranked[:count], *ranked[max(count, len(ranked) - count) :]]


def _quality(result: VideoResult) -> float:
    negative = result.gated.negative
    return result.gated.original.miou if negative is None else 1.0 - negative.predicted_share


def draw_contact_sheet(videos: Sequence[EvaluatedVideo]) -> bytes:
    """Draw a PNG with one row per video: predicted masks highlighted, true masks outlined."""
    rows = [_draw_row(video) for video in videos]
    width = max(row.shape[1] for row in rows)
    sheet = np.vstack([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])
    return _encode_png(cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def _draw_row(video: EvaluatedVideo) -> UInt8Array:
    clip, negative = video.result.clip, video.result.gated.negative
    frames = read_clip_frames(clip, clip.labelled)
    true_masks = video.true_masks.numpy()
    if negative is not None:  # no object in the picture makes the negative audio
        true_masks = np.zeros_like(true_masks)
    cells = draw_cells(frames, video.masks, true_masks)
    title = np.zeros((TITLE_PX, cells.shape[1], 3), np.uint8)
    text = score_line(video.result)
    cv2.putText(title, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235,) * 3, 1, cv2.LINE_AA)
    return np.vstack([title, cells])


def score_line(result: VideoResult) -> str:
    """Return one line with the scores and the name of a video."""
    score, negative = result.gated.original, result.gated.negative
    scores = f"mIoU {score.miou:.3f}  F {score.f_score:.3f}"
    if negative is not None:
        scores = f"false positives {negative.predicted_share:.1%}"
    return f"{scores}  {score.name}  {score.category or ''}"


def draw_cells(frames: UInt8Array, predicted: BoolArray, true_masks: BoolArray) -> UInt8Array:
    """Draw a video's frames side by side: predicted masks highlighted, true masks outlined.

    Args:
        frames: RGB, (T, H, W, 3).
        predicted: Masks (T, H, W).
        true_masks: Masks (T, H, W).

    Returns:
        RGB, (CELL_PX, w, 3).
    """
    cells = zip(frames, predicted, true_masks, strict=True)
    return np.hstack([_draw_cell(*cell) for cell in cells])


def _draw_cell(rgb: UInt8Array, predicted: BoolArray, true_mask: BoolArray) -> UInt8Array:
    """Draw one frame of the contact sheet, RGB, (CELL_PX, w, 3)."""
    image = draw_overlay(rgb, np.ascontiguousarray(predicted)).copy()
    outlines, _ = cv2.findContours(
        np.ascontiguousarray(true_mask, np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(image, outlines, -1, TRUE_COLOUR, 1, cv2.LINE_AA)
    height, width = rgb.shape[:2]
    size = (max(1, round(width * CELL_PX / height)), CELL_PX)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _encode_png(image: UInt8Array) -> bytes:
    """Encode an image in OpenCV's channel order (BGR) as a PNG."""
    _, data = cv2.imencode(".png", image, PNG_OPTIONS)
    return bytes(data.data)
