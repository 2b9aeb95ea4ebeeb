"""AVSBench's scores of a network over videos: one function for training and for evaluation.

Letters: T labelled frames of a video, H, W size of its masks.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from av2tsam_cli.data.samples import Sample, best_logits, gather
from av2tsam_cli.evaluation.metrics import ScoringProtocol, video_f_score, video_iou
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.segment_options import SILENCE_DBFS


@dataclass(frozen=True)
class VideoScore:
    """How well the masks of one video are."""

    name: str
    """The video, as the CSV calls it."""
    category: str | None
    """What is heard, where the CSV says so."""
    frames: int
    """Labelled frames that were scored."""
    miou: float
    """Mean over its frames."""
    f_score: float
    """Largest mean F over the thresholds."""


@dataclass(frozen=True)
class Scores:
    """How well the masks of many videos are."""

    miou: float
    """Mean over videos."""
    f_score: float
    """Mean over videos."""
    protocol: ScoringProtocol
    """Whose rule F follows."""
    videos: int
    """How many were scored."""
    frames: int
    """Frames of them that were scored."""


def predict(
    network: Av2tSam, sample: Sample, device: torch.device, size: int | None = None
) -> Tensor:
    """Mask logits at the size of the sample's masks, float32, (T, H, W), on the device.

    Args:
        network: Makes them.
        sample: The video.
        device: Where the network is.
        size: Frames that go through it at a time; None: all.
    """
    height, width = sample.masks.shape[1:]
    parts = []
    with torch.inference_mode():
        for part in sample.parts(size or len(sample.frames)):
            given = gather(network.config, [part], device)
            logits = best_logits(network, given.seen, given.beit, given.clip, given.clap)
            parts.append(network.text_sam.resize(logits.float(), (height, width))[:, 0])
    return torch.cat(parts)


def silent(sample: Sample, gate_dbfs: float = SILENCE_DBFS) -> Tensor:
    """Which seconds of a video are below a level, bool, (T,)."""
    return sample.embeddings.level_dbfs < gate_dbfs


def emptied(logits: Tensor, frames: Tensor) -> Tensor:
    """Logits (T, H, W) with the probability of some frames, bool, (T,), at zero."""
    return logits.masked_fill(frames.to(logits.device)[:, None, None], -torch.inf)


def found(logits: Tensor) -> Tensor:
    """What counts as found, bool, as `metrics.frame_iou` decides it."""
    return torch.sigmoid(logits) > 0.5


def score_video(
    sample: Sample, logits: Tensor, protocol: ScoringProtocol = ScoringProtocol.AVSBENCH
) -> VideoScore:
    """Compare logits (T, H, W) with the masks of the video they were made for."""
    masks = sample.masks.to(logits.device)
    return VideoScore(
        name=sample.clip.name,
        category=sample.clip.category,
        frames=len(masks),
        miou=video_iou(logits, masks),
        f_score=video_f_score(logits, masks, protocol),
    )


def score_clips(
    network: Av2tSam,
    samples: Iterable[Sample],
    device: torch.device,
    protocol: ScoringProtocol = ScoringProtocol.AVSBENCH,
) -> Iterator[VideoScore]:
    """Score what the network alone makes of videos, each on its own: no order or batch matters."""
    for sample in samples:
        yield score_video(sample, predict(network, sample, device), protocol)


def summarise(
    scores: Iterable[VideoScore], protocol: ScoringProtocol = ScoringProtocol.AVSBENCH
) -> Scores:
    """The mean over videos; exactly the same in whatever order they come.

    Raises:
        ValueError: There are none.
    """
    listed = list(scores)
    if not listed:
        raise ValueError("no videos were scored")
    return Scores(
        # fsum rounds only once: processes may share the videos as they like.
        miou=math.fsum(score.miou for score in listed) / len(listed),
        f_score=math.fsum(score.f_score for score in listed) / len(listed),
        protocol=protocol,
        videos=len(listed),
        frames=sum(score.frames for score in listed),
    )
