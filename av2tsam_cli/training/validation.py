"""Score a split while a model is trained, by the rules of `av2tsam evaluate`.

Letters: T labelled frames of a video, H, W size of its masks.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.samples import Sample
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

if TYPE_CHECKING:
    from lightning_fabric.fabric import Fabric


@dataclass(frozen=True)
class SplitScores:
    """The scores of the videos of a split."""

    scores: Scores
    """By AVSBench's protocol, with empty masks in silent seconds."""
    loss: float
    """The training loss of the network's own masks, mean over frames."""


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
    progress: Callable[[int, int], None],
) -> SplitScores:
    """Score videos that are divided among the processes.

    Args:
        fabric: The processes.
        network: The network.
        clips: The videos of all processes.
        groups: This process's samples in each of its `rounds`.
        progress: Called with the number of scored videos and their total.

    Returns:
        The scores, the same in every process and for any number of processes.
    """
    rank, processes = fabric.global_rank, fabric.world_size
    table = torch.zeros(len(clips), 3, dtype=torch.float64)
    for done, samples in enumerate(groups):
        for sample in samples:
            table[done * processes + rank] = _score(fabric, network, sample)
        progress(min((done + 1) * processes, len(clips)), len(clips))
    # Each row is nonzero in one process only, so the sum is exact.
    rows = sum_over_processes(fabric, table).tolist()
    scores = mean_scores(
        VideoScore(clip.name, clip.category, len(clip.labelled), miou, f_score)
        for clip, (miou, f_score, _) in zip(clips, rows, strict=True)
    )
    losses = (loss * len(clip.labelled) for clip, (*_, loss) in zip(clips, rows, strict=True))
    return SplitScores(scores, loss=math.fsum(losses) / scores.frames)


def _score(fabric: "Fabric", network: Av2tSam, sample: Sample) -> torch.Tensor:
    """Return mIoU, F-score and loss of one video."""
    with fabric.autocast():
        logits = predict(network, sample, fabric.device)
    score = score_video(sample, suppress(logits, silent_frames(sample)))
    loss = mask_loss(logits[:, None], sample.masks[:, None].to(logits))
    return torch.tensor([score.miou, score.f_score, float(loss)], dtype=torch.float64)
