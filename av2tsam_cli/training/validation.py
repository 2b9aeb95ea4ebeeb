"""Score a split while a model is trained, by the rules of `av2tsam evaluate`.

Letters: T labelled frames of a video, H, W size of its masks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.samples import Sample
from av2tsam_cli.evaluation.metrics import predicted_masks
from av2tsam_cli.evaluation.report import draw_cells
from av2tsam_cli.evaluation.scoring import (
    Scores,
    VideoScore,
    mean_scores,
    predict,
    score_video,
    silent_frames,
    suppress,
)
from av2tsam_cli.inference.distributed import sum_over_processes
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.training.losses import mask_loss
from av2tsam_cli.values import BoolArray, Progress, UInt8Array

if TYPE_CHECKING:
    from lightning_fabric.fabric import Fabric


@dataclass(frozen=True)
class SplitScores:
    """The scores of the videos of a split."""

    scores: Scores
    """By AVSBench's protocol, with empty masks in silent seconds."""
    loss: float
    """The training loss of the network's own masks, mean over frames."""
    examples: Mapping[str, UInt8Array] = field(default_factory=dict, repr=False)
    """Drawings of some of this process's videos by name: RGB, (h, w, 3)."""


def rounds(clips: Sequence[Clip], rank: int, processes: int) -> list[Sequence[Clip]]:
    """Return the videos that a process scores, one per round; in the last round it may have none.

    All processes have the same number of rounds.
    """
    stop = math.ceil(len(clips) / processes) * processes
    return [clips[index : index + 1] for index in range(rank, stop, processes)]


def score_split(
    fabric: "Fabric",
    network: Av2tSam,
    clips: Sequence[Clip],
    groups: Iterable[Sequence[Sample]],
    *,
    progress: Progress,
    examples: int = 0,
) -> SplitScores:
    """Score videos that are divided among the processes.

    Args:
        fabric: The processes.
        network: The network.
        clips: The videos of all processes.
        groups: This process's samples in each of its `rounds`.
        progress: Called with the number of scored videos and their total.
        examples: Number of this process's videos to draw, spread evenly over the split.

    Returns:
        The scores, the same in every process and for any number of processes.
    """
    rank, processes = fabric.global_rank, fabric.world_size
    table = torch.zeros(len(clips), 3, dtype=torch.float64)
    own = len(clips[rank::processes])
    drawn = set(np.linspace(0, own - 1, min(examples, own)).round().astype(int).tolist())
    pictures: dict[str, UInt8Array] = {}
    for done, samples in enumerate(groups):
        for sample in samples:
            score, loss, masks = _score(fabric, network, sample)
            table[done * processes + rank] = torch.tensor([score.miou, score.f_score, loss])
            if done in drawn:
                pictures[sample.clip.name] = _draw(sample, masks)
        progress(min((done + 1) * processes, len(clips)), len(clips))
    # Each row is nonzero in one process only, so the sum is exact.
    rows = sum_over_processes(fabric, table).tolist()
    scores = mean_scores(
        VideoScore(clip.name, clip.category, len(clip.labelled), miou, f_score)
        for clip, (miou, f_score, _) in zip(clips, rows, strict=True)
    )
    losses = (loss * len(clip.labelled) for clip, (*_, loss) in zip(clips, rows, strict=True))
    return SplitScores(scores, loss=math.fsum(losses) / scores.frames, examples=pictures)


def _score(
    fabric: "Fabric", network: Av2tSam, sample: Sample
) -> tuple[VideoScore, float, BoolArray]:
    """Return the scores, the loss and the masks (T, H, W) of one video."""
    with fabric.autocast():
        logits = predict(network, sample, fabric.device)
    loss = mask_loss(logits[:, None], sample.masks[:, None].to(logits))
    gated = suppress(logits, silent_frames(sample))
    return score_video(sample, gated), float(loss), predicted_masks(gated).cpu().numpy()


def _draw(sample: Sample, masks: BoolArray) -> UInt8Array:
    height, width = masks.shape[1:]
    pixels = sample.frames.permute(0, 2, 3, 1).contiguous().numpy()
    frames = np.stack([cv2.resize(frame, (width, height)) for frame in pixels])
    return draw_cells(frames, masks, sample.masks.numpy())
