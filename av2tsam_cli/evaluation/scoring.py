"""Predict and score single videos, and average the scores; used by training and evaluation.

Letters: T labelled frames of a video, H, W size of its masks.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.samples import Sample, best_logits, collate
from av2tsam_cli.evaluation.metrics import video_f_score, video_iou
from av2tsam_cli.evaluation.options import ScoringProtocol
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.segment_options import SILENCE_DBFS


@dataclass(frozen=True)
class VideoScore:
    """Scores of one video."""

    name: str
    """Name of the video in the CSV."""
    category: str | None
    """Category of the sounding object, if the CSV has one."""
    frames: int
    """Number of labelled frames."""
    miou: float
    """Mean over the frames."""
    f_score: float
    """Maximum over thresholds of the mean F curve."""


@dataclass(frozen=True)
class Scores:
    """Mean scores of several videos."""

    miou: float
    """Mean over videos."""
    f_score: float
    """Mean over videos."""
    videos: int
    """Number of videos."""
    frames: int
    """Number of their labelled frames."""


def predict(
    network: Av2tSam, sample: Sample, device: torch.device, batch_size: int | None = None
) -> Tensor:
    """Compute mask logits at the size of the sample's masks.

    Args:
        network: The network.
        sample: The video.
        device: Device of the network.
        batch_size: Frames per forward pass; None for all.

    Returns:
        float32, (T, H, W), on the device.
    """
    height, width = sample.masks.shape[1:]
    logits = []
    with torch.inference_mode():
        for part in sample.parts(batch_size or len(sample.frames)):
            inputs = collate(network.config, [part], device)
            best = best_logits(network, inputs.sam, inputs.beit, inputs.clip, inputs.clap)
            logits.append(network.text_sam.resize(best.float(), (height, width))[:, 0])
    return torch.cat(logits)


def silent_frames(sample: Sample, gate_dbfs: float = SILENCE_DBFS) -> Tensor:
    """Return which frames' seconds are below a sound level, bool, (T,)."""
    return sample.embeddings.level_dbfs < gate_dbfs


def suppress(logits: Tensor, frames: Tensor) -> Tensor:
    """Set the probability of selected frames to zero: logits (T, H, W), frames bool (T,)."""
    return logits.masked_fill(frames.to(logits.device)[:, None, None], -torch.inf)


def score_video(
    sample: Sample, logits: Tensor, protocol: ScoringProtocol = "avsbench"
) -> VideoScore:
    """Compare the logits (T, H, W) of a video with its true masks."""
    return score_logits(sample.clip, sample.masks, logits, protocol)


def score_logits(
    clip: Clip, masks: Tensor, logits: Tensor, protocol: ScoringProtocol = "avsbench"
) -> VideoScore:
    """Compare the logits of a video with its true masks, bool; both (T, H, W)."""
    masks = masks.to(logits.device)
    return VideoScore(
        name=clip.name,
        category=clip.category,
        frames=len(masks),
        miou=video_iou(logits, masks),
        f_score=video_f_score(logits, masks, protocol),
    )


def mean_scores(scores: Iterable[VideoScore]) -> Scores:
    """Average over videos; the order of the videos does not change the result.

    Raises:
        ValueError: There are no scores.
    """
    listed = list(scores)
    if not listed:
        raise ValueError("no videos were scored")
    # fsum rounds only once, so that the result is the same however processes share the videos.
    return Scores(
        miou=math.fsum(score.miou for score in listed) / len(listed),
        f_score=math.fsum(score.f_score for score in listed) / len(listed),
        videos=len(listed),
        frames=sum(score.frames for score in listed),
    )
